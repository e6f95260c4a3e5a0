package gradioapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gradioapi"
	"spacehost/queue"
)

const heartbeatPath = api + "/heartbeat/my-session"

// beats reports the start and the end of heartbeats at the Space.
type beats struct {
	opened chan arrival
	closed chan struct{}
}

func (h *host) beats() beats {
	b := beats{make(chan arrival, 10), make(chan struct{}, 10)}
	h.space.route(heartbeatPath, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "data: ALIVE\n\n")
		_ = http.NewResponseController(w).Flush()
		b.opened <- arrival{r.Method, r.RequestURI, r.Host, "", r.Header.Clone()}
		<-r.Context().Done()
		b.closed <- struct{}{}
	})
	return b
}

func fast(s *setup) { s.config.Heartbeat = 20 * time.Millisecond }

func TestSpaceIsNotifiedOfUnload(t *testing.T) {
	h := newHost(t, fast)
	b := h.beats()
	s := h.open(heartbeatPath+"?__sign=x&odd;q", "Cookie: a=b", "Authorization: Bearer hf_secret", "Host: foo.example:99")
	if s.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("got headers %v", s.header)
	}
	for range 3 {
		s.expect("", "data: ALIVE\n\n")
	}
	h.expectNoRequests()
	s.close()
	up := receive(t, b.opened, "the Space's heartbeat")
	if up.target != heartbeatPath+"?__sign=x&odd;q" || up.host != "foo.example:99" || up.header.Get("Cookie") != "a=b" {
		t.Errorf("the Space got %+v", up)
	}
	if up.header.Get("X-Spacehost-Key") != spaceKey || up.header.Get("Authorization") != "" || up.header.Get("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("the Space got headers %v", up.header)
	}
	receive(t, b.closed, "its end")
	call := up.call()
	eventually(t, "the end of the direct call", func() bool { return !h.queue.Alive(call) })
	if n := len(h.space.arrived()); n != 1 {
		t.Errorf("the Space received %d requests, want 1", n)
	}
}

// TestUnloadNotificationsAreLimited: a thousand visitors may leave at once. The Space is notified of all of them, but
// of few at the same time.
func TestUnloadNotificationsAreLimited(t *testing.T) {
	h := newHost(t, fast)
	const visitors = 20
	var waiting, most, all atomic.Int32
	goOn := make(chan struct{})
	h.space.route(heartbeatPath, func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), waiting.Add(1)))
		<-goOn
		waiting.Add(-1)
		fmt.Fprint(w, "data: ALIVE\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		all.Add(1)
	})
	var streams []*stream
	for range visitors {
		s := h.open(heartbeatPath)
		s.expect("", "data: ALIVE\n\n")
		streams = append(streams, s)
	}
	for _, s := range streams {
		s.close()
	}
	eventually(t, "four notifications", func() bool { return waiting.Load() == 4 })
	close(goOn)
	eventually(t, "all notifications", func() bool { return all.Load() == visitors })
	if n := most.Load(); n > 4 {
		t.Errorf("%d concurrent notifications, want at most 4", n)
	}
}

func TestHeartbeatContinuesWhileTheSpaceIsDown(t *testing.T) {
	h := newHost(t, fast)
	b := h.beats()
	h.space.down.Store(true)
	s := h.open(heartbeatPath)
	for range 3 {
		s.expect("", "data: ALIVE\n\n")
	}
	h.space.down.Store(false)
	s.close()
	receive(t, b.closed, "the end of the Space's heartbeat")
}

func TestHeartbeatNeedsNoLogin(t *testing.T) {
	h := newHost(t, fast, with(func(m *queue.Manifest) { m.Native = false }))
	b := h.beats()
	s := h.open(heartbeatPath)
	s.expect("", "data: ALIVE\n\n")
	s.close()
	receive(t, b.opened, "the Space's heartbeat")
}

func TestOtherHeartbeatPathsArePassedThrough(t *testing.T) {
	h := newHost(t)
	for _, path := range []string{"/heartbeat", "/heartbeat/", "/heartbeat/a/b"} {
		if got := h.get(api + path); got.body != "the Space answers "+api+path {
			t.Errorf("%s: got %d %q", path, got.status, got.body)
		}
	}
}

// sink is a response whose connection is a pipe, as testing/synctest requires.
type sink struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (s sink) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return s.conn, bufio.NewReadWriter(bufio.NewReader(s.conn), bufio.NewWriter(s.conn)), nil
}

// downSpace has no server, so that the test needs no socket.
type downSpace struct{}

func (downSpace) Upstream() (gradioapi.Dialer, string, bool) { return nil, "", false }
func (downSpace) Stage() (stage, reason string)              { return "RUNTIME_ERROR", "" }

// TestHeartbeatKeepsItsSessionOpen: the Session stays open for the tokens that name it, until ten minutes after the
// heartbeat has ended.
func TestHeartbeatKeepsItsSessionOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner := newFakeRunner()
		q := queue.New(queue.Config{Runner: runner, Sign: sign})
		stop := runQueue(t, q)
		m := captured()
		q.Attach(m)
		e := echo.New()
		gradioapi.New(gradioapi.Config{Space: "demo", Queue: q, Upstream: downSpace{}, Identify: ada, SignToken: sign}).Register(e)
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
			t.Error("the Session is closed during its heartbeat")
		}
		page.Close()
		time.Sleep(10 * time.Minute)
		if q.IsOpen(event.Session.Digest()) {
			t.Error("the Session is open ten minutes after its heartbeat has ended")
		}
		stop()
	})
}
