package lease

import (
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"spacehost/gpu"
	"spacehost/quota"
)

var (
	walkSeed  = flag.Uint64("walk.seed", 0, "of the random walk; 0 takes a new one")
	walkSteps = flag.Int("walk.steps", 34_000, "of the random walk, for each machine")
)

// TestRandomWalk does at random whatever can happen to a line, and asks after each step for what must always hold.
func TestRandomWalk(t *testing.T) {
	seed := *walkSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	steps := *walkSteps
	if os.Getenv("SPACEHOST_FIRE") != "" { // a million over all machines
		steps = max(steps, 100_000)
	}
	resumed, begun := 0, 0
	for _, machine := range []struct {
		devices, share int
		warmFor        time.Duration
	}{{1, 1, 0}, {2, 1, 0}, {4, 1, 0}, {1, 2, 0}, {2, 2, 0}, {3, 4, 0}, {1, 1, 10 * time.Minute}, {3, 1, 3 * time.Minute}, {1, 2, 10 * time.Minute}, {2, 3, 3 * time.Minute}} {
		t.Logf("%+v; again with -walk.seed=%d", machine, seed)
		k := &walk{schedulerHarness: newSharedSchedulerHarness(t, machine.devices, machine.share), share: machine.share, rand: rand.New(rand.NewPCG(seed, uint64(machine.devices)))}
		k.warmFor, k.liveWorkers = machine.warmFor, map[Worker]allocation{}
		k.priority = newPriority(k.queueTimeout, []int{0, 1, 2})
		k.perSpace = func(space string) int { return map[string]int{"other": 2}[space] }
		for range steps {
			k.step()
			k.check()
			if t.Failed() {
				t.Fatalf("after %q, %+v, -walk.seed=%d", k.lastAction, machine, seed)
			}
		}
		k.checkVariety()
		if t.Failed() {
			return
		}
		resumed += k.resumeCount
		begun += k.warmStartCount
	}
	if begun < steps/10_000 {
		t.Errorf("only %d leases began on a warm worker, %d resumed", begun, resumed)
	}
	if resumed < steps/1000 {
		t.Errorf("only %d leases went to a warm worker", resumed)
	}
}

// walk is a world that lives at random. all is every Lease that is not both over and seen to be so.
type walk struct {
	*schedulerHarness
	rand        *rand.Rand
	share       int                   // Slots of each Device
	pids        int                   // made so far
	liveWorkers map[Worker]allocation // the workers that live, and where they sit

	resumeCount    int
	warmStartCount int
	all            []*Lease
	lastAction     string
	endCounts      map[State]int // how many ended so
}

var walkSpaces = []string{"demo", "other"}

type action struct {
	name   string
	weight int
	do     func(*walk)
}

var actions = []action{
	{"schedule", 24, (*walk).doSchedule},
	{"checked", 24, (*walk).doChecked},
	{"claim", 24, (*walk).doClaim},
	{"allow", 24, (*walk).doAllow},
	{"release", 6, (*walk).doRelease},
	{"resumed", 24, (*walk).doResumed},
	{"begun", 24, (*walk).doBegun},
	{"exit", 3, (*walk).doExit},
	{"left", 2, func(k *walk) { k.onLease(func(l *Lease) { k.onLeft(l.Event) }) }},
	{"cancelled", 2, func(k *walk) { k.onLease(func(l *Lease) { k.onCancelled(l.Event) }) }},
	{"gone", 1, func(k *walk) { k.onLease(func(l *Lease) { k.onInstanceGone(l.Instance) }) }},
	{"hung up", 2, func(k *walk) { k.onLease(func(l *Lease) { k.onHangUp(l) }) }},
	{"reclaimed", 24, (*walk).doReclaimed},
	{"uninvited", 1, func(k *walk) {
		k.onUnleased([]Unleased{{Device: k.anyDevice(), PID: 1}}[:1-min(1, k.rand.IntN(4))]) // mostly nobody
	}},
	{"drained", 1, func(k *walk) { k.onDrain(k.anyDevice(), byOperator) }},
	{"returned", 12, func(k *walk) { k.onUndrain(k.anyDevice()) }},
	{"time", 20, (*walk).doTime},
}

