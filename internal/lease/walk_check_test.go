package lease

import (
	"maps"
	"slices"
	"time"
)

func (k *walk) check() {
	k.checkSlots()
	k.checkWorkers()
	k.checkTime()
	k.checkOrder()
	k.checkLimits()
	for _, l := range k.all {
		if k.leases[l.ID] == l {
			k.checkOpen(l)
		} else {
			k.checkEnded(l)
		}
	}
	k.dropEnded()
}

// checkWorkers: on a Slot lives the worker of its Lease alone, or an idle one, or one that is being ended. Where nobody
// may be, nobody is.
func (k *walk) checkWorkers() {
	sitters := map[*slot]int{}
	for w, a := range k.liveWorkers {
		for _, s := range a {
			sitters[s]++
			if o := s.occupant(); s.phase == free || s.phase == checking || s.phase == drained || o == nil || o.Worker != w {
				k.t.Errorf("worker %d lives on slot %d, which is %s", w.PID, s.Index, s.phase)
			}
		}
	}
	for s, n := range sitters {
		if n > 1 {
			k.t.Errorf("%d workers live on slot %d", n, s.Index)
		}
	}
}

// checkSlots: at most one holder each, who knows of it, and none reclaimed twice at a time.
func (k *walk) checkSlots() {
	for _, s := range k.slots {
		if _, ok := k.drains[s.Device.UUID]; ok && (s.phase == free || s.phase == warm) || !ok && s.phase == drained {
			k.t.Errorf("slot %d is %s, its device is drained: %v", s.Index, s.phase, ok)
		}
		if s.phase == warm && (k.warmFor == 0 || !slices.Contains(s.idle.lease.allocation, s) || k.leases[s.idle.lease.ID] != nil) {
			k.t.Errorf("slot %d is warm from %s, which is %s", s.Index, s.idle.lease.ID, s.idle.lease.State)
		}
		if s.phase == held && (!k.isOnSlot(s.holder) || !slices.Contains(s.holder.allocation, s)) {
			k.t.Errorf("slot %d is held by %s, which is %s", s.Index, s.holder.ID, s.holder.State)
		}
		if n := len(k.reclaimsOf(s)); (s.phase == reclaiming) != (n == 1) || n > 1 {
			k.t.Errorf("slot %d is %s with %d reclaims under way", s.Index, s.phase, n)
		}
	}
}

// checkTime: after onTime nothing is due, and the line will be woken when something is.
func (k *walk) checkTime() {
	next := k.nextWake()
	for _, l := range k.leases {
		if due := k.due(l); !due.After(k.clock) || next.IsZero() || next.After(due) {
			k.t.Errorf("lease %s, %s: due at %s, it is %s and the line sleeps until %s", l.ID, l.State, due, k.clock, next)
		}
	}
}

// checkOrder: they wait in the order of their turns; where Devices are not shared, nobody who may have a Slot waits while
// one idles, nor while one is given to somebody who came the bound later.
func (k *walk) checkOrder() {
	if !slices.IsSortedFunc(k.waiting, (*Lease).compare) {
		k.t.Errorf("they wait out of their order")
	}
	granted := k.grants
	k.grants = nil
	if k.share > 1 {
		return // a Slot may be kept for an xlarge
	}
	waiting := 0
	for _, l := range k.waiting {
		if l.limit != "" {
			continue
		}
		waiting++
		for _, other := range granted {
			if k.warmFor == 0 && other.Admitted.Sub(l.Admitted) >= k.priority.bound {
				k.t.Errorf("%s, which came at %s, waits behind %s, which came at %s", l.ID, l.Admitted, other.ID, other.Admitted)
			}
		}
	}
	looking, idle := 0, 0
	for _, s := range k.slots {
		switch s.phase {
		case checking, reclaiming: // those that are being taken back may be meant for who waits
			looking++
		case free, warm:
			idle++
		}
	}
	if waiting > looking && idle > 0 {
		k.t.Errorf("%d wait, %d slots are being looked at, and %d idle", waiting, looking, idle)
	}
}

