package lease

import (
	"errors"
	"slices"
	"time"

	"spacehost/gpu"
	"spacehost/quota"
)

// Times of the device API (docs/design/0005-lease-clock.md; spaces/zero/client.py).
const (
	deadlineGrace   = 2 * time.Second        // between the deadline and the kill; never charged
	claimTimeout    = 30 * time.Second       // between the grant and /allow
	idleTermGrace   = 500 * time.Millisecond // between SIGTERM and SIGKILL, for a worker after its call
	recheckInterval = time.Second            // between two checks of a Device that is not clear
)

// scheduler assigns the Slots of one machine to waiting leases. It is used by one goroutine, or by a test.
type scheduler struct {
	machine      string      // its name; "": the host's own
	shared       *schedulers // this one and those of the other machines
	effects      effects
	now          func() time.Time
	queueTimeout time.Duration
	priority     priority
	perSpace     func(space string) int // maximum number of Leases of a Space on Slots, 0: any number; nil: no limit
	warmFor      time.Duration          // how long an idle worker stays; 0: not at all
	slots        []*slot
	devices      []allocation      // all Slots of each Device
	waiting      []*Lease          // by effective time
	leases       map[string]*Lease // the open ones
	reserved     reservation
	drains       map[gpu.DeviceUUID]*deviceDrains // of all machines

	reach   reach                   // whether the machine can be reached
	parting bool                    // the machine leaves: no Lease starts there
	retired map[gpu.DeviceUUID]bool // Devices that have left the machine, until nothing uses their Slots

	touched   bool      // an event has changed it since onTime
	unblocked bool      // an event of another machine has unblocked a waiting Lease
	wake      time.Time // when onTime is due; zero: never
}

type phase string

const (
	free       phase = "free"
	checking   phase = "checking"   // for the first waiting Lease
	held       phase = "held"       // by a granted or active Lease
	warm       phase = "warm"       // held by no Lease; an idle worker is on it
	reclaiming phase = "reclaiming" // from a Lease that has ended
	drained    phase = "drained"    // not lent until the Device is returned
	busy       phase = "busy"       // a foreign process uses it, or it cannot be read
)

type slot struct {
	gpu.Slot
	phase phase
	// holder is the Lease that holds it. While reclaiming, and while busy after that failed, it is the Lease whose
	// worker is still there.
	holder     *Lease
	idle       *idleWorker // while warm
	checkGroup allocation  // while checking: the Slots that are checked together
	wasLost    bool        // while checking: the machine was lost meanwhile
	reason     string      // why it is busy, or was at the last check
	recheckAt  time.Time   // time of the next check
	since      time.Time   // while checking or reclaiming for the first time: since when
}

func newScheduler(fx effects, slots []gpu.Slot, queueTimeout time.Duration) *scheduler {
	sc := &scheduler{effects: fx, now: time.Now, queueTimeout: queueTimeout, priority: newPriority(queueTimeout, nil), leases: map[string]*Lease{}}
	newSchedulers().add(sc)
	for _, s := range slots {
		sc.addSlot(s)
	}
	return sc
}

// onSchedule queues a Lease after its hold is committed.
func (sc *scheduler) onSchedule(lease *Lease) {
	sc.open(lease)
	sc.enqueue(lease)
	sc.effects.changed(lease)
	switch {
	case sc.reach == lost:
		sc.withdraw(lease, Withdrawn, ReasonMachineLost, ErrGone)
	case sc.parting:
		sc.withdraw(lease, Withdrawn, reasonParted, ErrGone)
	}
	sc.fill()
}

func (sc *scheduler) open(lease *Lease) { sc.leases[lease.ID], sc.shared.owners[lease.ID] = lease, sc }

// fill finds Slots for the waiting leases, in order: first the idle worker of the same Task, then free Slots, then
// the Slots of another idle worker, which is evicted. Free Slots are checked before they are granted.
func (sc *scheduler) fill() {
	sc.applyLimits()
	if !sc.mayStart() {
		return
	}
	sc.reserve()
	beingChecked, leaving := sc.pendingAllocations()
	for rank := 0; rank < len(sc.waiting); {
		lease := sc.waiting[rank]
		if lease.limit != "" {
			rank++
			continue
		}
		if w := sc.idleWorkerFor(rank); w != nil {
			sc.resume(w, lease)
			continue // the next Lease has moved to this rank
		}
		if whole := sc.needsWholeDevice(lease); beingChecked[whole] > 0 {
			beingChecked[whole]--
		} else if a := sc.findFree(rank); a != nil {
			a.startCheck()
			a.setSince(sc.now())
			sc.effects.check(a)
		} else if leaving[whole] > 0 {
			leaving[whole]--
		} else {
			sc.evictFor(rank)
		}
		rank++
	}
}

