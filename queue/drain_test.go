package queue

import (
	"slices"
	"strings"
	"testing"
)

// startedBy lists the Events that have started, in order.
func startedBy(b *fixture) (all []EventID) {
	for _, job := range b.started {
		all = append(all, idsOf(job)...)
	}
	return all
}

// TestDrainKeepsWaitingEvents checks a drain before a restart: what runs ends, nothing starts, new Events wait, and the next
// start continues with them in order.
func TestDrainKeepsWaitingEvents(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.onDrain(true, "The Space restarts.")
	b.joins(1, "c")
	b.finish("a")
	if got := startedBy(b); !slices.Equal(got, []EventID{"a"}) {
		t.Fatalf("started %v, want a alone", got)
	}
	if got := drain(b.sessions["b"]); !slices.Contains(got, "log The Space restarts.") {
		t.Errorf("a waiting visitor received %q", got)
	}
	b.onLost("The operator restarted the Space.")
	b.onAttach(app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.finish("b")
	if got := startedBy(b); !slices.Equal(got, []EventID{"a", "b", "c"}) {
		t.Errorf("started %v, want a, b, c", got)
	}
}

// TestPause checks a Space that does not answer: nothing starts, old and new visitors read why, and Resume continues. A drain that
// begins meanwhile is not ended by Resume.
func TestPause(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.onPause("It does not answer.")
	b.joins(1, "c")
	b.finish("a")
	if got := startedBy(b); !slices.Equal(got, []EventID{"a"}) {
		t.Fatalf("started %v, want a alone", got)
	}
	for _, id := range []SessionHash{"b", "c"} {
		if got := drain(b.sessions[id]); !slices.Contains(got, "log It does not answer.") {
			t.Errorf("the visitor of %s received %q", id, got)
		}
	}
	b.onResume()
	b.finish("b")
	if got := startedBy(b); !slices.Equal(got, []EventID{"a", "b", "c"}) {
		t.Errorf("started %v, want a, b, c", got)
	}
	b.onPause("It does not answer.")
	b.joins(1, "d")
	b.onDrain(true, "The Space restarts.")
	b.onResume()
	b.onPause("It does not answer.")
	b.onResume()
	b.finish("c")
	if got := startedBy(b); len(got) != 3 {
		t.Errorf("started %v during a drain", got)
	}
	b.onLost("The Space did not answer.")
	b.onAttach(app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	if got := startedBy(b); !slices.Equal(got, []EventID{"a", "b", "c", "d"}) {
		t.Errorf("started %v, want d too", got)
	}
}

// TestDrainOfTheHost checks a drain without a next start: waiting and new Events end with a sentence, the running one
// continues.
func TestDrainOfTheHost(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.onDrain(false, "The host stopped.")
	b.joins(1, "c")
	for _, id := range []EventID{"b", "c"} {
		if _, waits := b.waiting[id]; waits {
			t.Errorf("%s waits", id)
		}
	}
	b.wantMessages("b", "b is 0 of 1", "b failed: Space stopped: The host stopped.", "close_stream")
	b.wantMessages("c", "c failed: Space stopped: The host stopped.", "close_stream")
	if !b.isRunning("a") {
		t.Error("the running Event has ended")
	}
}

// TestDrainStartsAdmittedEvents checks that an Event whose body only the running process has starts during a drain, before an
// earlier one that the next start gets.
func TestDrainStartsAdmittedEvents(t *testing.T) {
	endpoint := Endpoint{ID: 1, Group: "g", Limit: 1}
	b := newFixture(t, app(endpoint))
	b.joins(1, "a", "b")
	b.admitted("c", endpoint, false)
	b.onDrain(true, "The Space restarts.")
	b.finish("a")
	b.finish("c")
	if got := startedBy(b); !slices.Equal(got, []EventID{"a", "c"}) {
		t.Errorf("started %v, want a and c", got)
	}
}

// TestReopen checks a Space that was paused and starts again: Events in between end with the reason, those after it start.
func TestReopen(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.onReopen() // nothing drains
	b.onDrain(false, "Paused.")
	b.joins(1, "c")
	b.finish("a")
	b.onLost("Paused.")
	b.joins(1, "d")
	for _, id := range []SessionHash{"b", "c", "d"} {
		if got := drain(b.sessions[id]); !slices.ContainsFunc(got, func(m string) bool { return strings.Contains(m, "Paused.") }) {
			t.Errorf("the visitor of %s received %q", id, got)
		}
	}
	b.onReopen()
	b.onAttach(app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "e")
	b.finish("e")
	if got := startedBy(b); !slices.Equal(got, []EventID{"a", "e"}) {
		t.Errorf("started %v, want a, e", got)
	}
	b.onDrain(true, "The Space restarts.")
	b.onReopen()
	b.joins(1, "f")
	if got := startedBy(b); !slices.Equal(got, []EventID{"a", "e"}) {
		t.Errorf("a restart was ended by onReopen: started %v", got)
	}
}
