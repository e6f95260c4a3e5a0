package lease

import (
	"errors"
	"slices"
	"time"

	"spacehost/quota"
)

// idleWorker is a worker after a successful Lease. It waits on its Slots for the next Lease of the same
// Task. It is not charged, and is evicted as soon as another Lease needs its Slots. It is frozen while it is idle, where
// Processes can freeze it.
type idleWorker struct {
	lease   *Lease // its last Lease, which has ended
	since   time.Time
	freezer freezer
}

// keepWarm ends a Lease and keeps its worker. It applies only after a success: after an exception the client drops
// its worker without ending it (spaces/zero/wrappers.py).
func (sc *scheduler) keepWarm(lease *Lease) {
	sc.finish(lease, Released, quota.ReasonReleased)
	sc.effects.settle(lease)
	w := &idleWorker{lease: lease, since: sc.now()}
	for _, s := range lease.allocation {
		s.phase, s.holder, s.idle = warm, nil, w
	}
	sc.fill()
	sc.freeze(w)
}

// idleWorkers are the workers on warm Slots, each once.
func (sc *scheduler) idleWorkers() (all []*idleWorker) {
	for _, s := range sc.slots {
		if s.phase == warm && s == s.idle.lease.allocation[0] {
			all = append(all, s.idle)
		}
	}
	return all
}

// committing lists the warm starts that are not committed yet. They are not among the open Leases, so every event
// that applies to open Leases must be applied to them too.
func (sc *scheduler) committing() (all []*Lease) {
	for _, s := range sc.slots {
		if s.phase == held && s.holder.committing && s == s.holder.allocation[0] {
			all = append(all, s.holder)
		}
	}
	return all
}

// committingWorkers are the workers of the warm starts.
func (sc *scheduler) committingWorkers() (all []*idleWorker) {
	for _, lease := range sc.committing() {
		all = append(all, lease.pendingWorker)
	}
	return all
}

// idleWorkerFor returns the idle worker that fits the waiting Lease at rank. The client keeps one for each Task
// and Slot of one start of its Space.
func (sc *scheduler) idleWorkerFor(rank int) *idleWorker {
	lease := sc.waiting[rank]
	for _, w := range sc.idleWorkers() {
		if sc.canReuse(w, lease) && sc.mayUse(rank, w.lease.allocation) {
			return w
		}
	}
	return nil
}

func (sc *scheduler) canReuse(w *idleWorker, lease *Lease) bool {
	last := w.lease
	return last.Instance == lease.Instance && last.Task == lease.Task && sc.needsWholeDevice(last) == sc.needsWholeDevice(lease)
}

// resume gives a Lease the Slots and the worker of an earlier one. That worker makes no /allow, so the Lease
// becomes active here. Its client is answered once that is committed.
func (sc *scheduler) resume(w *idleWorker, lease *Lease) {
	lease.Worker, lease.warmWorker, lease.watched, lease.pendingWorker = w.lease.Worker, true, true, w
	sc.attach(w.lease.allocation, lease)
	if lease.committing {
		sc.effects.warmStart(lease)
	} else {
		sc.effects.resume(lease)
	}
}

// errUnfit means that the Device was lost meanwhile, a foreign process appeared on it, or the worker stays frozen.
var errUnfit = errors.New("the warm worker cannot be reused")

// tryWarmStart checks whether a Lease that is not admitted yet would get an idle worker at once. If so, its hold
// and the start of its clock are one commit (warmStart), and it becomes an open Lease afterwards (onWarmStarted).
// If it returns false, nothing has changed. The scheduler's own rules make that decision, so the Lease is in the
// waiting queue while they run.
func (sc *scheduler) tryWarmStart(lease *Lease) bool {
	if len(sc.waiting) > 0 || !sc.mayStart() || !sc.hasIdleWorkerFor(lease) {
		return false
	}
	lease.committing = true
	lease.effectiveTime = sc.priority.effectiveTime(lease)
	sc.enqueue(lease)
	sc.fill()
	sc.waiting = slices.DeleteFunc(sc.waiting, func(o *Lease) bool { return o == lease })
	lease.committing = lease.pendingWorker != nil
	return lease.committing
}

func (sc *scheduler) hasIdleWorkerFor(lease *Lease) bool {
	return slices.ContainsFunc(sc.idleWorkers(), func(w *idleWorker) bool { return sc.canReuse(w, lease) })
}

