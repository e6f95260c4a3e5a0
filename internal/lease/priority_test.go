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

// TestWhoGoesFirst: of two that wait for the one Slot, by what differs and by how much later the second came.
func TestWhoGoesFirst(t *testing.T) {
	for name, row := range map[string]struct {
		first, second       func(*Request)
		leftFirst, leftThen float64
		later               time.Duration
		want                int
	}{
		"who came first":                       {tierPriority(1), tierPriority(1), 1, 1, time.Nanosecond, 0},
		"a tier above":                         {tierPriority(0), tierPriority(1), 1, 0, 0, 1},
		"a tier above, however long":           {tierPriority(0), both(tierPriority(1), lasting(time.Hour)), 1, 0, 4 * time.Second, 1},
		"a tier above, but much later":         {tierPriority(0), tierPriority(1), 1, 1, 13 * time.Second, 0},
		"two tiers above":                      {tierPriority(0), tierPriority(2), 1, 1, 23 * time.Second, 1},
		"two tiers above, but much later":      {tierPriority(0), tierPriority(2), 1, 1, 25 * time.Second, 0},
		"all that speaks for one, and bound":   {both(tierPriority(0), lasting(24*time.Hour)), both(tierPriority(2), lasting(time.Second)), 0, 1, 30 * time.Second, 0},
		"more of the quota left":               {tierPriority(1), tierPriority(1), 0.2, 0.8, time.Second, 1},
		"shorter":                              {both(tierPriority(1), lasting(time.Minute)), both(tierPriority(1), lasting(5*time.Second)), 0.5, 0.5, time.Second, 1},
		"shorter, but much later":              {both(tierPriority(1), lasting(time.Minute)), both(tierPriority(1), lasting(5*time.Second)), 0.5, 0.5, 5 * time.Second, 0},
		"unlimited counts as all of the quota": {tierPriority(1), both(tierPriority(1), unlimited), 0.5, 0, time.Second, 1},
		"one's own, above all tiers":           {tierPriority(2), tierPriority(7), 1, 0.9, 5 * time.Second, 1},
		"one's own, below all tiers":           {tierPriority(0), both(tierPriority(-5), lasting(time.Second)), 0, 1, 0, 0},
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

// TestNobodyIsOvertakenBeyondTheBound: whatever comes, nobody gets a Slot before one who came half the queue timeout
// earlier, and an early one of the lowest tier is served beside a flood of the highest.
func TestNobodyIsOvertakenBeyondTheBound(t *testing.T) {
	seed := *walkSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	random := rand.New(rand.NewPCG(seed, 1))
	for stream, next := range map[string]func() (wait time.Duration, alter func(*Request), left float64){
		"a flood from above": func() (time.Duration, func(*Request), float64) {
			return 1500 * time.Millisecond, both(tierPriority(2), lasting(2*time.Second)), 1
		},
		"anybody": func() (time.Duration, func(*Request), float64) {
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
			if stream != "anybody" && (waited == 0 || waited > h.queueTimeout) {
				t.Errorf("the first of the lowest tier ended %s, after %s; -walk.seed=%d", poor.State, waited, seed)
			}
		})
	}
}

// finish lets those who were granted run for what they declared.
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
				h.t.Fatalf("%s came %s after %s and went first; -walk.seed=%d", granted.ID, granted.Admitted.Sub(l.Admitted), l.ID, seed)
			}
		}
	}
	h.grants = nil
}

// TestXlargeIsServedBesideAnyStream: who goes before it has come within the bound, and from then on nobody keeps its Device.
func TestXlargeIsServedBesideAnyStream(t *testing.T) {
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
			h.advance(time.Duration(random.Int64N(int64(8 * time.Second)))) // about half of what the Device can take
			h.finishReclaims()
			h.runToDeclaredEnd()
			h.schedule(tierPriority(random.IntN(3)), lasting(time.Duration(1+random.IntN(8))*time.Second))
			h.passChecks()
			if waited := h.clock.Sub(whole.Admitted); waited > h.priority.bound+4*(longest+deadlineGrace) {
				t.Fatalf("it waits for %s; -walk.seed=%d", waited, seed)
			}
		}
	}
}

// TestLimitsOfConcurrency: who may have no more passes nobody on, and stops nobody.
func TestLimitsOfConcurrency(t *testing.T) {
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
				t.Fatalf("%d looks, limits %q and %q; want nobody looking for a place, and %q", len(h.checks), second.limit, third.limit, row.limit)
			}
			h.granted(row.others)
			h.want(second, Waiting)
			if _, err := h.onRelease(first.Space, first.ID, false); err != nil {
				t.Fatal(err)
			}
			h.onTime()
			h.passChecks() // the third Slot: nobody waits for the first to be taken back
			h.want(second, Granted)
			h.want(third, Waiting)
			if third.limit != row.limit {
				t.Errorf("the third waits for %q", third.limit)
			}
			h.onCancelled(second.Event)
			h.onTime()
			h.finishReclaims()
			h.want(third, Granted)
		})
	}
}

// TestAWholeDeviceIsNotLostToHalvesOfItsOwnSpace: it waits for a Device, and keeps its Space's one place.
func TestAWholeDeviceIsNotLostToHalvesOfItsOwnSpace(t *testing.T) {
	h := newSharedSchedulerHarness(t, 1, 2)
	h.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
	other := h.active(inSpace("other"))
	whole := h.schedule(xlarge)
	half := h.schedule()
	h.passChecks()
	if whole.limit != "" || half.limit != OfSpace {
		t.Fatalf("limits %q and %q, want the half to wait for the whole", whole.limit, half.limit)
	}
	h.releaseAndReclaim(other, nil)
	h.passChecks()
	h.want(whole, Granted)
	h.want(half, Waiting)
}

// TestALimitedXlargeKeepsNoDevice: nothing is reserved for one that may not have it.
func TestALimitedXlargeKeepsNoDevice(t *testing.T) {
	h := newSharedSchedulerHarness(t, 1, 2)
	h.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
	h.active(lasting(10 * time.Second))
	whole := h.schedule(xlarge)
	long := h.schedule(inSpace("other"), lasting(5*time.Minute))
	h.passChecks()
	h.want(whole, Waiting)
	h.want(long, Granted)
}

func TestPrioritiesAreSortedOut(t *testing.T) {
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