func (sc *scheduler) onChecked(a allocation, err error) {
	if err = sc.checkResult(a, err); err != nil {
		sc.markBusy(a, err)
		sc.fill()
		return
	}
	sc.applyLimits()
	if i := sc.firstEligible(a); i >= 0 {
		sc.grant(a, sc.waiting[i])
	} else {
		sc.vacate(a)
	}
	sc.fill()
}

// markBusy keeps an allocation from being lent until a later check finds it clear.
func (sc *scheduler) markBusy(a allocation, err error) {
	for _, s := range a {
		s.phase, s.idle, s.reason, s.recheckAt = busy, nil, err.Error(), sc.now().Add(recheckInterval)
	}
}

func (sc *scheduler) vacate(a allocation) {
	for _, s := range a {
		s.phase, s.holder, s.idle, s.reason = free, nil, nil, ""
		if sc.reach == lost {
			sc.markBusy(allocation{s}, sc.errLost())
			continue
		}
		if d, ok := sc.inForce(s.Device.UUID); ok {
			s.phase, s.reason = drained, d.Reason
		}
	}
}

func (sc *scheduler) grant(a allocation, lease *Lease) {
	sc.attach(a, lease)
	sc.effects.decide(lease, decision{grant: &Grant{Lease: lease.ID, Slot: a[0].Index, Device: a[0].Device.UUID}})
}

// attach moves a Lease from the waiting queue to its allocation.
func (sc *scheduler) attach(a allocation, lease *Lease) {
	sc.waiting = slices.DeleteFunc(sc.waiting, func(o *Lease) bool { return o == lease })
	for _, s := range a {
		s.phase, s.holder, s.idle, s.reason = held, lease, nil, ""
	}
	lease.State, lease.allocation, lease.Slot, lease.Granted = Granted, a, &a[0].Slot, sc.now()
	sc.countOnSlot(lease, true)
	if !lease.committing {
		sc.effects.changed(lease)
	}
}

// onClaim validates an /allow before it is committed, and records the worker. If the Lease ends meanwhile, that
// worker ends with it. A second claim is refused.
//
// A warm worker makes no /allow. If one arrives anyway, the client has found the worker unfit and forked another.
// The clock has run since the grant, and is not reset.
func (sc *scheduler) onClaim(space, id string, worker Worker) (lease *Lease, since time.Time, err error) {
	if lease = sc.leases[id]; lease == nil || lease.Space != space || !lease.claimable() {
		return nil, time.Time{}, ErrUnknown
	}
	since = lease.Active
	if lease.State != Active {
		since = sc.now()
	}
	if lease.warmWorker && lease.Worker != worker {
		sc.effects.dismiss(lease.Worker)
	}
	lease.Worker, lease.warmWorker, lease.watched = worker, false, false
	return lease, since, nil
}

func (l *Lease) claimable() bool {
	return l.State == Granted && l.Worker.PID == 0 || l.State == Active && l.warmWorker
}

// onAllow starts the clock, if it does not run yet. It returns false if the Lease ended while its /allow was being
// committed.
func (sc *scheduler) onAllow(lease *Lease, at time.Time) bool {
	if lease.State != Granted && lease.State != Active {
		return false
	}
	if lease.State != Active {
		lease.State, lease.Active = Active, at
	}
	lease.watched = true
	sc.effects.changed(lease)
	sc.effects.watch(lease.Worker)
	return true
}

func (sc *scheduler) onRelease(space, id string, failed bool) (*Lease, error) {
	lease := sc.leases[id]
	if lease == nil || lease.Space != space || lease.State == Waiting {
		return nil, ErrUnknown
	}
	switch {
	case failed:
		sc.end(lease, Released, "failed", idleTermGrace)
	case lease.State == Active && lease.watched && sc.warmFor > 0 && !sc.isDrained(lease.allocation):
		sc.keepWarm(lease)
	default:
		sc.end(lease, Released, quota.ReasonReleased, idleTermGrace)
	}
	return lease, nil
}

