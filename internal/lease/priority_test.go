package lease

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"spacehost/quota"
)

func tierPriority(n int) func(*Request)                      { return func(r *Request) { r.Tier.Priority = n } }
func payer(name string) func(*Request)                       { return func(r *Request) { r.Payer.Name = name } }
func inSpace(name string) func(*Request)                     { return func(r *Request) { r.Space = name } }
func atMostAtOnce(n int) func(*Request)                      { return func(r *Request) { r.Tier.Concurrency = n } }
func unlimited(r *Request)                                   { r.Tier.Unlimited = true }
func (h *schedulerHarness) useThreeTiers()                   { h.priority = newPriority(h.queueTimeout, []int{0, 1, 2}) }
func (h *schedulerHarness) setRemaining(l *Lease, f float64) { l.Remaining = f }

// TestPriority compares two leases that wait for the only Slot, by their difference and by how much later the
// second was admitted.
func TestPriority(t *testing.T) {
	for name, row := range map[string]struct {
		first, second       func(*Request)
		leftFirst, leftThen float64
		later               time.Duration
		want                int
	}{
		"admitted first":                             {tierPriority(1), tierPriority(1), 1, 1, time.Nanosecond, 0},
		"a tier above":                               {tierPriority(0), tierPriority(1), 1, 0, 0, 1},
		"a tier above, long declaration":             {tierPriority(0), both(tierPriority(1), lasting(time.Hour)), 1, 0, 4 * time.Second, 1},
		"a tier above, but much later":               {tierPriority(0), tierPriority(1), 1, 1, 13 * time.Second, 0},
		"two tiers above":                            {tierPriority(0), tierPriority(2), 1, 1, 23 * time.Second, 1},
		"two tiers above, but much later":            {tierPriority(0), tierPriority(2), 1, 1, 25 * time.Second, 0},
		"best in every respect, but the bound later": {both(tierPriority(0), lasting(24*time.Hour)), both(tierPriority(2), lasting(time.Second)), 0, 1, 30 * time.Second, 0},
		"more of the quota left":                     {tierPriority(1), tierPriority(1), 0.2, 0.8, time.Second, 1},
		"shorter":                                    {both(tierPriority(1), lasting(time.Minute)), both(tierPriority(1), lasting(5*time.Second)), 0.5, 0.5, time.Second, 1},
		"shorter, but much later":                    {both(tierPriority(1), lasting(time.Minute)), both(tierPriority(1), lasting(5*time.Second)), 0.5, 0.5, 5 * time.Second, 0},
		"unlimited counts as all of the quota":       {tierPriority(1), both(tierPriority(1), unlimited), 0.5, 0, time.Second, 1},
		"own priority, above all tiers":              {tierPriority(2), tierPriority(7), 1, 0.9, 5 * time.Second, 1},
		"own priority, below all tiers":              {tierPriority(0), both(tierPriority(-5), lasting(time.Second)), 0, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newSchedulerHarness(t, 1)
			h.useThreeTiers()
			holder := h.active(lasting(time.Hour))
			two := []*Lease{h.newLease(row.first)}
			h.setRemaining(two[0], row.leftFirst)
			h.onSchedule(two[0])
			h.advance(row.later)
			two = append(two, h.newLease(row.second))
			h.setRemaining(two[1], row.leftThen)
			h.onSchedule(two[1])
			h.releaseAndReclaim(holder, nil)
			h.passChecks()
			h.want(two[row.want], Granted)
			h.want(two[1-row.want], Waiting)
		})
	}
}

func both(one, other func(*Request)) func(*Request) {
	return func(r *Request) { one(r); other(r) }
}

// TestOvertakingIsBounded: no Lease gets a Slot before another that was admitted half the queue timeout earlier.
// An early Lease of the lowest tier is served during a flood of the highest.
func TestOvertakingIsBounded(t *testing.T) {
	seed := *walkSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	random := rand.New(rand.NewPCG(seed, 1))
	for stream, next := range map[string]func() (wait time.Duration, alter func(*Request), left float64){
		"a flood of the highest tier": func() (time.Duration, func(*Request), float64) {
			return 1500 * time.Millisecond, both(tierPriority(2), lasting(2*time.Second)), 1
		},
		"random leases": func() (time.Duration, func(*Request), float64) {
			lasts := time.Duration(1+random.IntN(6)) * time.Second
			return time.Duration(random.Int64N(int64(2 * time.Second))), both(tierPriority(random.IntN(3)), lasting(lasts)), random.Float64()
		},
	} {
		t.Run(stream, func(t *testing.T) {
			h := newSchedulerHarness(t, 1)
			h.queueTimeout = time.Minute
			h.useThreeTiers()
			h.active(lasting(2 * time.Second))
			poor := h.schedule(tierPriority(0), lasting(time.Minute))
			waited := time.Duration(0)
			for range 3000 {
				wait, alter, left := next()
				h.advance(wait)
				h.finishReclaims()
				h.runToDeclaredEnd()
				l := h.newLease(alter)
				l.Remaining = left
				h.onSchedule(l)
				if waited == 0 && !poor.Granted.IsZero() {
					waited = poor.Granted.Sub(poor.Admitted)
				}
				h.wantBound(seed)
			}
			t.Logf("the first of the lowest tier: %s, granted after %s", poor.State, waited)
			if stream != "random leases" && (waited == 0 || waited > h.queueTimeout) {
				t.Errorf("the first of the lowest tier ended %s, after %s; -walk.seed=%d", poor.State, waited, seed)
			}
		})
	}
}

