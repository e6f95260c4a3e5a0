package lease

import (
	"errors"
	"slices"
	"time"
)

// idle is a worker that has done its last Lease well and waits on its place for the next one of the same Task.
// It costs nobody anything, and goes as soon as somebody else needs the place.
type idleWorker struct {
	lease *Lease // its last; over
	since time.Time
}

// keepWarm ends a Lease and lets its worker stay. Only after a good end: after an exception the client forgets
// its worker without ending it (spaces/zero/wrappers.py).
func (sc *scheduler) keepWarm(lease *Lease) {
	sc.finish(lease, Released, "released")
	sc.do.settle(lease)
	w := &idleWorker{lease, sc.now()}
	for _, s := range lease.allocation {
		s.phase, s.holder, s.idle = warm, nil, w
	}
	sc.fill()
}

// idles are the warm workers, each once.
func (sc *scheduler) idleWorkers() (all []*idleWorker) {
	for _, s := range sc.slots {
		if s.phase == warm && s == s.idle.lease.allocation[0] {
			all = append(all, s.idle)
		}
	}
	return all
}

// arrivals are those that are not committed yet: whatever happens to open Leases meanwhile has to look for them here.
func (sc *scheduler) committing() (all []*Lease) {
	for _, s := range sc.slots {
		if s.phase == held && s.holder.committing && s == s.holder.allocation[0] {
			all = append(all, s.holder)
		}
	}
	return all
}

// beginning are the warm workers of arrivals.
func (sc *scheduler) committingWorkers() (all []*idleWorker) {
	for _, lease := range sc.committing() {
		all = append(all, lease.pendingWorker)
	}
	return all
}

// warmPlace is the idle worker that can do what waits at rank: the client keeps one for each Task and Slot of
// one start of its Space.
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

// resume gives a Lease the place and the worker of an earlier one. As that worker makes no /allow, the Lease is
// active from here: once that is committed, its client is told.
func (sc *scheduler) resume(w *idleWorker, lease *Lease) {
	lease.Worker, lease.warmWorker, lease.watched, lease.pendingWorker = w.lease.Worker, true, true, w
	sc.attach(w.lease.allocation, lease)
	if lease.committing {
		sc.do.warmStart(lease)
	} else {
		sc.do.resume(lease)
	}
}

// errUnfit: its Device was lost meanwhile, or a stranger came.
var errUnfit = errors.New("the warm worker cannot go on")

// onArrival looks whether a Lease that nobody has admitted yet would get its warm worker at once: then its hold and the
// start of its clock are one commit (begin), and it is none of the open ones until then (onBegun). False: it is as it was. The
// line's own rules decide that, so it stands in the line for as long as they do.
func (sc *scheduler) tryWarmStart(lease *Lease) bool {
	if len(sc.waiting) > 0 || !sc.hasIdleWorkerFor(lease) {
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

// onBegun is told that an arrival is admitted and active, or why it is neither: then its worker idles on, if it lives
// and nothing is wrong with its place.
func (sc *scheduler) onWarmStarted(lease *Lease, at time.Time, err error) {
	if err == nil {
		sc.leases[lease.ID] = lease
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
}

// tellOf tells what nobody could be told while the database could still refuse it.
func (sc *scheduler) publishWarmStart(lease *Lease) {
	state, slot := lease.State, lease.Slot
	lease.committing, lease.State, lease.Slot = false, Waiting, nil
	sc.do.changed(lease)
	lease.State, lease.Slot = state, slot
	sc.do.changed(lease)
}

// unplace makes a Lease that was to have a warm worker one that waits.
func (sc *scheduler) detachWarmWorker(lease *Lease) {
	lease.regranted = true
	lease.State, lease.Granted, lease.allocation, lease.Slot = Waiting, time.Time{}, nil, nil
	lease.Worker, lease.warmWorker, lease.watched, lease.pendingWorker = Worker{}, false, false, nil
}

// onResumed starts the clock and answers, if the Lease has not ended meanwhile. If the worker has died the client
// sees that too, and forks another, which makes an /allow.
func (sc *scheduler) onResumed(lease *Lease, at time.Time, err error) {
	if lease.pendingWorker == nil {
		return
	}
	if err != nil {
		sc.end(lease, Unclaimed, "not written down", idleTermGrace)
		return
	}
	lease.pendingWorker = nil
	if lease.warmWorker {
		lease.State, lease.Active = Active, at
		sc.do.changed(lease)
	}
	sc.do.decide(lease, decision{grant: &Grant{Lease: lease.ID, Slot: lease.Slot.Index, Device: lease.Slot.Device.UUID, Idle: true}})
}

// onUnfit puts the Lease back into the line, at its old rank: its Device was lost meanwhile, or a stranger came.
func (sc *scheduler) onUnfit(lease *Lease) {
	if lease.pendingWorker == nil {
		return
	}
	pending := lease.pendingWorker
	sc.detachWarmWorker(lease)
	sc.enqueue(lease)
	sc.do.changed(lease)
	sc.evict(pending, 0)
	sc.fill()
}

// missed is how long after a grant the client may not know yet that its idle worker has died, and fork another.
const workerLossGrace = time.Second

// onHolderExit: a worker that dies with its Lease ends it. An inherited one may have died before it got the work.
func (sc *scheduler) onHolderExit(lease *Lease) {
	switch {
	case lease.warmWorker && sc.now().Before(lease.Granted.Add(workerLossGrace)):
		sc.do.dismiss(lease.Worker) // and so what it has started
		lease.Worker, lease.warmWorker, lease.watched = Worker{}, false, false
		if lease.State == Active {
			lease.State, lease.Active, lease.regranted = Granted, time.Time{}, true
			sc.do.changed(lease)
		}
	case lease.State == Active:
		sc.end(lease, Released, "worker died", 0)
	}
}

// makeRoom lets an idle worker go for who waits at rank: the one that has been idle longest. For a whole Device
// those on the reserved one go, if nobody holds a Slot there.
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

// evict ends an idle worker and takes its place back.
func (sc *scheduler) evict(w *idleWorker, grace time.Duration) {
	for _, s := range w.lease.allocation {
		s.phase, s.holder, s.idle = reclaiming, w.lease, w
	}
	w.lease.allocation.setSince(sc.now())
	sc.do.reclaim(w.lease.allocation, w.lease, grace)
}
