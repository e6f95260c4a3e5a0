package gradioapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// upstreamTransport sends the requests of one Handler to its Space. Its connections are those of one server: with another
// Dialer, the kept connections of the one before are closed, as after a restart.
type upstreamTransport struct {
	mu      sync.Mutex
	current *serverTransport
}

// to returns the transport to a server.
func (t *upstreamTransport) to(server Dialer) *serverTransport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == nil || t.current.server != server {
		t.current.close()
		t.current = newServerTransport(server)
	}
	return t.current
}

// RoundTrip implements http.RoundTripper for requests that are passed through.
func (t *upstreamTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.to(r.Context().Value(passKey{}).(destination).server).RoundTrip(r)
}

// close closes the kept connections.
func (t *upstreamTransport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current.close()
}

// serverTransport sends requests to one server, without proxy and without compression of its own.
//
// It reuses connections only for requests that can be repeated. uvicorn closes the connection after each exception of the
// Space; on a reused connection that would fail the next visitor's call.
type serverTransport struct {
	server        Dialer
	reusing, once *http.Transport
}

func newServerTransport(server Dialer) *serverTransport {
	dial := dialServer(server)
	return &serverTransport{
		server: server,
		reusing: &http.Transport{
			DialContext:         dial,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     4 * time.Second, // uvicorn closes after 5 s: never reuse a connection that is about to close
			DisableCompression:  true,
		},
		once: &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
	}
}

// RoundTrip implements http.RoundTripper.
func (t *serverTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
		return t.reusing.RoundTrip(r)
	}
	return t.once.RoundTrip(r)
}

func (t *serverTransport) close() {
	if t != nil {
		t.reusing.CloseIdleConnections()
		t.once.CloseIdleConnections()
	}
}

// spaceURL returns the URL of a path of the Space's own server. The host in it is not dialed. The Space sees it only if the
// visitor's request names no host.
func spaceURL(path, query string) *url.URL {
	return &url.URL{Scheme: "http", Host: "127.0.0.1", Path: path, RawQuery: query}
}

// listenWait is the time that a Space may be attached before its server listens. An app below a FastAPI app attaches
// while the server starts (gradio/routes.py, run_startup_events).
const listenWait = 2 * time.Second

// dialServer returns the DialContext of a transport.
func dialServer(server Dialer) func(ctx context.Context, _, _ string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		deadline := time.NewTimer(listenWait)
		defer deadline.Stop()
		for {
			conn, err := server.Dial(ctx)
			if !errors.Is(err, syscall.ECONNREFUSED) {
				return conn, err
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-deadline.C:
				return nil, err
			case <-ctx.Done():
				return nil, err
			}
		}
	}
}
