package gradioapi

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/pytext"
	"spacehost/internal/shelf"
	"spacehost/internal/web"
	"spacehost/queue"
)

// Headers between host and Space.
const (
	headerKey   = "X-Spacehost-Key"  // required by the Space's own port; worker/runner/spacehost_runner/guard.py
	headerHop   = "X-Spacehost-Hop"  // marks a request that a host has sent; refused by hosts (hop.go)
	headerCall  = "X-Spacehost-Call" // names the direct call of a request that the Space admits itself
	headerToken = "X-Ip-Token"       // the identity that pays (spaces/zero/client.py, TOKEN_HEADER); Identify has read the caller's own
)

// isOurs reports the headers that only the host may set. A visitor's copies are removed.
func isOurs(name string) bool {
	switch name {
	case headerToken, "X-Authenticated", "X-Hf-Authorization", "Forwarded", "X-Real-Ip":
		return true
	case "X-Gradio-Server": // would set the root of every URL (gradio/route_utils.py, get_request_origin)
		return true
	}
	return strings.HasPrefix(name, "X-Spacehost-") || strings.HasPrefix(name, "X-Forwarded-")
}

// outbound turns h, a copy of the visitor's headers, into the headers that the Space may see, and adds the host's
// own. It applies to passed-through requests and to the requests that the runner rebuilds. mount is the path of the
// app that receives them.
func outbound(h http.Header, r *http.Request, mount string) http.Header {
	for name := range h {
		if isOurs(name) {
			delete(h, name)
		}
	}
	web.StripCookies(h)
	if slices.ContainsFunc(h.Values("Authorization"), isHubToken) { // gradio_client sends a saved Hugging Face token without being asked
		h.Del("Authorization")
	}
	h.Set("X-Forwarded-For", clientIP(r))
	h.Set("X-Forwarded-Proto", web.Scheme(r))
	forwardHost(h, r.Host, mount)
	forwardSubPath(h, web.SubPath(r))
	return h
}

// forwardHost sets the host name that visitors use, except for an app below a path: Gradio would omit the path from
// its URLs (gradio/route_utils.py, get_request_origin). The Host header has the same value.
func forwardHost(h http.Header, host, mount string) {
	if mount == "" {
		h.Set("X-Forwarded-Host", host)
	}
}

// forwardSubPath sets the path that Gradio's URLs begin with (worker/runner/spacehost_runner/fastpaths.py, cache_root_urls).
func forwardSubPath(h http.Header, path string) {
	if path != "" {
		h.Set("X-Forwarded-Prefix", path)
	}
}

func isHubToken(authorization string) bool {
	words := strings.Fields(authorization)
	return len(words) > 1 && strings.EqualFold(words[0], "Bearer") &&
		(strings.HasPrefix(words[1], "hf_") || strings.HasPrefix(words[1], "sph_"))
}

func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// request returns the visitor's request for the runner to rebuild. ASGI headers are bytes and JSON is text, so each
// byte is encoded as one code point.
func (h *Handler) request(c call) queue.Request {
	r := c.Request()
	pairs := [][2]string{{"host", pytext.Latin1(r.Host)}}
	headers := outbound(r.Header.Clone(), r, c.manifest.Mount)
	for _, name := range sortedNames(headers) {
		for _, value := range headers[name] {
			pairs = append(pairs, [2]string{pytext.Latin1(strings.ToLower(name)), pytext.Latin1(value)})
		}
	}
	return queue.Request{Headers: pairs, Path: r.URL.Path, Query: r.URL.RawQuery, Scheme: web.Scheme(r), Client: clientIP(r)}
}

