package queue

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
)

func TestFirstComeFirstServed(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b", "c")
	b.asked("start [a]")
	b.finish("a")
	b.asked("ended a", "start [b]")
	b.finish("b")
	b.finish("c")
	b.asked("ended b", "start [c]", "ended c")
}

func TestAGroupHoldsUpNoOther(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}, Endpoint{ID: 2, Group: "h", Limit: 2}))
	b.joins(1, "a", "b")
	b.joins(2, "x", "y", "z")
	b.asked("start [a]", "start [x]", "start [y]")
	b.finish("y")
	b.asked("ended y", "start [z]")
}

func TestEndpointsOfAGroupShareItsLimit(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}, Endpoint{ID: 2, Group: "g", Limit: 2}))
	b.joins(1, "a")
	b.joins(2, "b", "c")
	b.asked("start [a]", "start [b]")
}

func TestAGroupWithoutLimitIsBoundByThreadsAlone(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g"}, Endpoint{ID: 2, Group: "h"})
	m.MaxThreads = 3
	b := newBench(t, m)
	b.joins(1, "a", "b")
	b.joins(2, "x", "y")
	b.asked("start [a]", "start [b]", "start [x]")
	b.joins(1, "c")
	b.finish("x")
	b.asked("ended x", "start [y]") // it joined before c
	b.finish("a")
	b.asked("ended a", "start [c]")
}

// A member with a lower limit lowers its group's when it is first called, and for good (gradio/queueing.py,
// create_event_queue_for_fn).
func TestALimitIsLoweredByTheFirstCallOfAMember(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g"}, Endpoint{ID: 2, Group: "g", Limit: 2}, Endpoint{ID: 3, Group: "g", Limit: 1}))
	b.joins(1, "a", "b", "c")
	b.asked("start [a]", "start [b]", "start [c]")
	b.joins(2, "d")
	b.finish("a")
	b.asked("ended a")
	b.joins(3, "e")
	b.finish("b")
	b.asked("ended b")
	b.finish("c")
	b.asked("ended c", "start [d]")
	b.joins(1, "f")
	b.finish("d")
	b.finish("e")
	b.asked("ended d", "start [e]", "ended e", "start [f]")
	b.joins(1, "g")
	b.asked()
}

func TestABatchTakesEventsOfOneEndpointUpToItsSize(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1, Batch: 3}, Endpoint{ID: 2, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.joins(2, "x")
	b.joins(1, "c", "d", "e")
	b.asked("start [a]")
	b.finish("a")
	b.asked("ended a", "start [b c d]")
	b.finish("b")
	b.finish("d")
	b.asked("ended b", "ended d") // the batch holds its unit until its last Event
	b.finish("c")
	b.asked("ended c", "start [x]")
	b.finish("x")
	b.asked("ended x", "start [e]")
}

func TestABatchTakesOneThread(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 2, Batch: 2}, Endpoint{ID: 2, Group: "h", Limit: 1})
	m.MaxThreads = 2
	b := newBench(t, m)
	b.onLost("restart, so that all of them wait")
	b.joins(1, "a", "b")
	b.joins(2, "x")
	b.onAttach(m)
	b.asked("start [a b]", "start [x]")
}

func TestMaxSizeCountsOnlyWaitingEvents(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1}, Endpoint{ID: 2, Group: "h", Limit: 1})
	m.MaxSize = new(int)
	*m.MaxSize = 1
	b := newBench(t, m)
	b.joins(1, "a", "b") // a runs, b waits
	for fn, name := range map[int]string{1: "c", 2: "d"} {
		var full *FullError
		if err := b.submit(name, fn); !errors.As(err, &full) || err.Error() != "Queue is full. Max size is 1 and size is 1." {
			t.Errorf("submit %s to a full queue: got %v", name, err)
		}
	}
	b.finish("a")
	b.joins(1, "e")
	if b.size() != 1 {
		t.Errorf("got %d waiting, want e alone", b.size())
	}
}

