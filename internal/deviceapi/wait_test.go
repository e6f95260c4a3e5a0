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
	event := w.past()
	data, ok := strings.CutPrefix(event, "event: succeeded\ndata: ")
	data, ends := strings.CutSuffix(data, "\n\n")
	if !ok || !ends || !grantedAnswer.MatchString(data) {
		t.Errorf("got %q, want the grant", event)
	}
	w.want("")
}

func TestQueueTimeoutIsTold(t *testing.T) {
	h := listening(t, func(c *lease.Config) { c.QueueTimeout = 150 * time.Millisecond })
	h.grant()
	w := h.wait()
	w.want(ping)
	if got := w.past(); got != "event: failed\n\n" {
		t.Errorf("got %q, want failed", got)
	}
	w.want("")
	until(t, "it has timed out", func() bool { return h.last().State == lease.TimedOut })
	if l := h.last(); l.ChargedSeconds != 0 {
		t.Errorf("got %+v, want it free of charge", l)
	}
}

func TestSpaceThatDiesIsTold(t *testing.T) {
	h := listening(t)
	h.grant()
	w := h.wait()
	h.broker.Gone("run-1")
	if got := w.past(); got != "event: failed\n\n" {
		t.Errorf("got %q, want failed", got)
	}
	w.want("")
}

// TestVisitorWhoLeftIsToldByAPingAtOnce: only at a ping does the client look, so there is one out of turn.
func TestVisitorWhoLeftIsToldByAPingAtOnce(t *testing.T) {
	h := newHouse(t)
	h.api.times = times{soon: shortTimes.soon, ping: time.Hour, hangUp: time.Hour}
	h.listen()
	h.grant()
	w := h.wait()
	w.want(ping)
	h.broker.Left("event-ben")
	w.want(ping)
	until(t, "the wait is given up", func() bool { return h.last().Reason == "visitor left" })
}

// TestSendOffEnds: a client that does not hang up is not waited for, nor pinged once only.
func TestSendOffEnds(t *testing.T) {
	h := newHouse(t)
	h.api.times = times{soon: shortTimes.soon, ping: 20 * time.Millisecond, hangUp: 100 * time.Millisecond}
	h.listen()
	h.grant()
	w := h.wait()
	h.broker.Cancelled("event-ben")
	until(t, "the wait is given up", func() bool { return h.broker.Waiting() == 0 })
	w.want(ping)
	w.want(ping)
	if got := w.past(); got != "" {
		t.Errorf("got %q, want the end", got)
	}
}

func TestHangUpWithdrawsTheLease(t *testing.T) {
	for name, times := range map[string]times{
		"before the stream": {soon: time.Hour, ping: time.Hour, settle: time.Minute},
		"between two pings": {soon: time.Millisecond, ping: time.Hour, settle: time.Minute},
		"while pings come":  {soon: time.Millisecond, ping: time.Millisecond, settle: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.api.times = times
			h.listen()
			token := h.grant()
			h.hangUpOnceWaiting()
			until(t, "the lease is withdrawn", func() bool { return h.last().Reason == "connection lost" })
			h.post("/release", "allowToken", token)
			h.grant() // nobody else has the Slot
		})
	}
}

// hangUpOnceWaiting is a client that goes without a word.
func (h *house) hangUpOnceWaiting() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	query := values("token", h.token("ben", "pro", "event-ben"))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.server.URL+h.path+"/schedule?"+query.Encode(), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if response, err := http.DefaultClient.Do(request); err == nil {
			<-ctx.Done()
			response.Body.Close()
		}
	}()
	until(h.t, "the lease waits", func() bool { return h.broker.Waiting() == 1 })
	cancel()
	<-asked
}

// TestRetryAfterHangUpInheritsTheSize: the client asks once more, without gpuSize (spaces/zero/client.py).
func TestRetryAfterHangUpInheritsTheSize(t *testing.T) {
	h := listening(t)
	h.grant()
	h.wait("gpuSize", "xlarge", "taskId", "7").conn.Close()
	until(t, "the lease is withdrawn", func() bool { return h.last().Reason == "connection lost" })
	h.wait("taskId", "7")
	if open := h.broker.List(); len(open) != 2 || open[1].Size != "xlarge" {
		t.Errorf("got %+v, want the second one xlarge", open)
	}
}

// tape is an answer whose writes and flushes are written down with their time: for tests in a bubble, where
// no socket may be.
type tape struct {
	start  time.Time
	header http.Header
	events []string
	parts  int    // Writes since the last Flush
	torn   string // the event that does not go out
}

