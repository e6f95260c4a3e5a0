package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"

	"spacehost/internal/identity"
)

// fakeRunner is a Runner and a Payments that records its calls. jobs receives the started Jobs.
type fakeRunner struct {
	mu   sync.Mutex
	log  []string
	jobs chan Job
}

func newFakeRunner() *fakeRunner { return &fakeRunner{jobs: make(chan Job, 10_000)} }

func (r *fakeRunner) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *fakeRunner) calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

func (r *fakeRunner) Start(job Job)                  { r.jobs <- job }
func (r *fakeRunner) Cancel(app int, event EventID)  { r.note("cancel %d %s", app, event) }
func (r *fakeRunner) Gone(app int, events []EventID) { r.note("gone %d %v", app, events) }
func (r *fakeRunner) Left(event EventID)             { r.note("left %s", event) }
func (r *fakeRunner) Cancelled(event EventID)        { r.note("cancelled %s", event) }
func (r *fakeRunner) Closing(event EventID)          { r.note("closing %s", event) }
func sign(event Event) string {
	return "token of " + string(event.ID) + " for " + event.Payer.Key()
}

var _ Runner = (*fakeRunner)(nil)
var _ Payments = (*fakeRunner)(nil)

// withQueue runs test in a synctest bubble with a running Queue, which ends with the test.
func withQueue(t *testing.T, test func(t *testing.T, q *Queue, r *fakeRunner)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newFakeRunner()
		q := New(Config{Runner: r, Payments: r, Sign: sign})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- q.Run(ctx) }()
		test(t, q, r)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func mustJoin(t *testing.T, q *Queue, name string, fn int) {
	t.Helper()
	e := eventNamed(name, fn)
	e.Payer = identity.Identity{Kind: identity.User, Name: "ada"}
	if err := q.Join(e); err != nil {
		t.Fatalf("join %s: %v", name, err)
	}
}

var oneAtATime = app(Endpoint{ID: 1, Group: "g", Limit: 1})

func TestJoinBeforeTheFirstAttach(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, _ *fakeRunner) {
		if err := q.Join(eventNamed("a", 1)); !errors.Is(err, ErrNoRunner) {
			t.Errorf("got %v, want ErrNoRunner", err)
		}
		if m, ok := q.Manifest(); ok {
			t.Errorf("got manifest %+v", m)
		}
		if q.Refuses(identity.Identity{}, "", "") != nil || q.Size() != 0 || q.Session("a") != nil || q.SessionOf("a") != nil {
			t.Error("the queue returns data of a Space that has not started")
		}
	})
}

func TestEventFromJoinToClose(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, r *fakeRunner) {
		q.Attach(oneAtATime)
		mustJoin(t, q, "s/a", 1)
		job := <-r.jobs
		if token := job.Events[0].Token; token != "token of a for user:ada" {
			t.Errorf("the Event starts with token %q", token)
		}
		q.Message("a", Message{Kind: Log, Event: "a", Text: "from Gradio"})
		q.Warn("a", "ZeroGPU", "time is over")
		q.Message("a", completed("a"))
		q.Done("a", "", seconds(2))
		s := q.Session("s")
		if m, err := next(t, s); err != nil || m.Kind != Estimation || m.Size != 1 {
			t.Errorf("got %+v (%v), want the estimate", m, err)
		}
		expectNext(t, s, Log, "a", nil)
		if m, _ := next(t, s); m.Title != "ZeroGPU" || m.Text != "time is over" || m.Event != "a" {
			t.Errorf("got the warning %+v", m)
		}
		expectNext(t, s, Completed, "a", nil)
		expectNext(t, s, CloseStream, "", io.EOF)
	})
}