// The Space is asked before it admits; others may be faster.
func TestWhatTheSpaceAdmittedIsBoundTooByMaxSize(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1})
	m.MaxSize = new(int)
	*m.MaxSize = 1
	b := newBench(t, m)
	rendered := Endpoint{ID: 77, Group: "render", Limit: 1}
	b.admitted("a", rendered, false)
	b.admitted("b", rendered, false)
	b.asked("start [a]")
	b.admitted("c", rendered, false)
	b.asked("stop [c]", "ended c: Queue is full. Max size is 1 and size is 1.")
	b.told("c", "c failed: Error: Queue is full. Max size is 1 and size is 1.", "close_stream")
	b.admitted("d", rendered, true) // a cache hit does not wait
	b.asked()
	if b.size() != 1 {
		t.Errorf("got %d waiting, want b alone", b.size())
	}
	b.finish("a")
	b.asked("ended a", "start [b]")
}

func TestSessionsOfOneVisitorAreBounded(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.sessionsEach = 2
	b.clock = time.Now() // the Sessions' own
	visit := func(payer identity.Identity, name string) error {
		e := eventNamed(name, 1)
		e.Payer = payer
		return b.onSubmit(e)
	}
	far := identity.Identity{Kind: identity.Address, Name: "203.0.113.7"}
	for _, payer := range []identity.Identity{far, {Kind: identity.Address, Name: "203.0.113.8"}, {Kind: identity.User, Name: "ada"}} {
		for i := range 3 {
			err := visit(payer, fmt.Sprintf("%s%d", payer.Key(), i))
			var crowded *CrowdedError
			if refused := errors.As(err, &crowded); refused != (i == 2) || err != nil && !refused {
				t.Errorf("session %d of %s: got %v", i+1, payer, err)
			}
		}
	}
	for i := range 5 {
		for _, payer := range []identity.Identity{{Kind: identity.Local}, {Kind: identity.Space, Name: "demo"}} {
			if err := visit(payer, fmt.Sprintf("%s%d", payer.Key(), i)); err != nil {
				t.Errorf("session %d of %s: %v", i+1, payer, err)
			}
		}
	}
	first := SessionHash(far.Key() + "0")
	if err := visit(far, string(first)+"/again"); err != nil {
		t.Errorf("another call in a session that is there: %v", err)
	}
	b.leave(first)
	if err := visit(far, "in its place"); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	b.log = nil
	e := eventNamed("by the Space", 77)
	e.Payer, e.Admitted, e.Endpoint = far, true, Endpoint{ID: 77, Group: "render"}
	if err := b.onSubmit(e); err != nil || b.sessions["by the Space"] != nil {
		t.Errorf("got %v, session %v", err, b.sessions["by the Space"])
	}
	b.asked("stop [by the Space]", "ended by the Space: "+(&CrowdedError{2}).Error())
}

// Many who never read take no more together than is kept in all, and those who read are told on.
func TestWhoReadsLeastIsCutWhenTooMuchIsKept(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g"}))
	b.keptBytes = 1 << 20
	names := []string{"reads", "a", "b", "c", "d"}
	for _, name := range names {
		b.submit(name, 1)
	}
	reads := b.sessions["reads"]
	for range 100 {
		for _, name := range names {
			b.onMessage(EventID(name), Message{Kind: Generating, Event: EventID(name), Raw: make([]byte, 16<<10)})
			if kept := b.kept.Load(); kept > b.keptBytes {
				t.Fatalf("%d bytes are kept", kept)
			}
		}
		for reads.Ready() {
			if _, _, err := reads.pop(); err != nil {
				t.Fatalf("who reads is cut: %v", err)
			}
		}
	}
	for _, name := range names[1:] {
		if s := b.sessions[SessionHash(name)]; !s.isGone() {
			t.Errorf("%s is kept with %d bytes", name, s.weight())
		}
		b.onLeave(b.sessions[SessionHash(name)])
	}
	if kept := b.kept.Load(); kept != 0 {
		t.Errorf("%d bytes are counted for nobody", kept)
	}
}

