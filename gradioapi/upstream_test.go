package gradioapi_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
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

// pipedSpace is a Space whose server is reached through a pipe in memory, as through a link. count counts the connections.
type pipedSpace struct {
	*fakeSpace
	count *atomic.Int64
}

func (s pipedSpace) Upstream() (server gradioapi.Dialer, key string, ok bool) {
	_, key, ok = s.fakeSpace.Upstream()
	return s, key, ok
}

func (s pipedSpace) Dial(ctx context.Context) (net.Conn, error) {
	far, err := s.fakeSpace.Dial(ctx)
	if err != nil {
		return nil, err
	}
	s.count.Add(1)
	near, middle := net.Pipe()
	go func() { _, _ = io.Copy(middle, far); middle.Close() }()
	go func() { _, _ = io.Copy(far, middle); far.Close() }()
	return near, nil
}

var _ gradioapi.Upstream = pipedSpace{}

func piped(count *atomic.Int64) func(*setup) {
	return func(s *setup) { s.config.Upstream = pipedSpace{s.config.Upstream.(*fakeSpace), count} }
}

// TestSpacesKeepTheirConnections: each Space is reached by its own dialer. Requests that can be repeated use a kept connection,
// which no other Space gets.
func TestSpacesKeepTheirConnections(t *testing.T) {
	var hosts [2]*host
	var counts [2]atomic.Int64
	for i := range hosts {
		hosts[i] = newHost(t, piped(&counts[i]))
		hosts[i].space.route("/name", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "space ", i) })
	}
	for range 3 {
		for i, h := range hosts {
			if got := h.get("/name"); got.body != fmt.Sprint("space ", i) {
				t.Errorf("Space %d: got %d %s", i, got.status, got.body)
			}
		}
	}
	for i := range counts {
		if n := counts[i].Load(); n != 1 {
			t.Errorf("Space %d: %d connections, want one", i, n)
		}
	}
}

// TestRestartedSpaceGetsNewConnections: a kept connection ends at the server of the start before. No request of the next start,
// which carries its key, is sent there.
func TestRestartedSpaceGetsNewConnections(t *testing.T) {
	starts := &restarted{first: newFakeSpace(t), second: newFakeSpace(t)}
	h := newHost(t, func(s *setup) { s.config.Upstream = starts })
	h.get("/one")
	h.get("/two")
	starts.again.Store(true)
	h.get("/three")
	if first, second := starts.first.arrived(), starts.second.arrived(); len(first) != 2 || len(second) != 1 || second[0].target != "/three" {
		t.Errorf("arrived at the first start: %v, at the second: %v", first, second)
	}
}

// restarted is a Space whose second start has the server second.
type restarted struct {
	first, second *fakeSpace
	again         atomic.Bool
}

func (s *restarted) Upstream() (server gradioapi.Dialer, key string, ok bool) {
	if s.again.Load() {
		return s.second.Upstream()
	}
	return s.first.Upstream()
}

func (s *restarted) Stage() (stage, reason string) { return s.first.Stage() }