func newTape() *tape { return &tape{start: time.Now(), header: http.Header{}} }

func (p *tape) Header() http.Header { return p.header }
func (p *tape) WriteHeader(int)     {}
func (p *tape) Write(b []byte) (int, error) {
	p.events = append(p.events, fmt.Sprintf("%v %s", time.Since(p.start), strings.TrimSpace(string(b))))
	p.parts++
	return len(b), nil
}

// FlushError is where a net/http server first meets a dead connection: small writes go to a buffer.
func (p *tape) FlushError() error {
	if p.parts != 1 {
		p.events = append(p.events, fmt.Sprintf("flush of %d writes", p.parts))
	}
	p.parts = 0
	if p.torn != "" && strings.Contains(p.events[len(p.events)-1], p.torn) {
		return net.ErrClosed
	}
	return nil
}

// ask is a call without a socket.
func (h *house) ask(to http.ResponseWriter, call string, pairs ...string) {
	h.t.Helper()
	request := httptest.NewRequestWithContext(h.t.Context(), http.MethodPost, h.path+call+"?"+values(pairs...).Encode(), nil)
	h.echo.ServeHTTP(to, request)
}

// TestUsualTimes: first after what is soon, then every 2 s, and after a minute it is over.
func TestUsualTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		first := httptest.NewRecorder()
		h.ask(first, "/schedule", "durationSeconds", "200")
		h.processes.Start("demo", 100)
		h.ask(httptest.NewRecorder(), "/allow", "pid", "100", "allowToken", h.allowToken(first))
		p := newTape()
		h.ask(p, "/schedule", "token", h.token("ben", "pro", "event-ben"))
		var want []string
		for at := usualTimes.soon; at < time.Minute; at += 2 * time.Second {
			want = append(want, at.String()+" event: ping")
		}
		want = append(want, "1m0s event: failed")
		if got, want := strings.Join(p.events, "\n"), strings.Join(want, "\n"); got != want || usualTimes.soon > time.Second {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestEventThatDoesNotGoOut: the connection may have broken without the server having seen its end.
func TestEventThatDoesNotGoOut(t *testing.T) {
	for torn, state := range map[string]lease.State{"event: ping": lease.Withdrawn, "event: succeeded": lease.Unclaimed} {
		t.Run(torn, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				first := httptest.NewRecorder()
				h.ask(first, "/schedule")
				time.AfterFunc(5*time.Second, func() {
					h.ask(httptest.NewRecorder(), "/release", "allowToken", h.allowToken(first))
				})
				p := newTape()
				p.torn = torn
				h.ask(p, "/schedule", "token", h.token("ben", "pro", "event-ben"))
				if !strings.Contains(p.events[len(p.events)-1], torn) {
					t.Errorf("got %q, want nothing after what was lost", p.events)
				}
				synctest.Wait()
				if l := h.last(); l.State != state || l.Reason != "connection lost" {
					t.Errorf("got %+v, want it %s", l, state)
				}
				time.Sleep(10 * time.Second) // lets the release be, where it is still to come
			})
		})
	}
}

func (h *house) allowToken(r *httptest.ResponseRecorder) string {
	h.t.Helper()
	_, rest, ok := strings.Cut(r.Body.String(), `"allowToken":"`)
	if !ok {
		h.t.Fatalf("got %d %s, want a grant", r.Code, r.Body)
	}
	return rest[:32]
}

// TestSlotThatIsBeingClearedMakesNoStream: the visitor would read "Waiting for a GPU" for nothing.
func TestSlotThatIsBeingClearedMakesNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		first := httptest.NewRecorder()
		h.ask(first, "/schedule")
		time.AfterFunc(usualTimes.soon-time.Millisecond, func() {
			h.ask(httptest.NewRecorder(), "/release", "allowToken", h.allowToken(first))
		})
		second := httptest.NewRecorder()
		h.ask(second, "/schedule", "token", h.token("ben", "pro", "event-ben"))
		if !grantedAnswer.MatchString(second.Body.String()) {
			t.Errorf("got %s, want a plain grant", second.Body)
		}
	})
}

// TestClosedDatabase: a release is never answered 5xx, since the client then raises and a finished result is
// lost; nor later than the client waits. What cannot be promised without a database, is not.
func TestClosedDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		first := httptest.NewRecorder()
		h.ask(first, "/schedule")
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
			h.ask(r, row.call, row.pairs...)
			if took := time.Since(start); r.Code != row.want || took > 10*time.Second {
				t.Errorf("%s: got %d after %v, want %d within 10 s", row.call, r.Code, took, row.want)
			}
		}
	})
}

