// Package gradioapi speaks Gradio: routes, messages, one dialect per major version.
//
// What is on the hot path is answered here: join, data, status, cancel, reset, heartbeat, the streams of /call,
// uploads and files, the pages that are the same for all, and the frontend's files. Everything else is passed through
// to the Space's own server, as is a request that is not what a well-behaved client sends: the real Gradio then answers
// it in its own words.
package gradioapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/internal/web"
	"spacehost/queue"
)

// Upstream is a Space's own server; package worker implements it. Both methods may be called from any goroutine.
type Upstream interface {
	// Upstream returns its port on loopback and the key that opens it; false while the Space is down.
	Upstream() (port int, key string, ok bool)
	// Stage returns the Hub's name of where the Space stands, and why, for people.
	Stage() (stage, reason string)
}

// Config is what a Handler needs. Logger may be nil.
type Config struct {
	Space    string
	Queue    *queue.Queue
	Upstream Upstream
	// Identify says who calls.
	Identify func(*http.Request) (identity.Identity, error)
	// Holder says whose Sessions a request may use; nil: whoever knows a hash uses its Session. Promise, which may be nil,
	// gives the browser of a request a cookie with the answer's header, and returns what Holder will say of it.
	Holder  func(*http.Request) Holder
	Promise func(answer http.Header, r *http.Request) (visitor string)
	// Sign makes the X-IP-Token that lets an Event pay, or a direct call, which has no Session.
	Sign func(event queue.Event) string
	// BySpace has every call admitted by the Space, also where its manifest lets the host do it: both ways
	// must show a client the same.
	BySpace   bool
	Heartbeat time.Duration // of the streams; 0: 15 s, as Gradio's
	Patience  time.Duration // that a stream has with a client which does not read, or hardly; 0: 10 s
	Storage   Storage
	Logger    *zap.Logger
}

// Handler is Gradio's API of one Space.
type Handler struct {
	config   Config
	proxy    http.Handler
	progress *progress
	pages    pages
	assets   assets
	streams  streams
	tails    tails // of a Space whose Gradio queues by itself
	logins   *web.Attempts
	guesses  *web.Attempts // at Sessions
	owners   owners

	visits    sync.WaitGroup  // heartbeats, and what follows them
	farewells chan struct{}   // full: wait
	life      context.Context // ends with Close
	shut      context.CancelFunc
}

// New returns a Handler.
func New(config Config) *Handler {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.Heartbeat == 0 {
		config.Heartbeat = 15 * time.Second
	}
	if config.Patience == 0 {
		config.Patience = 10 * time.Second
	}
	h := &Handler{config: config, progress: newProgress(), farewells: make(chan struct{}, farewells), logins: web.NewAttempts(wrongLogins, loginsWithin, nil), guesses: web.NewAttempts(wrongHashes, hashesWithin, nil)}
	if config.Queue != nil {
		h.owners.present = config.Queue.IsPresent
	}
	h.life, h.shut = context.WithCancel(context.Background())
	h.proxy = newProxy(h)
	return h
}

// closePatience is what streams get to end by themselves, once the queue has told them that it stops.
const closePatience = time.Second

// Close ends all streams and returns when they have. It may be called twice.
func (h *Handler) Close() {
	h.streams.close(closePatience)
	h.shut()
	h.visits.Wait()
}

// Register mounts the API at the root: which paths are Gradio's only the Space can tell, once it runs.
func (h *Handler) Register(e *echo.Echo) {
	e.Any("/*", h.serve)
	e.Any("/", h.serve)
}

// call is one request, with what the Space said of itself when it came.
type call struct {
	echo.Context
	manifest queue.Manifest
	payer    identity.Identity
	rest     string // the path below mount and prefix
}

func (h *Handler) serve(c echo.Context) error {
	if isForeign(c.Request()) {
		return c.JSONBlob(http.StatusForbidden, mustJSON(detail{"Pages of other sites may not do this here."}))
	}
	payer, err := h.config.Identify(c.Request())
	if err != nil {
		h.config.Logger.Info("caller refused", zap.String("space", h.config.Space), zap.Error(err))
		return whoIsThat(err)
	}
	if leadsAway(c.Request()) {
		return echo.NewHTTPError(http.StatusBadRequest, "_target_url must be a path of this Space.")
	}
	if isStartup(c.Request()) {
		return notFound(call{Context: c})
	}
	manifest, attached := h.config.Queue.ManifestAt(c.Request().URL.Path)
	if !attached {
		return h.pass(call{Context: c, payer: payer})
	}
	rest, ours := strings.CutPrefix(c.Request().URL.Path, manifest.Mount+manifest.Prefix)
	if !ours {
		rest = ""
	}
	return h.route(call{Context: c, manifest: manifest, payer: payer, rest: rest})
}

// expiredToken is what the spaces package says of a token that is not taken (spaces/zero/client.py, schedule).
const expiredToken = "Expired ZeroGPU proxy token"

