package lease

import (
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"spacehost/gpu"
	"spacehost/quota"
)

var (
	walkSeed  = flag.Uint64("walk.seed", 0, "seed of the random walk (default: a new one)")
	walkSteps = flag.Int("walk.steps", 34_000, "steps of the random walk on each machine")
)

// TestRandomWalk sends random events to a scheduler, and checks all invariants after each step.
func TestRandomWalk(t *testing.T) {
	seed := *walkSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	steps := *walkSteps
	if os.Getenv("SPACEHOST_FIRE") != "" { // a million over all machines
		steps = max(steps, 100_000)
	}
	resumed, warmStarts := 0, 0
	// Warm starts are rare: about six in 34,000 steps on ten machines, and one of some seeds. A walk without them goes on
	// with the next seed.
	for round := uint64(0); round == 0 || round < 5 && warmStarts < max(1, steps/50_000); round++ {
		r, w := walkMachines(t, seed+round, steps)
		resumed, warmStarts = resumed+r, warmStarts+w
	}
	if warmStarts < max(1, steps/50_000) {
		t.Errorf("only %d warm starts, %d resumed leases", warmStarts, resumed)
	}
	if resumed < steps/1000 {
		t.Errorf("only %d leases reused an idle worker after waiting", resumed)
	}
}

// walkMachines walks on each machine. It returns the numbers of resumed leases and of warm starts.
func walkMachines(t *testing.T, seed uint64, steps int) (resumed, warmStarts int) {
	for _, machine := range []struct {
		devices, share int
		warmFor        time.Duration
	}{{1, 1, 0}, {2, 1, 0}, {4, 1, 0}, {1, 2, 0}, {2, 2, 0}, {3, 4, 0}, {1, 1, 10 * time.Minute}, {3, 1, 3 * time.Minute}, {1, 2, 10 * time.Minute}, {2, 3, 3 * time.Minute}} {
		t.Logf("%+v; repeat with -walk.seed=%d", machine, seed)
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
			t.FailNow()
		}
		resumed += k.resumeCount
		warmStarts += k.warmStartCount
	}
	return resumed, warmStarts
}

// walk is a schedulerHarness with random events. all has every Lease that is open, or that ended recently.
type walk struct {
	*schedulerHarness
	rand        *rand.Rand
	share       int                   // Slots of each Device
	pids        int                   // made so far
	liveWorkers map[Worker]allocation // the running workers, and their Slots

	fleet          *fleetWalk // nil: one machine
	resumeCount    int
	warmStartCount int
	all            []*Lease
	lastAction     string
	endCounts      map[State]int // ends by state
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
	{"warm started", 24, (*walk).doBegun},
	{"exit", 3, (*walk).doExit},
	{"left", 2, func(k *walk) { k.onLease(func(l *Lease) { k.onLeft(l.Event) }) }},
	{"cancelled", 2, func(k *walk) { k.onLease(func(l *Lease) { k.onCancelled(l.Event) }) }},
	{"gone", 1, func(k *walk) { k.onLease(func(l *Lease) { k.onInstanceGone(l.Instance) }) }},
	{"hung up", 2, func(k *walk) { k.onLease(func(l *Lease) { k.onHangUp(l) }) }},
	{"reclaimed", 24, (*walk).doReclaimed},
	{"unleased", 1, func(k *walk) {
		k.onUnleased([]Unleased{{Device: k.anyDevice(), PID: 1}}[:1-min(1, k.rand.IntN(4))]) // mostly none
	}},
	{"drained", 1, func(k *walk) { k.drain(k.anyDevice(), byOperator) }},
	{"returned", 12, func(k *walk) { k.onUndrain(k.anyDevice()) }},
	{"time", 20, (*walk).doTime},
}

// step does one action, then onTime, as Run does.
func (k *walk) step() {
	total := 0
	if k.warmFor > 0 && k.rand.IntN(8) == 0 { // otherwise few leases end successfully
		k.lastAction = "finish"
		k.onLease(k.releaseActive)
		k.settleStep()
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
			k.settleStep()
			return
		}
	}
}

