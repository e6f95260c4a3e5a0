package shelf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"spacehost/queue"
)

// maxManifest bounds the encoded data of one manifest, and maxManifests the number of them that a Shelf or a Remote keeps. Each app
// that a Space mounts has one, and a new one for each change of its static paths.
const (
	maxManifest  = 64 << 20
	maxManifests = 16
)

// manifest is what the requests of one app have in common. It is sent once, and named by its digest.
type manifest struct {
	Files    *queue.Files
	Static   []string // Files.Static
	Frontend *queue.Frontend
}

// manifestKey identifies the data of a manifest by its addresses. A change of the static paths replaces the slice.
type manifestKey struct {
	files    *queue.Files
	static   *string
	count    int
	frontend *queue.Frontend
}

// encoded is a manifest as it is sent.
type encoded struct {
	digest string
	text   []byte
}

// encodings keeps what was encoded. The zero value is ready for use, by any goroutine.
type encodings struct {
	mu  sync.Mutex
	all map[manifestKey]*encoded
}

// of returns the encoded data, or nil if there is none.
func (e *encodings) of(files *queue.Files, frontend *queue.Frontend) (*encoded, error) {
	if files == nil && frontend == nil {
		return nil, nil
	}
	key := manifestKey{files: files, frontend: frontend}
	var static []string
	if files != nil {
		static = files.Static()
		if key.count = len(static); key.count > 0 {
			key.static = &static[0]
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if one := e.all[key]; one != nil {
		return one, nil
	}
	text, err := json.Marshal(manifest{files, static, frontend})
	if err != nil {
		return nil, fmt.Errorf("encode the manifest: %w", err)
	}
	if len(e.all) >= maxManifests || e.all == nil {
		e.all = map[manifestKey]*encoded{}
	}
	one := &encoded{digestOf(text), text}
	e.all[key] = one
	return one, nil
}

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// manifests are those that a front has sent. The zero value is ready for use, by any goroutine.
type manifests struct {
	mu    sync.Mutex
	known map[string]manifest
	order []string // digests, oldest first
}

// add decodes a manifest and keeps it. The oldest one makes room.
func (m *manifests) add(text []byte) error {
	var one manifest
	if err := json.Unmarshal(text, &one); err != nil {
		return fmt.Errorf("decode the manifest: %w", err)
	}
	if one.Files != nil {
		one.Files.SetStatic(one.Static)
	}
	digest := digestOf(text)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.known[digest]; known {
		return nil
	}
	if m.known == nil {
		m.known = map[string]manifest{}
	}
	if len(m.order) >= maxManifests {
		delete(m.known, m.order[0])
		m.order = slices.Delete(m.order, 0, 1)
	}
	m.known[digest], m.order = one, append(m.order, digest)
	return nil
}

// get returns a manifest by its digest. That of "" is empty.
func (m *manifests) get(digest string) (one manifest, known bool) {
	if digest == "" {
		return manifest{}, true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	one, known = m.known[digest]
	return one, known
}