func sortedNames(h http.Header) []string {
	names := make([]string, 0, len(h))
	for name := range h {
		if name != "Connection" && name != "Upgrade" { // hop-by-hop
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// passKey is the context key of a passed-through request's destination.
type passKey struct{}

type destination struct {
	server Dialer
	key    string
	token  string
	mount  string
	call   queue.EventID // set if the Space is to admit the call
	// content is set if the response holds bytes of a user or of the app. files lists the safe media types; nil if the
	// Space has not reported them.
	content bool
	files   *queue.Files
	gradio4 bool

	document   bool                 // an HTML document may be opened with an insertion
	insert     string               // appended to an HTML document; may be empty
	finished   *atomic.Bool         // may be nil; set once the Space's response has been read to its end
	onResponse func(*http.Response) // may be nil; runs on status 200, before the visitor receives the response
}

func newProxy(h *Handler) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			d := p.In.Context().Value(passKey{}).(destination)
			p.SetURL(spaceURL("", ""))
			p.Out.URL.RawQuery = p.In.URL.RawQuery // ReverseProxy has removed query parts that Go cannot parse
			p.Out.Host = p.In.Host                 // Gradio builds its URLs from it
			d.stamp(outbound(p.Out.Header, p.In, d.mount))
			p.Out.Header.Del("Expect") // net/http sends the visitor "100 Continue" when the body is read; one from the Space would end echo's response
			if d.insert != "" {
				p.Out.Header.Set("Accept-Encoding", "identity")
				p.Out.Header.Del("If-None-Match") // of a document that was opened without the insertion
				p.Out.Header.Del("If-Modified-Since")
			}
		},
		Transport:     &h.upstream,
		FlushInterval: -1, // the visitor receives streamed data at once
		ModifyResponse: func(response *http.Response) error {
			d := response.Request.Context().Value(passKey{}).(destination)
			web.StripSetCookies(response.Header)
			if location := response.Header.Get("Location"); location != "" {
				response.Header.Set("Location", web.AddSubPath(response.Request, location))
			}
			if strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
				web.KeepFlowing(response.Header)
			}
			if d.onResponse != nil && response.StatusCode == http.StatusOK {
				d.onResponse(response)
			}
			if d.document {
				h.vary(response.StatusCode, response.Header)
			}
			if d.insert != "" && takesInsertion(response.StatusCode, response.Header) {
				appendTo(response, d.insert)
			}
			if d.finished != nil && response.StatusCode != http.StatusSwitchingProtocols {
				response.Body = &watchedBody{response.Body, d.finished}
			}
			if d.content {
				protectPassed(response, d.files)
			}
			if r := response.Request; web.ReceivedHost(r) != r.Host && !mayRead(r, r.Header.Get("Origin")) { // Gradio knows the public address only
				response.Header.Del("Access-Control-Allow-Origin")
			}
			if d.gradio4 && response.Header.Get("Access-Control-Allow-Origin") == "null" && isLocal(hostName(response.Request.Host)) {
				response.Header.Del("Access-Control-Allow-Origin") // CVE-2024-47165: a sandboxed frame of any site is "null"
			}
			return nil
		},
		ErrorLog: zap.NewStdLog(h.config.Logger),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var large *http.MaxBytesError
			var full shelf.RoomError
			switch {
			case errors.As(err, &full):
				w.Header().Set(echo.HeaderContentType, echo.MIMETextPlainCharsetUTF8)
				w.WriteHeader(http.StatusInsufficientStorage)
				_, _ = io.WriteString(w, full.Error()) // fails if the visitor has left
			case errors.As(err, &large):
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			case errors.Is(context.Cause(r.Context()), errCredentialEnded):
				w.Header().Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write(pytext.JSON(detail{CredentialEnded})) // fails if the visitor has left, too
			case r.Context().Err() != nil: // the visitor left
			default:
				h.config.Logger.Info("pass-through failed", zap.String("space", h.config.Space), zap.Error(err))
				h.downPage(w, r)
			}
		},
	}
}

func (d destination) stamp(h http.Header) {
	stampKey(h, d.key)
	h.Set(headerToken, d.token)
	if d.call != "" {
		h.Set(headerCall, string(d.call))
	}
}

// pass forwards the request to the Space's own server as a direct call, whose token is valid until the request ends.
func (h *Handler) pass(c call) error {
	return h.passAsDirectCall(c, func(d *destination, _ queue.EventID) { d.document, d.insert = true, h.insertion(c.Request()) })
}

// passAdmitted forwards a call that the Space is to admit.
func (h *Handler) passAdmitted(c call) error {
	return h.passAsDirectCall(c, func(d *destination, id queue.EventID) {
		d.call, d.onResponse = id, h.awaitEvent
		h.authoriseAdmitted(c.Request(), id)
	})
}

// passContent forwards a request whose response must not act as a page of the Space.
func (h *Handler) passContent(c call) error {
	return h.passAsDirectCall(c, func(d *destination, _ queue.EventID) { d.content, d.files = true, c.manifest.Files })
}

// passAsDirectCall keeps a direct call open for the duration of the request. set completes the destination. If the
// client disconnects, the GPU leases of the request end: a route of the app itself learns of it late or never (an
// http.disconnect reaches spaces/zero/middleware.py only if the route receives).
func (h *Handler) passAsDirectCall(c call, set func(*destination, queue.EventID)) error {
	id, end := h.config.Queue.Direct(c.payer, isAwaited(c.Request()))
	var finished atomic.Bool
	defer func() {
		end()
		if !finished.Load() {
			h.config.Queue.Disconnected(id)
		}
	}()
	d := destination{finished: &finished, token: h.config.SignToken(queue.Event{ID: id, Payer: c.payer}), mount: c.manifest.Mount}
	set(&d, id)
	return h.forward(c, d)
}

// isAwaited reports whether a drain of the Space waits for a request. A request that only reads may be a stream without end.
func isAwaited(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions
}

// watchedBody sets ended once a body has been read to its end. Without it, the client or the Space has left before, or the
// connection was a WebSocket, which has no other end.
type watchedBody struct {
	io.ReadCloser
	ended *atomic.Bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}

