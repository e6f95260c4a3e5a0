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
	for id := range k.guarded {
		if l := k.leases[id]; l == nil || l.State != Active && l.State != Unreachable {
			k.t.Errorf("lease %s is armed: %+v", id, l)
		}
	}
	for _, l := range k.all {
		if k.leases[l.ID] == l {
			k.checkOpen(l)
			k.checkGuard(l)
		} else {
			k.checkEnded(l)
		}
	}
	k.dropEnded()
}

// checkWorkers: the only worker on a Slot is that of its Lease, an idle one, or one that is being ended. Slots in
// other phases have none.
func (k *walk) checkWorkers() {
	workersOn := map[*slot]int{}
	for w, a := range k.liveWorkers {
		for _, s := range a {
			workersOn[s]++
			if o := s.occupant(); s.phase == free || s.phase == checking || s.phase == drained || o == nil || o.Worker != w {
				k.t.Errorf("worker %d runs on slot %d, which is %s", w.PID, s.Index, s.phase)
			}
		}
	}
	for s, n := range workersOn {
		if n > 1 {
			k.t.Errorf("%d workers run on slot %d", n, s.Index)
		}
	}
}

// checkSlots: at most one holder each, which refers to the Slot, and at most one reclaim at a time.
func (k *walk) checkSlots() {
	for _, s := range k.slots {
		_, ok := k.drains[s.Device.UUID]
		if ok = ok || k.retired[s.Device.UUID]; ok && (s.phase == free || s.phase == warm) || !ok && s.phase == drained {
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

// checkTime: after onTime nothing is due, and the scheduler will be woken for the next due time.
func (k *walk) checkTime() {
	next := k.nextWake()
	for _, l := range k.leases {
		if due := k.due(l); !due.After(k.clock) || next.IsZero() || next.After(due) {
			k.t.Errorf("lease %s, %s: due at %s, it is %s and the scheduler sleeps until %s", l.ID, l.State, due, k.clock, next)
		}
	}
}

// checkOrder: leases wait in the order of their effective times. Where Devices are not shared, no eligible Lease
// waits while a Slot is free, or while a Slot goes to a Lease that was admitted the bound later.
func (k *walk) checkOrder() {
	if !slices.IsSortedFunc(k.waiting, (*Lease).compare) {
		k.t.Errorf("the waiting leases are out of order")
	}
	granted := k.grants
	k.grants = nil
	if k.share > 1 {
		return // a Slot may be reserved for an xlarge
	}
	waiting := 0
	for _, l := range k.waiting {
		if l.limit != "" {
			continue
		}
		waiting++
		for _, other := range granted {
			if k.warmFor == 0 && other.Admitted.Sub(l.Admitted) >= k.priority.bound {
				k.t.Errorf("%s, admitted at %s, waits behind %s, admitted at %s", l.ID, l.Admitted, other.ID, other.Admitted)
			}
		}
	}
	looking, idle := 0, 0
	if !k.mayStart() {
		return
	}
	for _, s := range k.slots {
		switch s.phase {
		case checking, reclaiming: // a Slot that is being reclaimed may be meant for a waiting Lease
			looking++
		case free, warm:
			idle++
		}
	}
	if waiting > looking && idle > 0 {
		k.t.Errorf("%d leases wait, %d slots are being checked or reclaimed, and %d are idle", waiting, looking, idle)
	}
}

// checkLimits: no Space and no payer exceeds its concurrency limit, and no Lease is blocked without others that
// count against its limit.
func (k *walk) checkLimits() {
	has, claimed := newSlotCounts(), newSlotCounts()
	var open []*Lease
	for _, o := range k.machines() {
		open = slices.Concat(open, slices.Collect(maps.Values(o.leases)), o.warmStarts)
	}
	for _, l := range open {
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
			k.t.Errorf("%s has %d leases on slots, %s has %d; want at most %+v", l.Space, has.spaces[l.Space], l.Payer.Key(), has.payers[l.Payer.Key()], limits)
		}
		if l.State == Waiting && (l.limit == OfSpace && claimed.spaces[l.Space] < limits.space || l.limit == OfIdentity && claimed.payers[l.Payer.Key()] < limits.payer) {
			k.t.Errorf("%s is blocked by its %s limit, and there are only %+v", l.ID, l.limit, claimed)
		}
	}
}

// checkOpen: a Lease either waits, once, or holds all of its Slots. It is decided if and only if it no longer
// waits.
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
		holds = 1 // one allocation
	}
	if waits+holds != 1 || (waits == 1) != (l.State == Waiting) || (waits == 1) != (l.Slot == nil) {
		k.t.Errorf("lease %s is %s: waits %d times, holds %d allocations", l.ID, l.State, waits, holds)
	}
	decided := holds == 1 && l.pendingWorker == nil
	if answers := k.answers[l]; (len(answers) == 1) != decided || len(answers) > 1 || decided && answers[0].grant == nil || k.settled[l] != 0 {
		k.t.Errorf("lease %s is %s: answered %+v, settled %d times", l.ID, l.State, answers, k.settled[l])
	}
	// (If another worker is being allowed for an active Lease, that worker is not watched yet.)
	if active := l.State == Active || l.State == Unreachable; l.Active.IsZero() == active || k.watched[l.Worker] > 1 || l.warmWorker && k.watched[l.Worker] != 1 {
		k.t.Errorf("lease %s is %s: watched %d times, active since %s", l.ID, l.State, k.watched[l.Worker], l.Active)
	}
}

