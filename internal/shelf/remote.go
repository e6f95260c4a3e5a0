package shelf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"
)

// RemoteConfig holds the collaborators of a Remote.
type RemoteConfig struct {
	Space string
	// Dial connects to the machine of the files, where Serve answers on the connection. A Remote keeps some connections open.
	Dial func(ctx context.Context) (net.Conn, error)
	// ReserveUpload and IsPresent are as in Config. They are called on this machine. What the Shelf reserves on its own machine comes
	// in addition.
	ReserveUpload func(size int64) (Room, error)
	IsPresent     func(digest string) bool
	WriteTimeout  time.Duration // as in Config
	Logger        *zap.Logger   // may be nil
}

// Remote has the files of one Space on another machine. It has the methods of a Shelf, which may be called from any goroutine. Methods
// with a context wait for that machine. A Space that moves to another machine gets another Remote.
type Remote struct {
	config    RemoteConfig
	transport *http.Transport
	encodings encodings
	uses      uses
}

// NewRemote returns a Remote, which connects with its first request. The caller closes it.
func NewRemote(config RemoteConfig) *Remote {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.IsPresent == nil {
		config.IsPresent = func(string) bool { return true }
	}
	if config.WriteTimeout == 0 {
		config.WriteTimeout = 10 * time.Second
	}
	r := &Remote{config: config, transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return config.Dial(ctx) },
		DisableCompression:  true,
		MaxIdleConnsPerHost: 2, // each counts against the limit of a node's link
		IdleConnTimeout:     30 * time.Second,
		ReadBufferSize:      64 << 10,
	}}
	r.uses.init()
	return r
}

// Close ends what runs in the background and closes the connections that no request uses. It may be called twice.
func (r *Remote) Close() {
	r.uses.close()
	r.transport.CloseIdleConnections()
}

// unreachable is the answer to a visitor while the machine of the files does not answer.
const unreachable = "The machine of this Space cannot be reached now. Try again later."

// ServeHTTP answers a request that With has returned. It panics for any other.
func (r *Remote) ServeHTTP(w http.ResponseWriter, visit *http.Request) {
	known, ok := visit.Context().Value(callKey{}).(Call)
	if !ok {
		panic("shelf: a request without a Call; use With")
	}
	c := call{known, w, visit}
	var err error
	switch {
	case c.Frontend == nil && visit.URL.Path == "/upload":
		err = roomKeeper{r.config.Space, r.config.ReserveUpload, r.config.Logger}.with(c, r.upload)
	case !c.mayAnswer():
		c.pass(nil)
	default:
		err = r.visit(c)
	}
	if err == nil {
		return
	}
	if visit.Context().Err() == nil {
		r.config.Logger.Warn("request failed", zap.String("space", r.config.Space), zap.String("path", visit.URL.Path), zap.Error(err))
	}
	c.allowOrigin()
	w.Header().Set("Retry-After", "2")
	c.refuseDetail(http.StatusServiceUnavailable, unreachable)
}

// visit answers a request that is no upload. Its error comes before the first byte of a response.
func (r *Remote) visit(c call) error {
	answer, err := r.ask(c.r.Context(), c, opVisit)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch result := answer.Header.Get(headerResult); result {
	case resultPass:
		c.pass(nil)
		return nil
	case resultAnswer:
	default:
		return resultOf(answer)
	}
	c.copyHeader(answer.Header, answer.Header.Get(headerAllowOrigin) != "")
	c.w.WriteHeader(answer.StatusCode)
	if c.r.URL.Path == "/upload_progress" && c.Frontend == nil {
		copyStream(c, answer.Body, r.config.WriteTimeout)
		return nil
	}
	copyFile(c, answer.Body)
	return nil
}

// hopHeaders are those of the connection between front and node.
var hopHeaders = []string{"Date", "Connection", headerResult, headerAllowOrigin}