func TestSubmitRefuses(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	var unknown *UnknownEndpointError
	if err := b.submit("a", 9); !errors.As(err, &unknown) || unknown.ID != 9 {
		t.Errorf("an endpoint that is not there: got %v", err)
	}
	b.joins(1, "b", "c")
	for _, name := range []string{"b", "c"} {
		if err := b.submit("other/"+name, 1); !errors.Is(err, ErrKnownEvent) {
			t.Errorf("%s a second time: got %v, want ErrKnownEvent", name, err)
		}
	}
	if err := newLine(b.recorder).onSubmit(&Event{ID: "d"}); !errors.Is(err, ErrNoRunner) {
		t.Errorf("before the first attach: got %v, want ErrNoRunner", err)
	}
	if len(b.sessions) != 2 {
		t.Errorf("a refused Event made a Session: got %d", len(b.sessions))
	}
}

// captures/v6/queue_rank_3slow.txt: three calls of a function with limit 1 in one Session.
func TestRanksOfThreeSlowCalls(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "slow", Limit: 1}))
	b.joins(1, "s/a", "s/b", "s/c")
	b.told("s", "a is 0 of 1", "b is 0 of 1", "c is 1 of 2")
	b.finish("a")
	b.told("s", "a process_completed from the Space", "c is 0 of 1")
	b.finish("b")
	b.told("s", "b process_completed from the Space")
	b.finish("c")
	b.told("s", "c process_completed from the Space", "close_stream")
	b.asked("start [a]", "ended a", "start [b]", "ended b", "start [c]", "ended c")
}

