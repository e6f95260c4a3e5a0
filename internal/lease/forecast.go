package lease

import (
	"slices"
	"time"
)

// Forecast is what a Lease that waits may expect, if nobody comes who goes before it.
type Forecast struct {
	Rank   int    `json:"rank"` // from 0
	Reason Reason `json:"reason"`
	Limit  Limit  `json:"limit,omitempty"` // whose, if the reason is concurrency
	// Start is when it gets its place if everybody until then takes all the seconds that they declared: earlier if they
	// take less. nil: nobody can tell, since strangers sit on the GPUs, or they are drained.
	Start *time.Time `json:"earliestStart,omitempty"`
	// GivesUp is when its wait is over, whatever comes.
	GivesUp time.Time `json:"givesUp"`
}

// outlook is a copy of what a line knows, for a look at what will come of it. It is made by the line's goroutine; what
// it tells is worked out on any other, so that many who wait do not keep the line from deciding.
type outlook struct {
	now     time.Time
	devices [][]*seat
	running []tenancy  // who has a place now
	waiting []*hopeful // by rank
	names   int        // how many Spaces and payers there are
}

// seat is a Slot. One that a stranger has, that does not come back, or of a Device that is being drained, is shut.
type seat struct {
	free time.Time
	shut bool
}

// party is a Space and a payer, by number.
type party struct{ space, payer int }

// tenancy is a place and its end, by declaration.
type tenancy struct {
	party
	ends time.Time
}

// hopeful is one that waits.
type hopeful struct {
	party
	lease    *Lease // whose fields are the line's: a name here
	limits   limits
	declared time.Duration
	whole    bool
	forecast Forecast
}

func (l *line) outlook() *outlook {
	o := &outlook{now: l.now()}
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
	for _, device := range l.devices {
		seats := make([]*seat, len(device))
		for i, s := range device {
			seats[i] = &seat{o.now, s.isShut(o.now) || l.isDrained(device)}
			if s.phase == held {
				seats[i].free = l.endOf(s.holder)
				if s == s.holder.place[0] {
					o.running = append(o.running, tenancy{partyOf(s.holder), seats[i].free})
				}
			}
		}
		o.devices = append(o.devices, seats)
	}
	for rank, lease := range l.waiting {
		o.waiting = append(o.waiting, &hopeful{
			party: partyOf(lease), lease: lease, limits: l.limitsOf(lease), declared: lease.Declared, whole: l.isWhole(lease),
			forecast: Forecast{Rank: rank, Reason: lease.limit.reason(), Limit: lease.limit, GivesUp: l.due(lease).UTC()},
		})
	}
	o.names = len(numbers)
	return o
}

// overdue is how long a look at a Slot or its return may take until nobody counts on it any more.
const overdue = 2 * time.Second

func (s *slot) isShut(now time.Time) bool {
	switch s.phase {
	case checking, reclaiming:
		return s.reason != "" || now.Sub(s.since) >= overdue
	}
	return s.phase == busy
}

// endOf is when a Lease on its Slot ends by what it has declared.
func (l *line) endOf(lease *Lease) time.Time {
	end := l.now()
	if lease.State == Active {
		if lease.deadline().After(end) {
			end = lease.deadline()
		}
		return end
	}
	return end.Add(lease.Declared)
}

// forecasts plays on from now by the line's rules: whenever a place comes free, those who wait are asked in their order.
// It uses the outlook up.
func (o *outlook) forecasts() map[*Lease]Forecast {
	left := slices.Clone(o.waiting)
	for at, more := o.now, true; more && len(left) > 0; at, more = o.next(at) {
		left = o.seat(left, at)
	}
	all := make(map[*Lease]Forecast, len(o.waiting))
	for _, w := range o.waiting {
		all[w.lease] = w.forecast
	}
	return all
}

// seat gives the places that are free at a moment, and returns who still waits, in the same array.
func (o *outlook) seat(waiting []*hopeful, at time.Time) (left []*hopeful) {
	taken, free := o.taken(at), o.countFree(at)
	left = waiting[:0]
	kept := reserved{device: -1}
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
		if seats := o.find(w, at, kept); seats != nil {
			o.sit(w, seats, at)
			free -= len(seats)
			continue
		}
		if w.whole && kept.device < 0 {
			kept = o.reserve()
		}
		left = append(left, w)
	}
	return left
}

// taken counts the places of each party at a moment, by number.
func (o *outlook) taken(at time.Time) []int {
	o.running = slices.DeleteFunc(o.running, func(t tenancy) bool { return !t.ends.After(at) })
	taken := make([]int, o.names)
	for _, t := range o.running {
		taken[t.space]++
		taken[t.payer]++
	}
	return taken
}

func (o *outlook) sit(w *hopeful, seats []*seat, at time.Time) {
	ends, start := at.Add(w.declared), at.UTC()
	for _, s := range seats {
		s.free = ends
	}
	o.running = append(o.running, tenancy{w.party, ends})
	w.forecast.Start = &start
}

func (s *seat) isFree(at time.Time) bool { return !s.shut && !s.free.After(at) }

func (o *outlook) countFree(at time.Time) (n int) {
	for _, seats := range o.devices {
		for _, s := range seats {
			if s.isFree(at) {
				n++
			}
		}
	}
	return n
}

// find is line.find with other words: the Device with most room, unless it is kept for a whole one.
func (o *outlook) find(w *hopeful, at time.Time, kept reserved) (found []*seat) {
	most := 0
	for i, seats := range o.devices {
		var room []*seat
		for _, s := range seats {
			if s.isFree(at) {
				room = append(room, s)
			}
		}
		if len(room) <= most || w.whole && len(room) < len(seats) || i == kept.device && at.Add(w.declared).After(kept.by) {
			continue
		}
		if found, most = room, len(room); !w.whole {
			found = room[:1]
		}
	}
	return found
}

// reserved is line's reservation.
type reserved struct {
	device int // below 0: none
	by     time.Time
}

func (o *outlook) reserve() reserved {
	r := reserved{device: -1}
	for i, seats := range o.devices {
		by, shut := o.now, false
		for _, s := range seats {
			shut = shut || s.shut
			if s.free.After(by) {
				by = s.free
			}
		}
		if !shut && (r.device < 0 || by.Before(r.by)) {
			r = reserved{i, by}
		}
	}
	return r
}

// next is the next moment at which a place comes free; false: none does.
func (o *outlook) next(at time.Time) (next time.Time, more bool) {
	for _, seats := range o.devices {
		for _, s := range seats {
			if !s.shut && s.free.After(at) && (!more || s.free.Before(next)) {
				next, more = s.free, true
			}
		}
	}
	return next, more
}