// step does one deed and then, as Run does, what is due.
func (k *walk) step() {
	total := 0
	if k.warmFor > 0 && k.rand.IntN(8) == 0 { // else few leases end well
		k.lastAction = "finish"
		k.onLease(k.releaseActive)
		k.onTime()
		return
	}
	for _, d := range actions {
		total += d.weight
	}
	n := k.rand.IntN(total)
	for _, d := range actions {
		if n -= d.weight; n < 0 {
			k.lastAction = d.name
			d.do(k)
			k.onTime()
			return
		}
	}
}

func (k *walk) doSchedule() {
	if len(k.waiting) > 12 || k.warmFor > 0 && len(k.waiting) > k.rand.IntN(8)/7 { // no worker idles while many wait
		return
	}
	l := k.newLease(func(r *Request) {
		if r.Space = walkSpaces[k.rand.IntN(2)]; k.warmFor > 0 && k.rand.IntN(4) > 0 {
			r.Space = "demo"
		}
		r.Instance = r.Space + "-1"
		r.Size = []string{"large", "xlarge"}[k.rand.IntN(2)]
		r.Task = []string{"draw", "draw", "draw", "speak"}[k.rand.IntN(4)]
		r.Declared = time.Duration(1+k.rand.IntN(30)) * time.Second
		r.Payer.Name = []string{"ada", "ben", "cem"}[k.rand.IntN(3)]
		r.Tier = quota.Tier{Priority: k.rand.IntN(3), Concurrency: map[string]int{"ben": 1}[r.Payer.Name]}
		if len(k.all) > 0 && k.rand.IntN(4) == 0 {
			r.Event = k.anyLease().Event // an Event may ask for more than one
		}
	})
	l.Remaining = k.rand.Float64()
	if k.rand.IntN(2) > 0 && k.tryWarmStart(l) {
		return // see doBegun
	}
	k.all = append(k.all, l)
	k.onSchedule(l)
}

// doBegun: one that has come to a warm worker is admitted together with its start, or not at all.
func (k *walk) doBegun() {
	if len(k.warmStarts) == 0 {
		return
	}
	i := k.rand.IntN(len(k.warmStarts))
	l := k.warmStarts[i]
	k.warmStarts = slices.Delete(k.warmStarts, i, i+1)
	switch k.rand.IntN(6) {
	case 0:
		k.onWarmStarted(l, k.clock, errors.New("quota exceeded"))
	case 1:
		k.onWarmStarted(l, k.clock, errUnfit)
	default:
		k.onWarmStarted(l, k.clock, nil)
		k.all = append(k.all, l)
		k.warmStartCount++
	}
}

func (k *walk) doChecked() {
	if len(k.checks) == 0 {
		return
	}
	a := k.checks[0]
	k.checks = k.checks[1:]
	var err error
	if k.rand.IntN(5) == 0 {
		err = errors.New("busy")
	}
	for _, s := range a {
		if err == nil && len(k.reclaimsOf(s)) > 0 {
			k.t.Errorf("slot %d is lent while it is being reclaimed", s.Index)
		}
	}
	k.onChecked(a, err)
}

func (k *walk) doReclaimed() {
	if len(k.reclaims) == 0 {
		return
	}
	i := k.rand.IntN(len(k.reclaims))
	r := k.reclaims[i]
	k.reclaims = append(k.reclaims[:i:i], k.reclaims[i+1:]...)
	err := []error{nil, nil, nil, errors.New("busy"), errNotReclaimed}[k.rand.IntN(5)]
	if err != errNotReclaimed {
		delete(k.liveWorkers, r.lease.Worker)
	}
	k.onReclaimed(r.place, err)
}

func (k *walk) reclaimsOf(s *slot) (found []reclaimCall) {
	for _, r := range k.reclaims {
		if slices.Contains(r.place, s) {
			found = append(found, r)
		}
	}
	return found
}