// The numbers are what broadcast_estimations of gradio 6.31 gives for the same groups.
func TestEstimates(t *testing.T) {
	known := map[int]float64{1: 2, 2: 1, 3: .25}
	for _, row := range []struct {
		name     string
		limit    int
		averages map[int]float64
		running  map[int][]float64 // Endpoint -> for how many seconds each has run
		waiting  []int
		want     string
	}{
		{"nothing is known", 1, nil, nil, []int{1, 1}, "? ?"},
		{"one after the other", 1, known, nil, []int{1, 1, 1}, "2 4 6"},
		{"two at a time", 2, known, nil, []int{1, 1, 1}, "2 3 4"},
		{"all at once", 0, known, nil, []int{1, 1, 1}, "2 2 2"},
		{"one runs", 1, known, map[int][]float64{1: {.5}}, []int{1, 1}, "3.5 5.5"},
		{"one runs longer than usual", 1, known, map[int][]float64{1: {3}}, []int{1, 1}, "2 4"},
		{"the running one is unknown", 1, known, map[int][]float64{9: {.5}}, []int{1, 1}, "? ?"},
		{"one ahead is unknown", 1, known, nil, []int{1, 9, 1}, "2 ? ?"},
		{"one ahead is unknown and nobody waits for it", 0, known, nil, []int{1, 9, 1}, "2 ? 2"},
		{"a unit is free", 2, known, map[int][]float64{1: {.5}}, []int{1, 1}, "2 3"},
		{"the first of two to end", 2, known, map[int][]float64{1: {.5}, 2: {.25}}, []int{1, 1, 2}, "2.75 3.75 3.75"},
		{"one of the running is unknown", 2, known, map[int][]float64{1: {.5}, 9: {.25}}, []int{1}, "?"},
		{"more run than the lowered limit", 1, known, map[int][]float64{1: {.5, .25}}, []int{1, 1}, "2 4"},
		{"two means", 1, known, map[int][]float64{2: {.75}}, []int{1, 2, 1}, "2.25 3.25 5.25"},
		{"a stream runs until its time limit", 1, known, map[int][]float64{3: {4}}, []int{1, 1}, "8 10"},
		{"streams wait for their first answer", 1, known, map[int][]float64{1: {.5}}, []int{3, 3, 1}, "1.75 3.25 6.5"},
	} {
		b := newBench(t, app())
		for id, mean := range row.averages {
			b.averages[fnKey{id: id}] = mean
		}
		b.estimate(b.groupOf(row.limit, row.running, row.waiting), 0)
		if got := b.estimates(len(row.waiting)); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
}

// groupOf makes a group in a state that would take many calls to reach. Endpoint 3 is a stream of 10 s.
func (b *bench) groupOf(limit int, running map[int][]float64, waiting []int) *group {
	g := &group{limit: limit, jobs: map[*job]struct{}{}}
	for fn, since := range running {
		for _, s := range since {
			started := b.clock.Add(-time.Duration(s * float64(time.Second)))
			g.jobs[&job{group: g, open: 1, fn: endpointNumber(fn), started: started}] = struct{}{}
		}
	}
	for _, fn := range waiting {
		e := eventNamed(fmt.Sprintf("s/%d", len(g.waiting)), fn)
		e.Endpoint = endpointNumber(fn)
		b.session(&Event{Session: "s"}).expect(e.ID)
		g.waiting = append(g.waiting, e)
	}
	return g
}

func endpointNumber(fn int) Endpoint {
	return Endpoint{ID: fn, Stream: fn == 3, TimeLimit: 10 * time.Second}
}

func (b *bench) estimates(count int) string {
	b.Helper()
	var etas []string
	for rank := range count {
		m, _, _ := b.sessions["s"].pop()
		if m.Kind != Estimation || m.Rank != rank || m.Size != count {
			b.Errorf("got %+v, want the estimate of rank %d of %d", m, rank, count)
		}
		eta := "?"
		if m.ETA != nil {
			eta = fmt.Sprint(*m.ETA)
		}
		etas = append(etas, eta)
	}
	return strings.Join(etas, " ")
}

func TestANewcomerAloneIsToldItsEstimate(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.averages[fnKey{id: 1}] = 2
	b.clock = b.clock.Add(500 * time.Millisecond)
	b.told("b", "b is 0 of 1")
	b.joins(1, "c")
	b.told("b")
	b.told("c", "c is 1 of 2, 5.5s")
}

func TestAFinishedRunTellsTheMean(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b", "c")
	b.told("c", "c is 1 of 2")
	b.finishIn("a", seconds(2))
	b.told("c", "c is 0 of 1, 4s") // b has just begun
	b.finish("b")                  // a run without a mean forgets nothing
	b.joins(1, "d")
	b.told("d", "d is 0 of 1, 4s")
}

func TestUpdatesLiveOrByTheClock(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1}, Endpoint{ID: 2, Group: "h", Limit: 1})
	live := newBench(t, m)
	if live.update != nil {
		t.Error("live updates need no clock")
	}
	m.LiveUpdates, m.UpdateEvery = false, time.Second
	b := newBench(t, m) // captures/v6/mode_rate.txt
	if b.update == nil {
		t.Fatal("no clock for updates")
	}
	b.joins(1, "a", "b", "c")
	b.joins(2, "x", "y")
	b.told("c", "c is 1 of 2")
	b.told("y", "y is 0 of 1")
	b.finish("a")
	b.told("c")
	b.onUpdate(b.clock)
	b.told("c", "c is 0 of 1")
	b.told("y", "y is 0 of 1")
}

func TestCancelOfAWaitingEventTakesThisOneAlone(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b", "s/c")
	drain(b.sessions["s"])
	b.onCancel("s", "b")
	b.told("s", "b cancelled")
	b.asked("start [a]", "ended b: cancelled")
	b.finish("a")
	b.asked("ended a", "start [c]")
	b.onCancel("s", "b")
	b.told("s", "a process_completed from the Space")
	b.asked()
}