// checkGuard: a Lease is armed exactly while its clock runs, with its worker and its deadline. (If another worker is being allowed
// for it, that worker is not armed yet.)
func (k *walk) checkGuard(l *Lease) {
	g, armed := k.guarded[l.ID]
	if clockRuns := l.State == Active || l.State == Unreachable; armed != clockRuns || armed && (!g.until.Equal(l.deadline()) || l.watched && g.worker != l.Worker) {
		k.t.Errorf("lease %s is %s with worker %+v until %s: armed %v, %+v", l.ID, l.State, l.Worker, l.deadline(), armed, g)
	}
}

// checkEnded: one decision, one settlement, and the charge is at most the used, the declared and the held time.
func (k *walk) checkEnded(l *Lease) {
	if len(k.answers[l]) != 1 || k.settled[l] != 1 || k.watched[l.Worker] > 1 {
		k.t.Errorf("lease %s has ended %s: answered %+v, settled %d times", l.ID, l.State, k.answers[l], k.settled[l])
	}
	used := time.Duration(0)
	if !l.Active.IsZero() {
		end := l.Ended
		if !l.lastBeat.IsZero() {
			end = earlier(end, l.lastBeat)
		}
		used = min(end.Sub(l.Active), l.Declared) * time.Duration(l.factor())
	}
	if l.hostEnded {
		used = 0
	}
	if l.Charged < used || l.Charged >= used+time.Millisecond || l.Charged > l.Held {
		k.t.Errorf("lease %s has ended %s: charged %v of %v held, used %v", l.ID, l.State, l.Charged, l.Held, used)
	}
	if l.State == Expired && l.lastBeat.IsZero() && l.Charged != l.Held || l.State == Unclaimed && l.Charged != 0 {
		k.t.Errorf("lease %s has ended %s: charged %v of %v", l.ID, l.State, l.Charged, l.Held)
	}
}

// checkVariety: a walk that never reaches some end proves nothing about it.
func (k *walk) checkVariety() {
	for _, state := range []State{Released, Expired, Revoked, Unclaimed, TimedOut, Withdrawn} {
		if few := k.warmFor > 0 && state == TimedOut; !few && k.endCounts[state] < *walkSteps/10_000 { // at most two wait there
			k.t.Errorf("only %d leases ended %q: %v", k.endCounts[state], state, k.endCounts)
		}
	}
}
