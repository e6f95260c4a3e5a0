package deviceapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/lease"
)

func TestWaitIsOneChunkPerEvent(t *testing.T) {
	h := listening(t)
	token := h.grant()
	w := h.wait()
	for header, want := range map[string]string{
		"Transfer-Encoding": "chunked", headerQueuingReason: "node", headerApproveResult: "approved", headerAuthenticated: "pro", "Content-Encoding": "",
	} {
		if got := w.header.Get(header); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	for range 3 {
		w.want(ping)
	}
	h.post("/release", "allowToken", token)
	event := w.afterPings()
	data, ok := strings.CutPrefix(event, "event: succeeded\ndata: ")
	data, ends := strings.CutSuffix(data, "\n\n")
	if !ok || !ends || !grantedAnswer.MatchString(data) {
		t.Errorf("got %q, want the grant", event)
	}
	w.want("")
}

func TestQueueTimeoutFails(t *testing.T) {
	h := listening(t, func(c *lease.Config) { c.QueueTimeout = 150 * time.Millisecond })
	h.grant()
	w := h.wait()
	w.want(ping)
	if got := w.afterPings(); got != "event: failed\n\n" {
		t.Errorf("got %q, want failed", got)
	}
	w.want("")
	until(t, "it has timed out", func() bool { return h.last().State == lease.TimedOut })
	if l := h.last(); l.ChargedSeconds != 0 {
		t.Errorf("got %+v, want it free of charge", l)
	}
}

// TestMaintenanceIsNoAdvertisement: while every GPU is drained by command, the client ends its message with "Retry later"
// (X-Authenticated: pro) instead of "Subscribe to Pro", and the host is told about the end of the wait.
func TestMaintenanceIsNoAdvertisement(t *testing.T) {
	h := listening(t, func(c *lease.Config) { c.QueueTimeout = 150 * time.Millisecond })
	timedOut := make(chan lease.Request, 1)
	h.host.timedOut = func(r lease.Request) { timedOut <- r }
	if err := h.broker.Drain(t.Context(), h.broker.Slots()[0].Device, lease.Drain{Reason: "new fan"}); err != nil {
		t.Fatal(err)
	}
	w := h.wait()
	if got := w.header.Get("X-Authenticated"); got != "pro" {
		t.Errorf("X-Authenticated is %q, want pro", got)
	}
	if got := w.afterPings(); got != "event: failed\n\n" {
		t.Errorf("got %q, want failed", got)
	}
	if r := <-timedOut; r.Space != "demo" {
		t.Errorf("the host was told of %+v", r)
	}
}

func TestStoppedSpaceFailsItsWaits(t *testing.T) {
	h := listening(t)
	h.grant()
	w := h.wait()
	h.broker.Gone("run-1")
	if got := w.afterPings(); got != "event: failed\n\n" {
		t.Errorf("got %q, want failed", got)
	}
	w.want("")
}

// TestDisconnectedVisitorCausesAPing: the client checks for its visitor at pings only, so one is sent at once.
func TestDisconnectedVisitorCausesAPing(t *testing.T) {
	h := newHarness(t)
	h.api.times = timings{soon: shortTimings.soon, ping: time.Hour, hangUp: time.Hour}
	h.listen()
	h.grant()
	w := h.wait()
	w.want(ping)
	h.broker.Left("event-ben")
	w.want(ping)
	until(t, "the lease has stopped waiting", func() bool { return h.last().Reason == "visitor left" })
}

// TestPingsEndIfTheClientStays: a client that keeps its connection gets several pings, until a timeout.
func TestPingsEndIfTheClientStays(t *testing.T) {
	h := newHarness(t)
	h.api.times = timings{soon: shortTimings.soon, ping: 20 * time.Millisecond, hangUp: 100 * time.Millisecond}
	h.listen()
	h.grant()
	w := h.wait()
	h.broker.Cancelled("event-ben")
	until(t, "the lease has stopped waiting", func() bool { return h.broker.Waiting() == 0 })
	w.want(ping)
	w.want(ping)
	if got := w.afterPings(); got != "" {
		t.Errorf("got %q, want the end", got)
	}
}

func TestDisconnectWithdrawsTheLease(t *testing.T) {
	for name, times := range map[string]timings{
		"before the stream": {soon: time.Hour, ping: time.Hour, settle: time.Minute},
		"between two pings": {soon: time.Millisecond, ping: time.Hour, settle: time.Minute},
		"during the pings":  {soon: time.Millisecond, ping: time.Millisecond, settle: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.api.times = times
			h.listen()
			token := h.grant()
			h.disconnectOnceWaiting()
			until(t, "the lease is withdrawn", func() bool { return h.last().Reason == "connection lost" })
			h.post("/release", "allowToken", token)
			h.grant() // the Slot is free
		})
	}
}

