// Package gradioapi implements Gradio's HTTP API for one Space: routes, messages, files and one dialect per Gradio
// major version.
//
// # Terms
//
// A Space is one hosted Gradio app. An Endpoint is one callable of the app. An Event is one submitted call. A Session
// is one client connection, named by the session_hash that the client chooses. A Message is one item of a Session's
// stream. These types are package queue's.
//
//   - Native: the host answers the request itself, from the Space's manifest (queue.Manifest) and the Queue.
//   - Passed through: the host forwards the request to the Space's own Gradio server.
//   - Direct call: one request under way at the Space's own server. Its X-IP-Token is valid until the request
//     ends.
//   - Dialect: the Message shapes of one Gradio major version.
//
// # Types and callers
//
// Handler serves the API of one Space. internal/host creates one with New for each Space, mounts it with Register and
// ends it with Close. Config holds its collaborators. Upstream locates the Space's own server and connects to it; package
// worker implements it. Shelf takes uploads and serves files, where they are; package internal/shelf implements it.
// SessionOwner is the identity that a Session is bound to.
//
// # Routes
//
// A native route is answered on the hot path. Paths are relative to the mount and API prefix of the manifest
// ("/gradio_api" since Gradio 5).
//
//	POST /queue/join              native: admits an Event (join.go)
//	POST /call/{name}             native: admits an Event by api_name (call.go)
//	POST /call/v2/{name}          passed through: only the Space can order named values
//	GET  /queue/data              native: the Session's event stream (stream.go)
//	GET  /call/.../{event_id}     native: the stream of one /call (stream.go, simple.go)
//	GET  /queue/status            native: the number of waiting Events
//	POST /cancel, POST /reset     native
//	GET  /heartbeat/{session}     native; the Space is notified when the visitor leaves (heartbeat.go)
//	POST /upload                  native, in the folder and under the names that Gradio uses (Shelf)
//	GET  /upload_progress         native (Shelf)
//	GET  /file=, /file/           native for files of the Space's folders, else passed through (Shelf)
//	GET  /proxy=                  passed through for https://*.hf.space, else refused
//	GET  / and /config            native: a copy of the Space's answer, at most one second old (pages.go)
//	GET  frontend files           native, from the frontend folder of the Space's Gradio (Shelf)
//	POST /run/ /api/ /stream/ /mcp/, /component_server
//	                              passed through as a direct call, after a check of the files named (direct.go)
//	POST /login                   passed through; failed logins are counted (login.go)
//	GET  /deep_link, /monitoring/summary
//	                              passed through, after the ownership or login check
//	/startup-events, /dev/reload, /vibe-edit, /vibe-code, ...
//	                              404: for Gradio alone, or able to change the app's code
//	everything else               passed through (proxy.go)
//
// A native route passes the request through when a well-behaved client would not send it. Gradio then words the 4xx
// response. Functions that only the Space can admit (validator, cache, login, gr.render) are passed through too. So is
// every route of a Gradio version that the runner does not know (unknown.go).
//
// # Messages
//
// From client to host: the JSON bodies of join, /call, cancel and reset, and multipart uploads. From host to client:
//
//	estimation, log, heartbeat, unexpected_error, close_stream
//	                              made by the host, in the Space's dialect
//	process_completed             made by Gradio; by the host for a cancelled Event or a failure outside Gradio
//	process_starts, process_generating, process_streaming, progress, log
//	                              made by Gradio and spliced into the stream unchanged
//	generating, complete, error, heartbeat
//	                              the same Messages on the stream of a /call
//	update, done, heartbeat       on the stream of an upload's progress
//
// # Dialects
//
// dialectV6, dialectV5 and dialectV4 write the host's own Messages as Gradio 6, 5 and 4 do. The manifest's Gradio
// version selects one. An unknown version gets dialectV6. testdata/captures holds recorded traffic of stock Gradio
// for each dialect, and the tests replay it.
//
// # Failure handling
//
//   - An unknown, expired or denied token is answered with 401 or 403.
//   - A cross-site request that would change state at a loopback address is answered with 403 (cors.go).
//   - A call above 300 MiB is answered with 413, and a large one without room beside others with 503.
//   - A full queue or a stopped one is answered with 503, too many Sessions of one user with 429.
//   - A request that a host has sent, and that came back through a relay of the Space, is answered with 508 (hop.go).
//   - While the Space restarts, a passed-through request waits up to 10 seconds, then gets 503 with the Space's
//     stage.
//   - A stream of an unknown Session sends unexpected_error and breaks off, as Gradio's does.
//   - A stream whose token was revoked ends its calls with a sentence and closes (authorised.go).
//   - A client that stops reading is disconnected after Config.WriteTimeout and leaves its Session.
//   - After the first byte of a stream, an error is a Message.
//   - Internal errors are logged; the client gets 500 without details (package server).
package gradioapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/pytext"
	"spacehost/internal/shelf"
	"spacehost/internal/token"
	"spacehost/internal/web"
	"spacehost/queue"
)