func TestAliveWhileItRuns(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, _ *fakeRunner) {
		q.Attach(oneAtATime)
		mustJoin(t, q, "a", 1)
		mustJoin(t, q, "b", 1)
		alive := func(want bool, events ...EventID) {
			t.Helper()
			for _, e := range events {
				if q.Alive(e) != want {
					t.Errorf("Alive(%s): got %v", e, !want)
				}
			}
		}
		alive(true, "a")
		alive(false, "b", "nosuch")
		q.Message("a", completed("a"))
		alive(false, "a")
		q.Done("a", "", nil)
		alive(true, "b")
		q.Leave(q.Session("b"))
		alive(true, "b") // it continues without a visitor
		q.Done("b", "", nil)
		alive(false, "a", "b")
	})
}

func TestDirectCallPaysUntilItEnds(t *testing.T) {
	q := New(Config{}) // needs no Run
	ada := identity.Identity{Kind: identity.User, Name: "ada"}
	event, end := q.Direct(ada, false)
	other, endOther := q.Direct(identity.Identity{Kind: identity.Local}, false)
	defer endOther()
	if payer, ok := q.Payer(event); !ok || payer != ada || !q.Alive(event) {
		t.Errorf("Payer of a call under way: got %v, %v", payer, ok)
	}
	if len(event) != 32 || event == other {
		t.Errorf("ids are %q and %q", event, other)
	}
	end()
	end() // may be called twice
	if payer, ok := q.Payer(event); ok || payer != (identity.Identity{}) {
		t.Errorf("Payer of an ended call: got %v", payer)
	}
	if _, ok := q.Payer(other); !ok {
		t.Error("the other call has ended too")
	}
}

func TestDisconnectedEndsTheLeasesOfADirectCall(t *testing.T) {
	r := &fakeRunner{}
	q := New(Config{Payments: r}) // needs no Run
	event, end := q.Direct(identity.Identity{Kind: identity.Local}, false)
	end()
	if _, alive := q.Payer(event); alive || len(r.log) != 0 {
		t.Errorf("after the end of the request: alive %v, %v", alive, r.log)
	}
	q.Disconnected(event)
	if !slices.Equal(r.log, []string{fmt.Sprintf("cancelled %s", event)}) {
		t.Errorf("after a disconnect: %v", r.log)
	}
	New(Config{}).Disconnected(event) // without leases
}

func TestAdmittedWaitsForTheRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{})
		event, end := q.Direct(identity.Identity{Kind: identity.Local}, false)
		defer end()
		var admitted bool
		go func() {
			q.Admitted(t.Context(), event)
			admitted = true
		}()
		synctest.Wait()
		if admitted {
			t.Error("Admitted returned before Payer was called")
		}
		q.Payer(event)
		synctest.Wait()
		if admitted {
			t.Error("Admitted returned before the Event has joined")
		}
		q.Joined(event)
		q.Joined(event)
		q.Joined("nosuch")
		synctest.Wait()
		if !admitted {
			t.Error("Admitted still waits after the Event has joined")
		}
		q.Admitted(t.Context(), event)
		q.Admitted(t.Context(), "nosuch") // returns, or the bubble is deadlocked
	})
}

func TestAdmittedEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{})
		event, end := q.Direct(identity.Identity{Kind: identity.Local}, false)
		defer end()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		q.Admitted(ctx, event)
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %s, want 1s", took)
		}
	})
}

func TestCancelAndLeaveReachRunnerAndPayments(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, r *fakeRunner) {
		m := app(Endpoint{ID: 1, Group: "g", Limit: 3})
		m.App = 4
		q.Attach(m)
		mustJoin(t, q, "s/a", 1)
		mustJoin(t, q, "s/b", 1)
		mustJoin(t, q, "s/c", 1)
		q.Cancel("s", "b")
		q.Leave(q.Session("s"))
		q.Size() // returns after the scheduler has handled the earlier inputs
		want := []string{"cancel 4 b", "cancelled b", "gone 4 [a b c]", "left a", "left b", "left c"}
		if got := r.calls(); !slices.Equal(got, want) {
			t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
	})
}