// disconnectOnceWaiting is a client that closes its connection while it waits.
func (h *harness) disconnectOnceWaiting() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	query := values("token", h.token("ben", "pro", "event-ben"))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.server.URL+h.path+"/schedule?"+query.Encode(), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if response, err := http.DefaultClient.Do(request); err == nil {
			<-ctx.Done()
			response.Body.Close()
		}
	}()
	until(h.t, "the lease waits", func() bool { return h.broker.Waiting() == 1 })
	cancel()
	<-done
}

// TestRetryAfterDisconnectInheritsTheSize: the client retries once, without gpuSize (spaces/zero/client.py).
func TestRetryAfterDisconnectInheritsTheSize(t *testing.T) {
	h := listening(t)
	h.grant()
	h.wait("gpuSize", "xlarge", "taskId", "7").conn.Close()
	until(t, "the lease is withdrawn", func() bool { return h.last().Reason == "connection lost" })
	h.wait("taskId", "7")
	if open := h.broker.List(); len(open) != 2 || open[1].Size != "xlarge" {
		t.Errorf("got %+v, want the second one xlarge", open)
	}
}

// recorder records writes and flushes with their time. Tests with synctest use it, because they cannot use sockets.
type recorder struct {
	start  time.Time
	header http.Header
	events []string
	parts  int    // Writes since the last Flush
	torn   string // the event whose flush fails
}

func newRecorder() *recorder { return &recorder{start: time.Now(), header: http.Header{}} }

func (p *recorder) Header() http.Header { return p.header }
func (p *recorder) WriteHeader(int)     {}
func (p *recorder) Write(b []byte) (int, error) {
	p.events = append(p.events, fmt.Sprintf("%v %s", time.Since(p.start), strings.TrimSpace(string(b))))
	p.parts++
	return len(b), nil
}

// FlushError is where a net/http server detects a broken connection: small writes go to a buffer.
func (p *recorder) FlushError() error {
	if p.parts != 1 {
		p.events = append(p.events, fmt.Sprintf("flush of %d writes", p.parts))
	}
	p.parts = 0
	if p.torn != "" && strings.Contains(p.events[len(p.events)-1], p.torn) {
		return net.ErrClosed
	}
	return nil
}

// serve makes a call without a socket.
func (h *harness) serve(to http.ResponseWriter, call string, pairs ...string) {
	h.t.Helper()
	request := httptest.NewRequestWithContext(h.t.Context(), http.MethodPost, h.path+call+"?"+values(pairs...).Encode(), nil)
	h.echo.ServeHTTP(to, request)
}

