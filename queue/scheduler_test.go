package queue

import (
	"fmt"
	"testing"
	"time"
)

func TestFirstComeFirstServed(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b", "c")
	b.wantEffects("start [a]")
	b.finish("a")
	b.wantEffects("ended a", "start [b]")
	b.finish("b")
	b.finish("c")
	b.wantEffects("ended b", "start [c]", "ended c")
}

func TestGroupsDoNotBlockEachOther(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}, Endpoint{ID: 2, Group: "h", Limit: 2}))
	b.joins(1, "a", "b")
	b.joins(2, "x", "y", "z")
	b.wantEffects("start [a]", "start [x]", "start [y]")
	b.finish("y")
	b.wantEffects("ended y", "start [z]")
}

func TestEndpointsOfAGroupShareItsLimit(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}, Endpoint{ID: 2, Group: "g", Limit: 2}))
	b.joins(1, "a")
	b.joins(2, "b", "c")
	b.wantEffects("start [a]", "start [b]")
}

func TestGroupWithoutLimitIsBoundByThreads(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g"}, Endpoint{ID: 2, Group: "h"})
	m.MaxThreads = 3
	b := newFixture(t, m)
	b.joins(1, "a", "b")
	b.joins(2, "x", "y")
	b.wantEffects("start [a]", "start [b]", "start [x]")
	b.joins(1, "c")
	b.finish("x")
	b.wantEffects("ended x", "start [y]") // it joined before c
	b.finish("a")
	b.wantEffects("ended a", "start [c]")
}

// The first call of a member with a lower limit lowers its group's limit permanently (gradio/queueing.py,
// create_event_queue_for_fn).
func TestFirstCallOfMemberLowersLimit(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g"}, Endpoint{ID: 2, Group: "g", Limit: 2}, Endpoint{ID: 3, Group: "g", Limit: 1}))
	b.joins(1, "a", "b", "c")
	b.wantEffects("start [a]", "start [b]", "start [c]")
	b.joins(2, "d")
	b.finish("a")
	b.wantEffects("ended a")
	b.joins(3, "e")
	b.finish("b")
	b.wantEffects("ended b")
	b.finish("c")
	b.wantEffects("ended c", "start [d]")
	b.joins(1, "f")
	b.finish("d")
	b.finish("e")
	b.wantEffects("ended d", "start [e]", "ended e", "start [f]")
	b.joins(1, "g")
	b.wantEffects()
}

func TestBatchTakesEventsOfOneEndpoint(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1, Batch: 3}, Endpoint{ID: 2, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.joins(2, "x")
	b.joins(1, "c", "d", "e")
	b.wantEffects("start [a]")
	b.finish("a")
	b.wantEffects("ended a", "start [b c d]")
	b.finish("b")
	b.finish("d")
	b.wantEffects("ended b", "ended d") // the batch holds its unit until its last Event ends
	b.finish("c")
	b.wantEffects("ended c", "start [x]")
	b.finish("x")
	b.wantEffects("ended x", "start [e]")
}

func TestBatchUsesOneThread(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 2, Batch: 2}, Endpoint{ID: 2, Group: "h", Limit: 1})
	m.MaxThreads = 2
	b := newFixture(t, m)
	b.onLost("restart, so that all Events wait")
	b.joins(1, "a", "b")
	b.joins(2, "x")
	b.onAttach(m)
	b.wantEffects("start [a b]", "start [x]")
}

func TestCancelEndsOnlyThisWaitingEvent(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b", "s/c")
	drain(b.sessions["s"])
	b.onCancel("s", "b")
	b.wantMessages("s", "b cancelled")
	b.wantEffects("start [a]", "ended b: cancelled")
	b.finish("a")
	b.wantEffects("ended a", "start [c]")
	b.onCancel("s", "b")
	b.wantMessages("s", "a process_completed from the Space")
	b.wantEffects()
}

func TestCancelEndsOnlyThisRunningEvent(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.joins(1, "s/a", "s/b", "s/c")
	drain(b.sessions["s"])
	b.onCancel("s", "a")
	b.wantMessages("s", "a cancelled")
	b.wantEffects("start [a]", "start [b]", "stop [a]")
	if b.isRunning("a") || !b.isRunning("b") {
		t.Errorf("running after the cancel of a: a %v, b %v", b.isRunning("a"), b.isRunning("b"))
	}
	b.onCancel("s", "a")
	b.finish("a") // later messages of Gradio about it are dropped
	b.wantMessages("s")
	b.wantEffects("ended a", "start [c]")
}

func TestCancelOfEventAdmittedBySpaceReachesSpace(t *testing.T) {
	b := newFixture(t, app())
	b.onLost("so that the Event waits")
	b.admitted("a", Endpoint{ID: 77, Group: "render", Limit: 1}, false)
	b.onCancel("a", "a")
	b.wantEffects("stop [a]", "ended a: cancelled")
}