// runToDeclaredEnd lets granted leases run for their declared time.
func (h *schedulerHarness) runToDeclaredEnd() {
	h.t.Helper()
	for _, l := range h.openLeases(func(o *Lease) bool { return o.State == Active && !o.deadline().After(h.clock) }) {
		h.release(l)
	}
	h.finishReclaims()
	for _, l := range h.openLeases(func(o *Lease) bool { return o.State == Granted }) {
		h.finishCount++
		if _, _, err := h.onClaim(l.Space, l.ID, workerOf(10_000+h.finishCount)); err != nil {
			h.t.Fatal(err)
		}
		h.onAllow(l, h.clock)
	}
}

func (h *schedulerHarness) wantBound(seed uint64) {
	h.t.Helper()
	for _, granted := range h.grants {
		for _, l := range h.waiting {
			if granted.Granted.After(l.Admitted) && granted.Admitted.Sub(l.Admitted) >= h.queueTimeout/2 {
				h.t.Fatalf("%s was admitted %s after %s and was granted first; -walk.seed=%d", granted.ID, granted.Admitted.Sub(l.Admitted), l.ID, seed)
			}
		}
	}
	h.grants = nil
}

// TestXlargeIsServedBesideAnyLoad: Leases that go before it are admitted within the bound. After that no Lease
// keeps its Device.
func TestXlargeIsServedBesideAnyLoad(t *testing.T) {
	seed := *walkSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	random := rand.New(rand.NewPCG(seed, 2))
	const longest = 8 * time.Second
	for range 50 {
		h := newSharedSchedulerHarness(t, 1, 2)
		h.queueTimeout = time.Hour
		h.priority = newPriority(time.Minute, []int{0, 1, 2})
		h.active(lasting(longest))
		whole := h.schedule(xlarge, tierPriority(random.IntN(3)), lasting(time.Minute))
		for whole.State == Waiting {
			h.advance(time.Duration(random.Int64N(int64(8 * time.Second)))) // about half of the Device's capacity
			h.finishReclaims()
			h.runToDeclaredEnd()
			h.schedule(tierPriority(random.IntN(3)), lasting(time.Duration(1+random.IntN(8))*time.Second))
			h.passChecks()
			if waited := h.clock.Sub(whole.Admitted); waited > h.priority.bound+4*(longest+deadlineGrace) {
				t.Fatalf("the xlarge lease waits for %s; -walk.seed=%d", waited, seed)
			}
		}
	}
}

// TestConcurrencyLimits: a blocked Lease neither overtakes nor delays others.
func TestConcurrencyLimits(t *testing.T) {
	for name, row := range map[string]struct {
		mine, others func(*Request)
		limit        Limit
	}{
		"of a Space":     {inSpace("demo"), inSpace("other"), OfSpace},
		"of an identity": {both(payer("ada"), atMostAtOnce(1)), both(payer("ben"), atMostAtOnce(1)), OfIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			h := newSchedulerHarness(t, 3)
			if row.limit == OfSpace {
				h.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
			}
			first := h.active(row.mine)
			second, third := h.schedule(row.mine), h.schedule(row.mine)
			if len(h.checks) != 0 || second.limit != row.limit || third.limit != row.limit {
				t.Fatalf("%d checks, limits %q and %q; want no check, and limit %q", len(h.checks), second.limit, third.limit, row.limit)
			}
			h.granted(row.others)
			h.want(second, Waiting)
			if _, err := h.onRelease(first.Space, first.ID, false); err != nil {
				t.Fatal(err)
			}
			h.onTime()
			h.passChecks() // the third Slot: the Lease does not wait for the first to be reclaimed
			h.want(second, Granted)
			h.want(third, Waiting)
			if third.limit != row.limit {
				t.Errorf("the third lease is blocked by %q", third.limit)
			}
			h.onCancelled(second.Event)
			h.onTime()
			h.finishReclaims()
			h.want(third, Granted)
		})
	}
}

// TestXlargeKeepsItsSpacesConcurrency: while it waits for a Device, it uses the only concurrent Lease of its
// Space.
func TestXlargeKeepsItsSpacesConcurrency(t *testing.T) {
	h := newSharedSchedulerHarness(t, 1, 2)
	h.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
	other := h.active(inSpace("other"))
	whole := h.schedule(xlarge)
	half := h.schedule()
	h.passChecks()
	if whole.limit != "" || half.limit != OfSpace {
		t.Fatalf("limits %q and %q, want the large lease blocked by the xlarge one", whole.limit, half.limit)
	}
	h.releaseAndReclaim(other, nil)
	h.passChecks()
	h.want(whole, Granted)
	h.want(half, Waiting)
}

// TestBlockedXlargeReservesNoDevice: a Lease at its concurrency limit gets no reservation.
func TestBlockedXlargeReservesNoDevice(t *testing.T) {
	h := newSharedSchedulerHarness(t, 1, 2)
	h.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
	h.active(lasting(10 * time.Second))
	whole := h.schedule(xlarge)
	long := h.schedule(inSpace("other"), lasting(5*time.Minute))
	h.passChecks()
	h.want(whole, Waiting)
	h.want(long, Granted)
}

func TestTierPriorities(t *testing.T) {
	o := newPriority(time.Minute, []int{50, 0, 50, 2})
	if !slices.Equal(o.tierPriorities, []int{0, 2, 50}) || o.bound != 30*time.Second {
		t.Errorf("got %+v", o)
	}
	o.addTierPriority(10)
	o.addTierPriority(2)
	for p, want := range map[int]int{0: 0, 2: 1, 10: 2, 50: 3} {
		if got := o.level(quota.Tier{Priority: p}); got != want {
			t.Errorf("priority %d: got level %d, want %d", p, got, want)
		}
	}
}