// onExit handles the exit of a worker, of an active Lease or an idle one.
func (sc *scheduler) onExit(worker Worker) {
	for _, s := range sc.slots {
		switch {
		case s.phase == held && s.holder.Worker == worker:
			sc.onHolderExit(s.holder)
			return
		case s.phase == warm && s.idle.lease.Worker == worker:
			sc.evict(s.idle, 0)
			return
		}
	}
}

// onLeft withdraws waiting leases only: a running function finishes, as on ZeroGPU.
func (sc *scheduler) onLeft(event string) {
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.Event == event && o.State == Waiting }) {
		sc.withdraw(lease, Withdrawn, "visitor left", ErrLeft)
	}
}

func (sc *scheduler) onCancelled(event string) {
	for _, lease := range sc.committing() {
		if lease.Event == event {
			lease.endAfterCommit = "cancelled"
		}
	}
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.Event == event }) {
		if lease.State == Waiting {
			sc.withdraw(lease, Withdrawn, "cancelled", ErrLeft)
		} else {
			sc.end(lease, Revoked, "cancelled", 0)
		}
	}
}

// closeGrace is the time for the current step of a cancelled generator, and for its `finally`. The payer pays for it.
const closeGrace = 10 * time.Second

// onClosing lets the worker of a cancelled generator end the lease itself: `spaces` sets worker.stop_event, and the
// worker closes the generator after its current step (spaces/zero/wrappers.py). A worker that is killed instead runs
// no `finally`, and the next call needs a new one.
func (sc *scheduler) onClosing(event string) {
	revokeAt := sc.now().Add(closeGrace)
	for _, lease := range sc.committing() {
		if lease.Event == event {
			lease.revokeAt = revokeAt
		}
	}
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.Event == event }) {
		if lease.State == Waiting {
			sc.withdraw(lease, Withdrawn, "cancelled", ErrLeft)
		} else if lease.revokeAt.IsZero() {
			lease.revokeAt = revokeAt
		}
	}
}

func (sc *scheduler) onInstanceGone(instance string) { sc.endInstance(instance, "space died", false) }

// endInstance ends the Leases of one start of a Space. With byHost their payers are charged nothing.
func (sc *scheduler) endInstance(instance, reason string, byHost bool) {
	for _, w := range sc.idleWorkers() {
		if w.lease.Instance == instance {
			sc.evict(w, 0)
		}
	}
	for _, lease := range sc.committing() {
		if lease.Instance == instance {
			lease.endAfterCommit, lease.hostEnded = reason, byHost
		}
	}
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.Instance == instance }) {
		lease.hostEnded = byHost
		if lease.State == Waiting {
			sc.withdraw(lease, Withdrawn, reason, ErrGone)
		} else {
			sc.end(lease, Revoked, reason, 0)
		}
	}
}

// onHangUp handles a client that disconnected without notice. A grant that was not delivered is taken back.
func (sc *scheduler) onHangUp(lease *Lease) {
	switch lease.State {
	case Waiting:
		sc.withdraw(lease, Withdrawn, "connection lost", ErrLeft)
	case Granted:
		lease.undelivered = true
		sc.end(lease, Unclaimed, "connection lost", 0)
	case Active:
		if lease.warmWorker { // the grant was not delivered, so its worker got no work
			lease.Active, lease.undelivered = time.Time{}, true
			sc.end(lease, Unclaimed, "connection lost", 0)
		}
	}
}

// onReclaimed makes the allocation available again. A worker that survived SIGKILL is signalled again later: the
// Device may look clear while it runs, if it has not used the Device yet.
func (sc *scheduler) onReclaimed(a allocation, err error) {
	if err == nil {
		sc.vacate(a)
	} else {
		sc.markBusy(a, err)
	}
	if !isLostWorker(err) {
		for _, s := range a {
			s.holder = nil
		}
	}
	sc.fill()
}