// forward adds the Space's address to d and proxies the request.
func (h *Handler) forward(c call, d destination) error {
	var ok bool
	d.gradio4 = strings.HasPrefix(c.manifest.Gradio, "4.")
	if d.server, d.key, ok = h.awaitUpstream(c.Request().Context()); !ok {
		return h.down(c)
	}
	// Otherwise net/http closes the visitor's body at the first byte of the response. The transport may still look for the body's
	// end then, and would close the connection to the Space in the middle of the response (golang/go#40747).
	_ = http.NewResponseController(c.Response()).EnableFullDuplex() // HTTP/2 always is
	// Otherwise net/http guesses a type that the Space has not named, if the body's first bytes arrive before the head is sent.
	c.Response().Header()[echo.HeaderContentType] = nil
	ctx, cancel := context.WithCancelCause(context.WithValue(c.Request().Context(), passKey{}, d))
	defer cancel(nil)
	defer h.grant(c.Request(), func() { cancel(errCredentialEnded) })()
	r := c.Request().WithContext(ctx)
	closeAfterUnread(c.Response(), r)
	h.proxy.ServeHTTP(c.Response(), r)
	return nil
}

// upstreamWait is the time that a request waits for a Space that is restarting.
const upstreamWait = 10 * time.Second

// pausedStage is the Hub's name of the stage of a Space that operators have paused.
const pausedStage = "PAUSED"

func (h *Handler) awaitUpstream(ctx context.Context) (server Dialer, key string, ok bool) {
	if server, key, ok = h.config.Upstream.Upstream(); ok {
		return server, key, true
	}
	if _, started := h.config.Queue.Manifest(); !started {
		return nil, "", false // the first start may take minutes: the response names the stage, and the page reloads
	}
	if stage, _ := h.config.Upstream.Stage(); stage == pausedStage {
		return nil, "", false // until an operator resumes it
	}
	deadline := time.NewTimer(upstreamWait)
	defer deadline.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if server, key, ok = h.config.Upstream.Upstream(); ok {
				return server, key, true
			}
		case <-deadline.C:
			return nil, "", false
		case <-ctx.Done():
			return nil, "", false
		}
	}
}

// admitWait is the maximum lead of the Space's response to an admitted call over the runner's report of the Event.
const admitWait = time.Second

// awaitEvent delays the response to a call that the Space has admitted until the Queue knows its Session.
func (h *Handler) awaitEvent(response *http.Response) {
	d := response.Request.Context().Value(passKey{}).(destination)
	ctx, cancel := context.WithTimeout(response.Request.Context(), admitWait)
	defer cancel()
	h.config.Queue.Admitted(ctx, d.call)
}

// fetch sends a GET for path to the Space's own server for a visitor, with the query of the visitor's request. The
// caller closes the body and cancels ctx. The direct call ends with ctx.
func (h *Handler) fetch(ctx context.Context, c call, path string) (*http.Response, error) {
	server, key, ok := h.config.Upstream.Upstream()
	if !ok {
		return nil, errors.New("the Space is down")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, spaceURL(path, c.Request().URL.RawQuery).String(), nil)
	if err != nil {
		return nil, err
	}
	id, end := h.config.Queue.Direct(c.payer, isAwaited(c.Request()))
	context.AfterFunc(ctx, end)
	r.Host, r.Header = c.Request().Host, outbound(c.Request().Header.Clone(), c.Request(), c.manifest.Mount)
	for _, name := range []string{"Connection", "Upgrade", "Accept-Encoding", "Content-Length", "Content-Type"} {
		r.Header.Del(name)
	}
	destination{key: key, token: h.config.SignToken(queue.Event{ID: id, Payer: c.payer})}.stamp(r.Header)
	return h.upstream.to(server).RoundTrip(r)
}

func (h *Handler) down(c call) error {
	h.downPage(c.Response(), c.Request())
	return nil
}

// downPage reports that the Space cannot answer now: a page that reloads for a browser, JSON for a program.
func (h *Handler) downPage(w http.ResponseWriter, r *http.Request) {
	stage, reason := h.config.Upstream.Stage()
	if reason == "" {
		reason = "The Space is starting."
	}
	w.Header().Set("Retry-After", "2")
	w.Header().Set("Cache-Control", "no-store")
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write(pytext.JSON(detail{fmt.Sprintf("%s: %s", stage, reason)}))
		return
	}
	w.Header().Set(echo.HeaderContentType, echo.MIMETextHTMLCharsetUTF8)
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintf(w, downHTML, html.EscapeString(h.config.Space), html.EscapeString(h.config.Space), html.EscapeString(stage), html.EscapeString(reason))
}

const downHTML = `<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>%s</title>
<body style="font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1rem">
<h1 style="font-size:1.3rem">%s</h1><p><strong>%s</strong></p><p>%s</p><p>This page reloads every two seconds.</p>
`
