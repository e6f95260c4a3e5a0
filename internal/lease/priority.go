package lease

import (
	"cmp"
	"slices"
	"time"

	"spacehost/quota"
)

// priority orders the waiting leases. The effective time of a Lease is its admission minus a head start. The Lease
// with the earlier effective time goes first. All leases gain the same by waiting, and no Lease overtakes another
// that was admitted a whole bound earlier.
//
//  1. The head start is below bound.
//  2. Tier first: each priority of the host's tiers is one step above the next lower one.
//  3. Inside a tier, the score is worth up to half a step, so it never outweighs a tier. Remaining quota and a short
//     declaration count equally.
type priority struct {
	bound          time.Duration
	tierPriorities []int // in use, lowest first, each once
}

// newPriority takes the priorities of the host's tiers in any order. The bound is half of the queue timeout: the
// Lease admitted first has the other half to get a GPU.
func newPriority(queueTimeout time.Duration, priorities []int) priority {
	priorities = slices.Clone(priorities)
	slices.Sort(priorities)
	return priority{queueTimeout / 2, slices.Compact(priorities)}
}

// addTierPriority adds a priority that no tier of the host has; the entry of one person may have one. It returns
// false if the priority is known.
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

// level is the number of priorities below the tier's.
func (o priority) level(t quota.Tier) int {
	below, _ := slices.BinarySearch(o.tierPriorities, t.Priority)
	return below
}

// defaultDeclaration is the duration of a function that declares none (spaces/zero/client.py,
// DEFAULT_SCHEDULE_DURATION).
const defaultDeclaration = time.Minute

// score is between 0 and 1, 1 excluded.
func score(l *Lease) float64 {
	left := min(1, max(0, l.Remaining))
	if l.Tier.Unlimited {
		left = 1
	}
	shortness := float64(defaultDeclaration) / float64(defaultDeclaration+max(time.Second, l.Declared))
	return (left + shortness) / 2
}

// compare is negative if l goes before o.
func (l *Lease) compare(o *Lease) int {
	return cmp.Or(l.effectiveTime.Compare(o.effectiveTime), l.compareAdmitted(o))
}

// compareAdmitted is negative if l was admitted before o.
func (l *Lease) compareAdmitted(o *Lease) int {
	return cmp.Or(l.Admitted.Compare(o.Admitted), cmp.Compare(l.ID, o.ID))
}

// enqueue inserts a Lease into the waiting queue. A new priority makes the steps smaller for all leases, so they
// are sorted again.
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

// Reason is why a Lease waits, as X-Queuing-Reason spells it (spaces/zero/api.py, QueuingReason).
type Reason string

// The Reasons.
const (
	Node        Reason = "node"        // every Slot is taken
	Concurrency Reason = "concurrency" // its Space or its payer is at its concurrency limit
)

// Limit is the concurrency limit that blocks a Lease.
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

// limits are the maximum numbers of Leases of a Space and a payer on Slots at once; 0: unlimited.
type limits struct{ space, payer int }

func (sc *scheduler) limitsOf(lease *Lease) limits {
	limits := limits{payer: lease.Tier.Concurrency}
	if sc.perSpace != nil {
		limits.space = sc.perSpace(lease.Space)
	}
	return limits
}