// onTime handles everything that is due. It returns when to be called again; zero means never.
func (sc *scheduler) onTime() (next time.Time) {
	now := sc.now()
	sc.onWindows()
	for _, lease := range sc.openLeases(func(o *Lease) bool { return !sc.due(o).After(now) }) {
		if lease.isOverdueToClose(now) {
			sc.end(lease, Revoked, "cancelled", 0)
			continue
		}
		sc.endOverdue(lease)
	}
	for _, s := range sc.slots {
		if sc.reach != lost && s.phase == busy && !s.recheckAt.After(now) {
			sc.recheckSlot(s)
		}
	}
	for _, w := range sc.idleWorkers() {
		if !w.since.Add(sc.warmFor).After(now) {
			sc.evict(w, idleTermGrace)
		}
	}
	if len(sc.retired) > 0 {
		sc.dropRetired()
	}
	sc.fill()
	return sc.nextWake()
}

// recheckSlot also runs while no Lease waits: a fault of a Slot is shown until a check finds it clear.
func (sc *scheduler) recheckSlot(s *slot) {
	if s.holder == nil {
		a := allocation{s}
		a.startCheck()
		sc.effects.check(a)
		return
	}
	s.holder.allocation.set(reclaiming)
	sc.effects.reclaim(s.holder.allocation, s.holder, 0)
}

// due is when a Lease must be handled next.
func (sc *scheduler) due(lease *Lease) (at time.Time) {
	switch lease.State {
	case Waiting:
		return lease.Admitted.Add(sc.queueTimeout)
	case Granted:
		at = lease.Granted.Add(claimTimeout)
	case Unreachable:
		at = lease.deadline().Add(deadlineGrace + lostGrace)
	default:
		at = lease.deadline().Add(deadlineGrace)
	}
	if !lease.revokeAt.IsZero() && lease.revokeAt.Before(at) {
		return lease.revokeAt
	}
	return at
}

func (l *Lease) isOverdueToClose(now time.Time) bool {
	return !l.revokeAt.IsZero() && !l.revokeAt.After(now) && l.State != Waiting
}

func (sc *scheduler) nextWake() (next time.Time) {
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, lease := range sc.leases {
		sooner(sc.due(lease))
	}
	for _, w := range sc.idleWorkers() {
		sooner(w.since.Add(sc.warmFor))
	}
	for _, t := range sc.windowTimes() {
		sooner(t)
	}
	for _, s := range sc.slots {
		if sc.reach != lost && s.phase == busy && (len(sc.waiting) > 0 || s.holder != nil) {
			sooner(s.recheckAt)
		}
	}
	return next
}

// withdraw ends a waiting Lease; its hold is returned whole.
func (sc *scheduler) withdraw(lease *Lease, state State, reason string, err error) {
	sc.waiting = slices.DeleteFunc(sc.waiting, func(o *Lease) bool { return o == lease })
	sc.finish(lease, state, reason)
	sc.effects.decide(lease, decision{err: err})
	sc.effects.settle(lease)
}

// end ends a Lease that holds Slots, and reclaims them.
func (sc *scheduler) end(lease *Lease, state State, reason string, grace time.Duration) {
	sc.finish(lease, state, reason)
	if lease.pendingWorker != nil {
		lease.pendingWorker = nil
		sc.effects.decide(lease, decision{err: ErrGone})
	}
	sc.effects.settle(lease)
	if lease.allocation == nil { // of an earlier start of the host: it has no Slot here
		if sc.reach != lost {
			sc.effects.dismiss(lease.Worker)
		}
		return
	}
	lease.allocation.set(reclaiming)
	lease.allocation.setSince(sc.now())
	sc.effects.reclaim(lease.allocation, lease, grace)
}

func (sc *scheduler) finish(lease *Lease, state State, reason string) {
	delete(sc.leases, lease.ID)
	delete(sc.shared.owners, lease.ID)
	sc.countOnSlot(lease, false)
	lease.State, lease.Reason, lease.Ended = state, reason, sc.now()
	lease.Charged = lease.charge(lease.Ended)
	sc.effects.changed(lease)
}

// active returns the elapsed time of each Lease with a client that knows that the clock runs. The database may list more
// Leases as active: a warm start while its Device is being checked, a Lease after the exit of its warm worker, and an
// ended Lease that is not settled yet.
func (sc *scheduler) active() map[string]time.Duration {
	used := map[string]time.Duration{}
	if sc.reach != reachable {
		return used // nothing is known about its workers; the next beat catches up
	}
	for id, lease := range sc.leases {
		if lease.State == Active {
			used[id] = sc.now().Sub(lease.Active)
		}
	}
	return used
}

var errNotReclaimed = errors.New("its last worker could not be ended")