// Upstream locates a Space's own server and connects to it. Package worker implements it. All methods may be called from
// any goroutine.
type Upstream interface {
	// Upstream returns the server of the Space's current start and the key that it requires. ok is false while the Space is
	// down.
	Upstream() (server Dialer, key string, ok bool)
	// Stage returns the Space's stage, by the Hub's name, and the reason in plain words.
	Stage() (stage, reason string)
}

// Dialer connects to one server of a Space, wherever that runs. Dialers are comparable: equal ones reach the same server, and
// a kept connection is used for an equal Dialer only. It is an alias, so package worker does not import this package.
type Dialer = interface {
	// Dial connects to the server. The connection ends at a process of the Space, although the address is a claim by it. The
	// error wraps syscall.ECONNREFUSED while no server listens. It may be called from any goroutine.
	Dial(ctx context.Context) (net.Conn, error)
}

// Config holds the collaborators of a Handler. Logger may be nil.
type Config struct {
	Space    string
	Queue    *queue.Queue
	Upstream Upstream
	// Identify returns the identity that pays for a request.
	Identify func(*http.Request) (identity.Identity, error)
	// SessionOwner returns the owner whose Sessions a request may use. If nil, a session_hash alone grants access.
	SessionOwner func(*http.Request) SessionOwner
	// IssueVisitorCookie sets a visitor cookie on the response to a browser without one. It returns the Visitor that
	// SessionOwner reports for that cookie. It may be nil.
	IssueVisitorCookie func(response http.Header, r *http.Request) (visitor string)
	// Credential returns what authorised a request, and Allowed whether that is still valid, for EndRefused. Both may be nil.
	Credential func(*http.Request) Credential
	Allowed    func(Credential) bool
	// SignToken returns the X-IP-Token of an Event, or of a direct call, which has no Session.
	SignToken func(event queue.Event) string
	// Insert returns HTML that is appended to the document that a browser opens with a request, "" for none. It consists of ASCII
	// characters. API answers, files and the pages of other programs are never changed. It may be nil.
	Insert func(*http.Request) string
	// AdmitBySpace sends every call to the Space for admission, even if the manifest allows native admission. Both
	// ways must look the same to a client.
	AdmitBySpace bool
	Heartbeat    time.Duration // interval on the streams; 0: 15 s, as Gradio's
	WriteTimeout time.Duration // limit for a client that reads too little of a stream; 0: 10 s
	Shelf        Shelf         // the Space's files; nil: its own server handles them all
	Logger       *zap.Logger
}