func TestPeriodicUpdates(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, _ *fakeRunner) {
		m := app(Endpoint{ID: 1, Group: "g", Limit: 1})
		m.LiveUpdates, m.UpdateEvery = false, time.Second
		q.Attach(m)
		mustJoin(t, q, "a", 1)
		mustJoin(t, q, "b", 1)
		s := q.Session("b")
		drain(s)
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if got := drain(s); len(got) != 2 {
			t.Errorf("got %q after 2.5 s, want two estimates", got)
		}
	})
}

func TestIdleSessionsAreRemoved(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, _ *fakeRunner) {
		q.Attach(app(Endpoint{ID: 1, Group: "g", Limit: 0}))
		for _, name := range []string{"delivered", "watched", "running", "unread"} {
			mustJoin(t, q, name, 1)
		}
		defer q.Session("watched").Open()()
		for _, event := range []EventID{"delivered", "watched", "unread"} {
			q.Message(event, completed(event))
			q.Done(event, "", nil)
		}
		drain(q.Session("delivered"))
		drain(q.Session("watched"))
		for _, step := range []struct {
			wait time.Duration
			left string
		}{{59 * time.Second, "delivered watched running unread"}, {12 * time.Second, "watched running unread"}, {13 * time.Minute, "watched running unread"}, {2 * time.Minute, "watched running"}} {
			time.Sleep(step.wait)
			synctest.Wait()
			if got := known(q, "delivered", "watched", "running", "unread"); got != step.left {
				t.Errorf("after another %s: got %q, want %q", step.wait, got, step.left)
			}
		}
	})
}

func known(q *Queue, hashes ...SessionHash) string {
	var found []string
	for _, hash := range hashes {
		if q.Session(hash) != nil {
			found = append(found, string(hash))
		}
	}
	return strings.Join(found, " ")
}

func TestLostAndAttached(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, r *fakeRunner) {
		q.Attach(oneAtATime)
		mustJoin(t, q, "a", 1)
		mustJoin(t, q, "b", 1)
		<-r.jobs
		q.Lost("killed")
		if q.Alive("a") || q.Size() != 1 || len(r.jobs) != 0 {
			t.Errorf("after the loss: a alive %v, %d wait, %d started", q.Alive("a"), q.Size(), len(r.jobs))
		}
		q.Attach(oneAtATime)
		if job := <-r.jobs; job.Events[0].ID != "b" {
			t.Errorf("got %v started, want b", idsOf(job))
		}
	})
}

func TestFullErrorHasGradiosText(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, _ *fakeRunner) {
		m := app(Endpoint{ID: 1, Group: "g", Limit: 1})
		m.MaxSize = new(int)
		*m.MaxSize = 2
		q.Attach(m)
		for _, name := range []string{"runs", "waits", "waits too"} {
			if err := q.Refuses(identity.Identity{}, "", ""); err != nil {
				t.Errorf("before %s: %v", name, err)
			}
			mustJoin(t, q, name, 1)
		}
		if err := q.Refuses(identity.Identity{}, "", ""); err == nil || err.Error() != "Queue is full. Max size is 2 and size is 2." {
			t.Errorf("got %v", err)
		}
	})
}