// copyHeader adds the headers of the Shelf's answer. Those of CORS come first, as on the own machine.
func (c call) copyHeader(from http.Header, allowed bool) {
	if allowed {
		c.allowOrigin()
	}
	to := c.w.Header()
	for name, values := range from {
		switch {
		case slices.Contains(hopHeaders, name):
		case name == "Vary":
			to[name] = append(to[name], values...)
		default:
			to[name] = values
		}
	}
}

// copyFile copies the body of a file. It breaks the response off if the body does.
func copyFile(c call, from io.Reader) {
	chunk := newChunk()
	defer chunks.Put(chunk)
	for {
		n, err := from.Read(chunk[:])
		if n > 0 {
			if _, err := c.w.Write(chunk[:n]); err != nil {
				return // the visitor has left
			}
		}
		switch {
		case err == io.EOF:
			return
		case err != nil:
			panic(http.ErrAbortHandler)
		}
	}
}

// copyStream copies a stream of messages. It breaks the response off if the client has left, or does not read.
func copyStream(c call, from io.Reader, timeout time.Duration) {
	control := http.NewResponseController(c.w)
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }() // of the next response on the connection
	var chunk [4 << 10]byte
	for {
		_ = control.SetWriteDeadline(time.Now().Add(timeout)) // not every response has deadlines
		if control.Flush() != nil {
			panic(http.ErrAbortHandler)
		}
		n, err := from.Read(chunk[:])
		_ = control.SetWriteDeadline(time.Now().Add(timeout))
		if _, failed := c.w.Write(chunk[:n]); failed != nil || err != nil && err != io.EOF {
			panic(http.ErrAbortHandler)
		}
		if err == io.EOF {
			return
		}
	}
}

// ask sends a visitor's request, without its body. The manifest is sent before if it is not known there. The caller closes the
// answer's body.
func (r *Remote) ask(ctx context.Context, c call, op string) (*http.Response, error) {
	m, err := r.encodings.of(c.Files, c.Frontend)
	if err != nil {
		return nil, err
	}
	return r.withManifest(ctx, m, func(digest string) (*http.Response, error) {
		method := http.MethodGet
		if c.r.Method == http.MethodHead {
			method = http.MethodHead // no body comes
		}
		q, err := r.request(ctx, method, op, c.encode(r.config.Space, digest), nil)
		if err != nil {
			return nil, err
		}
		maps.Copy(q.Header, needed(c.r.Header))
		if op == opUpload {
			q.Header.Set("Connection", "Upgrade")
			q.Header.Set("Upgrade", wireUpgrade)
		}
		return r.transport.RoundTrip(q)
	})
}

// withManifest sends a request that needs a manifest, and the manifest where it is not known. m may be nil.
func (r *Remote) withManifest(ctx context.Context, m *encoded, send func(digest string) (*http.Response, error)) (*http.Response, error) {
	digest := ""
	if m != nil {
		digest = m.digest
	}
	for range 3 { // others may replace it meanwhile
		answer, err := send(digest)
		if err != nil {
			return nil, fmt.Errorf("ask the machine of the Space: %w", err)
		}
		if answer.Header.Get(headerResult) != resultManifest || m == nil {
			return answer, nil
		}
		answer.Body.Close()
		if err := r.call(ctx, opManifest, nil, m.text, nil); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("ask the machine of the Space: it does not keep the manifest")
}

// request returns a request of an operation. body may be nil.
func (r *Remote) request(ctx context.Context, method, op string, v url.Values, body io.Reader) (*http.Request, error) {
	q, err := http.NewRequestWithContext(ctx, method, "http://node"+wirePrefix+op+"?"+v.Encode(), body)
	if err != nil {
		return nil, fmt.Errorf("ask the machine of the Space: %w", err)
	}
	q.Header["Idempotency-Key"] = nil // lets the transport repeat a request on a connection that has just ended
	q.Header.Set("User-Agent", "")
	return q, nil
}

// resultOf returns the error that an answer reports.
func resultOf(answer *http.Response) error {
	if result := answer.Header.Get(headerResult); result != resultError {
		return fmt.Errorf("ask the machine of the Space: got status %s and result %q", answer.Status, result)
	}
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10)) // what has come
	return fmt.Errorf("the machine of the Space: %s", text)
}
