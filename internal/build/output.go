package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// output is the log file to which every tool of a build writes.
type output struct {
	io.Writer
	file *os.File // nil: the caller's Writer
	path string
	own  bool // only this Space's builds write to it
}

// openOutput opens the log that the configuration names, or that of the Space in spaceDir.
func openOutput(c Config, dir, spaceDir string) (*output, error) {
	if c.Log != nil {
		return &output{Writer: c.Log, path: c.LogPath}, nil
	}
	path := c.LogPath
	own := path == ""
	if own {
		sum := sha256.Sum256([]byte(spaceDir))
		path = filepath.Join(dir, "logs", fmt.Sprintf("build-%s-%s.log", filepath.Base(spaceDir), hex.EncodeToString(sum[:3])))
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve the path of the build log: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create the folder of the build log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the build log: %w", err)
	}
	return &output{f, f, path, own}, nil
}

// restart removes the output of earlier builds. It is called when a new build has output, so the log of the build
// that created a cached environment stays.
func (o *output) restart() {
	if o.own {
		o.file.Truncate(0)
	}
}

// Close closes the file.
func (o *output) Close() {
	if o.file != nil {
		o.file.Close()
	}
}

func (o *output) heading(text string) { fmt.Fprintf(o, "# %s\n", text) }

// tail copies the output of a tool to the log, and keeps the end of it: enough for its last error with the reasons,
// without the hundred thousand lines of a compiler. Both pipes of a tool write to it.
type tail struct {
	log  *output
	mu   sync.Mutex
	kept []byte
}

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if excess := len(t.kept) - tailSize; excess > 0 {
		t.kept = append(t.kept[:0], t.kept[excess:]...)
	}
	t.log.Write(p) // a full disk must not stop the tool, which reports the error itself
	return len(p), nil
}