func TestCancelOfARunningEventTakesThisOneAlone(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.joins(1, "s/a", "s/b", "s/c")
	drain(b.sessions["s"])
	b.onCancel("s", "a")
	b.told("s", "a cancelled")
	b.asked("start [a]", "start [b]", "stop [a]")
	if b.isRunning("a") || !b.isRunning("b") {
		t.Errorf("alive after the cancel of a: a %v, b %v", b.isRunning("a"), b.isRunning("b"))
	}
	b.onCancel("s", "a")
	b.finish("a") // what Gradio says of it afterwards is not told
	b.told("s")
	b.asked("ended a", "start [c]")
}

func TestCancelOfWhatTheSpaceAdmittedTellsTheSpace(t *testing.T) {
	b := newBench(t, app())
	b.onLost("so that it waits")
	b.admitted("a", Endpoint{ID: 77, Group: "render", Limit: 1}, false)
	b.onCancel("a", "a")
	b.asked("stop [a]", "ended a: cancelled")
}

func TestCancelOfOthersDoesNothing(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b")
	drain(b.sessions["s"])
	b.log = nil
	for _, c := range []cancellation{{session: "thief", event: "a"}, {session: "thief", event: "b"}, {session: "s", event: "nosuch"}} {
		b.onCancel(c.session, c.event)
	}
	b.asked()
	b.told("s")
}

func TestLeaveTakesWhatWaitsAndAbandonsWhatRuns(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b", "other", "s/c")
	session := b.sessions["s"]
	b.leave("s")
	b.asked("start [a]", "ended b: visitor left", "ended c: visitor left", "abandon [a]")
	if got := drain(session); len(got) != 1 || got[0] != "unexpected EOF" {
		t.Errorf("a reader of the session got %q", got)
	}
	if !b.isRunning("a") {
		t.Error("a is not alive: what it still does could not pay")
	}
	b.finish("a")
	b.asked("ended a", "start [other]")
	b.onLeave(session)
	b.asked()
}

func TestLeaveTellsTheSpaceOfWhatItAdmitted(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a")
	b.admitted("s/b", Endpoint{ID: 1, Group: "g", Limit: 1}, false)
	b.leave("s")
	b.asked("start [a]", "ended b: visitor left", "abandon [b]")
}

func TestAVisitorWhoComesBackHearsNothingOfWhatTheyLeft(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.joins(1, "s/old")
	b.leave("s")
	b.joins(1, "s/new")
	b.onMessage("old", Message{Kind: Generating, Event: "old", Raw: []byte(`{}`)})
	if b.sessionOf("old") != nil || b.sessionOf("new") == nil {
		t.Error("the new Session must answer for new alone")
	}
	b.finish("old")
	b.told("s", "new is 0 of 1")
	b.leave("s")
	b.asked("start [old]", "abandon [old]", "start [new]", "ended old", "abandon [new]")
}

func TestALateLeaveDoesNotHitTheNextSession(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.joins(1, "s/a")
	old := b.sessions["s"]
	old.end() // cut: it did not read
	b.joins(1, "s/b")
	b.asked("start [a]", "abandon [a]", "start [b]")
	b.onLeave(old)
	b.told("s", "b is 0 of 1")
	if b.find("s") == nil || b.find("s") == old {
		t.Error("the new Session has gone with the old")
	}
}

func TestACutSessionIsNotFound(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b", "s/c")
	b.finish("a")
	b.sessions["s"].end()
	if b.find("s") != nil || b.sessionOf("a") != nil || b.sessionOf("b") != nil || b.sessionOf("c") != nil {
		t.Error("a Session that was cut can be found")
	}
	b.onSweep(time.Now())
	b.asked("start [a]", "ended a", "start [b]", "ended c: visitor left", "abandon [b]")
}

