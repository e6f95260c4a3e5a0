package queue

import "time"

// Each start changes the rank of all waiting Events. Announcements to more than alwaysAnnounce Events are debounced:
// otherwise a busy host would mostly write ranks that the next start makes stale.
const (
	alwaysAnnounce           = 10
	announceInterval         = 50 * time.Millisecond
	announceIntervalPerEvent = 100 * time.Microsecond // added per waiting Event
)

// announce sends the waiting Events of a group their ranks, now or when the debounce interval has passed.

func (sc *scheduler) announce(g *group) {
	now := sc.now()
	next := g.announced.Add(max(announceInterval, time.Duration(len(g.waiting))*announceIntervalPerEvent))
	if g.stale = len(g.waiting) > alwaysAnnounce && next.After(now); !g.stale {
		g.announced = now
		sc.estimate(g, 0)
	} else if sc.announceTimer == nil {
		sc.announceTimer = time.After(next.Sub(now))
	}
}

// onAnnounce sends the announcements that announce has delayed.
func (sc *scheduler) onAnnounce() {
	sc.announceTimer = nil
	for _, g := range sc.groupOrder {
		if g.stale {
			sc.announce(g)
		}
	}
}

func (sc *scheduler) onUpdate(time.Time) {
	for _, g := range sc.groupOrder {
		sc.estimate(g, 0)
	}
}

// estimate sends the group's waiting Events their rank and estimated time, from the given index on.
//
// The formula is that of gradio/queueing.py, broadcast_estimations: the Event's own mean run time, plus the means of
// the Events ahead divided by the limit, plus the time until the first running one should end. The estimate is unknown
// if one of these is.
func (sc *scheduler) estimate(g *group, from int) {
	free, known := sc.untilFree(g)
	var ahead float64
	for rank, e := range g.waiting {
		mean, has := sc.averages[e.Endpoint.key()]
		if rank >= from {
			m := Message{Kind: Estimation, Event: e.ID, Rank: rank, Size: len(g.waiting)}
			if known && has {
				eta := mean + ahead + free
				m.ETA = &eta
			}
			sc.deliver(e, m)
		}
		switch {
		case g.limit == 0:
			ahead = 0
		case !has:
			known = false
		case e.Endpoint.Stream:
			ahead += free / float64(g.limit)
		default:
			ahead += mean / float64(g.limit)
		}
	}
}

// untilFree returns the seconds until a unit of the group's limit should be free, or false if a running Endpoint has
// no mean yet.
func (sc *scheduler) untilFree(g *group) (seconds float64, known bool) {
	if len(g.jobs) != g.limit {
		return 0, true
	}
	first, now := -1.0, sc.now()
	for j := range g.jobs {
		mean, ok := sc.averages[j.fn.key()]
		if !ok {
			return 0, false
		}
		if j.fn.Stream {
			mean = j.fn.TimeLimit.Seconds()
		}
		if left := max(0, mean-now.Sub(j.started).Seconds()); first < 0 || left < first {
			first = left
		}
	}
	return max(0, first), true
}