// checkLimits: no Space and no payer has more places than they may, and nobody waits for a place that nobody has claimed.
func (k *walk) checkLimits() {
	has, claimed := slotCounts{map[string]int{}, map[string]int{}}, slotCounts{map[string]int{}, map[string]int{}}
	for _, l := range slices.Concat(slices.Collect(maps.Values(k.leases)), k.warmStarts) {
		if k.isOnSlot(l) {
			has.add(l)
		}
		if k.isOnSlot(l) || l.limit == "" {
			claimed.add(l)
		}
	}
	for _, l := range k.leases {
		limits := k.limitsOf(l)
		if limits.space > 0 && has.spaces[l.Space] > limits.space || limits.payer > 0 && has.payers[l.Payer.Key()] > limits.payer {
			k.t.Errorf("%s has %d places, %s has %d; want at most %+v", l.Space, has.spaces[l.Space], l.Payer.Key(), has.payers[l.Payer.Key()], limits)
		}
		if l.State == Waiting && (l.limit == OfSpace && claimed.spaces[l.Space] < limits.space || l.limit == OfIdentity && claimed.payers[l.Payer.Key()] < limits.payer) {
			k.t.Errorf("%s waits for others of its %s, and there are only %+v", l.ID, l.limit, claimed)
		}
	}
}

// checkOpen: a Lease either waits, once, or is on all of its Slots; it is decided if and only if it no longer waits.
func (k *walk) checkOpen(l *Lease) {
	waits, holds := 0, 0
	for _, o := range k.waiting {
		if o == l {
			waits++
		}
	}
	for _, s := range k.slots {
		if s.holder == l && s.phase == held {
			holds++
		}
	}
	if holds > 0 && (holds == k.share) == (k.share == 1 || l.Size == "xlarge") && holds == len(l.allocation) {
		holds = 1 // place
	}
	if waits+holds != 1 || (waits == 1) != (l.State == Waiting) || (waits == 1) != (l.Slot == nil) {
		k.t.Errorf("lease %s is %s: waits %d times, holds %d places", l.ID, l.State, waits, holds)
	}
	told := holds == 1 && l.pendingWorker == nil
	if answers := k.answers[l]; (len(answers) == 1) != told || len(answers) > 1 || told && answers[0].grant == nil || k.settled[l] != 0 {
		k.t.Errorf("lease %s is %s: answered %+v, settled %d times", l.ID, l.State, answers, k.settled[l])
	}
	// (An active one whose place is being allowed to another worker has one that is not watched yet.)
	if active := l.State == Active; l.Active.IsZero() == active || k.watched[l.Worker] > 1 || l.warmWorker && k.watched[l.Worker] != 1 {
		k.t.Errorf("lease %s is %s: watched %d times, active since %s", l.ID, l.State, k.watched[l.Worker], l.Active)
	}
}

// checkEnded: one decision, one settlement, and no more charged than was used, declared and held.
func (k *walk) checkEnded(l *Lease) {
	if len(k.answers[l]) != 1 || k.settled[l] != 1 || k.watched[l.Worker] > 1 {
		k.t.Errorf("lease %s has ended %s: answered %+v, settled %d times", l.ID, l.State, k.answers[l], k.settled[l])
	}
	used := time.Duration(0)
	if !l.Active.IsZero() {
		used = min(l.Ended.Sub(l.Active), l.Declared) * time.Duration(l.factor())
	}
	if l.Charged < used || l.Charged >= used+time.Millisecond || l.Charged > l.Held {
		k.t.Errorf("lease %s has ended %s: charged %v of %v held, used %v", l.ID, l.State, l.Charged, l.Held, used)
	}
	if l.State == Expired && l.Charged != l.Held || l.State == Unclaimed && l.Charged != 0 {
		k.t.Errorf("lease %s has ended %s: charged %v of %v", l.ID, l.State, l.Charged, l.Held)
	}
}

// checkVariety: a walk that never comes to some end proves nothing about it.
func (k *walk) checkVariety() {
	for _, state := range []State{Released, Expired, Revoked, Unclaimed, TimedOut, Withdrawn} {
		if few := k.warmFor > 0 && state == TimedOut; !few && k.endCounts[state] < *walkSteps/10_000 { // two at most wait there
			k.t.Errorf("of all ends only %d were %q: %v", k.endCounts[state], state, k.endCounts)
		}
	}
}
