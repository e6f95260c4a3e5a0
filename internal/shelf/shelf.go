// Package shelf takes uploads and opens files by Gradio's rules, on the machine where the files of a Space are.
//
// # Terms
//
// The front is the host that visitors reach (package gradioapi). It knows sign-ins, Sessions and the manifest of the Space. The
// Shelf knows folders and files. An upload is a folder of Gradio's cache that an upload of a visitor has created. A mark is an
// empty file beside the cache that records an upload and its last use.
//
// # Types and callers
//
// Shelf is an http.Handler for the requests of one Space that need its disk. Package internal/host creates it with New, and
// package gradioapi calls it. Call has what the front knows about a request; With adds it. Storage names the folders. Upload is
// one removable folder of Gradio's cache, and References are the Sessions and owners for which the front has named it.
//
// The files of a Space may be on another machine, its node. Remote then has the methods of a Shelf at the front, and Serve answers a
// Remote on the node, on one connection. Sign-ins, limits of the front's callbacks and CORS stay at the front.
//
// # Routes
//
// The mount and the prefix of the API are cut off, and Gradio's other name of a file, /file/, is written /file=.
//
//	POST /upload                  stores files in the folder and under the names that Gradio uses (upload.go)
//	GET  /upload_progress         streams the progress of an upload (progress.go)
//	GET  /file=                   serves files of the Space's folders (files.go)
//	GET  frontend files           served from the frontend folder of the Space's Gradio (assets.go)
//
// # Who decides what
//
// Decided here: which file a path means, whether Gradio would serve it, its headers, names and limits of uploads, room on the
// disk, and when an upload was used last. Decided by the front: who may send a request, which pages may read the answer, which
// body names which files, which URLs may be fetched, and whether a user of an upload is still there.
// docs/design/0043-shelf.md gives the reasons.
//
// # Failure handling
//
//   - A request that only the Space can answer goes to Call.Pass before its body was read.
//   - An upload that fails, or breaks off, leaves no file.
//   - An upload without room on the disk is answered with 507 and a sentence.
//   - An internal error is logged and answered with 500, without details.
//   - A node that cannot be reached is answered with 503. A response that has begun breaks off, and an upload leaves no file.
package shelf

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/internal/pytext"
	"spacehost/queue"
)

// Config holds the collaborators of a Shelf. The zero value is a Shelf without folders, which leaves all files to the Space's own
// server.
type Config struct {
	Space   string
	Storage Storage // until SetStorage
	// ReserveUpload reserves room on the disk for an upload of that many bytes (-1: unknown). Its error refuses the upload, with a
	// sentence for the visitor. It may read and remove folders. nil: no upload is refused.
	ReserveUpload func(size int64) (Room, error)
	// IsPresent reports whether a Session, by its digest, is open. References of closed ones make room for others. nil: all are.
	IsPresent    func(digest string) bool
	Heartbeat    time.Duration // interval on the stream of an upload's progress; 0: 15 s, as Gradio's
	WriteTimeout time.Duration // limit for a client that reads too little of it; 0: 10 s
	Logger       *zap.Logger   // may be nil
}

// Shelf serves the files of one Space. Its methods may be called from any goroutine.
type Shelf struct {
	config   Config
	storage  atomic.Pointer[Storage]
	progress *progress
	assets   assets
	uploads  uploads
	sent     manifests // by the front of another machine
}

// New returns a Shelf.
func New(config Config) *Shelf {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.IsPresent == nil {
		config.IsPresent = func(string) bool { return true }
	}
	if config.Heartbeat == 0 {
		config.Heartbeat = 15 * time.Second
	}
	if config.WriteTimeout == 0 {
		config.WriteTimeout = 10 * time.Second
	}
	s := &Shelf{config: config, progress: newProgress()}
	s.uploads.isPresent = config.IsPresent
	s.SetStorage(config.Storage)
	return s
}