func TestRunReturnsTheCause(t *testing.T) {
	why := errors.New("the host ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := New(Config{}).Run(ctx); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
}

// A method that hangs is reported by synctest as a deadlock.
func TestMethodsAfterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{Runner: newFakeRunner(), Sign: sign})
		ctx, cancel := context.WithCancel(t.Context())
		go q.Run(ctx)
		q.Attach(oneAtATime)
		mustJoin(t, q, "s/a", 1)
		mustJoin(t, q, "late/b", 1)
		reader := q.Session("s")
		drain(reader)
		cancel()
		synctest.Wait()
		if _, ok := q.ManifestAt("/"); !ok {
			t.Error("the app is unknown after the stop")
		}
		late := q.SessionOf("b")
		if late == nil || late != q.Session("late") {
			t.Fatal("the Session of an Event is unknown after the stop")
		}
		if got := drain(late); !slices.Contains(got, "b failed: Space stopped: "+hostStopped) || got[len(got)-1] != "close_stream" {
			t.Errorf("a stream that was opened after the stop received %q", got)
		}
		if got := drain(late); !slices.Equal(got, []string{io.ErrUnexpectedEOF.Error()}) {
			t.Errorf("a second stream received %q", got)
		}
		if got := drain(reader); !slices.Equal(got, []string{"a failed: Space stopped: " + hostStopped, "close_stream"}) {
			t.Errorf("an open stream received %q", got)
		}
		q.Leave(reader)
		wantNoData(t, q)
	})
}

func wantNoData(t *testing.T, q *Queue) {
	t.Helper()
	q.Attach(oneAtATime)
	q.Lost("gone")
	q.Cancel("s", "a")
	q.Message("a", completed("a"))
	q.Warn("a", "", "")
	q.Done("a", "", nil)
	if err := q.Join(eventNamed("b", 1)); !errors.Is(err, ErrNoRunner) {
		t.Errorf("Join: got %v", err)
	}
	if _, ok := q.Manifest(); ok || q.Alive("a") || q.Size() != 0 || q.Refuses(identity.Identity{}, "", "") != nil || q.Session("none") != nil || q.SessionOf("none") != nil {
		t.Error("the queue still returns data")
	}
}

// Many concurrent visitors for the race detector: each joins, half of them cancel or leave, and all reach their end.
func TestManyVisitors(t *testing.T) {
	r := newFakeRunner()
	q := New(Config{Runner: r, Sign: sign})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var host sync.WaitGroup
	host.Go(func() { _ = q.Run(ctx) })
	q.Attach(app(Endpoint{ID: 1, Group: "g", Limit: 4}, Endpoint{ID: 2, Group: "h", Limit: 2, Batch: 3}))
	host.Go(func() { r.answer(ctx, q) })
	var visitors sync.WaitGroup
	for n := range 200 {
		visitors.Go(func() { runVisitor(t, ctx, q, n) })
	}
	visitors.Wait()
	if n := q.Size(); n != 0 {
		t.Errorf("%d events are still waiting, want 0", n)
	}
	cancel()
	host.Wait()
}

func (r *fakeRunner) answer(ctx context.Context, q *Queue) {
	for {
		select {
		case job := <-r.jobs:
			for _, e := range job.Events {
				q.Message(e.ID, completed(e.ID))
				q.Done(e.ID, "", seconds(.1))
			}
		case <-ctx.Done():
			return
		}
	}
}

func runVisitor(t *testing.T, ctx context.Context, q *Queue, n int) {
	name := fmt.Sprint("v", n)
	if err := q.Join(eventNamed(name, 1+n%2)); err != nil {
		t.Errorf("join %s: %v", name, err)
		return
	}
	s := q.Session(SessionHash(name))
	switch n % 4 {
	case 1:
		q.Cancel(s.Hash, EventID(name))
	case 2:
		q.Leave(s)
	}
	for {
		m, err := s.Next(ctx, nil)
		if errors.Is(err, io.EOF) || n%4 == 2 && errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		if err != nil {
			t.Errorf("%s after %s: %v", name, m.Kind, err)
			return
		}
	}
}

func TestEventLogsPayerAndEndpointOnly(t *testing.T) {
	e := Event{ID: "a", Session: "s", Endpoint: Endpoint{APIName: "predict"}, Payer: identity.Identity{Kind: identity.Local}, Body: []byte("secret"), Token: "secret"}
	to := zapcore.NewMapObjectEncoder()
	if err := e.MarshalLogObject(to); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(to.Fields); got != "map[endpoint:predict id:a identity:local session:s]" {
		t.Errorf("got %s", got)
	}
}
