package quota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestRandomWalk holds, opens, settles and lets time pass in random order. A second account, kept in the test in the
// simplest way, predicts each result: held or refused, with left and wait to the second.
func TestRandomWalk(t *testing.T) {
	seed := rand.Uint64()
	if again, err := strconv.ParseUint(os.Getenv("WALK_SEED"), 10, 64); err == nil {
		seed = again
	}
	t.Logf("again with WALK_SEED=%d", seed)
	steps := 600
	if os.Getenv("SPACEHOST_FIRE") != "" {
		steps = 50_000
	}
	w := &walk{ledgerFixture: newFixture(t), rand: rand.New(rand.NewPCG(seed, 0)), now: noon, open: map[string]*held{}}
	for range steps {
		[]func(){w.ask, w.ask, w.start, w.end, w.end, w.wait}[w.rand.IntN(6)]()
		w.check()
		if t.Failed() {
			t.FailNow()
		}
	}
	if w.granted < steps/20 || w.refused < steps/20 || len(w.spans) < 3 {
		t.Errorf("%d granted, %d refused, %d windows: too few for a useful test", w.granted, w.refused, len(w.spans))
	}
}

// walk is a ledgerFixture with a second copy of the same account.
type walk struct {
	ledgerFixture
	rand             *rand.Rand
	now              time.Time
	spans            []*span // the windows, in order
	open             map[string]*held
	leases           int
	granted, refused int
}

type span struct {
	ends    time.Time // zero: not opened
	charged time.Duration
}

// held is a hold that is not settled.
type held struct {
	span   *span
	amount time.Duration
	until  time.Time
	active bool
}

// current returns the last span unless it has ended; nil: the next hold begins another.
func (w *walk) current() *span {
	if len(w.spans) == 0 {
		return nil
	}
	last := w.spans[len(w.spans)-1]
	if !last.ends.IsZero() && !w.now.Before(last.ends) {
		return nil
	}
	return last
}

// left returns what may be held in s, and what could be held without any holds.
func (w *walk) left(s *span) (left, unspent time.Duration) {
	left = free.Quota
	if s != nil {
		left -= s.charged
	}
	unspent = left
	for _, h := range w.open {
		if s != nil && h.span == s {
			left -= h.amount
		}
	}
	return left, unspent
}

func (w *walk) ask() {
	w.leases++
	id := fmt.Sprintf("lease-%d", w.leases)
	declared, factor := time.Duration(1+w.rand.IntN(90))*time.Second, 1+w.rand.IntN(2)
	s := w.current()
	left, unspent := w.left(s)
	if near := left + []time.Duration{-time.Millisecond, 0, time.Millisecond}[w.rand.IntN(3)]; w.rand.IntN(3) == 0 && near > time.Second && near <= free.Quota {
		declared, factor = near, 1 // exactly what is left, or a millisecond more or less
	}
	requested := declared * time.Duration(factor)
	until := w.now.Add(declared + time.Duration(w.rand.IntN(60_000))*time.Millisecond)
	var pending []Pending
	for lease, h := range w.open {
		pending = append(pending, Pending{Lease: lease, Held: h.amount, Until: h.until})
	}
	got, err := w.hold(id, declared, w.now, func(r *HoldRequest) { r.Factor, r.Pending = factor, pending })
	if requested <= left {
		if err != nil || got != requested {
			w.t.Errorf("%v asked with %v left: got %v, %v", requested, left, got, err)
		}
		if s == nil {
			s = &span{}
			w.spans = append(w.spans, s)
		}
		w.open[id] = &held{span: s, amount: requested, until: until}
		w.granted++
		return
	}
	w.refused++
	exceeded, ok := errors.AsType[*ExceededError](err)
	wantLeft, wantWait := max(0, int(left/time.Second)), w.wantWait(s, requested, left, unspent)
	if !ok || exceeded.LeftSeconds() != wantLeft || exceeded.WaitSeconds() != wantWait {
		w.t.Errorf("%v asked with %v left at %v: got %v, want %d left and %d s to wait", requested, left, w.now, err, wantLeft, wantWait)
	}
}

// wantWait returns the wait until enough holds have ended, if only holds exceed the quota, or until the reset.
func (w *walk) wantWait(s *span, requested, left, unspent time.Duration) int {
	wait := Span
	if s != nil && !s.ends.IsZero() {
		wait = s.ends.Sub(w.now)
	}
	if requested <= unspent {
		var of []*held
		for _, h := range w.open {
			if h.span == s {
				of = append(of, h)
			}
		}
		slices.SortFunc(of, func(a, b *held) int { return a.until.Compare(b.until) })
		for _, h := range of {
			if left += h.amount; left >= requested {
				wait = min(wait, h.until.Sub(w.now))
				break
			}
		}
	}
	return min(max(int((wait+time.Second-1)/time.Second), 1), 86399)
}

// any returns an open hold that matches, or "".
func (w *walk) any(active bool) string {
	for lease, h := range w.open {
		if h.active == active {
			return lease
		}
	}
	return ""
}

func (w *walk) start() {
	lease := w.any(false)
	if lease == "" {
		return
	}
	h := w.open[lease]
	w.ledgerFixture.open(lease, w.now)
	if h.active = true; h.span.ends.IsZero() {
		h.span.ends = w.now.Add(24 * time.Hour)
	}
}

// end charges to the millisecond, in the window of the hold, however late.
func (w *walk) end() {
	lease := w.any(w.rand.IntN(4) > 0)
	if lease == "" {
		return
	}
	h := w.open[lease]
	charged := time.Duration(0)
	if h.active {
		charged = time.Duration(w.rand.Int64N(int64(h.amount/time.Millisecond)+1)) * time.Millisecond
	}
	if err := w.settle(lease, h.amount+time.Millisecond, w.now); err == nil {
		w.t.Errorf("%s was charged more than it holds", lease)
	}
	w.mustSettle(lease, charged, w.now)
	h.span.charged += charged
	delete(w.open, lease)
}

// wait lets time pass, sometimes exactly to the reset or to the millisecond before it.
func (w *walk) wait() {
	s := w.current()
	if s != nil && !s.ends.IsZero() && w.rand.IntN(6) == 0 {
		w.now = s.ends
		if before := s.ends.Add(-time.Millisecond); w.rand.IntN(2) == 0 && w.now.Before(before) {
			w.now = before
		}
		return
	}
	w.now = w.now.Add(time.Duration(w.rand.IntN(30_000)) * time.Millisecond)
}

// check: charges and holds together never exceed the quota, and the ledger's balance is that of the walk.
func (w *walk) check() {
	s := w.current()
	left, unspent := w.left(s)
	if left < 0 {
		w.t.Errorf("held and charged exceed the quota by %v", -left)
	}
	if got := w.balance(w.now); got.Left != left || got.Base-got.Charged != unspent {
		w.t.Errorf("balance at %v: got %+v, want %v left, %v if nothing were held", w.now, got, left, unspent)
	}
}