func TestDoneWithoutCompletedIsAFailure(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a")
	b.onFinished(finished{event: "a", reason: "ValueError: no"})
	b.told("a", "a is 0 of 1", "a failed: Error: The Space ended this call without an answer: ValueError: no", "close_stream")
	b.joins(1, "b")
	b.onFinished(finished{event: "b"})
	b.told("b", "b is 0 of 1", "b failed: Error: The Space ended this call without an answer: see the Space's log", "close_stream")
	b.asked("start [a]", "ended a: ValueError: no", "start [b]", "ended b")
}

func TestOnlyTheFirstCompletedIsTold(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b")
	drain(b.sessions["s"])
	b.onMessage("b", Message{Kind: Log, Event: "b", Text: "b does not run"})
	b.onMessage("a", Message{Kind: Completed, Event: "a", Raw: []byte(`{}`)})
	b.onMessage("a", Message{Kind: Generating, Event: "a", Raw: []byte(`{}`)})
	b.onMessage("a", Message{Kind: Completed, Event: "a", Raw: []byte(`{}`)})
	b.told("s", "a process_completed from the Space")
	if b.isRunning("a") {
		t.Error("a is alive after its end")
	}
	b.onFinished(finished{event: "nosuch"})
	b.onFinished(finished{event: "b"}) // it waits: nobody can have finished it
	b.asked("start [a]")
}

func TestLostEndsWhatRanAndKeepsWhatWaits(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.joins(1, "s/a", "s/b", "s/c")
	b.admitted("s/d", Endpoint{ID: 1, APIName: "fn1", Group: "g", Limit: 2}, false)
	b.onCancel("s", "b")
	drain(b.sessions["s"])
	b.onLost("it was killed")
	b.told("s", "a failed: Space stopped: it was killed", "d failed: Space stopped: it was killed")
	b.asked("start [a]", "start [b]", "stop [b]", "ended a: it was killed", "ended b: it was killed", "ended d: it was killed")
	b.finish("a") // a frame that was under way
	b.joins(1, "s/e")
	b.told("s", "e is 1 of 2")
	b.asked()
	b.onAttach(app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.asked("start [c]", "start [e]")
}

func TestWaitingEventsFindTheirFunctionAfterARestart(t *testing.T) {
	b := newBench(t, app(
		Endpoint{ID: 1, Group: "at 0x1", Limit: 1}, Endpoint{ID: 2, Group: "at 0x1", Limit: 1},
		Endpoint{ID: 3, Group: "at 0x3", Limit: 1}, Endpoint{ID: 4, Group: "at 0x4", Limit: 1}))
	b.onLost("killed")
	for fn, name := range []string{1: "a", 2: "b", 3: "vanished", 4: "renamed"} {
		if fn > 0 {
			b.joins(fn, name)
			drain(b.sessions[SessionHash(name)])
		}
	}
	b.averages[fnKey{id: 1}] = 5
	b.onAttach(app(Endpoint{ID: 1, Group: "at 0x8", Limit: 1}, Endpoint{ID: 2, Group: "at 0x9", Limit: 1}, Endpoint{ID: 4, APIName: "other", Group: "at 0xa"}))
	gone := "The Space was started again and no longer has this function."
	b.asked("ended vanished: "+gone, "ended renamed: "+gone, "start [a]", "start [b]") // no longer in one group
	b.told("vanished", "vanished failed: Space stopped: "+gone, "close_stream")
	if len(b.averages) != 0 {
		t.Error("means of the old functions are kept")
	}
}

// demo.close() and launch() in a living process: nobody reports the first app as lost.
func TestALaunchInALivingProcessEndsWhatRan(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1})
	b := newBench(t, m)
	b.joins(1, "s/a", "s/b")
	b.admitted("s/c", Endpoint{ID: 1, APIName: "fn1", Group: "g", Limit: 1}, false)
	drain(b.sessions["s"])
	m.App = 1
	b.onAttach(m)
	b.told("s", "a failed: Space stopped: The Space was started again.", "c failed: Space stopped: The Space was started again.")
	b.asked("start [a]", "ended a: The Space was started again.", "ended c: The Space was started again.", "start [b]")
	if job := b.started[len(b.started)-1]; job.App != 1 {
		t.Errorf("b was started in app %d, want 1", job.App)
	}
	b.finish("a")
	b.asked()
}

