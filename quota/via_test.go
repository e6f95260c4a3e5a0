package quota

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestDelegationLimit: holds and charges via Spaces, whatever their names, never exceed half of
// what would be left without them. The visitor's own spending reduces that half and is not limited by it.
func TestDelegationLimit(t *testing.T) {
	f := newFixture(t)
	refused := func(lease string, declared time.Duration, left, wait int, onlyHolds bool, pending ...Pending) {
		t.Helper()
		_, err := f.hold(lease, declared, noon, via("a"), func(r *HoldRequest) { r.Pending = pending })
		wantExceeded(t, err, left, wait, onlyHolds)
		var e *ExceededError
		if errors.As(err, &e) && e.Via != "a" {
			t.Errorf("%s: %v does not name the Space of the delegation limit", lease, err)
		}
	}
	refused("more than half of 210 s", 106*s, 105, 86399, false)
	f.mustHold("first", 60*s, noon, via("a"))
	open := pending("first", 60*s, noon.Add(40*s))
	refused("while the first is held", 46*s, 45, 40, true, open)
	f.open("first", noon)
	f.mustSettle("first", 60*s, noon)
	refused("after the first was charged", 46*s, 45, 86399, false)
	f.mustHold("via another Space", 15*s, noon, via("b"))
	f.mustHold("the visitor themselves", 40*s, noon)
	// 210 - 60 - 15 - 40 = 95 left, 75 of it via: half of 170 is 85, so 10.
	refused("the visitor's own hold counts half", 20*s, 10, 30, true, pending("the visitor themselves", 40*s, noon.Add(30*s)))
	f.mustHold("exactly the rest", 10*s, noon, via("a"))
	f.mustHold("the rest is the visitor's", 85*s, noon)
	f.wantLeft(noon, 0)
	if _, err := f.hold("unlimited", 300*s, noon, via("a"), func(r *HoldRequest) { r.Tier = unlimited }); err != nil {
		t.Errorf("a tier without a limit: %v", err)
	}
	for _, e := range f.entries() {
		if want := map[string]string{"first": "a", "via another Space": "b", "exactly the rest": "a", "unlimited": "a"}[e.Lease]; e.Via != want {
			t.Errorf("%s of %s: via %q, want %q", e.Kind, e.Lease, e.Via, want)
		}
	}
}

// TestResetFreesDelegationLimit: charges are refunded, holds are kept.
func TestResetFreesDelegationLimit(t *testing.T) {
	f := newFixture(t)
	f.mustHold("charged", 100*s, noon, via("a"))
	f.open("charged", noon)
	f.mustSettle("charged", 100*s, noon)
	f.mustHold("held", 5*s, noon, via("a"))
	if err := f.Reset(t.Context(), Adjustment{Identity: "user:ada", By: "root"}); err != nil {
		t.Fatal(err)
	}
	_, err := f.hold("too much", 101*s, noon, via("a"))
	wantExceeded(t, err, 100, 86399, true)
	f.mustHold("half of 205 and 5, less 5", 100*s, noon, via("a"))
}

func TestConcurrentDelegationStaysWithinLimit(t *testing.T) {
	f := newFixture(t)
	var granted atomic.Int64
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if _, err := f.hold(fmt.Sprint("lease-", i), 10*s, noon, via(fmt.Sprint("space-", i%3))); err == nil {
				granted.Add(1)
			}
		})
	}
	all.Wait()
	if granted.Load() != 10 {
		t.Errorf("got %d holds of 10 s via Spaces, want 10: half of 210 s", granted.Load())
	}
}