// Call is what the front knows about a request. The zero value is that of a Space that handles its files itself.
type Call struct {
	// Files is the manifest's data on files; nil: not reported.
	Files *queue.Files
	// Native is set if the host may answer in the place of the Space's own server (queue.Manifest).
	Native bool
	// Frontend is set for a request of a frontend's file only.
	Frontend *queue.Frontend
	// EmptyProgress is set if Gradio answers with an empty stream where an upload does not come, as Gradio 4 does.
	EmptyProgress bool
	// Owner is the owner of what the request uploads, as a text without meaning here; empty: none.
	Owner string
	// AllowOrigin sets the CORS headers of an answer; nil: there are none.
	AllowOrigin func(http.Header)
	// Pass sends the request to the Space's own server. answered may be nil. Otherwise it is called once with a response of status
	// 200, before the visitor receives that. It may replace the body by one with the same bytes.
	Pass func(w http.ResponseWriter, r *http.Request, answered func(*http.Response))
}

type callKey struct{}

// With returns the request of a Call. path is the path below mount and prefix, or that of a frontend's file.
func With(r *http.Request, c Call, path string) *http.Request {
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	r.URL = &url.URL{Path: path, RawQuery: r.URL.RawQuery}
	return r
}

// call is a request with its Call and its response.
type call struct {
	Call
	w http.ResponseWriter
	r *http.Request
}

// ServeHTTP answers a request that With has returned. It panics for any other.
func (s *Shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	known, ok := r.Context().Value(callKey{}).(Call)
	if !ok {
		panic("shelf: a request without a Call; use With")
	}
	c := call{known, w, r}
	err := s.route(c)
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		s.config.Logger.Error("upload failed", zap.String("space", s.config.Space), zap.Error(err))
		c.refuseDetail(http.StatusInsufficientStorage, "The disk of this host is full.")
	default:
		if r.Context().Err() == nil {
			s.config.Logger.Error("request failed", zap.String("space", s.config.Space), zap.String("path", r.URL.Path), zap.Error(err))
		}
		c.refuseDetail(http.StatusInternalServerError, "Internal Server Error")
	}
}

// route returns an error before the first byte of a response only.
func (s *Shelf) route(c call) error {
	if c.Frontend != nil {
		s.asset(c)
		return nil
	}
	switch at := c.r.URL.Path; at {
	case "/upload":
		return s.upload(c)
	case "/upload_progress":
		s.uploadProgress(c)
	default:
		if name, ok := strings.CutPrefix(at, "/file="); ok {
			s.file(c, name)
		} else {
			c.pass(nil)
		}
	}
	return nil
}

func (c call) pass(answered func(*http.Response)) { c.Pass(c.w, c.r, answered) }

func (c call) allowOrigin() {
	if c.AllowOrigin != nil {
		c.AllowOrigin(c.w.Header())
	}
}

// answer writes a whole response.
func (c call) answer(status int, kind string, body []byte) {
	c.w.Header().Set("Content-Type", kind)
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body) // fails if the visitor has left
}

// refuseDetail refuses a request, byte for byte as FastAPI does.
func (c call) refuseDetail(status int, text string) {
	c.answer(status, "application/json", pytext.JSON(map[string]string{"detail": text}))
}

// refuseText refuses a request in plain text, with Starlette's spelling of the media type.
func (c call) refuseText(status int, text string) {
	c.answer(status, "text/plain; charset=utf-8", []byte(text))
}

// Check returns those of paths that a call must not name: the rule for inputs of Gradio (gradio/processing_utils.py,
// async_move_files_to_cache). A path must be in the folders of uploads and caches, or be one of the author's own: Gradio refuses
// those that it does not allow. Its error means that no path was checked.
func (s *Shelf) Check(_ context.Context, f *queue.Files, paths []string) (wrong []string, err error) {
	for _, name := range paths {
		real, ok := resolve(path.Clean(name))
		if !ok || !isInAny(real, []string{f.Uploads, f.Cache}) && !isInAny(real, f.Allowed) && !isInAny(real, f.Static()) {
			wrong = append(wrong, name)
		}
	}
	return wrong, nil
}