// settleStep does what Run does after each event.
func (k *walk) settleStep() {
	k.touched = true
	k.shared.onTime(k.clock)
}

func (k *walk) doSchedule() {
	if len(k.waiting) > 12 || k.warmFor > 0 && len(k.waiting) > k.rand.IntN(8)/7 { // no worker stays idle while many leases wait
		return
	}
	l := k.newLease(func(r *Request) {
		if r.Space = walkSpaces[k.rand.IntN(2)]; k.warmFor > 0 && k.rand.IntN(4) > 0 {
			r.Space = "demo"
		}
		r.Machine = k.machine
		r.Instance = r.Space + "-1" + k.machine
		r.Size = []string{"large", "xlarge"}[k.rand.IntN(2)]
		r.Task = []string{"draw", "draw", "draw", "speak"}[k.rand.IntN(4)]
		r.Declared = time.Duration(1+k.rand.IntN(30)) * time.Second
		r.Payer.Name = []string{"ada", "ben", "cem"}[k.rand.IntN(3)]
		r.Tier = quota.Tier{Priority: k.rand.IntN(3), Concurrency: map[string]int{"ben": 1}[r.Payer.Name]}
		if len(k.all) > 0 && k.rand.IntN(4) == 0 {
			r.Event = k.anyLease().Event // an Event may request several leases
		}
	})
	l.Remaining = k.rand.Float64()
	if k.rand.IntN(2) > 0 && k.tryWarmStart(l) {
		return // see doBegun
	}
	k.all = append(k.all, l)
	k.onSchedule(l)
}

// doBegun answers a warm start: the Lease is admitted and activated, or neither.
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
	if k.reach == lost {
		err = ErrUnreachable
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
	if k.reach == lost {
		err = notReclaimed(ErrUnreachable)
	}
	if !isLostWorker(err) {
		delete(k.liveWorkers, r.lease.Worker)
	}
	k.onReclaimed(r.allocation, err)
}

func (k *walk) reclaimsOf(s *slot) (found []reclaimCall) {
	for _, r := range k.reclaims {
		if slices.Contains(r.allocation, s) {
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
		delete(k.begun, l)
		k.onUnfit(l)
	case 1:
		k.onResumed(l, k.clock, errors.New("disk full"))
	default:
		k.onResumed(l, k.clock, nil)
		k.resumeCount++
	}
}

// doExit makes a watched worker exit, one of a Lease or an idle one.
func (k *walk) doExit() {
	if k.reach == lost || len(k.slots) == 0 {
		return
	}
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

// doClaim and doAllow are separate, because the database commit is between them.
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

// doTime goes to the next wake time of the scheduler, or a random step: never past that time.
func (k *walk) doTime() {
	to := k.clock.Add(time.Duration(k.rand.Int64N(int64(10*time.Second) / int64(len(k.machines())))))
	for _, o := range k.machines() {
		if next := o.nextWake(); !next.IsZero() && next.Before(to) {
			to = next
		}
	}
	for _, o := range k.machines() {
		o.clock = to
	}
}

// anyLease prefers Leases that hold a Slot: most events apply to them.
func (k *walk) anyLease() *Lease {
	if len(k.slots) == 0 {
		return k.all[k.rand.IntN(len(k.all))]
	}
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

func (k *walk) anyDevice() gpu.DeviceUUID {
	if len(k.slots) == 0 { // it leaves
		return "GPU-none"
	}
	return k.slots[k.rand.IntN(len(k.slots))].Device.UUID
}

func (k *walk) isOnSlot(l *Lease) bool {
	return l.State == Granted || l.State == Active || l.State == Unreachable
}

// machines are the walks on all machines.
func (k *walk) machines() []*walk {
	if k.fleet == nil {
		return []*walk{k}
	}
	return k.fleet.walks
}

// dropEnded keeps some of the ended Leases, so that late claims and releases are tested.
func (k *walk) dropEnded() {
	const memory = 20
	for len(k.all) > memory {
		i := k.rand.IntN(len(k.all))
		l := k.all[i]
		if k.leases[l.ID] == l {
			return // at a later step
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