// TestDefaultTimings: the first ping after `soon`, then one every 2 s, and after a minute the timeout.
func TestDefaultTimings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		first := httptest.NewRecorder()
		h.serve(first, "/schedule", "durationSeconds", "200")
		h.processes.Start("demo", 100)
		h.serve(httptest.NewRecorder(), "/allow", "pid", "100", "allowToken", h.allowToken(first))
		p := newRecorder()
		h.serve(p, "/schedule", "token", h.token("ben", "pro", "event-ben"))
		var want []string
		for at := defaultTimings.soon; at < time.Minute; at += 2 * time.Second {
			want = append(want, at.String()+" event: ping")
		}
		want = append(want, "1m0s event: failed")
		if got, want := strings.Join(p.events, "\n"), strings.Join(want, "\n"); got != want || defaultTimings.soon > time.Second {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestUndeliveredEvent: a connection may break before the server notices it.
func TestUndeliveredEvent(t *testing.T) {
	for torn, state := range map[string]lease.State{"event: ping": lease.Withdrawn, "event: succeeded": lease.Unclaimed} {
		t.Run(torn, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				first := httptest.NewRecorder()
				h.serve(first, "/schedule")
				time.AfterFunc(5*time.Second, func() {
					h.serve(httptest.NewRecorder(), "/release", "allowToken", h.allowToken(first))
				})
				p := newRecorder()
				p.torn = torn
				h.serve(p, "/schedule", "token", h.token("ben", "pro", "event-ben"))
				if !strings.Contains(p.events[len(p.events)-1], torn) {
					t.Errorf("got %q, want nothing after the lost event", p.events)
				}
				synctest.Wait()
				if l := h.last(); l.State != state || l.Reason != "connection lost" {
					t.Errorf("got %+v, want it %s", l, state)
				}
				time.Sleep(10 * time.Second) // until a pending release has run
			})
		})
	}
}

func (h *harness) allowToken(r *httptest.ResponseRecorder) string {
	h.t.Helper()
	_, rest, ok := strings.Cut(r.Body.String(), `"allowToken":"`)
	if !ok {
		h.t.Fatalf("got %d %s, want a grant", r.Code, r.Body)
	}
	return rest[:32]
}

// TestSlotBeingClearedNeedsNoStream: with a stream the visitor would see "Waiting for a GPU" without need.
func TestSlotBeingClearedNeedsNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		first := httptest.NewRecorder()
		h.serve(first, "/schedule")
		time.AfterFunc(defaultTimings.soon-time.Millisecond, func() {
			h.serve(httptest.NewRecorder(), "/release", "allowToken", h.allowToken(first))
		})
		second := httptest.NewRecorder()
		h.serve(second, "/schedule", "token", h.token("ben", "pro", "event-ben"))
		if !grantedAnswer.MatchString(second.Body.String()) {
			t.Errorf("got %s, want a plain grant", second.Body)
		}
	})
}

// TestClosedDatabase: a release is never answered 5xx, because the client then raises and a finished result is lost. It is answered
// before the client's timeout. Calls that need the database are refused.
func TestClosedDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		first := httptest.NewRecorder()
		h.serve(first, "/schedule")
		token := h.allowToken(first)
		h.processes.Start("demo", 100)
		if err := h.db.Close(); err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			call  string
			pairs []string
			want  int
		}{
			{"/allow", []string{"allowToken", token, "pid", "100"}, http.StatusServiceUnavailable},
			{"/release", []string{"allowToken", token}, http.StatusOK},
			{"/release", []string{"allowToken", token}, http.StatusNotFound},
			{"/schedule", nil, http.StatusServiceUnavailable},
			{"/startup-report", nil, http.StatusOK},
		} {
			start, r := time.Now(), httptest.NewRecorder()
			h.serve(r, row.call, row.pairs...)
			if took := time.Since(start); r.Code != row.want || took > 10*time.Second {
				t.Errorf("%s: got %d after %v, want %d within 10 s", row.call, r.Code, took, row.want)
			}
		}
	})
}

