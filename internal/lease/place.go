package lease

import (
	"slices"
	"time"
)

// place is the Slots that one Lease gets: one for large, all of a Device for xlarge.
type place []*slot

func (p place) set(to phase) {
	for _, s := range p {
		s.phase = to
	}
}

func (p place) look() {
	p.set(checking)
	for _, s := range p {
		s.place = p
	}
}

func (p place) startedAt(now time.Time) {
	for _, s := range p {
		s.since = now
	}
}

func (p place) count(in phase) (n int) {
	for _, s := range p {
		if s.phase == in {
			n++
		}
	}
	return n
}

func (p place) on(other place) bool {
	return other != nil && p[0].Device.UUID == other[0].Device.UUID
}

// isWhole reports whether the Lease takes more than one Slot. Where Devices are not shared none does.
func (l *line) isWhole(lease *Lease) bool {
	return lease.Size == "xlarge" && len(l.slots) > len(l.devices)
}

// coming counts the places that are being looked at, and those whose idle worker is leaving, by whether they are
// whole Devices of several Slots.
func (l *line) coming() (looked, leaving map[bool]int) {
	looked, leaving = map[bool]int{}, map[bool]int{}
	for _, s := range l.slots {
		switch {
		case s.phase == checking && s == s.place[0]:
			looked[len(s.place) > 1]++
		case s.phase == reclaiming && s.idle != nil && s == s.idle.lease.place[0]:
			leaving[len(s.idle.lease.place) > 1]++
		}
	}
	return looked, leaving
}

// find returns a free place for who waits at rank, nil if there is none. Of several Devices the one with most
// room: who shares a Device shares its speed too.
func (l *line) find(rank int) (found place) {
	lease, most := l.waiting[rank], 0
	for _, device := range l.devices {
		room := device.count(free)
		if room <= most || l.isWhole(lease) && room < len(device) || !l.mayUse(rank, device) {
			continue
		}
		if found, most = device, room; !l.isWhole(lease) {
			i := slices.IndexFunc(device, func(s *slot) bool { return s.phase == free })
			found = device[i : i+1 : i+1]
		}
	}
	return found
}

// taker is the rank of the first that waits for a place and may have this one, below 0 if nobody does.
func (l *line) taker(p place) int {
	if l.isDrained(p) { // meanwhile
		return -1
	}
	for rank, lease := range l.waiting {
		if lease.limit == "" && l.isWhole(lease) == (len(p) > 1) && l.mayUse(rank, p) {
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
	device place // nil: each Device is busy with strangers, or drained
	by     time.Time
}

// reserve makes the reservation anew for another Lease, once that one has its place or has gone, and for another
// Device if a stranger came to sit on this one.
func (l *line) reserve() {
	first := l.firstWhole()
	if first < 0 {
		l.reserved = reservation{}
		return
	}
	if r := l.reserved; r.lease == l.waiting[first] && r.device != nil && l.isSound(r.device) {
		return
	}
	l.reserved = reservation{lease: l.waiting[first]}
	for _, device := range l.devices {
		by := l.emptyBy(device)
		if l.isSound(device) && (l.reserved.device == nil || by.Before(l.reserved.by)) {
			l.reserved.device, l.reserved.by = device, by
		}
	}
}

func (l *line) firstWhole() int {
	return slices.IndexFunc(l.waiting, func(o *Lease) bool { return l.isWhole(o) && o.limit == "" })
}

// isSound: all of the Device will come free.
func (l *line) isSound(device place) bool { return device.count(busy) == 0 && !l.isDrained(device) }

// mayUse reports whether who waits at rank may have a place on p's Device:
//
//  1. it is not reserved;
//  2. it is reserved for them, or for somebody behind them;
//  3. they are due to have left in time.
func (l *line) mayUse(rank int, p place) bool {
	return !p.on(l.reserved.device) || // 1
		l.waiting[rank].before(l.reserved.lease) <= 0 || // 2
		!l.now().Add(l.waiting[rank].Declared+deadlineGrace).After(l.reserved.by) // 3
}

// emptyBy is when all who hold a Slot of the Device must have left.
func (l *line) emptyBy(device place) time.Time {
	by := l.now()
	for _, s := range device {
		if s.phase == held {
			if end := l.leaves(s.holder); end.After(by) {
				by = end
			}
		}
	}
	return by
}

// leaves is when a Lease on its Slot must have left.
func (l *line) leaves(lease *Lease) time.Time {
	if lease.State == Active {
		return l.due(lease)
	}
	return l.due(lease).Add(lease.Declared + deadlineGrace) // it may be allowed in the last moment
}

// neighbours are the workers on the other Slots of a place's Device, those included that are being ended.
func (l *line) neighbours(p place) (all []Worker) {
	for _, s := range l.slots {
		if s.Device.UUID != p[0].Device.UUID || slices.Contains(p, s) {
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
