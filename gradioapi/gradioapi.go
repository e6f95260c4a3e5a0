// Package gradioapi speaks Gradio: routes, messages, one dialect per major version.
//
// What is on the hot path is answered here: join, data, status, cancel, reset, heartbeat and the streams of
// /call. Everything else is passed through to the Space's own server, as is a request that is not what a
// well-behaved client sends: the real Gradio then answers it in its own words.
package gradioapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/identity"
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
	// Sign makes the X-IP-Token that lets an Event or a direct call pay.
	Sign func(event queue.EventID, payer identity.Identity) string
	// BySpace has every call admitted by the Space, also where its manifest lets the host do it: both ways
	// must show a client the same.
	BySpace   bool
	Heartbeat time.Duration // of the streams; 0: 15 s, as Gradio's
	Patience  time.Duration // that a stream has with a client which does not read; 0: 10 s
	Logger    *zap.Logger
}

// Handler is Gradio's API of one Space.
type Handler struct {
	config Config
	proxy  http.Handler
	tails  tails // of a Space whose Gradio queues by itself
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
	h := &Handler{config: config}
	h.proxy = newProxy(h)
	return h
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
	payer, err := h.config.Identify(c.Request())
	if err != nil {
		return whoIsThat(err)
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

// whoIsThat words why nobody can pay for a request.
func whoIsThat(err error) error {
	var unknown *identity.UnknownTokenError
	if errors.As(err, &unknown) {
		return echo.NewHTTPError(http.StatusUnauthorized, unknown.Error())
	}
	return fmt.Errorf("say who calls: %w", err)
}

// route names the paths that are answered here; the rest is the Space's.
//
//  1. startup-events is for Gradio alone: from outside it would start a mounted app's queue again.
//  2. A Gradio that the runner does not know keeps its own queue.
//  3. An app with a login decides itself who may read a stream.
func (h *Handler) route(c call) error {
	method := c.Request().Method
	if c.rest == "/startup-events" { // 1
		return notFound(c)
	}
	if c.manifest.PassThrough { // 2
		return h.passUnknown(c)
	}
	path := strings.TrimSuffix(c.rest, "/")
	switch {
	case method == http.MethodPost && path == "/queue/join":
		return h.join(c)
	case method == http.MethodPost && isBelow(path, "/call/"):
		return h.joinByName(c, strings.TrimPrefix(path, "/call/"))
	case method == http.MethodPost && strings.HasPrefix(path, "/call/"):
		return h.admitBySpace(c)
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
	}
	return h.pass(c)
}

func isBelow(path, folder string) bool {
	name, ok := strings.CutPrefix(path, folder)
	return ok && name != "" && !strings.Contains(name, "/")
}

func notFound(c call) error {
	return c.JSON(http.StatusNotFound, detail{"Not Found"})
}

// detail is FastAPI's shape of an error.
type detail struct {
	Detail string `json:"detail"`
}
