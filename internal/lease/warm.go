package lease

import (
	"errors"
	"slices"
	"time"
)

// idle is a worker that has done its last Lease well and waits on its place for the next one of the same Task.
// It costs nobody anything, and goes as soon as somebody else needs the place.
type idle struct {
	lease *Lease // its last; over
	since time.Time
}

// keepWarm ends a Lease and lets its worker stay. Only after a good end: after an exception the client forgets
// its worker without ending it (spaces/zero/wrappers.py).
func (l *line) keepWarm(lease *Lease) {
	l.close(lease, Released, "released")
	l.do.settle(lease)
	w := &idle{lease, l.now()}
	for _, s := range lease.place {
		s.phase, s.holder, s.idle = warm, nil, w
	}
	l.fill()
}

// idles are the warm workers, each once.
func (l *line) idles() (all []*idle) {
	for _, s := range l.slots {
		if s.phase == warm && s == s.idle.lease.place[0] {
			all = append(all, s.idle)
		}
	}
	return all
}

// arrivals are those that are not committed yet: whatever happens to open Leases meanwhile has to look for them here.
func (l *line) arrivals() (all []*Lease) {
	for _, s := range l.slots {
		if s.phase == held && s.holder.arriving && s == s.holder.place[0] {
			all = append(all, s.holder)
		}
	}
	return all
}

// beginning are the warm workers of arrivals.
func (l *line) beginning() (all []*idle) {
	for _, lease := range l.arrivals() {
		all = append(all, lease.from)
	}
	return all
}

// warmPlace is the idle worker that can do what waits at rank: the client keeps one for each Task and Slot of
// one start of its Space.
func (l *line) warmPlace(rank int) *idle {
	lease := l.waiting[rank]
	for _, w := range l.idles() {
		if l.isWorkerFor(w, lease) && l.mayUse(rank, w.lease.place) {
			return w
		}
	}
	return nil
}

func (l *line) isWorkerFor(w *idle, lease *Lease) bool {
	last := w.lease
	return last.Instance == lease.Instance && last.Task == lease.Task && l.isWhole(last) == l.isWhole(lease)
}

// resume gives a Lease the place and the worker of an earlier one. As that worker makes no /allow, the Lease is
// active from here: once that is committed, its client is told.
func (l *line) resume(w *idle, lease *Lease) {
	lease.Worker, lease.inherited, lease.watched, lease.from = w.lease.Worker, true, true, w
	l.give(w.lease.place, lease)
	if lease.arriving {
		l.do.begin(lease)
	} else {
		l.do.resume(lease)
	}
}

// errUnfit: its Device was lost meanwhile, or a stranger came.
var errUnfit = errors.New("the warm worker cannot go on")

// onArrival looks whether a Lease that nobody has admitted yet would get its warm worker at once: then its hold and the
// start of its clock are one commit (begin), and it is none of the open ones until then (onBegun). False: it is as it was. The
// line's own rules decide that, so it stands in the line for as long as they do.
func (l *line) onArrival(lease *Lease) bool {
	if len(l.waiting) > 0 || !l.hasWorker(lease) {
		return false
	}
	lease.arriving = true
	lease.turn = l.order.turn(lease)
	l.enqueue(lease)
	l.fill()
	l.waiting = slices.DeleteFunc(l.waiting, func(o *Lease) bool { return o == lease })
	lease.arriving = lease.from != nil
	return lease.arriving
}

func (l *line) hasWorker(lease *Lease) bool {
	return slices.ContainsFunc(l.idles(), func(w *idle) bool { return l.isWorkerFor(w, lease) })
}