// onWarmStarted handles the result of a warm start: the Lease is admitted and active, or it is neither. If it is
// neither, the worker stays idle, provided that it is running and its Slots are usable.
func (sc *scheduler) onWarmStarted(lease *Lease, at time.Time, err error) {
	if err == nil {
		sc.open(lease)
		sc.publishWarmStart(lease)
		if lease.endAfterCommit == "" {
			sc.onResumed(lease, at, nil)
		} else {
			sc.end(lease, Revoked, lease.endAfterCommit, 0)
		}
		return
	}
	pending, alive := lease.pendingWorker, lease.warmWorker
	sc.detachWarmWorker(lease)
	if errors.Is(err, errUnfit) || !alive || lease.endAfterCommit != "" || sc.isDrained(pending.lease.allocation) {
		sc.evict(pending, 0)
	} else {
		for _, s := range pending.lease.allocation {
			s.phase, s.holder, s.idle = warm, nil, pending
		}
	}
	sc.fill()
	sc.freeze(pending)
}

// publishWarmStart publishes the states that could not be published while the database might still refuse the
// Lease.
func (sc *scheduler) publishWarmStart(lease *Lease) {
	state, slot := lease.State, lease.Slot
	lease.committing, lease.State, lease.Slot = false, Waiting, nil
	sc.effects.changed(lease)
	lease.State, lease.Slot = state, slot
	sc.effects.changed(lease)
}

// detachWarmWorker turns a Lease that was to reuse an idle worker back into a waiting one.
func (sc *scheduler) detachWarmWorker(lease *Lease) {
	lease.regranted = true
	sc.countOnSlot(lease, false)
	lease.State, lease.Granted, lease.allocation, lease.Slot = Waiting, time.Time{}, nil, nil
	lease.Worker, lease.warmWorker, lease.watched, lease.pendingWorker, lease.armedAhead = Worker{}, false, false, nil, time.Time{}
}

// onResumed starts the clock and answers the client, if the Lease has not ended meanwhile. If the worker has
// exited, the client notices that too, and forks another worker, which makes an /allow.
func (sc *scheduler) onResumed(lease *Lease, at time.Time, err error) {
	if lease.pendingWorker == nil {
		return
	}
	if err != nil {
		lease.undelivered = true
		sc.end(lease, Unclaimed, "not written down", idleTermGrace)
		return
	}
	lease.pendingWorker = nil
	if lease.warmWorker {
		lease.State, lease.Active = Active, at
		sc.effects.changed(lease)
	}
	sc.effects.decide(lease, decision{grant: &Grant{Lease: lease.ID, Slot: lease.Slot.Index, Device: lease.Slot.Device.UUID, Idle: true}})
}

// onUnfit requeues the Lease at its old rank: its Device was lost meanwhile, a foreign process appeared on it, or the
// worker stays frozen.
func (sc *scheduler) onUnfit(lease *Lease) {
	if lease.pendingWorker == nil {
		return
	}
	pending := lease.pendingWorker
	sc.detachWarmWorker(lease)
	sc.enqueue(lease)
	sc.effects.changed(lease)
	sc.evict(pending, 0)
	sc.fill()
}

// workerLossGrace is the time after a grant in which the client may not have noticed the exit of its idle worker.
// It then forks another.
const workerLossGrace = time.Second

// onHolderExit ends a Lease when its worker exits. A warm worker may have exited before it got the call; then the
// Lease goes on.
func (sc *scheduler) onHolderExit(lease *Lease) {
	switch {
	case lease.warmWorker && lease.State != Unreachable && sc.now().Before(lease.Granted.Add(workerLossGrace)):
		sc.effects.dismiss(lease.Worker) // together with its descendants
		lease.Worker, lease.warmWorker, lease.watched = Worker{}, false, false
		if lease.State == Active {
			lease.State, lease.Active, lease.regranted = Granted, time.Time{}, true
			sc.effects.changed(lease)
		}
	case lease.State == Active, lease.State == Unreachable:
		sc.end(lease, Released, "worker died", 0)
	}
}

// evictFor evicts an idle worker for the waiting Lease at rank: the one that has been idle longest. For a Lease
// that needs a whole Device, all idle workers of the reserved Device are evicted, once no Lease holds a Slot
// there.
func (sc *scheduler) evictFor(rank int) {
	if lease := sc.waiting[rank]; sc.needsWholeDevice(lease) {
		if device := sc.reserved.device; lease == sc.reserved.lease && device != nil && device.count(held) == 0 {
			for _, w := range sc.idleWorkers() {
				if w.lease.allocation.sharesDevice(device) {
					sc.evict(w, idleTermGrace)
				}
			}
		}
		return
	}
	var oldest *idleWorker
	for _, w := range sc.idleWorkers() {
		if sc.mayUse(rank, w.lease.allocation) && (oldest == nil || w.since.Before(oldest.since)) {
			oldest = w
		}
	}
	if oldest != nil {
		sc.evict(oldest, idleTermGrace)
	}
}

// evict ends an idle worker and reclaims its Slots.
func (sc *scheduler) evict(w *idleWorker, grace time.Duration) {
	for _, s := range w.lease.allocation {
		s.phase, s.holder, s.idle = reclaiming, w.lease, w
	}
	w.lease.allocation.setSince(sc.now())
	sc.effects.reclaim(w.lease.allocation, w.lease, grace)
}
