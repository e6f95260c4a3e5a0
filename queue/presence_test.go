package queue

import (
	"fmt"
	"testing"
	"time"

	"spacehost/internal/identity"
)

// TestSessionIsOpenForGracePeriod: a heartbeat keeps a Session open for hours, and so does a running Event whose visitor
// has left. Ten minutes after the last of them the Session is closed and no longer remembered.
func TestSessionIsOpenForGracePeriod(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, r *fakeRunner) {
		q.Attach(app(Endpoint{ID: 1, Group: "g", Limit: 1}))
		digest := SessionHash("a").Digest()
		want := func(when string, open bool) {
			t.Helper()
			if got := q.IsOpen(digest); got != open {
				t.Errorf("%s: open %v, want %v", when, got, open)
			}
		}
		leave := q.Visit("a")
		want("before a token names it", false)
		if err := q.Join(eventNamed("a", 1)); err != nil {
			t.Fatal(err)
		}
		<-r.jobs
		want("while its event runs", true)
		q.Done("a", "", nil)
		time.Sleep(5 * time.Hour)
		want("with only its heartbeat", true)
		if err := q.Join(eventNamed("a", 1)); err != nil {
			t.Fatal(err)
		}
		<-r.jobs
		leave()
		leave() // changes nothing
		q.Leave(q.Session("a"))
		time.Sleep(time.Hour)
		want("while an event runs on for a visitor who has left", true)
		q.Done("a", "", nil)
		q.Size() // answered after Done
		time.Sleep(tokenGrace - time.Second)
		want("for ten minutes", true)
		time.Sleep(time.Second)
		want("after ten minutes", false)
		time.Sleep(sessionSweep)
		q.Size() // answered after the sweep
		if n := len(q.present.visits); n != 0 {
			t.Errorf("%d visits are remembered, want none", n)
		}
	})
}

// TestUnnamedHeartbeatsAreNotRemembered: no token names made-up hashes.
func TestUnnamedHeartbeatsAreNotRemembered(t *testing.T) {
	q := New(Config{})
	for n := range 1000 {
		q.Visit(SessionHash(fmt.Sprint(n)))()
	}
	if n := len(q.present.visits); n != 0 {
		t.Errorf("%d visits are remembered, want none", n)
	}
}

// TestDirectCallIsRecent: while it runs and for ten minutes after. The end of a short call is not remembered.
func TestDirectCallIsRecent(t *testing.T) {
	withQueue(t, func(t *testing.T, q *Queue, _ *fakeRunner) {
		issued := time.Now()
		long, endLong := q.Direct(identity.Identity{Kind: identity.Local}, false)
		short, endShort := q.Direct(identity.Identity{Kind: identity.Local}, false)
		endShort()
		time.Sleep(tokenGrace - time.Second)
		if !q.IsRecent(short, issued) {
			t.Error("a short call is not recent within ten minutes of its start")
		}
		time.Sleep(time.Hour)
		if !q.IsRecent(long, issued) || q.IsRecent(short, issued) {
			t.Errorf("after an hour: long %v, short %v; want only the running one", q.IsRecent(long, issued), q.IsRecent(short, issued))
		}
		endLong()
		time.Sleep(tokenGrace - time.Second)
		if !q.IsRecent(long, issued) {
			t.Error("a long call is not recent within ten minutes of its end")
		}
		time.Sleep(time.Second + sessionSweep)
		q.Size() // answered after the sweep
		if q.IsRecent(long, issued) || len(q.direct.ended) != 0 {
			t.Errorf("after ten minutes: recent %v, %d remembered", q.IsRecent(long, issued), len(q.direct.ended))
		}
	})
}
