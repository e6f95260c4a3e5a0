package shelf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/queue"
)

// Upload is a folder of Gradio's cache. Its name is the hash of a file's content.
type Upload struct {
	Name string
	Used time.Time // of the last upload, call, or reading
	// ByApp reports that no upload has created the folder. It may only be removed while the Space does not run.
	ByApp bool
	// References are those of the time of the list. A later one comes with a later use. nil: there are none.
	References *References
}

// References are what refers to an upload: Sessions by their digests, and owners as the front names them in a Call.
type References struct{ Sessions, Owners []string }

// uploads knows which folders of Gradio's cache are uploads, and which Sessions and owners refer to them. A Session refers to an
// upload if a call of the Session names it, or if a result of such a call does. An owner refers to an upload that it has sent.
//
// A mark is an empty file beside the cache for each upload, with the time of its last use. So the host knows uploads from the
// files that the app has created, also after a restart. References are forgotten at a restart of the host; the time stays.
type uploads struct {
	isPresent func(digest string) bool // whether the Session has an open stream, heartbeat or Event

	mu     sync.Mutex
	folder string // that known was read from
	known  map[string]*upload
}

type upload struct {
	used, marked time.Time
	sessions     map[string]struct{} // digests
	owners       map[string]struct{}
}

const (
	// markInterval is the accuracy of the time in a mark.
	markInterval = 10 * time.Minute
	// maxReferences bounds the Sessions, and the owners, that are remembered for one upload. More are only counted as a use.
	maxReferences = 64
	// maxNamed bounds the uploads that one body may name.
	maxNamed = 1000
)

// load reads the marks once per folder. It is called with the lock held.
func (u *uploads) load(marks string) {
	if u.folder == marks && u.known != nil {
		return
	}
	u.folder, u.known = marks, map[string]*upload{}
	entries, _ := os.ReadDir(marks) // there is none before the first upload
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && IsCacheFolder(entry.Name()) {
			u.known[entry.Name()] = &upload{used: info.ModTime(), marked: info.ModTime()}
		}
	}
}

// IsCacheFolder reports whether a name can be that of a folder in Gradio's cache: a SHA-256 or, in Gradio 4, a SHA-1 of the
// content in hexadecimal digits (gradio/processing_utils.py, hash_file).
func IsCacheFolder(name string) bool {
	return (len(name) == 64 || len(name) == 40) && strings.Trim(name, "0123456789abcdef") == ""
}

// received marks a folder as an upload of owner, if the upload has created it. A folder that existed without a mark is the app's: Gradio
// stores equal files once, and the app may still use it. It is called with the lock held.
func (u *uploads) received(s *Storage, sum, by string, created bool) error {
	u.load(s.Marks)
	if u.known[sum] == nil {
		if !created {
			return nil
		}
		u.known[sum] = &upload{}
	}
	one := u.known[sum]
	if by != "" && len(one.owners) < maxReferences {
		if one.owners == nil {
			one.owners = map[string]struct{}{}
		}
		one.owners[by] = struct{}{}
	}
	return u.use(s, sum, "")
}

// use notes a use of a known upload, by a Session unless digest is empty. It is called with the lock held.
func (u *uploads) use(s *Storage, sum, digest string) error {
	u.load(s.Marks)
	one := u.known[sum]
	if one == nil {
		return nil // created by the app
	}
	one.used = time.Now()
	if digest != "" {
		u.refer(one, digest)
	}
	if one.used.Sub(one.marked) < markInterval {
		return nil
	}
	one.marked = one.used
	return touch(s, sum, one.used)
}

func (u *uploads) refer(one *upload, digest string) {
	if _, known := one.sessions[digest]; known {
		return
	}
	if len(one.sessions) >= maxReferences {
		for other := range one.sessions {
			if !u.isPresent(other) {
				delete(one.sessions, other)
			}
		}
	}
	if one.sessions == nil {
		one.sessions = map[string]struct{}{}
	}
	if len(one.sessions) < maxReferences {
		one.sessions[digest] = struct{}{}
	}
}

// full returns the Sessions that refer to an upload if there is no place for one more. It is called with the lock held.
func (u *uploads) full(sum, digest string) []string {
	one := u.known[sum]
	if one == nil || digest == "" || len(one.sessions) < maxReferences {
		return nil
	}
	if _, known := one.sessions[digest]; known {
		return nil
	}
	return slices.Collect(maps.Keys(one.sessions))
}