// onBegun is told that an arrival is admitted and active, or why it is neither: then its worker idles on, if it lives
// and nothing is wrong with its place.
func (l *line) onBegun(lease *Lease, at time.Time, err error) {
	if err == nil {
		l.leases[lease.ID] = lease
		l.tellOf(lease)
		if lease.doomed == "" {
			l.onResumed(lease, at, nil)
		} else {
			l.end(lease, Revoked, lease.doomed, 0)
		}
		return
	}
	from, lives := lease.from, lease.inherited
	l.unplace(lease)
	if errors.Is(err, errUnfit) || !lives || lease.doomed != "" || l.isDrained(from.lease.place) {
		l.evict(from, 0)
	} else {
		for _, s := range from.lease.place {
			s.phase, s.holder, s.idle = warm, nil, from
		}
	}
	l.fill()
}

// tellOf tells what nobody could be told while the database could still refuse it.
func (l *line) tellOf(lease *Lease) {
	state, slot := lease.State, lease.Slot
	lease.arriving, lease.State, lease.Slot = false, Waiting, nil
	l.do.changed(lease)
	lease.State, lease.Slot = state, slot
	l.do.changed(lease)
}

// unplace makes a Lease that was to have a warm worker one that waits.
func (l *line) unplace(lease *Lease) {
	lease.again = true
	lease.State, lease.Granted, lease.place, lease.Slot = Waiting, time.Time{}, nil, nil
	lease.Worker, lease.inherited, lease.watched, lease.from = Worker{}, false, false, nil
}

// onResumed starts the clock and answers, if the Lease has not ended meanwhile. If the worker has died the client
// sees that too, and forks another, which makes an /allow.
func (l *line) onResumed(lease *Lease, at time.Time, err error) {
	if lease.from == nil {
		return
	}
	if err != nil {
		l.end(lease, Unclaimed, "not written down", farewell)
		return
	}
	lease.from = nil
	if lease.inherited {
		lease.State, lease.Active = Active, at
		l.do.changed(lease)
	}
	l.do.decide(lease, decision{grant: &Grant{Lease: lease.ID, Slot: lease.Slot.Index, Device: lease.Slot.Device.UUID, Idle: true}})
}

// onUnfit puts the Lease back into the line, at its old rank: its Device was lost meanwhile, or a stranger came.
func (l *line) onUnfit(lease *Lease) {
	if lease.from == nil {
		return
	}
	from := lease.from
	l.unplace(lease)
	l.enqueue(lease)
	l.do.changed(lease)
	l.evict(from, 0)
	l.fill()
}

// missed is how long after a grant the client may not know yet that its idle worker has died, and fork another.
const missed = time.Second

// onHolderExit: a worker that dies with its Lease ends it. An inherited one may have died before it got the work.
func (l *line) onHolderExit(lease *Lease) {
	switch {
	case lease.inherited && l.now().Before(lease.Granted.Add(missed)):
		l.do.dismiss(lease.Worker) // and so what it has started
		lease.Worker, lease.inherited, lease.watched = Worker{}, false, false
		if lease.State == Active {
			lease.State, lease.Active, lease.again = Granted, time.Time{}, true
			l.do.changed(lease)
		}
	case lease.State == Active:
		l.end(lease, Released, "worker died", 0)
	}
}

// makeRoom lets an idle worker go for who waits at rank: the one that has been idle longest. For a whole Device
// those on the reserved one go, if nobody holds a Slot there.
func (l *line) makeRoom(rank int) {
	if lease := l.waiting[rank]; l.isWhole(lease) {
		if device := l.reserved.device; lease == l.reserved.lease && device != nil && device.count(held) == 0 {
			for _, w := range l.idles() {
				if w.lease.place.on(device) {
					l.evict(w, farewell)
				}
			}
		}
		return
	}
	var oldest *idle
	for _, w := range l.idles() {
		if l.mayUse(rank, w.lease.place) && (oldest == nil || w.since.Before(oldest.since)) {
			oldest = w
		}
	}
	if oldest != nil {
		l.evict(oldest, farewell)
	}
}

// evict ends an idle worker and takes its place back.
func (l *line) evict(w *idle, grace time.Duration) {
	for _, s := range w.lease.place {
		s.phase, s.holder, s.idle = reclaiming, w.lease, w
	}
	w.lease.place.startedAt(l.now())
	l.do.reclaim(w.lease.place, w.lease, grace)
}
