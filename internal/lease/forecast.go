package lease

import (
	"slices"
	"time"
)

// Forecast is the prospect of a waiting Lease, if no Lease that goes before it arrives.
type Forecast struct {
	Rank   int    `json:"rank"` // from 0
	Reason Reason `json:"reason"`
	Limit  Limit  `json:"limit,omitempty"` // the limit that is reached, if the reason is concurrency
	// Start is the time of its grant if all Leases before it use their declared seconds in full; it is earlier if
	// they use less. Nil means unknown, because foreign processes use the GPUs or the GPUs are drained.
	Start *time.Time `json:"earliestStart,omitempty"`
	// GivesUp is the time at which its wait ends in any case.
	GivesUp time.Time `json:"givesUp"`
}

// simulation is a copy of the scheduler's state, to forecast the coming grants. The scheduler's goroutine makes the
// copy. The forecast runs on any other goroutine, so that many waiting clients do not delay scheduling.
type simulation struct {
	now     time.Time
	devices [][]*simSlot
	running []running // Leases that hold Slots now
	waiting []*waiter // by rank
	parties int       // number of Spaces and payers
	// elsewhere are the ends of the Leases of other machines. They count against the limits, and are in running.
	elsewhere []time.Time
}

// simSlot is a Slot. It is unavailable if a foreign process uses it, its return is overdue, or its Device is
// drained without an end. A call that does not end before closes cannot start before opens.
type simSlot struct {
	freeAt        time.Time
	unavailable   bool
	closes, opens time.Time // the window of a planned drain; closes is zero without one, opens if it has no end
}

// party is a Space and a payer, by number.
type party struct{ space, payer int }

// running is a Lease on Slots, and its declared end.
type running struct {
	party
	ends time.Time
}

// waiter is a waiting Lease.
type waiter struct {
	party
	lease    *Lease // used only as a key: its fields belong to the scheduler
	limits   limits
	declared time.Duration
	whole    bool
	forecast Forecast
}

func (sc *scheduler) simulation() *simulation {
	sim := &simulation{now: sc.now()}
	numbers := map[string]int{}
	number := func(kind, name string) int {
		n, known := numbers[kind+name]
		if !known {
			n = len(numbers)
			numbers[kind+name] = n
		}
		return n
	}
	partyOf := func(lease *Lease) party {
		return party{number("space ", lease.Space), number("payer ", lease.payer)}
	}
	for _, device := range sc.devices {
		slots := make([]*simSlot, len(device))
		for i, s := range device {
			slots[i] = sc.simSlot(s)
			if s.phase == held {
				slots[i].freeAt = later(slots[i].freeAt, sc.declaredEnd(s.holder))
				if s == s.holder.allocation[0] {
					sim.running = append(sim.running, running{partyOf(s.holder), sc.declaredEnd(s.holder)})
				}
			}
		}
		sim.devices = append(sim.devices, slots)
	}
	for _, o := range sc.shared.list {
		if o == sc {
			continue
		}
		for _, lease := range o.leases {
			if lease.counted {
				end := o.declaredEnd(lease)
				sim.running, sim.elsewhere = append(sim.running, running{partyOf(lease), end}), append(sim.elsewhere, end)
			}
		}
	}
	for rank, lease := range sc.waiting {
		sim.waiting = append(sim.waiting, &waiter{
			party: partyOf(lease), lease: lease, limits: sc.limitsOf(lease), declared: lease.Declared, whole: sc.needsWholeDevice(lease),
			forecast: Forecast{Rank: rank, Reason: lease.limit.reason(), Limit: lease.limit, GivesUp: sc.due(lease).UTC()},
		})
	}
	sim.parties = len(numbers)
	return sim
}

