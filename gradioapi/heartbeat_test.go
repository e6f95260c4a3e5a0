package gradioapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gradioapi"
	"spacehost/queue"
)

const heartbeatPath = api + "/heartbeat/my-session"

// beats makes the Space's heartbeat one that the test watches and ends.
type beats struct {
	opened chan arrival
	closed chan struct{}
	end    chan struct{}
}

func (h *host) beats() beats {
	b := beats{make(chan arrival, 10), make(chan struct{}, 10), make(chan struct{})}
	h.space.route(heartbeatPath, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "data: ALIVE\n\n")
		_ = http.NewResponseController(w).Flush()
		b.opened <- arrival{r.Method, r.RequestURI, r.Host, "", r.Header.Clone()}
		select {
		case <-r.Context().Done():
			b.closed <- struct{}{}
		case <-b.end:
		}
	})
	return b
}

func fast(s *setup) { s.config.Heartbeat = 20 * time.Millisecond }

func TestHeartbeatKeepsOneUpstream(t *testing.T) {
	h := newHost(t, fast)
	b := h.beats()
	s := h.open(heartbeatPath+"?__sign=x&odd;q", "Cookie: a=b", "Authorization: Bearer hf_secret", "Host: foo.example:99")
	if s.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("got headers %v", s.header)
	}
	up := receive(t, b.opened, "the upstream heartbeat")
	if up.target != heartbeatPath+"?__sign=x&odd;q" || up.host != "foo.example:99" || up.header.Get("Cookie") != "a=b" {
		t.Errorf("the Space got %+v", up)
	}
	if up.header.Get("X-Spacehost-Key") != spaceKey || up.header.Get("Authorization") != "" || up.header.Get("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("the Space got headers %v", up.header)
	}
	for range 3 {
		s.expect("", "data: ALIVE\n\n")
	}
	if n := len(h.space.arrived()); n != 1 {
		t.Errorf("%d upstream heartbeats, want 1", n)
	}
	s.close()
	receive(t, b.closed, "the end of the upstream heartbeat")
}

// The call that pays for an upstream heartbeat ends with it; else each restart of the Space would leave one.
func TestHeartbeatOpensAgainAfterItsUpstreamBroke(t *testing.T) {
	h := newHost(t, fast)
	b := h.beats()
	s := h.open(heartbeatPath)
	first := receive(t, b.opened, "the first upstream heartbeat").call()
	if !h.queue.Alive(first) {
		t.Error("the call of the first is not alive")
	}
	b.end <- struct{}{}
	second := receive(t, b.opened, "the second upstream heartbeat").call()
	if h.queue.Alive(first) || !h.queue.Alive(second) {
		t.Errorf("alive: first %v, second %v", h.queue.Alive(first), h.queue.Alive(second))
	}
	s.expect("", "data: ALIVE\n\n")
	s.close()
	receive(t, b.closed, "the end of the second")
	eventually(t, "the end of its call", func() bool { return !h.queue.Alive(second) })
}

func TestHeartbeatLivesWhileTheSpaceIsDown(t *testing.T) {
	h := newHost(t, fast)
	b := h.beats()
	h.space.down.Store(true)
	s := h.open(heartbeatPath)
	for range 3 {
		s.expect("", "data: ALIVE\n\n")
	}
	h.nothingArrived()
	h.space.down.Store(false)
	receive(t, b.opened, "the upstream heartbeat")
}

func TestHeartbeatNeedsNoLogin(t *testing.T) {
	h := newHost(t, fast, with(func(m *queue.Manifest) { m.Native = false }))
	b := h.beats()
	s := h.open(heartbeatPath)
	s.expect("", "data: ALIVE\n\n")
	receive(t, b.opened, "the upstream heartbeat")
}

func TestWhatIsNoHeartbeatIsTheSpaces(t *testing.T) {
	h := newHost(t)
	for _, path := range []string{"/heartbeat", "/heartbeat/", "/heartbeat/a/b"} {
		if got := h.get(api + path); got.body != "the Space answers "+api+path {
			t.Errorf("%s: got %d %q", path, got.status, got.body)
		}
	}
}

// sink is an answer whose connection is a pipe, so that a bubble of testing/synctest can hold it.
type sink struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (s sink) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return s.conn, bufio.NewReadWriter(bufio.NewReader(s.conn), bufio.NewWriter(s.conn)), nil
}

// downSpace has no server, so that a test needs no socket.
type downSpace struct{}

func (downSpace) Upstream() (int, string, bool) { return 0, "", false }
func (downSpace) Stage() (stage, reason string) { return "RUNTIME_ERROR", "" }

// TestAHeartbeatKeepsItsSessionOpen for the tokens that name it, and its end closes it.
func TestAHeartbeatKeepsItsSessionOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner := newScript()
		q := queue.New(queue.Config{Runner: runner, Sign: sign})
		stop := runQueue(t, q)
		m := captured()
		q.Attach(m)
		e := echo.New()
		gradioapi.New(gradioapi.Config{Space: "demo", Queue: q, Upstream: downSpace{}, Identify: ada, Sign: sign}).Register(e)
		page, conn := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, page) }() // until the page is closed
		e.ServeHTTP(sink{httptest.NewRecorder(), conn}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, heartbeatPath, nil))
		event := queue.Event{ID: queue.NewEventID(), Session: "my-session", Endpoint: m.Endpoints[quick]}
		if err := q.Join(&event); err != nil {
			t.Fatal(err)
		}
		q.Done(event.ID, "", nil)
		time.Sleep(time.Hour)
		if !q.IsOpen(event.Session.Digest()) {
			t.Error("closed, while its heartbeat is open")
		}
		page.Close()
		time.Sleep(10 * time.Minute)
		if q.IsOpen(event.Session.Digest()) {
			t.Error("open ten minutes after its heartbeat has ended")
		}
		stop()
	})
}