// Handler serves Gradio's API of one Space.
type Handler struct {
	config           Config
	upstream         upstreamTransport
	proxy            http.Handler
	pages            pages
	streams          streams
	passThroughCalls passThroughCalls // of a Gradio that the runner does not know
	loginAttempts    *web.Attempts    // failed logins, by address
	sessionGuesses   *web.Attempts    // unknown or foreign session hashes, by address
	owners           owners
	bodies           bodies
	grants           grants

	background  sync.WaitGroup  // heartbeats and unload notifications
	unloadSlots chan struct{}   // semaphore of notifyUnload
	ctx         context.Context // ends with Close
	cancelAll   context.CancelFunc
}

// New returns a Handler.
func New(config Config) *Handler {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.Heartbeat == 0 {
		config.Heartbeat = 15 * time.Second
	}
	if config.WriteTimeout == 0 {
		config.WriteTimeout = 10 * time.Second
	}
	if config.Shelf == nil {
		config.Shelf = shelf.New(shelf.Config{Logger: config.Logger})
	}
	h := &Handler{
		config: config, unloadSlots: make(chan struct{}, maxUnloads),
		loginAttempts:  web.NewAttempts(maxFailedLogins, failedLoginWindow, nil),
		sessionGuesses: web.NewAttempts(maxWrongHashes, wrongHashWindow, nil),
	}
	if config.Queue != nil {
		h.owners.isPresent = config.Queue.IsPresent
	}
	h.ctx, h.cancelAll = context.WithCancel(context.Background())
	h.proxy = newProxy(h)
	return h
}

// closeGrace is the time for streams to end by themselves after the Queue has stopped.
const closeGrace = time.Second

// Close ends all streams and waits for them. It may be called twice.
func (h *Handler) Close() {
	h.streams.close(closeGrace)
	h.cancelAll()
	h.background.Wait()
	h.upstream.close()
}

// Register mounts the API at the root. The paths of the API are known only from the manifest of the running Space.
func (h *Handler) Register(e *echo.Echo) {
	e.Any("/*", h.serve)
	e.Any("/", h.serve)
}

// call is one request, with the manifest that was current on its arrival.
type call struct {
	echo.Context
	manifest queue.Manifest
	payer    identity.Identity
	apiPath  string // the path below mount and prefix
}

func (h *Handler) serve(c echo.Context) error {
	if isLoop(c.Request()) {
		return c.JSONBlob(http.StatusLoopDetected, pytext.JSON(detail{loopText}))
	}
	if isCrossSite(c.Request()) {
		return c.JSONBlob(http.StatusForbidden, pytext.JSON(detail{"Requests from other sites may not change anything here."}))
	}
	payer, err := h.config.Identify(c.Request())
	if err != nil {
		h.config.Logger.Info("caller refused", zap.String("space", h.config.Space), zap.Error(err))
		return IdentityError(err)
	}
	if isOpenRedirect(c.Request()) {
		return echo.NewHTTPError(http.StatusBadRequest, "_target_url must be a path of this Space.")
	}
	if isStartupRoute(c.Request()) {
		return notFound(call{Context: c})
	}
	manifest, attached := h.config.Queue.ManifestAt(c.Request().URL.Path)
	if !attached {
		return h.pass(call{Context: c, payer: payer})
	}
	apiPath, ours := strings.CutPrefix(c.Request().URL.Path, manifest.Mount+manifest.Prefix)
	if !ours {
		apiPath = ""
	}
	defer h.bodies.end(c.Request())
	return h.route(call{Context: c, manifest: manifest, payer: payer, apiPath: apiPath})
}

// expiredToken is the spaces package's text for a token that is not accepted (spaces/zero/client.py, schedule).
const expiredToken = "Expired ZeroGPU proxy token"

