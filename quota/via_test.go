package quota

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// via is a hold by a Space that spends through another.
func via(space string) func(*HoldRequest) {
	return func(r *HoldRequest) { r.Via = space }
}

// TestSpacesSpendAtMostHalfThroughOthers: what is held and charged via Spaces, of whichever name, never passes half of
// what would be left without it; what the visitor spends themselves makes that half smaller, and needs no leave.
func TestSpacesSpendAtMostHalfThroughOthers(t *testing.T) {
	b := newBook(t)
	refused := func(lease string, declared time.Duration, left, wait int, onlyHolds bool, pending ...Pending) {
		t.Helper()
		_, err := b.hold(lease, declared, noon, via("a"), func(r *HoldRequest) { r.Pending = pending })
		wantExceeded(t, err, left, wait, onlyHolds)
		var e *ExceededError
		if errors.As(err, &e) && e.Via != "a" {
			t.Errorf("%s: %v does not say that it is the cap", lease, err)
		}
	}
	refused("more than half of 210 s", 106*s, 105, 86399, false)
	b.mustHold("first", 60*s, noon, via("a"))
	open := pending("first", 60*s, noon.Add(40*s))
	refused("while the first is held", 46*s, 45, 40, true, open)
	b.open("first", noon)
	b.mustSettle("first", 60*s, noon)
	refused("after the first was charged", 46*s, 45, 86399, false)
	b.mustHold("via another Space", 15*s, noon, via("b"))
	b.mustHold("the visitor themselves", 40*s, noon)
	// 210 - 60 - 15 - 40 = 95 left, 75 of it via: half of 170 is 85, so 10.
	refused("the visitor's own hold counts half", 20*s, 10, 30, true, pending("the visitor themselves", 40*s, noon.Add(30*s)))
	b.mustHold("exactly the rest", 10*s, noon, via("a"))
	b.mustHold("what is left to the visitor", 85*s, noon)
	b.wantLeft(noon, 0)
	if _, err := b.hold("unlimited", 300*s, noon, via("a"), func(r *HoldRequest) { r.Tier = unlimited }); err != nil {
		t.Errorf("a tier without a limit: %v", err)
	}
	for _, e := range b.entries() {
		if want := map[string]string{"first": "a", "via another Space": "b", "exactly the rest": "a", "unlimited": "a"}[e.Lease]; e.Via != want {
			t.Errorf("%s of %s: via %q, want %q", e.Kind, e.Lease, e.Via, want)
		}
	}
}

// TestAResetAlsoFreesTheCap: what was charged is given back, what is held stays held.
func TestAResetAlsoFreesTheCap(t *testing.T) {
	b := newBook(t)
	b.mustHold("charged", 100*s, noon, via("a"))
	b.open("charged", noon)
	b.mustSettle("charged", 100*s, noon)
	b.mustHold("held", 5*s, noon, via("a"))
	if err := b.Reset(t.Context(), Adjustment{Identity: "user:ada", By: "root"}); err != nil {
		t.Fatal(err)
	}
	_, err := b.hold("too much", 101*s, noon, via("a"))
	wantExceeded(t, err, 100, 86399, true)
	b.mustHold("half of 205 and 5, less 5", 100*s, noon, via("a"))
}

func TestFiftySpacesAtOnceNeverPassTheCap(t *testing.T) {
	b := newBook(t)
	var granted atomic.Int64
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if _, err := b.hold(fmt.Sprint("lease-", i), 10*s, noon, via(fmt.Sprint("space-", i%3))); err == nil {
				granted.Add(1)
			}
		})
	}
	all.Wait()
	if granted.Load() != 10 {
		t.Errorf("got %d holds of 10 s via Spaces, want 10: half of 210 s", granted.Load())
	}
}
