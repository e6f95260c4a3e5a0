package gradioapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"spacehost/gradioapi"
	"spacehost/queue"
)

// fakeSpace is the Space's own server. It records requests. It answers by routes, or else with the path.
type fakeSpace struct {
	*httptest.Server
	down  atomic.Bool
	stage [2]string

	mu       sync.Mutex
	routes   map[string]http.HandlerFunc
	requests []arrival
}

// arrival is a request as the Space received it.
type arrival struct {
	method, target, host, body string
	header                     http.Header
}

func newFakeSpace(t *testing.T) *fakeSpace {
	s := &fakeSpace{routes: map[string]http.HandlerFunc{}, stage: [2]string{"RUNNING", ""}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

var _ gradioapi.Upstream = (*fakeSpace)(nil)

func (s *fakeSpace) Upstream() (server gradioapi.Dialer, key string, ok bool) {
	return s, spaceKey, !s.down.Load()
}

func (s *fakeSpace) Dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
}

func (s *fakeSpace) Stage() (stage, reason string) { return s.stage[0], s.stage[1] }

// route sets the handler of a path, or with "*" of all other paths. The handler reads the body itself.
func (s *fakeSpace) route(path string, answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes[path] = answer
}

func (s *fakeSpace) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	answer := s.routes[r.URL.Path]
	if answer == nil {
		answer = s.routes["*"]
	}
	s.mu.Unlock()
	if answer != nil {
		s.keep(r, "")
		answer(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	s.keep(r, string(body))
	fmt.Fprintf(w, "the Space answers %s", r.URL.Path)
}

func (s *fakeSpace) keep(r *http.Request, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, arrival{r.Method, r.RequestURI, r.Host, body, r.Header.Clone()})
}

func (s *fakeSpace) arrived() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival{}, s.requests...)
}

// onlyRequest returns the single request that arrived.
func (h *host) onlyRequest() arrival {
	h.Helper()
	got := h.space.arrived()
	if len(got) != 1 {
		h.Fatalf("%d requests arrived at the Space, want 1: %v", len(got), got)
	}
	return got[0]
}

func (h *host) expectNoRequests() {
	h.Helper()
	if got := h.space.arrived(); len(got) > 0 {
		h.Errorf("arrived at the Space: %v", got)
	}
}

// call returns the direct call that the request's token names.
func (a arrival) call() queue.EventID {
	return queue.EventID(strings.TrimPrefix(a.header.Get("X-Ip-Token"), "token-"))
}

// admitRoute plays a join route of the Space: its runner reports the Event, then the route responds.
func (h *host) admitRoute(session string, endpoint queue.Endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := queue.NewEventID()
		if err := h.report(r, id, session, endpoint); err != nil {
			h.Errorf("admit: %v", err)
		}
		fmt.Fprintf(w, `{"event_id":%q}`, id)
	}
}

// report does the work of the runner's "admitted" report. Without a session the Event is its own Session.
func (h *host) report(r *http.Request, id queue.EventID, session string, endpoint queue.Endpoint) error {
	call := queue.EventID(r.Header.Get("X-Spacehost-Call"))
	payer, ok := h.queue.Payer(call)
	if !ok {
		return errors.New("the direct call has no payer")
	}
	if session == "" {
		session = string(id)
	}
	defer h.queue.Joined(call)
	return h.queue.Join(&queue.Event{ID: id, Session: queue.SessionHash(session), Endpoint: endpoint, Payer: payer, Admitted: true, Release: h.queue.Adopt(call, id)})
}
