package lease

import (
	"slices"
	"time"
)

// allocation is the Slots of one Lease: one for large, all Slots of a Device for xlarge.
type allocation []*slot

func (a allocation) set(to phase) {
	for _, s := range a {
		s.phase = to
	}
}

func (a allocation) startCheck() {
	a.set(checking)
	for _, s := range a {
		s.checkGroup = a
	}
}

func (a allocation) setSince(now time.Time) {
	for _, s := range a {
		s.since = now
	}
}

func (a allocation) count(in phase) (n int) {
	for _, s := range a {
		if s.phase == in {
			n++
		}
	}
	return n
}

func (a allocation) sharesDevice(other allocation) bool {
	return other != nil && a[0].Device.UUID == other[0].Device.UUID
}

// needsWholeDevice reports whether the Lease takes more than one Slot. It is false for all Leases where Devices
// are not shared.
func (sc *scheduler) needsWholeDevice(lease *Lease) bool {
	return lease.Size == "xlarge" && len(sc.slots) > len(sc.devices)
}

// pendingAllocations counts the allocations that are being checked, and those with an idle worker under eviction.
// The key is whether they are whole Devices of several Slots.
func (sc *scheduler) pendingAllocations() (beingChecked, leaving map[bool]int) {
	beingChecked, leaving = map[bool]int{}, map[bool]int{}
	for _, s := range sc.slots {
		switch {
		case s.phase == checking && s == s.checkGroup[0]:
			beingChecked[len(s.checkGroup) > 1]++
		case s.phase == reclaiming && s.idle != nil && s == s.idle.lease.allocation[0]:
			leaving[len(s.idle.lease.allocation) > 1]++
		}
	}
	return beingChecked, leaving
}

// findFree returns free Slots for the waiting Lease at rank, or nil. It prefers the Device with the most free
// Slots, because Leases on one Device share its speed.
func (sc *scheduler) findFree(rank int) (found allocation) {
	lease, most := sc.waiting[rank], 0
	for _, device := range sc.devices {
		freeSlots := device.count(free)
		if freeSlots <= most || sc.needsWholeDevice(lease) && freeSlots < len(device) || !sc.mayUse(rank, device) {
			continue
		}
		if found, most = device, freeSlots; !sc.needsWholeDevice(lease) {
			i := slices.IndexFunc(device, func(s *slot) bool { return s.phase == free })
			found = device[i : i+1 : i+1]
		}
	}
	return found
}

// firstEligible is the rank of the first waiting Lease that may take this allocation, or below 0 if there is none.
func (sc *scheduler) firstEligible(a allocation) int {
	if sc.isDrained(a) || !sc.mayStart() { // since the check began
		return -1
	}
	for rank, lease := range sc.waiting {
		if lease.limit == "" && sc.needsWholeDevice(lease) == (len(a) > 1) && sc.mayUse(rank, a) {
			return rank
		}
	}
	return -1
}

// reservation keeps a Device for the first waiting xlarge Lease where Devices are shared. Without it, all Slots of
// a Device would rarely be free at the same time. All present Leases on the Device must have ended at the time by.
// A later Lease may still use the Device if it must end by then too (backfill, as in batch schedulers). Only
// Leases that go before the xlarge Lease move by, so it is not overtaken forever.
type reservation struct {
	lease  *Lease
	device allocation // nil: every Device is busy with foreign processes, or drained
	by     time.Time
}

// reserve renews the reservation once its Lease has been granted or has ended. It picks another Device if a
// foreign process appears on the reserved one.
func (sc *scheduler) reserve() {
	first := sc.firstWholeDevice()
	if first < 0 {
		sc.reserved = reservation{}
		return
	}
	if r := sc.reserved; r.lease == sc.waiting[first] && r.device != nil && sc.isReservable(r.device, r.by) {
		return
	}
	sc.reserved = reservation{lease: sc.waiting[first]}
	for _, device := range sc.devices {
		by := sc.emptyBy(device)
		if sc.isReservable(device, by) && (sc.reserved.device == nil || by.Before(sc.reserved.by)) {
			sc.reserved.device, sc.reserved.by = device, by
		}
	}
}

func (sc *scheduler) firstWholeDevice() int {
	return slices.IndexFunc(sc.waiting, func(o *Lease) bool { return sc.needsWholeDevice(o) && o.limit == "" })
}

// isReservable reports whether all Slots of the Device will come free, and no drain keeps the reserving Lease from
// starting there at the time by.
func (sc *scheduler) isReservable(device allocation, by time.Time) bool {
	_, blocked := sc.drainBlocking(device[0].Device.UUID, by, sc.reserved.lease.Declared)
	return device.count(busy) == 0 && !blocked
}

// mayUse reports whether the waiting Lease at rank may take Slots on a's Device. It may not if the Device is drained
// before the Lease must have ended. Otherwise one of these must hold:
//
//  1. the Device is not reserved;
//  2. the Device is reserved for this Lease, or for one behind it;
//  3. the Lease must end before the reservation starts.
func (sc *scheduler) mayUse(rank int, a allocation) bool {
	if _, blocked := sc.drainBlocking(a[0].Device.UUID, sc.now(), sc.waiting[rank].Declared); blocked {
		return false
	}
	return !a.sharesDevice(sc.reserved.device) || // 1
		sc.waiting[rank].compare(sc.reserved.lease) <= 0 || // 2
		!sc.now().Add(sc.waiting[rank].Declared+deadlineGrace).After(sc.reserved.by) // 3
}

// emptyBy is the time at which all Leases on the Device must have ended.
func (sc *scheduler) emptyBy(device allocation) time.Time {
	by := sc.now()
	for _, s := range device {
		if s.phase == held {
			if end := sc.latestEnd(s.holder); end.After(by) {
				by = end
			}
		}
	}
	return by
}

// latestEnd is the time at which a Lease on a Slot must have ended.
func (sc *scheduler) latestEnd(lease *Lease) time.Time {
	if lease.State != Granted {
		return sc.due(lease)
	}
	return sc.due(lease).Add(lease.Declared + deadlineGrace) // its /allow may come at the last moment
}

// neighbours are the workers on the other Slots of an allocation's Device, including those that are being ended.
func (sc *scheduler) neighbours(a allocation) (all []Worker) {
	for _, s := range sc.slots {
		if s.Device.UUID != a[0].Device.UUID || slices.Contains(a, s) {
			continue
		}
		if o := s.occupant(); o != nil && o.Worker.PID != 0 {
			all = append(all, o.Worker)
		}
	}
	return all
}

// occupant is the Lease of the worker that may be on the Slot: its holder, or the last Lease of an idle worker.
func (s *slot) occupant() *Lease {
	if s.idle != nil {
		return s.idle.lease
	}
	return s.holder
}
