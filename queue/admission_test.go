package queue

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"spacehost/internal/identity"
)

func TestMaxSizeCountsOnlyWaitingEvents(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1}, Endpoint{ID: 2, Group: "h", Limit: 1})
	m.MaxSize = new(int)
	*m.MaxSize = 1
	b := newFixture(t, m)
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
		t.Errorf("got %d waiting, want only e", b.size())
	}
}

// The queue size is checked before the Space admits an Event. Other Events may join in between.
func TestMaxSizeAppliesToEventsAdmittedBySpace(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1})
	m.MaxSize = new(int)
	*m.MaxSize = 1
	b := newFixture(t, m)
	rendered := Endpoint{ID: 77, Group: "render", Limit: 1}
	b.admitted("a", rendered, false)
	b.admitted("b", rendered, false)
	b.wantEffects("start [a]")
	b.admitted("c", rendered, false)
	b.wantEffects("stop [c]", "ended c: Queue is full. Max size is 1 and size is 1.")
	b.wantMessages("c", "c failed: Error: Queue is full. Max size is 1 and size is 1.", "close_stream")
	b.admitted("d", rendered, true) // a cache hit does not wait
	b.wantEffects()
	if b.size() != 1 {
		t.Errorf("got %d waiting, want only b", b.size())
	}
	b.finish("a")
	b.wantEffects("ended a", "start [b]")
}

func TestSessionsOfOneVisitorAreBounded(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.maxSessions = 2
	b.clock = time.Now() // the clock of the Sessions
	join := func(payer identity.Identity, name string) error {
		e := eventNamed(name, 1)
		e.Payer = payer
		return b.onSubmit(e)
	}
	far := identity.Identity{Kind: identity.Address, Name: "203.0.113.7"}
	for _, payer := range []identity.Identity{far, {Kind: identity.Address, Name: "203.0.113.8"}, {Kind: identity.User, Name: "ada"}} {
		for i := range 3 {
			err := join(payer, fmt.Sprintf("%s%d", payer.Key(), i))
			var crowded *CrowdedError
			if refused := errors.As(err, &crowded); refused != (i == 2) || err != nil && !refused {
				t.Errorf("session %d of %s: got %v", i+1, payer, err)
			}
		}
	}
	for i := range 5 {
		for _, payer := range []identity.Identity{{Kind: identity.Local}, {Kind: identity.Space, Name: "demo"}} {
			if err := join(payer, fmt.Sprintf("%s%d", payer.Key(), i)); err != nil {
				t.Errorf("session %d of %s: %v", i+1, payer, err)
			}
		}
	}
	first := SessionHash(far.Key() + "0")
	if err := join(far, string(first)+"/again"); err != nil {
		t.Errorf("another call in an existing session: %v", err)
	}
	b.leave(first)
	if err := join(far, "in its place"); err != nil {
		t.Errorf("after one session has closed: %v", err)
	}
	b.log = nil
	e := eventNamed("by the Space", 77)
	e.Payer, e.Admitted, e.Endpoint = far, true, Endpoint{ID: 77, Group: "render"}
	if err := b.onSubmit(e); err != nil || b.sessions["by the Space"] != nil {
		t.Errorf("got %v, session %v", err, b.sessions["by the Space"])
	}
	b.wantEffects("stop [by the Space]", "ended by the Space: "+(&CrowdedError{2}).Error())
}

// A visitor makes one call after the other, each in a Session of its own (POST to /call, then GET): the Sessions of calls that are
// read do not count.
func TestReadSessionsDoNotCount(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g"}))
	b.maxSessions = 2
	far := identity.Identity{Kind: identity.User, Name: "ada"}
	call := func(name string) error {
		e := eventNamed(name, 1)
		e.Payer = far
		return b.onSubmit(e)
	}
	read := func(name string) {
		b.finish(EventID(name))
		drain(b.sessions[SessionHash(name)])
	}
	for i := range 5 {
		name := fmt.Sprint("short", i)
		if err := call(name); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		read(name)
		b.clock = b.clock.Add(time.Second)
	}
	for _, name := range []string{"unread", "open"} {
		if err := call(name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	b.finish("unread")
	b.clock = b.clock.Add(time.Second)
	if err := call("one more"); !errors.As(err, new(*CrowdedError)) {
		t.Errorf("with an unread and an unfinished call: %v", err)
	}
	read("open")
	if err := call("soon"); !errors.As(err, new(*CrowdedError)) {
		t.Errorf("the Sessions are looked at more than once a second: %v", err)
	}
	b.clock = b.clock.Add(time.Second)
	if err := call("later"); err != nil {
		t.Errorf("after a call was read: %v", err)
	}
}

// Sessions that never read use at most maxBuffered bytes together. A Session that reads is not evicted.
func TestHeaviestSessionIsEvicted(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g"}))
	b.maxBuffered = 1 << 20
	names := []string{"reads", "a", "b", "c", "d"}
	for _, name := range names {
		b.submit(name, 1)
	}
	reads := b.sessions["reads"]
	for range 100 {
		for _, name := range names {
			b.onMessage(EventID(name), Message{Kind: Generating, Event: EventID(name), Raw: make([]byte, 16<<10)})
			if buffered := b.buffered.Load(); buffered > b.maxBuffered {
				t.Fatalf("%d bytes are buffered, more than the maximum", buffered)
			}
		}
		for reads.Ready() {
			if _, _, err := reads.pop(); err != nil {
				t.Fatalf("the session that reads was evicted: %v", err)
			}
		}
	}
	for _, name := range names[1:] {
		if s := b.sessions[SessionHash(name)]; !s.isGone() {
			t.Errorf("%s was not evicted and has %d bytes", name, s.weight())
		}
		b.onLeave(b.sessions[SessionHash(name)])
	}
	if buffered := b.buffered.Load(); buffered != 0 {
		t.Errorf("got %d buffered bytes without any session, want 0", buffered)
	}
}

func TestSubmitRefuses(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	var unknown *UnknownEndpointError
	if err := b.submit("a", 9); !errors.As(err, &unknown) || unknown.ID != 9 {
		t.Errorf("an unknown endpoint: got %v, want an UnknownEndpointError", err)
	}
	b.joins(1, "b", "c")
	for _, name := range []string{"b", "c"} {
		if err := b.submit("other/"+name, 1); !errors.Is(err, ErrKnownEvent) {
			t.Errorf("%s a second time: got %v, want ErrKnownEvent", name, err)
		}
	}
	if err := newScheduler(b.recorder).onSubmit(&Event{ID: "d"}); !errors.Is(err, ErrNoRunner) {
		t.Errorf("before the first attach: got %v, want ErrNoRunner", err)
	}
	if len(b.sessions) != 2 {
		t.Errorf("a refused Event created a Session: got %d, want 2", len(b.sessions))
	}
}
