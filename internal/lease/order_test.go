package lease

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"spacehost/quota"
)

func priority(n int) func(*Request)       { return func(r *Request) { r.Tier.Priority = n } }
func payer(name string) func(*Request)    { return func(r *Request) { r.Payer.Name = name } }
func inSpace(name string) func(*Request)  { return func(r *Request) { r.Space = name } }
func atMostAtOnce(n int) func(*Request)   { return func(r *Request) { r.Tier.Concurrency = n } }
func unlimited(r *Request)                { r.Tier.Unlimited = true }
func (w *world) three()                   { w.order = newOrder(w.queueTimeout, []int{0, 1, 2}) }
func (w *world) left(l *Lease, f float64) { l.Remaining = f }

// TestWhoGoesFirst: of two that wait for the one Slot, by what differs and by how much later the second came.
func TestWhoGoesFirst(t *testing.T) {
	for name, row := range map[string]struct {
		first, second       func(*Request)
		leftFirst, leftThen float64
		later               time.Duration
		want                int
	}{
		"who came first":                       {priority(1), priority(1), 1, 1, time.Nanosecond, 0},
		"a tier above":                         {priority(0), priority(1), 1, 0, 0, 1},
		"a tier above, however long":           {priority(0), both(priority(1), lasting(time.Hour)), 1, 0, 4 * time.Second, 1},
		"a tier above, but much later":         {priority(0), priority(1), 1, 1, 13 * time.Second, 0},
		"two tiers above":                      {priority(0), priority(2), 1, 1, 23 * time.Second, 1},
		"two tiers above, but much later":      {priority(0), priority(2), 1, 1, 25 * time.Second, 0},
		"all that speaks for one, and bound":   {both(priority(0), lasting(24*time.Hour)), both(priority(2), lasting(time.Second)), 0, 1, 30 * time.Second, 0},
		"more of the quota left":               {priority(1), priority(1), 0.2, 0.8, time.Second, 1},
		"shorter":                              {both(priority(1), lasting(time.Minute)), both(priority(1), lasting(5*time.Second)), 0.5, 0.5, time.Second, 1},
		"shorter, but much later":              {both(priority(1), lasting(time.Minute)), both(priority(1), lasting(5*time.Second)), 0.5, 0.5, 5 * time.Second, 0},
		"unlimited counts as all of the quota": {priority(1), both(priority(1), unlimited), 0.5, 0, time.Second, 1},
		"one's own, above all tiers":           {priority(2), priority(7), 1, 0.9, 5 * time.Second, 1},
		"one's own, below all tiers":           {priority(0), both(priority(-5), lasting(time.Second)), 0, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.three()
			holder := w.active(lasting(time.Hour))
			two := []*Lease{w.lease(row.first)}
			w.left(two[0], row.leftFirst)
			w.onSchedule(two[0])
			w.pass(row.later)
			two = append(two, w.lease(row.second))
			w.left(two[1], row.leftThen)
			w.onSchedule(two[1])
			w.onReclaimedOf(holder, nil)
			w.clear()
			w.want(two[row.want], Granted)
			w.want(two[1-row.want], Waiting)
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
			return 1500 * time.Millisecond, both(priority(2), lasting(2*time.Second)), 1
		},
		"anybody": func() (time.Duration, func(*Request), float64) {
			lasts := time.Duration(1+random.IntN(6)) * time.Second
			return time.Duration(random.Int64N(int64(2 * time.Second))), both(priority(random.IntN(3)), lasting(lasts)), random.Float64()
		},
	} {
		t.Run(stream, func(t *testing.T) {
			w := newWorld(t, 1)
			w.queueTimeout = time.Minute
			w.three()
			w.active(lasting(2 * time.Second))
			poor := w.schedule(priority(0), lasting(time.Minute))
			waited := time.Duration(0)
			for range 3000 {
				wait, alter, left := next()
				w.pass(wait)
				w.reclaimed()
				w.finish()
				l := w.lease(alter)
				l.Remaining = left
				w.onSchedule(l)
				if waited == 0 && !poor.Granted.IsZero() {
					waited = poor.Granted.Sub(poor.Admitted)
				}
				w.wantBound(seed)
			}
			t.Logf("the first of the lowest tier: %s, granted after %s", poor.State, waited)
			if stream != "anybody" && (waited == 0 || waited > w.queueTimeout) {
				t.Errorf("the first of the lowest tier ended %s, after %s; -walk.seed=%d", poor.State, waited, seed)
			}
		})
	}
}

