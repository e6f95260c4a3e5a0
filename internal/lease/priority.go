package lease

import (
	"cmp"
	"slices"
	"time"

	"spacehost/quota"
)

// order says who goes first. Each that waits has a turn: when it came, less a head start. Of two the earlier turn goes
// first, so all gain the same by waiting, and who comes the head start's bound later never goes before.
//
//  1. The head start is below bound.
//  2. Tier first: each priority of the host's tiers is a step ahead of the one below.
//  3. Inside a tier up to half a step, so that nothing makes up for a tier within the other half: as much for the part of
//     the quota that is left as for a short declaration.
type priority struct {
	bound          time.Duration
	tierPriorities []int // that there are, lowest first, each once
}

// newOrder takes the priorities of the host's tiers as they come. The bound is half of what a call waits at
// most: who came first has the other half to get a GPU in.
func newPriority(queueTimeout time.Duration, priorities []int) priority {
	priorities = slices.Clone(priorities)
	slices.Sort(priorities)
	return priority{queueTimeout / 2, slices.Compact(priorities)}
}

// learn takes in a priority that no tier of the host has, as one person may have. False: it was known.
func (o *priority) addTierPriority(priority int) bool {
	at, known := slices.BinarySearch(o.tierPriorities, priority)
	if !known {
		o.tierPriorities = slices.Insert(o.tierPriorities, at, priority)
	}
	return !known
}

func (o priority) effectiveTime(l *Lease) time.Time { return l.Admitted.Add(-o.headStart(l)) }

func (o priority) headStart(l *Lease) time.Duration {
	steps := max(0, float64(len(o.tierPriorities)-1)) + 0.5
	return time.Duration(float64(o.bound) / steps * (float64(o.level(l.Tier)) + score(l)/2))
}

// level is how many priorities are below the tier's.
func (o priority) level(t quota.Tier) int {
	below, _ := slices.BinarySearch(o.tierPriorities, t.Priority)
	return below
}

// usualDeclaration is what a function asks for that does not say (spaces/zero/client.py, DEFAULT_SCHEDULE_DURATION).
const defaultDeclaration = time.Minute

// merit is between 0 and 1, without it.
func score(l *Lease) float64 {
	left := min(1, max(0, l.Remaining))
	if l.Tier.Unlimited {
		left = 1
	}
	shortness := float64(defaultDeclaration) / float64(defaultDeclaration+max(time.Second, l.Declared))
	return (left + shortness) / 2
}

// before is negative if l goes before o.
func (l *Lease) compare(o *Lease) int {
	return cmp.Or(l.effectiveTime.Compare(o.effectiveTime), l.compareAdmitted(o))
}

// cameBefore is negative if l came before o.
func (l *Lease) compareAdmitted(o *Lease) int {
	return cmp.Or(l.Admitted.Compare(o.Admitted), cmp.Compare(l.ID, o.ID))
}

// enqueue puts a Lease at its place in the line. With a new priority the steps are smaller, for all.
func (sc *scheduler) enqueue(lease *Lease) {
	if sc.priority.addTierPriority(lease.Tier.Priority) {
		for _, o := range sc.waiting {
			o.effectiveTime = sc.priority.effectiveTime(o)
		}
		slices.SortFunc(sc.waiting, (*Lease).compare)
	}
	lease.effectiveTime = sc.priority.effectiveTime(lease)
	rank, _ := slices.BinarySearchFunc(sc.waiting, lease, (*Lease).compare)
	sc.waiting = slices.Insert(sc.waiting, rank, lease)
}

// Reason is why a Lease waits, in the words of X-Queuing-Reason (spaces/zero/api.py, QueuingReason).
type Reason string

// The Reasons.
const (
	Node        Reason = "node"        // every place is taken
	Concurrency Reason = "concurrency" // its Space, or who pays, has as many as they may have at once
)

// Limit is whose concurrency a Lease waits for.
type Limit string

// The Limits. The zero value: none.
const (
	OfSpace    Limit = "space"
	OfIdentity Limit = "identity"
)

func (l Limit) reason() Reason {
	if l == "" {
		return Node
	}
	return Concurrency
}

// limits are how many places a Space and a payer may have at once; 0: as many as there are.
type limits struct{ space, payer int }

func (sc *scheduler) limitsOf(lease *Lease) limits {
	limits := limits{payer: lease.Tier.Concurrency}
	if sc.perSpace != nil {
		limits.space = sc.perSpace(lease.Space)
	}
	return limits
}

// claims counts places by who has them, or comes before in the line.
type slotCounts struct{ spaces, payers map[string]int }

func (c slotCounts) add(lease *Lease) {
	c.spaces[lease.Space]++
	c.payers[lease.payer]++
}

// reached is the limit that stands in the way of another place.
func (c slotCounts) reachedLimit(lease *Lease, limits limits) Limit {
	switch {
	case limits.space > 0 && c.spaces[lease.Space] >= limits.space:
		return OfSpace
	case limits.payer > 0 && c.payers[lease.payer] >= limits.payer:
		return OfIdentity
	}
	return ""
}

// limit finds out who waits for others of their Space, or of their own, to end: nobody looks for a place for them, and
// those behind pass. Who waits for a place has a claim already, or one that needs a whole Device would never get it
// among halves of its own Space.
func (sc *scheduler) applyLimits() {
	counts := slotCounts{map[string]int{}, map[string]int{}}
	for _, s := range sc.slots {
		if s.phase == held && s == s.holder.allocation[0] {
			counts.add(s.holder)
		}
	}
	for _, lease := range sc.waiting {
		if lease.limit = counts.reachedLimit(lease, sc.limitsOf(lease)); lease.limit == "" {
			counts.add(lease)
		}
	}
}