func TestCancelFromOtherSessionDoesNothing(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b")
	drain(b.sessions["s"])
	b.log = nil
	for _, c := range []cancellation{{session: "thief", event: "a"}, {session: "thief", event: "b"}, {session: "s", event: "nosuch"}} {
		b.onCancel(c.session, c.event)
	}
	b.wantEffects()
	b.wantMessages("s")
}

func TestLeaveEndsWaitingAndAbandonsRunning(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b", "other", "s/c")
	session := b.sessions["s"]
	b.leave("s")
	b.wantEffects("start [a]", "ended b: visitor left", "ended c: visitor left", "abandon [a]")
	if got := drain(session); len(got) != 1 || got[0] != "unexpected EOF" {
		t.Errorf("a reader of the session got %q", got)
	}
	if !b.isRunning("a") {
		t.Error("a is not running, so its remaining work could not pay")
	}
	b.finish("a")
	b.wantEffects("ended a", "start [other]")
	b.onLeave(session)
	b.wantEffects()
}

func TestLeaveOfEventAdmittedBySpaceReachesSpace(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a")
	b.admitted("s/b", Endpoint{ID: 1, Group: "g", Limit: 1}, false)
	b.leave("s")
	b.wantEffects("start [a]", "ended b: visitor left", "abandon [b]")
}

func TestReturningVisitorGetsNoMessagesOfAbandonedEvents(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.joins(1, "s/old")
	b.leave("s")
	b.joins(1, "s/new")
	b.onMessage("old", Message{Kind: Generating, Event: "old", Raw: []byte(`{}`)})
	if b.sessionOf("old") != nil || b.sessionOf("new") == nil {
		t.Error("the new Session must belong only to the new Event")
	}
	b.finish("old")
	b.wantMessages("s", "new is 0 of 1")
	b.leave("s")
	b.wantEffects("start [old]", "abandon [old]", "start [new]", "ended old", "abandon [new]")
}

func TestLateLeaveKeepsNextSession(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.joins(1, "s/a")
	old := b.sessions["s"]
	old.end() // evicted
	b.joins(1, "s/b")
	b.wantEffects("start [a]", "abandon [a]", "start [b]")
	b.onLeave(old)
	b.wantMessages("s", "b is 0 of 1")
	if b.find("s") == nil || b.find("s") == old {
		t.Error("the new Session was removed with the old one")
	}
}

func TestEvictedSessionIsNotFound(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b", "s/c")
	b.finish("a")
	b.sessions["s"].end()
	if b.find("s") != nil || b.sessionOf("a") != nil || b.sessionOf("b") != nil || b.sessionOf("c") != nil {
		t.Error("an evicted Session can be found")
	}
	b.onSweep(time.Now())
	b.wantEffects("start [a]", "ended a", "start [b]", "ended c: visitor left", "abandon [b]")
}

func TestDoneWithoutCompletedIsAFailure(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a")
	b.onFinished(finished{event: "a", reason: "ValueError: no"})
	b.wantMessages("a", "a is 0 of 1", "a failed: Error: The Space ended this call without an answer: ValueError: no", "close_stream")
	b.joins(1, "b")
	b.onFinished(finished{event: "b"})
	b.wantMessages("b", "b is 0 of 1", "b failed: Error: The Space ended this call without an answer: see the Space's log", "close_stream")
	b.wantEffects("start [a]", "ended a: ValueError: no", "start [b]", "ended b")
}

func TestOnlyFirstCompletedIsDelivered(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "s/a", "s/b")
	drain(b.sessions["s"])
	b.onMessage("b", Message{Kind: Log, Event: "b", Text: "b does not run"})
	b.onMessage("a", Message{Kind: Completed, Event: "a", Raw: []byte(`{}`)})
	b.onMessage("a", Message{Kind: Generating, Event: "a", Raw: []byte(`{}`)})
	b.onMessage("a", Message{Kind: Completed, Event: "a", Raw: []byte(`{}`)})
	b.wantMessages("s", "a process_completed from the Space")
	if b.isRunning("a") {
		t.Error("a is running after its end")
	}
	b.onFinished(finished{event: "nosuch"})
	b.onFinished(finished{event: "b"}) // it waits, so it cannot have finished
	b.wantEffects("start [a]")
}