func (k *walk) doResumed() {
	if len(k.resumes) == 0 {
		return
	}
	i := k.rand.IntN(len(k.resumes))
	l := k.resumes[i]
	k.resumes = append(k.resumes[:i:i], k.resumes[i+1:]...)
	switch k.rand.IntN(8) {
	case 0:
		k.onUnfit(l)
	case 1:
		k.onResumed(l, k.clock, errors.New("disk full"))
	default:
		k.onResumed(l, k.clock, nil)
		k.resumeCount++
	}
}

// doExit lets a worker die that is watched: of a Lease, or an idle one.
func (k *walk) doExit() {
	if len(k.warmStarts) > 0 && k.warmStarts[0].warmWorker {
		delete(k.liveWorkers, k.warmStarts[0].Worker)
		k.onExit(k.warmStarts[0].Worker)
		return
	}
	if s := k.slots[k.rand.IntN(len(k.slots))]; s.phase == warm {
		delete(k.liveWorkers, s.idle.lease.Worker)
		k.onExit(s.idle.lease.Worker)
		return
	}
	k.onLease(func(l *Lease) {
		if l.State == Active {
			delete(k.liveWorkers, l.Worker)
			k.onExit(l.Worker)
		}
	})
}

// doClaim and doAllow are apart, since the database lies between the two.
func (k *walk) doClaim() {
	k.onLease(func(l *Lease) {
		before := l.Worker
		k.pids++
		_, _, err := k.onClaim(walkSpaces[k.rand.IntN(2)], l.ID, Worker{PID: k.pids})
		if err == nil {
			k.liveWorkers[l.Worker] = l.allocation
		}
		for _, w := range k.dismissed {
			delete(k.liveWorkers, w)
		}
		k.dismissed = nil
		if err != nil && l.Worker != before {
			k.t.Errorf("lease %s: a refused claim replaced %+v by %+v", l.ID, before, l.Worker)
		}
	})
}

func (k *walk) doAllow() {
	k.onLease(func(l *Lease) {
		if l.Worker.PID != 0 && !l.warmWorker && k.watched[l.Worker] == 0 {
			k.onAllow(l, k.clock)
		}
	})
}

func (k *walk) releaseActive(l *Lease) {
	if l.State == Active {
		k.onRelease(l.Space, l.ID, false)
	}
}

func (k *walk) doRelease() {
	k.onLease(func(l *Lease) {
		space, before := walkSpaces[k.rand.IntN(2)], *l
		_, err := k.onRelease(space, l.ID, k.rand.IntN(4) == 0)
		if may := k.isOnSlot(&before) && space == l.Space; (err == nil) != may {
			k.t.Errorf("lease %s of %s, %s: release by %s got %v", l.ID, l.Space, before.State, space, err)
		}
	})
}

// doTime goes to the next moment that the line has asked for, or some way on: never past such a moment.
func (k *walk) doTime() {
	to := k.clock.Add(time.Duration(k.rand.Int64N(int64(10 * time.Second))))
	if next := k.nextWake(); !next.IsZero() && next.Before(to) {
		to = next
	}
	k.clock = to
}

// any is rather one that has a Slot: there most can happen.
func (k *walk) anyLease() *Lease {
	if s := k.slots[k.rand.IntN(len(k.slots))]; s.holder != nil && !slices.Contains(k.warmStarts, s.holder) && k.rand.IntN(2) == 0 {
		return s.holder
	}
	return k.all[k.rand.IntN(len(k.all))]
}

func (k *walk) onLease(do func(*Lease)) {
	if len(k.all) > 0 {
		do(k.anyLease())
	}
}

func (k *walk) anyDevice() gpu.DeviceUUID { return k.slots[k.rand.IntN(len(k.slots))].Device.UUID }

func (k *walk) isOnSlot(l *Lease) bool { return l.State == Granted || l.State == Active }

func (k *walk) check() {
	k.checkSlots()
	k.checkWorkers()
	k.checkTime()
	k.checkOrder()
	k.checkLimits()
	for _, l := range k.all {
		if k.leases[l.ID] == l {
			k.checkOpen(l)
		} else {
			k.checkEnded(l)
		}
	}
	k.dropEnded()
}