// finish lets those who were granted run for what they declared.
func (w *world) finish() {
	w.t.Helper()
	for _, l := range w.of(func(o *Lease) bool { return o.State == Active && !o.deadline().After(w.clock) }) {
		w.release(l)
	}
	w.reclaimed()
	for _, l := range w.of(func(o *Lease) bool { return o.State == Granted }) {
		w.allows++
		if _, _, err := w.onClaim(l.Space, l.ID, workerOf(10_000+w.allows)); err != nil {
			w.t.Fatal(err)
		}
		w.onAllow(l, w.clock)
	}
}

func (w *world) wantBound(seed uint64) {
	w.t.Helper()
	for _, granted := range w.grants {
		for _, l := range w.waiting {
			if granted.Granted.After(l.Admitted) && granted.Admitted.Sub(l.Admitted) >= w.queueTimeout/2 {
				w.t.Fatalf("%s came %s after %s and went first; -walk.seed=%d", granted.ID, granted.Admitted.Sub(l.Admitted), l.ID, seed)
			}
		}
	}
	w.grants = nil
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
		w := newSharedWorld(t, 1, 2)
		w.queueTimeout = time.Hour
		w.order = newOrder(time.Minute, []int{0, 1, 2})
		w.active(lasting(longest))
		whole := w.schedule(xlarge, priority(random.IntN(3)), lasting(time.Minute))
		for whole.State == Waiting {
			w.pass(time.Duration(random.Int64N(int64(8 * time.Second)))) // about half of what the Device can take
			w.reclaimed()
			w.finish()
			w.schedule(priority(random.IntN(3)), lasting(time.Duration(1+random.IntN(8))*time.Second))
			w.clear()
			if waited := w.clock.Sub(whole.Admitted); waited > w.order.bound+4*(longest+deadlineGrace) {
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
			w := newWorld(t, 3)
			if row.limit == OfSpace {
				w.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
			}
			first := w.active(row.mine)
			second, third := w.schedule(row.mine), w.schedule(row.mine)
			if len(w.checks) != 0 || second.limit != row.limit || third.limit != row.limit {
				t.Fatalf("%d looks, limits %q and %q; want nobody looking for a place, and %q", len(w.checks), second.limit, third.limit, row.limit)
			}
			w.granted(row.others)
			w.want(second, Waiting)
			if _, err := w.onRelease(first.Space, first.ID, false); err != nil {
				t.Fatal(err)
			}
			w.onTime()
			w.clear() // the third Slot: nobody waits for the first to be taken back
			w.want(second, Granted)
			w.want(third, Waiting)
			if third.limit != row.limit {
				t.Errorf("the third waits for %q", third.limit)
			}
			w.onCancelled(second.Event)
			w.onTime()
			w.reclaimed()
			w.want(third, Granted)
		})
	}
}

// TestAWholeDeviceIsNotLostToHalvesOfItsOwnSpace: it waits for a Device, and keeps its Space's one place.
func TestAWholeDeviceIsNotLostToHalvesOfItsOwnSpace(t *testing.T) {
	w := newSharedWorld(t, 1, 2)
	w.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
	other := w.active(inSpace("other"))
	whole := w.schedule(xlarge)
	half := w.schedule()
	w.clear()
	if whole.limit != "" || half.limit != OfSpace {
		t.Fatalf("limits %q and %q, want the half to wait for the whole", whole.limit, half.limit)
	}
	w.onReclaimedOf(other, nil)
	w.clear()
	w.want(whole, Granted)
	w.want(half, Waiting)
}

// TestALimitedXlargeKeepsNoDevice: nothing is reserved for one that may not have it.
func TestALimitedXlargeKeepsNoDevice(t *testing.T) {
	w := newSharedWorld(t, 1, 2)
	w.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
	w.active(lasting(10 * time.Second))
	whole := w.schedule(xlarge)
	long := w.schedule(inSpace("other"), lasting(5*time.Minute))
	w.clear()
	w.want(whole, Waiting)
	w.want(long, Granted)
}

func TestPrioritiesAreSortedOut(t *testing.T) {
	o := newOrder(time.Minute, []int{50, 0, 50, 2})
	if !slices.Equal(o.priorities, []int{0, 2, 50}) || o.bound != 30*time.Second {
		t.Errorf("got %+v", o)
	}
	o.learn(10)
	o.learn(2)
	for p, want := range map[int]int{0: 0, 2: 1, 10: 2, 50: 3} {
		if got := o.level(quota.Tier{Priority: p}); got != want {
			t.Errorf("priority %d: got level %d, want %d", p, got, want)
		}
	}
}