func TestLostEndsRunningAndKeepsWaiting(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.joins(1, "s/a", "s/b", "s/c")
	b.admitted("s/d", Endpoint{ID: 1, APIName: "fn1", Group: "g", Limit: 2}, false)
	b.onCancel("s", "b")
	drain(b.sessions["s"])
	b.onLost("it was killed")
	b.wantMessages("s", "a failed: Space stopped: it was killed", "d failed: Space stopped: it was killed")
	b.wantEffects("start [a]", "start [b]", "stop [b]", "ended a: it was killed", "ended b: it was killed", "ended d: it was killed")
	b.finish("a") // a frame that was still in transit
	b.joins(1, "s/e")
	b.wantMessages("s", "e is 1 of 2")
	b.wantEffects()
	b.onAttach(app(Endpoint{ID: 1, Group: "g", Limit: 2}))
	b.wantEffects("start [c]", "start [e]")
}

func TestWaitingEventsFindFunctionAfterRestart(t *testing.T) {
	b := newFixture(t, app(
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
	gone := "The Space was restarted and no longer has this function."
	b.wantEffects("ended vanished: "+gone, "ended renamed: "+gone, "start [a]", "start [b]") // no longer in one group
	b.wantMessages("vanished", "vanished failed: Space stopped: "+gone, "close_stream")
	if len(b.averages) != 0 {
		t.Error("the means of the old functions were not deleted")
	}
}

// demo.close() and launch() in the same process: the first app is never reported as lost.
func TestRelaunchInSameProcessEndsRunning(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1})
	b := newFixture(t, m)
	b.joins(1, "s/a", "s/b")
	b.admitted("s/c", Endpoint{ID: 1, APIName: "fn1", Group: "g", Limit: 1}, false)
	drain(b.sessions["s"])
	m.App = 1
	b.onAttach(m)
	b.wantMessages("s", "a failed: Space stopped: The Space was restarted.", "c failed: Space stopped: The Space was restarted.")
	b.wantEffects("start [a]", "ended a: The Space was restarted.", "ended c: The Space was restarted.", "start [b]")
	if job := b.started[len(b.started)-1]; job.App != 1 {
		t.Errorf("b was started in app %d, want 1", job.App)
	}
	b.finish("a")
	b.wantEffects()
}

// Calls of an app end when the process launches other Blocks in its place, and take no unit of the new concurrency limit.
func TestOtherBlocksGetNoCallsOfTheAppBeforeThem(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "at 0x1", Limit: 1}))
	b.joins(1, "s/a", "s/b", "s/c")
	drain(b.sessions["s"])
	b.onLost("The app was closed.")
	m := app(Endpoint{ID: 1, Group: "at 0x1", Limit: 2})
	m.App, m.Replaces = 1, true
	b.onAttach(m)
	gone := "The app was closed, and the Space has launched another one in its place."
	b.wantEffects("start [a]", "ended a: The app was closed.", "ended b: "+gone, "ended c: "+gone)
	b.joins(1, "d", "e", "f")
	b.wantEffects("start [d]", "start [e]")
}

func TestCacheHitNeedsNoStart(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1})
	m.MaxThreads = 1
	b := newFixture(t, m)
	b.joins(1, "a")
	b.admitted("s/hit", Endpoint{ID: 1, Group: "g", Limit: 1}, true)
	if !b.isRunning("hit") || b.size() != 0 {
		t.Error("a cache hit is running from the start")
	}
	b.finish("hit")
	b.wantMessages("s", "hit process_completed from the Space", "close_stream")
	b.wantEffects("start [a]", "ended hit")
	b.joins(1, "b")
	b.wantEffects() // a still holds the only thread
}

func TestCacheHitOfLostSpaceFails(t *testing.T) {
	b := newFixture(t, app())
	b.admitted("hit", Endpoint{ID: 1, Group: "g", Limit: 1}, true)
	b.onLost("killed")
	b.wantMessages("hit", "hit failed: Space stopped: killed", "close_stream")
	b.wantEffects("ended hit: killed")
}

func TestGroupsOfRenderedFunctionsAreDeleted(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a")
	for n := range 100 {
		rendered := Endpoint{ID: 1000 + n, Group: fmt.Sprintf("at %d", n), Limit: 1}
		b.admitted("x", rendered, false)
		b.admitted("y", rendered, false)
		b.finish("x")
		b.finish("y")
	}
	b.finish("a")
	if len(b.groups) != 1 || len(b.groupOrder) != 1 || b.groups["g"] == nil {
		t.Errorf("got %d groups, %d in order, want only the manifest's", len(b.groups), len(b.groupOrder))
	}
	if len(b.started) != 201 {
		t.Errorf("got %d jobs, want 201", len(b.started))
	}
}

func TestStopReachesEverySession(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.onStop()
	b.wantMessages("a", "a is 0 of 1", "a failed: Space stopped: "+hostStopped, "close_stream")
	b.wantMessages("b", "b is 0 of 1", "b failed: Space stopped: "+hostStopped, "close_stream")
}