// checkWorkers: on a Slot lives the worker of its Lease alone, or an idle one, or one that is being ended. Where nobody
// may be, nobody is.
func (k *walk) checkWorkers() {
	sitters := map[*slot]int{}
	for w, a := range k.liveWorkers {
		for _, s := range a {
			sitters[s]++
			if o := s.occupant(); s.phase == free || s.phase == checking || s.phase == drained || o == nil || o.Worker != w {
				k.t.Errorf("worker %d lives on slot %d, which is %s", w.PID, s.Index, s.phase)
			}
		}
	}
	for s, n := range sitters {
		if n > 1 {
			k.t.Errorf("%d workers live on slot %d", n, s.Index)
		}
	}
}

// checkSlots: at most one holder each, who knows of it, and none reclaimed twice at a time.
func (k *walk) checkSlots() {
	for _, s := range k.slots {
		if _, ok := k.drains[s.Device.UUID]; ok && (s.phase == free || s.phase == warm) || !ok && s.phase == drained {
			k.t.Errorf("slot %d is %s, its device is drained: %v", s.Index, s.phase, ok)
		}
		if s.phase == warm && (k.warmFor == 0 || !slices.Contains(s.idle.lease.allocation, s) || k.leases[s.idle.lease.ID] != nil) {
			k.t.Errorf("slot %d is warm from %s, which is %s", s.Index, s.idle.lease.ID, s.idle.lease.State)
		}
		if s.phase == held && (!k.isOnSlot(s.holder) || !slices.Contains(s.holder.allocation, s)) {
			k.t.Errorf("slot %d is held by %s, which is %s", s.Index, s.holder.ID, s.holder.State)
		}
		if n := len(k.reclaimsOf(s)); (s.phase == reclaiming) != (n == 1) || n > 1 {
			k.t.Errorf("slot %d is %s with %d reclaims under way", s.Index, s.phase, n)
		}
	}
}

// checkTime: after onTime nothing is due, and the line will be woken when something is.
func (k *walk) checkTime() {
	next := k.nextWake()
	for _, l := range k.leases {
		if due := k.due(l); !due.After(k.clock) || next.IsZero() || next.After(due) {
			k.t.Errorf("lease %s, %s: due at %s, it is %s and the line sleeps until %s", l.ID, l.State, due, k.clock, next)
		}
	}
}

// checkOrder: they wait in the order of their turns; where Devices are not shared, nobody who may have a Slot waits while
// one idles, nor while one is given to somebody who came the bound later.
func (k *walk) checkOrder() {
	if !slices.IsSortedFunc(k.waiting, (*Lease).compare) {
		k.t.Errorf("they wait out of their order")
	}
	granted := k.grants
	k.grants = nil
	if k.share > 1 {
		return // a Slot may be kept for an xlarge
	}
	waiting := 0
	for _, l := range k.waiting {
		if l.limit != "" {
			continue
		}
		waiting++
		for _, other := range granted {
			if k.warmFor == 0 && other.Admitted.Sub(l.Admitted) >= k.priority.bound {
				k.t.Errorf("%s, which came at %s, waits behind %s, which came at %s", l.ID, l.Admitted, other.ID, other.Admitted)
			}
		}
	}
	looking, idle := 0, 0
	for _, s := range k.slots {
		switch s.phase {
		case checking, reclaiming: // those that are being taken back may be meant for who waits
			looking++
		case free, warm:
			idle++
		}
	}
	if waiting > looking && idle > 0 {
		k.t.Errorf("%d wait, %d slots are being looked at, and %d idle", waiting, looking, idle)
	}
}

// checkLimits: no Space and no payer has more places than they may, and nobody waits for a place that nobody has claimed.
func (k *walk) checkLimits() {
	has, claimed := slotCounts{map[string]int{}, map[string]int{}}, slotCounts{map[string]int{}, map[string]int{}}
	for _, l := range slices.Concat(slices.Collect(maps.Values(k.leases)), k.warmStarts) {
		if k.isOnSlot(l) {
			has.add(l)
		}
		if k.isOnSlot(l) || l.limit == "" {
			claimed.add(l)
		}
	}
	for _, l := range k.leases {
		limits := k.limitsOf(l)
		if limits.space > 0 && has.spaces[l.Space] > limits.space || limits.payer > 0 && has.payers[l.Payer.Key()] > limits.payer {
			k.t.Errorf("%s has %d places, %s has %d; want at most %+v", l.Space, has.spaces[l.Space], l.Payer.Key(), has.payers[l.Payer.Key()], limits)
		}
		if l.State == Waiting && (l.limit == OfSpace && claimed.spaces[l.Space] < limits.space || l.limit == OfIdentity && claimed.payers[l.Payer.Key()] < limits.payer) {
			k.t.Errorf("%s waits for others of its %s, and there are only %+v", l.ID, l.limit, claimed)
		}
	}
}