// IdentityError maps an error of Identify to a response, also for the pages of the host at a Space. gradio_client shows its caller only the status: it reports
// 401 as a credentials problem and 429 as too many requests, which it retries. @gradio/client shows the text.
func IdentityError(err error) error {
	var unknown *people.UnknownTokenError
	var token *token.Error
	var stopped *people.DelegationDeniedError
	var rights *people.RightsError
	switch {
	case errors.As(err, &unknown):
		return echo.NewHTTPError(http.StatusUnauthorized, unknown.Error())
	case errors.As(err, &token):
		return echo.NewHTTPError(http.StatusUnauthorized, expiredToken)
	case errors.As(err, &stopped):
		return echo.NewHTTPError(http.StatusForbidden, stopped.Error())
	case errors.As(err, &rights):
		return echo.NewHTTPError(http.StatusForbidden, rights.Error())
	}
	return fmt.Errorf("identify caller: %w", err)
}

// route dispatches the native paths; all others are passed through.
//
//  1. Routes that show or change the app's own code get 404: Gradio's hot reload and its editor.
//  2. A Gradio version that the runner does not know keeps its own queue.
//  3. An app with a login decides itself which visitors may read a stream.
func (h *Handler) route(c call) error {
	method := c.Request().Method
	path := strings.TrimSuffix(c.apiPath, "/")
	if isEditorRoute(path) { // 1
		return notFound(c)
	}
	if c.manifest.PassThrough { // 2
		return h.passUnknown(c)
	}
	if get := method == http.MethodGet || method == http.MethodHead; get && isContentRoute(path) {
		return h.content(c)
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
		if isCompressed(c.Request()) {
			return errCompressed
		}
		return h.upload(c)
	case method == http.MethodGet && path == "/upload_progress":
		return h.uploadProgress(c)
	}
	return h.routeToSpace(c, path)
}

// routeToSpace serves the paths that are passed through after a check, and the pages and files that are native.
func (h *Handler) routeToSpace(c call, path string) error {
	method, full := c.Request().Method, strings.TrimSuffix(c.Request().URL.Path, "/")
	switch {
	case method == http.MethodPost && takesData(path):
		return h.passData(c, path)
	case method == http.MethodPost && full == c.manifest.Mount+"/login":
		return h.passLogin(c)
	case method == http.MethodGet && path == "/deep_link":
		if err := h.requireOwner(c, queue.SessionHash(c.QueryParam("session_hash"))); err != nil {
			return err
		}
		return h.pass(c)
	case isPage(c):
		return h.page(c)
	case full == c.manifest.Mount+"/monitoring/summary":
		return h.behindLogin(c, h.pass) // Gradio 5 shows it to every visitor
	}
	if shelf.IsFrontendFile(c.manifest.Frontend, c.Request()) {
		return h.asset(c)
	}
	return h.pass(c)
}

// isEditorRoute reports the routes that show and change the code of the app (gradio/routes.py). It also covers a
// Gradio version that the runner does not know.
func isEditorRoute(path string) bool {
	switch strings.TrimPrefix(path, "/gradio_api") {
	case "/dev/reload", "/vibe-edit", "/vibe-code", "/undo-vibe-edit", "/vibe-starter-queries":
		return true
	}
	return false
}

// isStartupRoute reports the route that only Gradio itself may call: a request from outside would start the queue of
// a mounted app again. A Space may contain more mounted apps than the one of its manifest, so the check ignores the
// mount.
func isStartupRoute(r *http.Request) bool {
	return strings.HasSuffix(strings.TrimRight(r.URL.Path, "/"), "/startup-events")
}

func isBelow(path, folder string) bool {
	name, ok := strings.CutPrefix(path, folder)
	return ok && name != "" && !strings.Contains(name, "/")
}

func notFound(c call) error {
	return c.JSONBlob(http.StatusNotFound, pytext.JSON(detail{"Not Found"}))
}

// refuseDetail refuses a request, byte for byte as FastAPI does.
func refuseDetail(c call, status int, text string) error {
	allowOrigin(c)
	return c.JSONBlob(status, pytext.JSON(detail{text}))
}

// detail is FastAPI's shape of an error.
type detail struct {
	Detail string `json:"detail"`
}