// touch writes the mark of an upload.
func touch(s *Storage, sum string, at time.Time) error {
	mark := path.Join(s.Marks, sum)
	err := os.Chtimes(mark, at, at)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(s.Marks, 0o700); err == nil {
			err = os.WriteFile(mark, nil, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("mark an upload: %w", err)
	}
	return nil
}

// references returns a copy. It is called with the lock held.
func (one *upload) references() *References {
	if len(one.sessions)+len(one.owners) == 0 {
		return nil
	}
	return &References{slices.Collect(maps.Keys(one.sessions)), slices.Collect(maps.Keys(one.owners))}
}

// NoteUses notes the uploads that a text of JSON names: the body of a call, or a Message. session is called if there are any. It
// returns the Session of the text, or "".
func (s *Shelf) NoteUses(text []byte, session func() queue.SessionHash) {
	storage := s.storage.Load()
	if storage.Marks == "" {
		return
	}
	sums := namedIn(text, storage.Uploads)
	if len(sums) == 0 {
		return
	}
	digest := ""
	if hash := session(); hash != "" {
		digest = hash.Digest()
	}
	s.noteUses(storage, sums, digest)
}

func (s *Shelf) noteUses(storage *Storage, sums []string, digest string) {
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	for _, sum := range sums {
		if err := s.uploads.use(storage, sum, digest); err != nil {
			s.config.Logger.Warn("use of an upload not recorded", zap.String("space", s.config.Space), zap.Error(err))
			return
		}
	}
}

// noteAll notes uses that a front has found, after it has forgotten closed Sessions. It returns the Sessions of uploads that have no
// place for one more.
func (s *Shelf) noteAll(all noteCall) (full map[string][]string) {
	storage := s.storage.Load()
	if storage.Marks == "" {
		return nil
	}
	s.uploads.mu.Lock()
	for sum, closed := range all.Closed {
		if one := s.uploads.known[sum]; one != nil {
			for _, digest := range closed {
				delete(one.sessions, digest)
			}
		}
	}
	s.uploads.mu.Unlock()
	full = map[string][]string{}
	for _, one := range all.Notes {
		s.noteUses(storage, []string{one.Sum}, one.Session)
		s.uploads.mu.Lock()
		if sessions := s.uploads.full(one.Sum, one.Session); sessions != nil {
			full[one.Sum] = sessions
		}
		s.uploads.mu.Unlock()
	}
	return full
}

// namedIn returns the names of the folders below uploads that occur in a text of JSON. A slash that is written as an escape is
// read too.
func namedIn(text []byte, uploads string) (sums []string) {
	if bytes.Contains(text, []byte(`\/`)) {
		text = bytes.ReplaceAll(text, []byte(`\/`), []byte("/"))
	}
	quoted, _ := json.Marshal(uploads + "/") // a text
	prefix := quoted[1 : len(quoted)-1]
	for len(sums) < maxNamed {
		at := bytes.Index(text, prefix)
		if at < 0 {
			return sums
		}
		text = text[at+len(prefix):]
		name := text[:min(len(text), 65)]
		if end := bytes.IndexByte(name, '/'); end > 0 && IsCacheFolder(string(name[:end])) && !slices.Contains(sums, string(name[:end])) {
			sums = append(sums, string(name[:end]))
		}
	}
	return sums
}

// Uploads returns all uploads, the one that was used longest ago first. Files that the app has created are among them only if the
// Space is stopped. A running app may use a file of an earlier start: Gradio's save_file_to_cache
// (gradio/processing_utils.py) returns an existing copy and leaves the time of its folder unchanged.
func (s *Shelf) Uploads(_ context.Context, stopped bool) (all []Upload, err error) {
	storage := s.storage.Load()
	if storage.Marks == "" {
		return nil, nil
	}
	entries, err := storage.cached()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list uploads: %w", err)
	}
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	s.uploads.load(storage.Marks)
	for _, entry := range entries {
		name := entry.Name()
		if !IsCacheFolder(name) || !entry.IsDir() {
			continue
		}
		if one := s.uploads.known[name]; one != nil {
			all = append(all, Upload{Name: name, Used: one.used, References: one.references()})
			continue
		}
		if !stopped {
			continue
		}
		if info, err := entry.Info(); err == nil {
			all = append(all, Upload{Name: name, Used: info.ModTime(), ByApp: true})
		}
	}
	slices.SortFunc(all, func(a, b Upload) int { return a.Used.Compare(b.Used) })
	return all, nil
}

// Remove removes an upload that Uploads has returned. It returns false if the upload was used since.
func (s *Shelf) Remove(_ context.Context, one Upload) (removed bool, err error) {
	storage := s.storage.Load()
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	s.uploads.load(storage.Marks)
	if now := s.uploads.known[one.Name]; now != nil && now.used.After(one.Used) {
		return false, nil
	}
	if one.ByApp && storage.isChanged(one) {
		return false, nil
	}
	if err := storage.remove(one.Name); err != nil {
		return false, fmt.Errorf("remove an upload: %w", err)
	}
	delete(s.uploads.known, one.Name)
	if err := os.Remove(path.Join(storage.Marks, one.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, fmt.Errorf("remove the mark of an upload: %w", err)
	}
	return true, nil
}

// cached lists the folders of Gradio's cache. The Space may write there, so no link leads out of its folders.
func (s *Storage) cached() ([]fs.DirEntry, error) {
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	folder, err := root.Open(s.relative(s.Uploads))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return folder.ReadDir(-1)
}

// isChanged reports whether a folder of the app was changed since it was listed.
func (s *Storage) isChanged(one Upload) bool {
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		return false // remove returns it
	}
	defer root.Close()
	info, err := root.Stat(path.Join(s.relative(s.Uploads), one.Name))
	return err == nil && info.ModTime().After(one.Used)
}

// remove removes a folder of Gradio's cache. No link leads out of the Space's folders.
func (s *Storage) remove(name string) error {
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(path.Join(s.relative(s.Uploads), name))
}