// Calls of an app end when the process launches other Blocks in its place, and take no unit of the new concurrency limit.
func TestOtherBlocksGetNoCallsOfTheAppBeforeThem(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "at 0x1", Limit: 1}))
	b.joins(1, "s/a", "s/b", "s/c")
	drain(b.sessions["s"])
	b.onLost("The app was closed.")
	m := app(Endpoint{ID: 1, Group: "at 0x1", Limit: 2})
	m.App, m.Replaces = 1, true
	b.onAttach(m)
	gone := "The app was closed, and the Space has launched another one in its place."
	b.asked("start [a]", "ended a: The app was closed.", "ended b: "+gone, "ended c: "+gone)
	b.joins(1, "d", "e", "f")
	b.asked("start [d]", "start [e]")
}

func TestACacheHitNeedsNoStart(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1})
	m.MaxThreads = 1
	b := newBench(t, m)
	b.joins(1, "a")
	b.admitted("s/hit", Endpoint{ID: 1, Group: "g", Limit: 1}, true)
	if !b.isRunning("hit") || b.size() != 0 {
		t.Error("a cache hit is running from the start")
	}
	b.finish("hit")
	b.told("s", "hit process_completed from the Space", "close_stream")
	b.asked("start [a]", "ended hit")
	b.joins(1, "b")
	b.asked() // a still holds the only thread
}

func TestACacheHitOfALostSpaceFails(t *testing.T) {
	b := newBench(t, app())
	b.admitted("hit", Endpoint{ID: 1, Group: "g", Limit: 1}, true)
	b.onLost("killed")
	b.told("hit", "hit failed: Space stopped: killed", "close_stream")
	b.asked("ended hit: killed")
}

func TestGroupsOfRenderedFunctionsAreForgotten(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a")
	for n := range 100 {
		rendered := Endpoint{ID: 1000 + n, Group: fmt.Sprintf("at %d", n), Limit: 1}
		b.admitted("x", rendered, false)
		b.admitted("y", rendered, false)
		b.finish("x")
		b.finish("y")
	}
	b.finish("a")
	if len(b.groups) != 1 || len(b.order) != 1 || b.groups["g"] == nil {
		t.Errorf("got %d groups, %d in order, want the manifest's alone", len(b.groups), len(b.order))
	}
	if len(b.started) != 201 {
		t.Errorf("got %d jobs, want 201", len(b.started))
	}
}

func TestStopTellsEverySession(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.onStop()
	b.told("a", "a is 0 of 1", "unexpected_error Server stopped unexpectedly.")
	b.told("b", "b is 0 of 1", "unexpected_error Server stopped unexpectedly.")
}

// Of many who wait each is told the ranks of two starts in quick succession once, when some time has passed.
func TestManyAreToldTheirRanksTogether(t *testing.T) {
	b := newBench(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a")
	for n := range 13 {
		b.joins(1, fmt.Sprintf("w%02d", n))
	}
	b.told("w12", "w12 is 12 of 13")
	b.clock = b.clock.Add(rankRest)
	b.finish("a")
	b.told("w12", "w12 is 11 of 12")
	b.finish("w00")
	b.told("w12")
	if b.ranks == nil {
		t.Fatal("nobody will tell the rank that was put off")
	}
	b.clock = b.clock.Add(rankRest)
	b.onRanks()
	b.told("w12", "w12 is 10 of 11")
	b.clock = b.clock.Add(rankRest)
	b.onRanks()
	b.told("w12")
}
