package gradioapi

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

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"
)

// assets are the files of the frontend that the Space's Gradio has brought along. They are read below one folder,
// out of which neither a name nor a link leads.
type assets struct {
	mu     sync.Mutex
	opened string // the folder that root is of, as it was claimed
	root   *os.Root
	packed map[packedKey]*packed
	size   int
}

// Bounds of what is kept packed of one Space, and of a file that is worth it.
const (
	packedBytes = 32 << 20
	packLeast   = 1 << 10
	packMost    = 8 << 20
)

type packedKey struct {
	name  string
	mtime time.Time
	size  int64
}

// packed is a file's gzip, made once.
type packed struct {
	once sync.Once
	data []byte // nil: it could not be read
}

// frontendFolder is where each Gradio keeps its frontend. Another claim is none: a Space names no host paths.
const frontendFolder = "gradio/templates/frontend"

// folder opens the frontend that the Space claims.
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
		return nil, fmt.Errorf("%s is not the folder of a gradio", real)
	}
	root, err := os.OpenRoot(real)
	if err != nil {
		return nil, err
	}
	if a.root != nil {
		_ = a.root.Close() // only read from; files that are open stay so
	}
	a.opened, a.root, a.packed, a.size = claim, root, map[packedKey]*packed{}, 0
	return root, nil
}

// assetOf returns the name below the frontend's folder that a path stands for.
func assetOf(c call) (folder, name string, ok bool) {
	r, frontend := c.Request(), c.manifest.Frontend
	if frontend == nil || r.Method != http.MethodGet { // Gradio has no HEAD there
		return "", "", false
	}
	for prefix, folder := range frontend.Folders {
		if name, below := strings.CutPrefix(r.URL.Path, prefix); below {
			return folder, name, true
		}
	}
	return "", "", false
}

// asset answers with a file of the frontend, in status and headers as Gradio does (gradio/route_utils.py,
// routes_safe_join; starlette, FileResponse). That an asset has not changed only the host says: 304.
func (h *Handler) asset(c call, folder, name string) error {
	name = path.Clean(name)
	kind := c.manifest.Frontend.Types[path.Ext(name)]
	root, err := h.assets.folder(c.manifest.Frontend.Root)
	if err != nil {
		h.config.Logger.Warn("frontend not opened: the Space answers itself", zap.String("space", h.config.Space), zap.Error(err))
		return h.pass(c)
	}
	switch {
	case name == ".":
		return refuseAsset(c, http.StatusBadRequest)
	case !filepath.IsLocal(name):
		return refuseAsset(c, http.StatusForbidden)
	case kind == "":
		return h.pass(c)
	}
	return h.assetFile(c, root, path.Join(folder, name), contentType(kind))
}

// refuseAsset speaks FastAPI's words for a bare status.
func refuseAsset(c call, status int) error {
	allowOrigin(c)
	return c.JSONBlob(status, mustJSON(detail{http.StatusText(status)}))
}

func contentType(kind string) string {
	if strings.HasPrefix(kind, "text/") {
		return kind + "; charset=utf-8" // starlette, Response.init_headers
	}
	return kind
}

func (h *Handler) assetFile(c call, root *os.Root, name, kind string) error {
	file, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return refuseAsset(c, http.StatusNotFound)
	}
	if err != nil { // a link that leads out; what cannot be read
		return refuseAsset(c, http.StatusForbidden)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return refuseAsset(c, http.StatusForbidden)
	}
	allowOrigin(c)
	head := c.Response().Header()
	head.Set(echo.HeaderContentType, kind)
	head.Set("Accept-Ranges", "bytes")
	head.Set("Etag", etag(info))
	var content io.ReadSeeker = file
	if data := h.packedFor(c, file, info); data != nil {
		head.Set(echo.HeaderContentEncoding, "gzip")
		head.Add(echo.HeaderVary, echo.HeaderAcceptEncoding)
		head.Set(echo.HeaderContentLength, strconv.Itoa(len(data)))
		content = bytes.NewReader(data)
	}
	http.ServeContent(c.Response(), c.Request(), name, info.ModTime(), content)
	return nil
}

// etag is that of starlette's FileResponse: of the time as Python prints it.
func etag(info fs.FileInfo) string {
	at := info.ModTime()
	seconds := float64(at.Unix()) + float64(1e-9*float64(at.Nanosecond()))
	text := strconv.FormatFloat(seconds, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return fmt.Sprintf(`"%x"`, md5.Sum([]byte(text+"-"+strconv.FormatInt(info.Size(), 10))))
}

// packedFor returns the file's gzip if the visitor takes one and Gradio would have packed it.
func (h *Handler) packedFor(c call, file *os.File, info fs.FileInfo) []byte {
	r := c.Request()
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") || r.Header.Get("Range") != "" {
		return nil
	}
	if !isText(file.Name()) || info.Size() < packLeast || info.Size() > packMost {
		return nil
	}
	return h.assets.pack(packedKey{file.Name(), info.ModTime(), info.Size()}, file)
}

// isText names what Gradio packs (gradio/brotli_middleware.py, _is_compressible_file_type).
func isText(name string) bool {
	switch path.Ext(name) {
	case ".html", ".js", ".css", ".json", ".txt", ".svg":
		return true
	}
	return false
}

func (a *assets) pack(key packedKey, file io.Reader) []byte {
	a.mu.Lock()
	p := a.packed[key]
	if p == nil && a.size < packedBytes {
		p = &packed{}
		a.packed[key] = p
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

// packLevel takes three quarters of the usual level's time, which the first visitor of all waits, and 3 % more room.
const packLevel = 4

func gzipped(from io.Reader) []byte {
	var out bytes.Buffer
	to, err := gzip.NewWriterLevel(&out, packLevel)
	if err != nil {
		return nil
	}
	if _, err := io.Copy(to, from); err != nil || to.Close() != nil {
		return nil
	}
	return bytes.Clone(out.Bytes())
}
