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

// walkTier has limits of seconds and of runs that both bind in a random walk.
var walkTier = Tier{Name: "free", Quota: 210 * s, Runs: 12}

// TestRandomWalk holds, opens, settles, adjusts and lets time pass in random order. A second account, kept in the test in the
// simplest way, predicts each result: held or refused, with left and wait to the second.
func TestRandomWalk(t *testing.T) {
	seed := rand.Uint64()
	if again, err := strconv.ParseUint(os.Getenv("WALK_SEED"), 10, 64); err == nil {
		seed = again
	}
	t.Logf("again with WALK_SEED=%d", seed)
	steps := 1200
	if os.Getenv("SPACEHOST_FIRE") != "" {
		steps = 50_000
	}
	w := &walk{ledgerFixture: newFixture(t), rand: rand.New(rand.NewPCG(seed, 0)), now: noon, open: map[string]*held{}, refused: map[string]int{}}
	w.Ledger = New(w.db, Config{Now: func() time.Time { return w.now }})
	for n := 0; n < steps || !w.useful(steps) && n < 20*steps; n++ {
		[]func(){w.ask, w.ask, w.ask, w.start, w.end, w.end, w.end, w.wait, w.wait, w.adjust}[w.rand.IntN(10)]()
		w.check()
		if t.Failed() {
			t.FailNow()
		}
	}
	w.ledgerFixture.check()
	if !w.useful(steps) {
		t.Errorf("%d granted, %d with credits, %v refused, %d windows: too few for a useful test", w.granted, w.overdrawn, w.refused, len(w.spans))
	}
}

// useful reports whether each outcome was met often enough. A walk that seldom meets one of them is continued.
func (w *walk) useful(steps int) bool {
	few := steps / 200
	return w.granted >= steps/20 && w.refused["seconds"] >= few && w.refused["runs"] >= few && w.overdrawn >= few && len(w.spans) >= 3
}

// walk is a ledgerFixture with a second copy of the same account.
type walk struct {
	ledgerFixture
	rand      *rand.Rand
	now       time.Time
	spans     []*span // the windows, in order
	open      map[string]*held
	runs      []*run // those that count, of open leases too
	grants    []*run // grants of runs, in the same form
	credits   time.Duration
	leases    int
	granted   int
	overdrawn int            // granted with credits
	refused   map[string]int // by limit
}

type span struct {
	ends            time.Time // zero: not opened
	charged, credit time.Duration
}

// run counts for a day from at.
type run struct {
	at time.Time
	n  int
}