// simSlot describes a Slot without its holder.
func (sc *scheduler) simSlot(s *slot) *simSlot {
	one := &simSlot{freeAt: sc.now(), unavailable: s.isUnavailable(sc.now()) || !sc.mayStart()}
	if d, ok := sc.inForce(s.Device.UUID); ok {
		one.unavailable = one.unavailable || d.Until.IsZero() || sc.drains[s.Device.UUID].fault != nil
		one.freeAt = later(one.freeAt, d.Until)
	}
	if d, ok := sc.planned(s.Device.UUID); ok {
		one.closes, one.opens = d.From, d.Until
	}
	return one
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// mayStart reports whether the window of a planned drain allows a call of that duration to start.
func (s *simSlot) mayStart(at time.Time, declared time.Duration) bool {
	return s.closes.IsZero() || !at.Add(declared+deadlineGrace).After(s.closes) || !s.opens.IsZero() && !at.Before(s.opens)
}

// overdue is how long the check or the return of a Slot may take. After that, forecasts do not count on the Slot.
const overdue = 2 * time.Second

func (s *slot) isUnavailable(now time.Time) bool {
	switch s.phase {
	case checking, reclaiming:
		return s.reason != "" || now.Sub(s.since) >= overdue
	}
	return s.phase == busy
}

// declaredEnd is the time at which a Lease on a Slot ends by its declaration.
func (sc *scheduler) declaredEnd(lease *Lease) time.Time {
	end := sc.now()
	if lease.State != Granted {
		if lease.deadline().After(end) {
			end = lease.deadline()
		}
		return end
	}
	return end.Add(lease.Declared)
}

// forecasts simulates the future by the scheduler's rules: whenever a Slot comes free, it is offered to the
// waiting leases in order. It consumes the simulation.
func (sim *simulation) forecasts() map[*Lease]Forecast {
	left := slices.Clone(sim.waiting)
	for at, more := sim.now, true; more && len(left) > 0; at, more = sim.next(at) {
		left = sim.assignFree(left, at)
	}
	all := make(map[*Lease]Forecast, len(sim.waiting))
	for _, w := range sim.waiting {
		all[w.lease] = w.forecast
	}
	return all
}

// assignFree assigns the Slots that are free at a moment. It returns the leases that still wait, in the same
// array.
func (sim *simulation) assignFree(waiting []*waiter, at time.Time) (left []*waiter) {
	taken, free := sim.taken(at), sim.countFree(at)
	left = waiting[:0]
	reserved := simReservation{device: -1}
	for i, w := range waiting {
		if free == 0 {
			return append(left, waiting[i:]...)
		}
		if w.limits.space > 0 && taken[w.space] >= w.limits.space || w.limits.payer > 0 && taken[w.payer] >= w.limits.payer {
			left = append(left, w)
			continue
		}
		taken[w.space]++
		taken[w.payer]++
		if slots := sim.findFree(w, at, reserved); slots != nil {
			sim.assign(w, slots, at)
			free -= len(slots)
			continue
		}
		if w.whole && reserved.device < 0 {
			reserved = sim.reserve(w)
		}
		left = append(left, w)
	}
	return left
}

// taken counts the running Leases of each party at a moment, by number.
func (sim *simulation) taken(at time.Time) []int {
	sim.running = slices.DeleteFunc(sim.running, func(t running) bool { return !t.ends.After(at) })
	taken := make([]int, sim.parties)
	for _, t := range sim.running {
		taken[t.space]++
		taken[t.payer]++
	}
	return taken
}

func (sim *simulation) assign(w *waiter, slots []*simSlot, at time.Time) {
	ends, start := at.Add(w.declared), at.UTC()
	for _, s := range slots {
		s.freeAt = ends
	}
	sim.running = append(sim.running, running{w.party, ends})
	w.forecast.Start = &start
}

func (s *simSlot) isFree(at time.Time) bool { return !s.unavailable && !s.freeAt.After(at) }

func (sim *simulation) countFree(at time.Time) (n int) {
	for _, slots := range sim.devices {
		for _, s := range slots {
			if s.isFree(at) {
				n++
			}
		}
	}
	return n
}

// findFree does what scheduler.findFree does: it prefers the Device with the most free Slots, unless that Device
// is reserved.
func (sim *simulation) findFree(w *waiter, at time.Time, reserved simReservation) (found []*simSlot) {
	most := 0
	for i, slots := range sim.devices {
		var freeSlots []*simSlot
		for _, s := range slots {
			if s.isFree(at) && s.mayStart(at, w.declared) {
				freeSlots = append(freeSlots, s)
			}
		}
		if len(freeSlots) <= most || w.whole && len(freeSlots) < len(slots) || i == reserved.device && at.Add(w.declared).After(reserved.by) {
			continue
		}
		if found, most = freeSlots, len(freeSlots); !w.whole {
			found = freeSlots[:1]
		}
	}
	return found
}

// simReservation is the scheduler's reservation.
type simReservation struct {
	device int // below 0: none
	by     time.Time
}

func (sim *simulation) reserve(w *waiter) simReservation {
	r := simReservation{device: -1}
	for i, slots := range sim.devices {
		by, shut := sim.now, false
		for _, s := range slots {
			shut = shut || s.unavailable
			if s.freeAt.After(by) {
				by = s.freeAt
			}
		}
		shut = shut || !slots[0].mayStart(by, w.declared)
		if !shut && (r.device < 0 || by.Before(r.by)) {
			r = simReservation{i, by}
		}
	}
	return r
}

// next is the next time at which a Slot comes free, the window of its Device ends, or a Lease of another machine ends. It returns
// false if none does.
func (sim *simulation) next(at time.Time) (next time.Time, more bool) {
	for _, t := range sim.elsewhere {
		if t.After(at) && (!more || t.Before(next)) {
			next, more = t, true
		}
	}
	for _, slots := range sim.devices {
		for _, s := range slots {
			for _, t := range []time.Time{s.freeAt, s.opens} {
				if !s.unavailable && t.After(at) && (!more || t.Before(next)) {
					next, more = t, true
				}
			}
		}
	}
	return next, more
}
