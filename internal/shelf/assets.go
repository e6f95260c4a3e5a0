package shelf

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/queue"
)

// assets serves the frontend files of the Space's Gradio. They are read below one folder, and neither a name nor a
// symbolic link leads out of it.
type assets struct {
	mu         sync.Mutex
	opened     string // the reported folder that root was opened from
	root       *os.Root
	compressed map[compressedKey]*compressedFile
	size       int
}

// Limits of the compressed copies kept for one Space, and of the size of a file worth compressing.
const (
	maxCompressedBytes = 32 << 20
	minCompressSize    = 1 << 10
	maxCompressSize    = 8 << 20
)

type compressedKey struct {
	name  string
	mtime time.Time
	size  int64
}

// compressedFile is the gzip of a file, made once.
type compressedFile struct {
	once sync.Once
	data []byte // nil: the file could not be read
}

// frontendFolder is the location of the frontend in every Gradio. Any other reported folder is refused: a Space must
// not name host paths.
const frontendFolder = "gradio/templates/frontend"

// folder opens the frontend folder that the Space reports.
func (a *assets) folder(claim string) (*os.Root, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.root != nil && a.opened == claim {
		return a.root, nil
	}
	real, err := filepath.EvalSymlinks(claim)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(real) || !strings.HasSuffix(filepath.ToSlash(real), "/"+frontendFolder) {
		return nil, fmt.Errorf("open frontend folder %s: its path does not end in gradio/templates/frontend", real)
	}
	root, err := os.OpenRoot(real)
	if err != nil {
		return nil, err
	}
	if a.root != nil {
		_ = a.root.Close() // read-only; files that are open stay open
	}
	a.opened, a.root, a.compressed, a.size = claim, root, map[compressedKey]*compressedFile{}, 0
	return root, nil
}

// IsFrontendFile reports whether a request is for a file of the frontend. Gradio has no HEAD there.
func IsFrontendFile(f *queue.Frontend, r *http.Request) bool {
	_, _, ok := assetOf(f, r)
	return ok
}

// assetOf returns the frontend folder and the file name that a path stands for.
func assetOf(f *queue.Frontend, r *http.Request) (folder, name string, ok bool) {
	if f == nil || r.Method != http.MethodGet {
		return "", "", false
	}
	for prefix, folder := range f.Folders {
		if name, below := strings.CutPrefix(r.URL.Path, prefix); below {
			return folder, name, true
		}
	}
	return "", "", false
}

// asset serves a frontend file with the status and headers of Gradio (gradio/route_utils.py, routes_safe_join;
// starlette, FileResponse). In addition the host answers 304 for an unchanged file.
func (s *Shelf) asset(c call) {
	folder, name, ok := assetOf(c.Frontend, c.r)
	if !ok {
		c.pass(nil)
		return
	}
	name = path.Clean(name)
	kind := c.Frontend.Types[path.Ext(name)]
	root, err := s.assets.folder(c.Frontend.Root)
	if err != nil {
		s.config.Logger.Warn("frontend folder not opened, passing through", zap.String("space", s.config.Space), zap.Error(err))
		c.pass(nil)
		return
	}
	switch {
	case name == ".":
		c.refuseAsset(http.StatusBadRequest)
	case !filepath.IsLocal(name):
		c.refuseAsset(http.StatusForbidden)
	case kind == "":
		c.pass(nil)
	default:
		s.assetFile(c, root, path.Join(folder, name), withCharset(kind))
	}
}

// refuseAsset answers with FastAPI's text for a bare status.
func (c call) refuseAsset(status int) {
	c.allowOrigin()
	c.refuseDetail(status, http.StatusText(status))
}

func (s *Shelf) assetFile(c call, root *os.Root, name, kind string) {
	file, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		c.refuseAsset(http.StatusNotFound)
		return
	}
	if err != nil { // a link that leads out, or an unreadable file
		c.refuseAsset(http.StatusForbidden)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		c.refuseAsset(http.StatusForbidden)
		return
	}
	c.allowOrigin()
	head := c.w.Header()
	head.Set("Content-Type", kind)
	head.Set("Accept-Ranges", "bytes")
	head.Set("Etag", etag(info))
	var content io.ReadSeeker = file
	if data := s.compressedFor(c.r, file, info); data != nil {
		head.Set("Content-Encoding", "gzip")
		head.Add("Vary", "Accept-Encoding")
		head.Set("Content-Length", strconv.Itoa(len(data)))
		content = bytes.NewReader(data)
	}
	http.ServeContent(c.w, c.r, name, info.ModTime(), content)
}

// etag is the ETag of Starlette (starlette/responses.py, set_stat_headers), so that a browser's cached copy stays
// valid. It hashes the modification time as Python prints it.
func etag(info fs.FileInfo) string {
	at := info.ModTime()
	seconds := float64(at.Unix()) + float64(1e-9*float64(at.Nanosecond()))
	text := strconv.FormatFloat(seconds, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return fmt.Sprintf(`"%x"`, md5.Sum([]byte(text+"-"+strconv.FormatInt(info.Size(), 10))))
}

// compressedFor returns the gzip of a file if the visitor accepts gzip and Gradio would have compressed the file.
func (s *Shelf) compressedFor(r *http.Request, file *os.File, info fs.FileInfo) []byte {
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") || r.Header.Get("Range") != "" {
		return nil
	}
	if !isCompressible(file.Name()) || info.Size() < minCompressSize || info.Size() > maxCompressSize {
		return nil
	}
	return s.assets.compress(compressedKey{file.Name(), info.ModTime(), info.Size()}, file)
}

// isCompressible reports the file types that Gradio compresses (gradio/brotli_middleware.py,
// _is_compressible_file_type).
func isCompressible(name string) bool {
	switch path.Ext(name) {
	case ".html", ".js", ".css", ".json", ".txt", ".svg":
		return true
	}
	return false
}

func (a *assets) compress(key compressedKey, file io.Reader) []byte {
	a.mu.Lock()
	p := a.compressed[key]
	if p == nil && a.size < maxCompressedBytes {
		p = &compressedFile{}
		a.compressed[key] = p
	}
	a.mu.Unlock()
	if p == nil {
		return nil
	}
	p.once.Do(func() {
		p.data = gzipped(file)
		a.mu.Lock()
		a.size += len(p.data)
		a.mu.Unlock()
	})
	return p.data
}

// gzipLevel takes three quarters of the default level's time, which the first visitor waits for, and 3 % more space.
const gzipLevel = 4

func gzipped(from io.Reader) []byte {
	var out bytes.Buffer
	to, err := gzip.NewWriterLevel(&out, gzipLevel)
	if err != nil {
		return nil
	}
	if _, err := io.Copy(to, from); err != nil || to.Close() != nil {
		return nil
	}
	return bytes.Clone(out.Bytes())
}
