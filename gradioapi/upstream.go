package gradioapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// upstreamTransport sends requests to one Space's own server, without proxy and without compression of its own. Each
// Handler has one: two Spaces may use the same port, in networks of their own.
//
// It reuses connections only for requests that can be repeated. uvicorn closes the connection after each exception of the
// Space; on a reused connection that would fail the next visitor's call.
type upstreamTransport struct{ reusing, once *http.Transport }

func newUpstreamTransport(u Upstream) *upstreamTransport {
	dial := dialUpstream(u)
	return &upstreamTransport{
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
func (t *upstreamTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
		return t.reusing.RoundTrip(r)
	}
	return t.once.RoundTrip(r)
}

func (t *upstreamTransport) close() {
	t.reusing.CloseIdleConnections()
	t.once.CloseIdleConnections()
}

// listenWait is the time that a Space may be attached before its server listens. An app below a FastAPI app attaches
// while the server starts (gradio/routes.py, run_startup_events).
const listenWait = 2 * time.Second

// dialUpstream returns the DialContext of a transport. Only the port of the address is used.
func dialUpstream(u Upstream) func(ctx context.Context, _, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		_, text, _ := net.SplitHostPort(addr)
		port, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("port of %s: %w", addr, err)
		}
		deadline := time.NewTimer(listenWait)
		defer deadline.Stop()
		for {
			conn, err := u.Dial(ctx, port)
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