// TestForecastsWhileWaiting: none at the first ping, then one per change, at most every five seconds.
func TestForecastsWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *lease.Config) { c.Priorities = []int{0, 1, 2} })
		start := time.Now()
		var sent []string
		h.host.waits = func(r lease.Request, f lease.Forecast) {
			if r.Event == "event-ben" {
				sent = append(sent, fmt.Sprintf("%v number %d at %v, %s", time.Since(start), f.Rank+1, f.Start.Sub(start), f.Reason))
			}
		}
		first := httptest.NewRecorder()
		h.serve(first, "/schedule", "durationSeconds", "20")
		h.processes.Start("demo", 100)
		h.serve(httptest.NewRecorder(), "/allow", "pid", "100", "allowToken", h.allowToken(first))
		var waits sync.WaitGroup
		waits.Go(func() { h.serve(newRecorder(), "/schedule", "token", h.token("ben", "free", "event-ben")) })
		time.Sleep(10 * time.Second)
		waits.Go(func() {
			h.serve(newRecorder(), "/schedule", "durationSeconds", "10", "token", h.token("cem", "pro", "event-cem"))
		})
		time.Sleep(2 * time.Second)
		h.broker.Left("event-cem")
		time.Sleep(7 * time.Second)
		h.broker.Left("event-ben")
		waits.Wait()
		want := "2.4s number 1 at 20s, node\n10.4s number 2 at 30s, node\n16.4s number 1 at 20s, node"
		if got := strings.Join(sent, "\n"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestRequestWithoutTokenGoesLast: the Space's own account pays for it, and every visitor goes first.
func TestRequestWithoutTokenGoesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *lease.Config) { c.Priorities = []int{0, 1, 2} })
		h.serve(httptest.NewRecorder(), "/schedule")
		var waits sync.WaitGroup
		waits.Go(func() { h.serve(newRecorder(), "/schedule") })
		time.Sleep(5 * time.Second)
		waits.Go(func() { h.serve(newRecorder(), "/schedule", "token", h.token("ben", "free", "event-ben")) })
		synctest.Wait()
		var order []string
		for _, l := range h.broker.List() { // oldest first
			if l.Forecast != nil {
				order = append(order, fmt.Sprintf("%s %d", l.Identity, l.Rank))
			}
		}
		if got := strings.Join(order, ", "); got != "space:demo 1, user:ben 0" {
			t.Errorf("waiting in the order %s", got)
		}
		waits.Wait() // the first grant expires unclaimed, then the waits time out
	})
}

// TestConcurrencyIsTheReason: a Space at its limit waits even if a Slot is free.
func TestConcurrencyIsTheReason(t *testing.T) {
	h := newHarness(t, func(c *lease.Config) { c.PerSpace = func(string) int { return 1 } })
	h.api.times = shortTimings
	h.listen()
	h.grant()
	if got := h.wait().header.Get(headerQueuingReason); got != "concurrency" {
		t.Errorf("%s: got %q, want concurrency", headerQueuingReason, got)
	}
}

func TestForecastDebounce(t *testing.T) {
	at := func(s int) *time.Time { when := time.Unix(int64(s), 0); return &when }
	first := lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(60)}
	for name, row := range map[string]struct {
		now  lease.Forecast
		want bool
	}{
		"the same":                {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(60)}, false},
		"a start a bit sooner":    {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(56)}, false},
		"a start much sooner":     {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(55)}, true},
		"a start much later":      {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(65)}, true},
		"no start":                {lease.Forecast{Rank: 3, Reason: lease.Node}, true},
		"another rank":            {lease.Forecast{Rank: 2, Reason: lease.Node, Start: at(60)}, true},
		"another reason":          {lease.Forecast{Rank: 3, Reason: lease.Concurrency, Limit: lease.OfSpace, Start: at(60)}, true},
		"only the timeout":        {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(60), GivesUp: *at(90)}, false},
		"all fields, but at once": {lease.Forecast{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := forecastDebounce{every: 5 * time.Second}
			if !n.isDue(first, *at(0)) {
				t.Fatal("the first forecast is not due")
			}
			later := 5
			if strings.HasSuffix(name, "at once") {
				later = 4
			}
			if got := n.isDue(row.now, *at(later)); got != row.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