// whoIsThat words why nobody can pay for a request. gradio_client shows its caller the status alone: after 401 it
// speaks of credentials, after 429 of too many requests, which it repeats. @gradio/client shows the words.
func whoIsThat(err error) error {
	var unknown *people.UnknownTokenError
	var token *token.Error
	var stopped *people.DelegationDeniedError
	switch {
	case errors.As(err, &unknown):
		return echo.NewHTTPError(http.StatusUnauthorized, unknown.Error())
	case errors.As(err, &token):
		return echo.NewHTTPError(http.StatusUnauthorized, expiredToken)
	case errors.As(err, &stopped):
		return echo.NewHTTPError(http.StatusForbidden, stopped.Error())
	}
	return fmt.Errorf("say who calls: %w", err)
}

// route names the paths that are answered here; the rest is the Space's.
//
//  1. What shows and writes the app's own code is nobody's business: Gradio's hot reload and its editor.
//  2. A Gradio that the runner does not know keeps its own queue.
//  3. An app with a login decides itself who may read a stream.
func (h *Handler) route(c call) error {
	method := c.Request().Method
	path := strings.TrimSuffix(c.rest, "/")
	if isEditor(path) { // 1
		return notFound(c)
	}
	if c.manifest.PassThrough { // 2
		return h.passUnknown(c)
	}
	if get := method == http.MethodGet || method == http.MethodHead; get && isBytes(path) {
		return h.bytes(c)
	}
	switch {
	case method == http.MethodPost && path == "/queue/join":
		return h.join(c)
	case method == http.MethodPost && isBelow(path, "/call/"):
		return h.joinByName(c, strings.TrimPrefix(path, "/call/"))
	case method == http.MethodPost && strings.HasPrefix(path, "/call/"):
		return h.joinByFields(c)
	case method == http.MethodGet && path == "/queue/data":
		return h.behindLogin(c, h.data) // 3
	case method == http.MethodGet && path == "/queue/status":
		return h.behindLogin(c, h.status)
	case method == http.MethodGet && strings.HasPrefix(path, "/call/"):
		return h.behindLogin(c, h.callData)
	case method == http.MethodGet && isBelow(path, "/heartbeat/"):
		return h.heartbeat(c)
	case method == http.MethodPost && path == "/cancel":
		return h.cancel(c)
	case method == http.MethodPost && path == "/reset":
		return h.reset(c)
	case method == http.MethodPost && path == "/upload":
		return h.upload(c)
	case method == http.MethodGet && path == "/upload_progress":
		return h.uploadProgress(c)
	case method == http.MethodPost && takesData(path):
		return h.passData(c, path)
	case method == http.MethodPost && strings.TrimSuffix(c.Request().URL.Path, "/") == c.manifest.Mount+"/login":
		return h.passLogin(c)
	case method == http.MethodGet && path == "/deep_link":
		if err := h.owns(c, queue.SessionHash(c.QueryParam("session_hash"))); err != nil {
			return err
		}
		return h.pass(c)
	case isPage(c):
		return h.page(c)
	case strings.TrimSuffix(c.Request().URL.Path, "/") == c.manifest.Mount+"/monitoring/summary":
		return h.behindLogin(c, h.pass) // Gradio 5 tells it to everybody
	}
	if folder, name, ok := assetOf(c); ok {
		return h.asset(c, folder, name)
	}
	return h.pass(c)
}

// isEditor names the routes that show and change the code of the app (gradio/routes.py), in a Gradio that the
// runner does not know, too.
func isEditor(path string) bool {
	switch strings.TrimPrefix(path, "/gradio_api") {
	case "/dev/reload", "/vibe-edit", "/vibe-code", "/undo-vibe-edit", "/vibe-starter-queries":
		return true
	}
	return false
}

// isBytes names the routes whose answers are somebody's bytes.
func isBytes(path string) bool {
	for _, start := range []string{"/file=", "/file/", "/proxy=", "/stream/"} {
		if strings.HasPrefix(path, start) {
			return true
		}
	}
	return false
}

func (h *Handler) bytes(c call) error {
	for _, start := range []string{"/file=", "/file/"} {
		if name, ok := strings.CutPrefix(c.rest, start); ok {
			return h.file(c, name)
		}
	}
	if address, ok := strings.CutPrefix(c.rest, "/proxy="); ok {
		return h.proxyTo(c, address)
	}
	return h.passBytes(c)
}

// isStartup names what is for Gradio alone: from outside it would start the queue of a mounted app again, and
// there may be more of those in a Space than the one that its manifest is of.
func isStartup(r *http.Request) bool {
	return strings.HasSuffix(strings.TrimRight(r.URL.Path, "/"), "/startup-events")
}

func isBelow(path, folder string) bool {
	name, ok := strings.CutPrefix(path, folder)
	return ok && name != "" && !strings.Contains(name, "/")
}

func notFound(c call) error {
	return c.JSONBlob(http.StatusNotFound, mustJSON(detail{"Not Found"}))
}

// answer says why a request is refused, to the byte as FastAPI would.
func answer(c call, status int, text string) error {
	allowOrigin(c)
	return c.JSONBlob(status, mustJSON(detail{text}))
}

// plain is an answer in words, with Starlette's spelling of its type.
func plain(c call, status int, text string) error {
	return c.Blob(status, "text/plain; charset=utf-8", []byte(text))
}

// detail is FastAPI's shape of an error.
type detail struct {
	Detail string `json:"detail"`
}