// held is a hold that is not settled.
type held struct {
	span           *span
	amount, credit time.Duration
	until          time.Time
	run            *run // nil: it is not active
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

// left returns what may be held in s, and what could be held without any holds. Neither has credits.
func (w *walk) left(s *span) (left, unspent time.Duration) {
	left = walkTier.Quota
	if s != nil {
		left -= s.charged
	}
	unspent = left
	for _, h := range w.open {
		if s != nil && h.span == s {
			left -= h.amount - h.credit
		}
	}
	return left, unspent
}

// creditsLeft returns the credits that no hold has, and those that holds have.
func (w *walk) creditsLeft() (left, pending time.Duration) {
	for _, h := range w.open {
		pending += h.credit
	}
	return w.credits - pending, pending
}

// counts returns the sum of the runs that count at a time.
func counts(all []*run, at time.Time) (n int) {
	for _, r := range all {
		if r.at.Add(24 * time.Hour).After(at) {
			n += r.n
		}
	}
	return n
}

// runsLeft returns the runs that are left at a time, if nothing else happens.
func (w *walk) runsLeft(at time.Time) int {
	left := walkTier.Runs + counts(w.grants, at) - counts(w.runs, at)
	for _, h := range w.open {
		if h.run == nil {
			left--
		}
	}
	return left
}

func (w *walk) ask() {
	w.leases++
	id := fmt.Sprintf("lease-%d", w.leases)
	declared, factor := time.Duration(1+w.rand.IntN(60))*time.Second, 1+w.rand.IntN(2)
	s := w.current()
	left, _ := w.left(s)
	if near := left + []time.Duration{-time.Millisecond, 0, time.Millisecond}[w.rand.IntN(3)]; w.rand.IntN(3) == 0 && near > time.Second && near <= walkTier.Quota {
		declared, factor = near, 1 // exactly what is left, or a millisecond more or less
	}
	requested := declared * time.Duration(factor)
	until := w.now.Add(declared + time.Duration(w.rand.IntN(60_000))*time.Millisecond)
	var pending []Pending
	for lease, h := range w.open {
		pending = append(pending, Pending{Lease: lease, Held: h.amount, Until: h.until})
	}
	got, err := w.hold(id, declared, w.now, func(r *HoldRequest) { r.Factor, r.Pending, r.Tier = factor, pending, walkTier })
	credits, pendingCredits := w.creditsLeft()
	switch {
	case w.runsLeft(w.now) <= 0:
		w.wantRunsExceeded(err)
	case requested <= left+credits:
		if err != nil || got != requested {
			w.t.Errorf("%v asked with %v and %v of credits left: got %v, %v", requested, left, credits, got, err)
		}
		if s == nil {
			s = &span{}
			w.spans = append(w.spans, s)
		}
		w.open[id] = &held{span: s, amount: requested, credit: max(0, requested-left), until: until}
		w.granted++
		w.overdrawn += min(1, int(w.open[id].credit))
	case requested <= left+credits+pendingCredits:
		w.refused["pending"]++
		e, ok := errors.AsType[*CreditsPendingError](err)
		if want := w.wantWait(nil, requested, left+credits); !ok || e.Left != left+credits || e.WaitSeconds() != want {
			w.t.Errorf("%v asked with %v and %v of credits left, %v held: got %v, want %d s to wait", requested, left, credits, pendingCredits, err, want)
		}
	default:
		w.wantExceeded(s, requested, err)
	}
}

func (w *walk) wantExceeded(s *span, requested time.Duration, err error) {
	w.refused["seconds"]++
	left, unspent := w.left(s)
	credits, pendingCredits := w.creditsLeft()
	exceeded, ok := errors.AsType[*ExceededError](err)
	wantLeft, wantWait := int((left+credits)/time.Second), waitSeconds(w.reset(s))
	if requested <= unspent+credits+pendingCredits {
		wantWait = w.wantWait(s, requested, left+credits)
	}
	if !ok || exceeded.LeftSeconds() != wantLeft || exceeded.WaitSeconds() != wantWait {
		w.t.Errorf("%v asked with %v left at %v: got %v, want %d left and %d s to wait", requested, left, w.now, err, wantLeft, wantWait)
	}
}

// wantRunsExceeded tries every time at which a run returns.
func (w *walk) wantRunsExceeded(err error) {
	w.refused["runs"]++
	want := Span
	for _, r := range w.runs {
		back := r.at.Add(24 * time.Hour)
		if wait := back.Sub(w.now); wait > 0 && w.runsLeft(back) > 0 {
			want = min(want, wait)
		}
	}
	if e, ok := errors.AsType[*RunsExceededError](err); !ok || e.Wait != want {
		w.t.Errorf("no run is left at %v: got %v, want %v to wait", w.now, err, want)
	}
}

// reset returns the time until the end of s.
func (w *walk) reset(s *span) time.Duration {
	if s != nil && !s.ends.IsZero() {
		return s.ends.Sub(w.now)
	}
	return Span
}

// wantWait returns the seconds until enough holds have ended, or until the reset. Without a span, only credits are freed.
func (w *walk) wantWait(of *span, requested, left time.Duration) int {
	wait := w.reset(w.current())
	all := slices.SortedFunc(func(yield func(*held) bool) {
		for _, h := range w.open {
			if !yield(h) {
				return
			}
		}
	}, func(a, b *held) int { return a.until.Compare(b.until) })
	for _, h := range all {
		if left += h.credit; of != nil && h.span == of {
			left += h.amount - h.credit
		}
		if left >= requested {
			if of == nil {
				return waitSeconds(h.until.Sub(w.now))
			}
			return waitSeconds(min(wait, h.until.Sub(w.now)))
		}
	}
	return waitSeconds(wait)
}

// any returns an open hold that matches, or "". The choice depends on the seed alone, not on the order of a map.
func (w *walk) any(active bool) string {
	var all []string
	for lease, h := range w.open {
		if (h.run != nil) == active {
			all = append(all, lease)
		}
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return all[w.rand.IntN(len(all))]
}

// start makes a lease active. Some become active a second time, after their warm worker has exited.
func (w *walk) start() {
	lease := w.any(w.rand.IntN(8) == 0)
	if lease == "" {
		return
	}
	h := w.open[lease]
	w.ledgerFixture.open(lease, w.now)
	if h.run == nil {
		h.run = &run{w.now, 1}
		w.runs = append(w.runs, h.run)
	}
	if h.span.ends.IsZero() {
		h.span.ends = w.now.Add(24 * time.Hour)
	}
}

// end charges to the millisecond, in the window of the hold, however late. Some grants were never claimed, and some active
// leases were taken back because their client never learned of the grant.
func (w *walk) end() {
	lease := w.any(w.rand.IntN(4) > 0)
	if lease == "" {
		return
	}
	h, charged, ran := w.open[lease], time.Duration(0), time.Time{}
	switch odd := w.rand.IntN(4) == 0; {
	case h.run != nil && odd:
		w.runs = slices.DeleteFunc(w.runs, func(r *run) bool { return r == h.run })
	case h.run != nil:
		charged, ran = time.Duration(w.rand.Int64N(int64(h.amount/time.Millisecond)+1))*time.Millisecond, w.now
	case odd:
		ran = w.now
		w.runs = append(w.runs, &run{w.now, 1})
	}
	if err := w.settle(lease, h.amount+time.Millisecond, w.now); err == nil {
		w.t.Errorf("%s was charged more than it holds", lease)
	}
	if err := w.settleRan(lease, charged, ran, w.now); err != nil {
		w.t.Errorf("settle %s: %v", lease, err)
	}
	credit := max(0, charged-(h.amount-h.credit))
	h.span.charged, h.span.credit, w.credits = h.span.charged+charged-credit, h.span.credit+credit, w.credits-credit
	delete(w.open, lease)
}

// adjust grants runs, adds credits or resets.
func (w *walk) adjust() {
	a := Adjustment{Identity: "user:ada", By: "operator"}
	var err error
	switch s := w.current(); w.rand.IntN(8) {
	case 0:
		a.Runs = 1 + w.rand.IntN(3)
		w.grants = append(w.grants, &run{w.now, a.Runs})
		err = w.Grant(w.t.Context(), a)
	case 1:
		if err = w.Reset(w.t.Context(), a); err != nil {
			if s != nil && s.charged > 0 {
				w.t.Errorf("reset: %v", err)
			}
			err = nil
		}
		w.runs = slices.DeleteFunc(w.runs, func(r *run) bool {
			for _, h := range w.open {
				if h.run == r {
					return false
				}
			}
			return true
		})
		if s != nil {
			s.charged = 0
		}
	case 2, 3:
		if w.credits > 90*time.Second { // or no call is refused
			return
		}
		a.Amount = time.Duration(1+w.rand.IntN(30)) * time.Second
		w.credits += a.Amount
		err = w.Credit(w.t.Context(), a)
	}
	if err != nil {
		w.t.Errorf("adjust: %v", err)
	}
	if w.count(`SELECT count(*) FROM windows`) > len(w.spans) { // an adjustment begins a window
		w.spans = append(w.spans, &span{})
	}
}

// wait lets time pass, sometimes exactly to the reset or to the return of a run, or to the millisecond before it.
func (w *walk) wait() {
	var exact []time.Time
	if s := w.current(); s != nil && !s.ends.IsZero() {
		exact = append(exact, s.ends)
	}
	for _, r := range w.runs {
		if back := r.at.Add(24 * time.Hour); back.After(w.now) {
			exact = append(exact, back)
			break
		}
	}
	if len(exact) > 0 && w.rand.IntN(6) == 0 {
		to := exact[w.rand.IntN(len(exact))]
		if before := to.Add(-time.Millisecond); w.rand.IntN(2) == 0 && w.now.Before(before) {
			to = before
		}
		w.now = to
		return
	}
	w.now = w.now.Add(time.Duration(w.rand.IntN(30_000)) * time.Millisecond)
}

// check: charges and holds together never exceed the quota, nor the credits, and the ledger's balance is that of the walk.
func (w *walk) check() {
	s := w.current()
	left, unspent := w.left(s)
	credits, pending := w.creditsLeft()
	if left < 0 || credits < 0 {
		w.t.Errorf("held and charged exceed the quota by %v, the credits by %v", -left, -credits)
	}
	got, err := w.Balance(w.t.Context(), "user:ada", walkTier, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	if got.Left != left || got.Base-got.Charged != unspent {
		w.t.Errorf("balance at %v: got %+v, want %v left, %v if nothing were held", w.now, got, left, unspent)
	}
	over := time.Duration(0)
	if s != nil {
		over = s.credit
	}
	if got.Credits != credits || got.CreditHeld != pending || got.CreditCharged != over {
		w.t.Errorf("credits at %v: got %+v, want %v left, %v held, %v charged in this window", w.now, got, credits, pending, over)
	}
	if r := got.Runs; r.Used != counts(w.runs, w.now) || r.Limit-r.Used-r.Reserved != w.runsLeft(w.now) {
		w.t.Errorf("runs at %v: got %+v, want %d used and %d left", w.now, *r, counts(w.runs, w.now), w.runsLeft(w.now))
	}
}
