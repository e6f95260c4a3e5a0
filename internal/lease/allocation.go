package lease

import (
	"slices"
	"time"
)

// place is the Slots that one Lease gets: one for large, all of a Device for xlarge.
type allocation []*slot

func (a allocation) set(to phase) {
	for _, s := range a {
		s.phase = to
	}
}

func (a allocation) startCheck() {
	a.set(checking)
	for _, s := range a {
		s.checking = a
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

// isWhole reports whether the Lease takes more than one Slot. Where Devices are not shared none does.
func (sc *scheduler) needsWholeDevice(lease *Lease) bool {
	return lease.Size == "xlarge" && len(sc.slots) > len(sc.devices)
}

// coming counts the places that are being looked at, and those whose idle worker is leaving, by whether they are
// whole Devices of several Slots.
func (sc *scheduler) pendingAllocations() (beingChecked, leaving map[bool]int) {
	beingChecked, leaving = map[bool]int{}, map[bool]int{}
	for _, s := range sc.slots {
		switch {
		case s.phase == checking && s == s.checking[0]:
			beingChecked[len(s.checking) > 1]++
		case s.phase == reclaiming && s.idle != nil && s == s.idle.lease.allocation[0]:
			leaving[len(s.idle.lease.allocation) > 1]++
		}
	}
	return beingChecked, leaving
}

// find returns a free place for who waits at rank, nil if there is none. Of several Devices the one with most
// room: who shares a Device shares its speed too.
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

// taker is the rank of the first that waits for a place and may have this one, below 0 if nobody does.
func (sc *scheduler) firstEligible(a allocation) int {
	if sc.isDrained(a) { // meanwhile
		return -1
	}
	for rank, lease := range sc.waiting {
		if lease.limit == "" && sc.needsWholeDevice(lease) == (len(a) > 1) && sc.mayUse(rank, a) {
			return rank
		}
	}
	return -1
}

// reservation keeps a Device for the first xlarge that waits where Devices are shared: without it two halves
// would hardly ever be free at the same time. Until by, when all who sit there now must have left, one behind it
// in the line may still use a Slot there if it is due to have left by then too (as batch schedulers backfill). As
// by does not move but for those who go before it, nobody is overtaken for ever.
type reservation struct {
	lease  *Lease
	device allocation // nil: each Device is busy with strangers, or drained
	by     time.Time
}

// reserve makes the reservation anew for another Lease, once that one has its place or has gone, and for another
// Device if a stranger came to sit on this one.
func (sc *scheduler) reserve() {
	first := sc.firstWholeDevice()
	if first < 0 {
		sc.reserved = reservation{}
		return
	}
	if r := sc.reserved; r.lease == sc.waiting[first] && r.device != nil && sc.isReservable(r.device) {
		return
	}
	sc.reserved = reservation{lease: sc.waiting[first]}
	for _, device := range sc.devices {
		by := sc.emptyBy(device)
		if sc.isReservable(device) && (sc.reserved.device == nil || by.Before(sc.reserved.by)) {
			sc.reserved.device, sc.reserved.by = device, by
		}
	}
}

func (sc *scheduler) firstWholeDevice() int {
	return slices.IndexFunc(sc.waiting, func(o *Lease) bool { return sc.needsWholeDevice(o) && o.limit == "" })
}

// isSound: all of the Device will come free.
func (sc *scheduler) isReservable(device allocation) bool {
	return device.count(busy) == 0 && !sc.isDrained(device)
}

// mayUse reports whether who waits at rank may have a place on p's Device:
//
//  1. it is not reserved;
//  2. it is reserved for them, or for somebody behind them;
//  3. they are due to have left in time.
func (sc *scheduler) mayUse(rank int, a allocation) bool {
	return !a.sharesDevice(sc.reserved.device) || // 1
		sc.waiting[rank].compare(sc.reserved.lease) <= 0 || // 2
		!sc.now().Add(sc.waiting[rank].Declared+deadlineGrace).After(sc.reserved.by) // 3
}

// emptyBy is when all who hold a Slot of the Device must have left.
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

// leaves is when a Lease on its Slot must have left.
func (sc *scheduler) latestEnd(lease *Lease) time.Time {
	if lease.State == Active {
		return sc.due(lease)
	}
	return sc.due(lease).Add(lease.Declared + deadlineGrace) // it may be allowed in the last moment
}

// neighbours are the workers on the other Slots of a place's Device, those included that are being ended.
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

// occupant is whose worker sits on the Slot, or may: the holder's, or one that is idle.
func (s *slot) occupant() *Lease {
	if s.idle != nil {
		return s.idle.lease
	}
	return s.holder
}