// TestWhoWaitsIsTold: not at the first ping, then on changes, and every five seconds at most.
func TestWhoWaitsIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *lease.Config) { c.Priorities = []int{0, 1, 2} })
		start := time.Now()
		var told []string
		h.api.config.Waits = func(r lease.Request, f lease.Forecast) {
			if r.Event == "event-ben" {
				told = append(told, fmt.Sprintf("%v number %d at %v, %s", time.Since(start), f.Rank+1, f.Start.Sub(start), f.Reason))
			}
		}
		first := httptest.NewRecorder()
		h.ask(first, "/schedule", "durationSeconds", "20")
		h.processes.Start("demo", 100)
		h.ask(httptest.NewRecorder(), "/allow", "pid", "100", "allowToken", h.allowToken(first))
		var waits sync.WaitGroup
		waits.Go(func() { h.ask(newTape(), "/schedule", "token", h.token("ben", "free", "event-ben")) })
		time.Sleep(10 * time.Second)
		waits.Go(func() {
			h.ask(newTape(), "/schedule", "durationSeconds", "10", "token", h.token("cem", "pro", "event-cem"))
		})
		time.Sleep(2 * time.Second)
		h.broker.Left("event-cem")
		time.Sleep(7 * time.Second)
		h.broker.Left("event-ben")
		waits.Wait()
		want := "2.4s number 1 at 20s, node\n10.4s number 2 at 30s, node\n16.4s number 1 at 20s, node"
		if got := strings.Join(told, "\n"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestWorkOnNobodysBehalfGoesLast: it pays by the Space's own account, and comes before no visitor.
func TestWorkOnNobodysBehalfGoesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *lease.Config) { c.Priorities = []int{0, 1, 2} })
		h.ask(httptest.NewRecorder(), "/schedule")
		var waits sync.WaitGroup
		waits.Go(func() { h.ask(newTape(), "/schedule") })
		time.Sleep(5 * time.Second)
		waits.Go(func() { h.ask(newTape(), "/schedule", "token", h.token("ben", "free", "event-ben")) })
		synctest.Wait()
		var order []string
		for _, l := range h.broker.List() { // oldest first
			if l.Forecast != nil {
				order = append(order, fmt.Sprintf("%s %d", l.Identity, l.Rank))
			}
		}
		if got := strings.Join(order, ", "); got != "space:demo 1, user:ben 0" {
			t.Errorf("they wait as %s", got)
		}
		waits.Wait() // unclaimed, then in vain
	})
}

// TestConcurrencyIsTheReason: a Slot may be free, and the Space has its own already.
func TestConcurrencyIsTheReason(t *testing.T) {
	h := newHouse(t, func(c *lease.Config) { c.PerSpace = func(string) int { return 1 } })
	h.api.times = shortTimes
	h.listen()
	h.grant()
	if got := h.wait().header.Get(headerQueuingReason); got != "concurrency" {
		t.Errorf("%s: got %q, want concurrency", headerQueuingReason, got)
	}
}

func TestNews(t *testing.T) {
	at := func(s int) *time.Time { when := time.Unix(int64(s), 0); return &when }
	first := lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(60)}
	for name, row := range map[string]struct {
		now  lease.Forecast
		want bool
	}{
		"the same":               {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(60)}, false},
		"a start a bit sooner":   {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(56)}, false},
		"a start much sooner":    {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(55)}, true},
		"a start much later":     {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(65)}, true},
		"no start":               {lease.Forecast{Rank: 3, Reason: lease.Node}, true},
		"another rank":           {lease.Forecast{Rank: 2, Reason: lease.Node, Start: at(60)}, true},
		"another reason":         {lease.Forecast{Rank: 3, Reason: lease.Concurrency, Limit: lease.OfSpace, Start: at(60)}, true},
		"giving up is no news":   {lease.Forecast{Rank: 3, Reason: lease.Node, Start: at(60), GivesUp: *at(90)}, false},
		"all of it, but at once": {lease.Forecast{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := news{every: 5 * time.Second}
			if !n.isNews(first, *at(0)) {
				t.Fatal("what was never told is no news")
			}
			later := 5
			if strings.HasSuffix(name, "at once") {
				later = 4
			}
			if got := n.isNews(row.now, *at(later)); got != row.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