// checkOpen: a Lease either waits, once, or is on all of its Slots; it is decided if and only if it no longer waits.
func (k *walk) checkOpen(l *Lease) {
	waits, holds := 0, 0
	for _, o := range k.waiting {
		if o == l {
			waits++
		}
	}
	for _, s := range k.slots {
		if s.holder == l && s.phase == held {
			holds++
		}
	}
	if holds > 0 && (holds == k.share) == (k.share == 1 || l.Size == "xlarge") && holds == len(l.allocation) {
		holds = 1 // place
	}
	if waits+holds != 1 || (waits == 1) != (l.State == Waiting) || (waits == 1) != (l.Slot == nil) {
		k.t.Errorf("lease %s is %s: waits %d times, holds %d places", l.ID, l.State, waits, holds)
	}
	told := holds == 1 && l.pendingWorker == nil
	if answers := k.answers[l]; (len(answers) == 1) != told || len(answers) > 1 || told && answers[0].grant == nil || k.settled[l] != 0 {
		k.t.Errorf("lease %s is %s: answered %+v, settled %d times", l.ID, l.State, answers, k.settled[l])
	}
	// (An active one whose place is being allowed to another worker has one that is not watched yet.)
	if active := l.State == Active; l.Active.IsZero() == active || k.watched[l.Worker] > 1 || l.warmWorker && k.watched[l.Worker] != 1 {
		k.t.Errorf("lease %s is %s: watched %d times, active since %s", l.ID, l.State, k.watched[l.Worker], l.Active)
	}
}

// checkEnded: one decision, one settlement, and no more charged than was used, declared and held.
func (k *walk) checkEnded(l *Lease) {
	if len(k.answers[l]) != 1 || k.settled[l] != 1 || k.watched[l.Worker] > 1 {
		k.t.Errorf("lease %s has ended %s: answered %+v, settled %d times", l.ID, l.State, k.answers[l], k.settled[l])
	}
	used := time.Duration(0)
	if !l.Active.IsZero() {
		used = min(l.Ended.Sub(l.Active), l.Declared) * time.Duration(l.factor())
	}
	if l.Charged < used || l.Charged >= used+time.Millisecond || l.Charged > l.Held {
		k.t.Errorf("lease %s has ended %s: charged %v of %v held, used %v", l.ID, l.State, l.Charged, l.Held, used)
	}
	if l.State == Expired && l.Charged != l.Held || l.State == Unclaimed && l.Charged != 0 {
		k.t.Errorf("lease %s has ended %s: charged %v of %v", l.ID, l.State, l.Charged, l.Held)
	}
}

// forget keeps some of the ended Leases, so that they go on being asked for and released in vain.
func (k *walk) dropEnded() {
	const memory = 20
	for len(k.all) > memory {
		i := k.rand.IntN(len(k.all))
		l := k.all[i]
		if k.leases[l.ID] == l {
			return // another time
		}
		if k.endCounts == nil {
			k.endCounts = map[State]int{}
		}
		k.endCounts[l.State]++
		delete(k.answers, l)
		delete(k.settled, l)
		k.all = append(k.all[:i:i], k.all[i+1:]...)
	}
}

// checkVariety: a walk that never comes to some end proves nothing about it.
func (k *walk) checkVariety() {
	for _, state := range []State{Released, Expired, Revoked, Unclaimed, TimedOut, Withdrawn} {
		if few := k.warmFor > 0 && state == TimedOut; !few && k.endCounts[state] < *walkSteps/10_000 { // two at most wait there
			k.t.Errorf("of all ends only %d were %q: %v", k.endCounts[state], state, k.endCounts)
		}
	}
}
