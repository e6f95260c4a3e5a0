package gradioapi_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"

	"spacehost/gradioapi"
	"spacehost/queue"
)

// TestLoop: a request that a host has sent is refused, so the relay of a Space cannot send the host's requests around in
// circles. All requests of the host to a Space are marked.
func TestLoop(t *testing.T) {
	h := newHost(t, with(func(m *queue.Manifest) {
		m.Frontend = &queue.Frontend{Pages: map[string]bool{"/config": true}}
	}))
	for _, path := range []string{"/", "/config", api + "/run/quick", joinPath} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if got := h.do(method, path, `{"data":[]}`, "X-Spacehost-Hop: 1"); got.status != http.StatusLoopDetected {
				t.Errorf("%s %s: got %d %s, want 508", method, path, got.status, got.body)
			}
		}
	}
	h.expectNoRequests()
	h.get("/config") // the host's own request
	h.get("/other")
	h.post(api+"/run/quick", `{"data":["a"]}`)
	h.post(joinPath, `{"data":["a"],"fn_index":0,"session_hash":"s"}`)
	for _, pair := range h.started().Request.Headers {
		if pair[0] == "x-spacehost-hop" {
			t.Error("the runner would show the mark to the app")
		}
	}
	got := h.space.arrived()
	if len(got) != 3 {
		t.Errorf("%d requests arrived, want 3", len(got))
	}
	for _, arrived := range got {
		if marks := arrived.header.Values("X-Spacehost-Hop"); len(marks) != 1 {
			t.Errorf("%s: marks %q, want one", arrived.target, marks)
		}
	}
}

// remoteSpace is a Space whose server is reached by its dialer alone: its port is one of another network.
type remoteSpace struct{ *fakeSpace }

func (s remoteSpace) Upstream() (port int, key string, ok bool) {
	_, key, ok = s.fakeSpace.Upstream()
	return 7860, key, ok
}

func (s remoteSpace) Dial(ctx context.Context, port int) (net.Conn, error) {
	if port != 7860 {
		return nil, fmt.Errorf("port %d", port)
	}
	own, _, _ := s.fakeSpace.Upstream()
	return s.fakeSpace.Dial(ctx, own)
}

var _ gradioapi.Upstream = remoteSpace{}

// TestSpacesWithTheSamePort: each Space is reached by its own dialer, and kept connections are not shared.
func TestSpacesWithTheSamePort(t *testing.T) {
	var hosts [2]*host
	for i := range hosts {
		hosts[i] = newHost(t, func(s *setup) { s.config.Upstream = remoteSpace{s.config.Upstream.(*fakeSpace)} })
		hosts[i].space.route("/name", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "space ", i) })
	}
	for range 3 {
		for i, h := range hosts {
			if got := h.get("/name"); got.body != fmt.Sprint("space ", i) {
				t.Errorf("Space %d: got %d %s", i, got.status, got.body)
			}
		}
	}
}
