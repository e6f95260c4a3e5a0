package lease

import (
	"slices"
	"strings"
	"time"

	"spacehost/gpu"
)

// schedulers are the schedulers of all machines: a worker is a fork of its Space's process, so a Lease can only get a Slot of
// the machine on which that process runs, and Leases of different machines never compete for a Slot. They compete for the
// concurrency limits of their Spaces and payers. The Broker's goroutine uses the schedulers, or a test.
type schedulers struct {
	list   []*scheduler          // by the name of the machine: that of the host's own machine, which is never removed, is the first
	owners map[string]*scheduler // by the ID of an open Lease
	onSlot slotCounts            // the Leases that hold Slots of all machines
	drains map[gpu.DeviceUUID]*deviceDrains
}

func newSchedulers() *schedulers {
	return &schedulers{owners: map[string]*scheduler{}, onSlot: newSlotCounts(), drains: map[gpu.DeviceUUID]*deviceDrains{}}
}

func (sc *scheduler) compareMachine(name string) int { return strings.Compare(sc.machine, name) }

// add adds the scheduler of another machine. The drains apply to its Devices from now on.
func (all *schedulers) add(sc *scheduler) {
	sc.shared, sc.drains, sc.touched = all, all.drains, true
	for _, device := range sc.devices {
		sc.applyDrain(device[0].Device.UUID)
	}
	at, _ := slices.BinarySearchFunc(all.list, sc.machine, (*scheduler).compareMachine)
	all.list = slices.Insert(all.list, at, sc)
}

func (all *schedulers) remove(sc *scheduler) {
	all.list = slices.DeleteFunc(all.list, func(o *scheduler) bool { return o == sc })
}

// of returns the scheduler of that machine, or nil. The caller changes it.
func (all *schedulers) of(machine string) *scheduler {
	at, known := slices.BinarySearchFunc(all.list, machine, (*scheduler).compareMachine)
	if !known {
		return nil
	}
	all.list[at].touched = true
	return all.list[at]
}

// ofLease returns the scheduler of the open Lease with that ID, or nil. The caller changes it.
func (all *schedulers) ofLease(id string) *scheduler {
	sc := all.owners[id]
	if sc != nil {
		sc.touched = true
	}
	return sc
}

// ofDevice returns the scheduler of that Device, or nil. The caller changes it. A Device that has left its machine may be on another.
func (all *schedulers) ofDevice(uuid gpu.DeviceUUID) *scheduler {
	for _, sc := range all.list {
		if !sc.retired[uuid] && slices.ContainsFunc(sc.devices, func(a allocation) bool { return a[0].Device.UUID == uuid }) {
			sc.touched = true
			return sc
		}
	}
	return nil
}

// each calls change for the schedulers that may have a Lease or an idle worker of a Space.
func (all *schedulers) each(change func(*scheduler)) {
	for _, sc := range all.list {
		if len(sc.leases) > 0 || len(sc.idleWorkers()) > 0 || len(sc.committing()) > 0 {
			sc.touched = true
			change(sc)
		}
	}
}

// touch lets onTime handle every scheduler, whatever its time.
func (all *schedulers) touch() {
	for _, sc := range all.list {
		sc.touched = true
	}
}

// openLeases returns the open Leases that match, oldest first.
func (sc *scheduler) openLeases(match func(*Lease) bool) []*Lease {
	var found []*Lease
	for _, lease := range sc.leases {
		if match(lease) {
			found = append(found, lease)
		}
	}
	slices.SortFunc(found, (*Lease).compareAdmitted)
	return found
}

// openLeases returns the open Leases of all machines that match, oldest first.
func (all *schedulers) openLeases(match func(*Lease) bool) (found []*Lease) {
	for _, sc := range all.list {
		found = append(found, sc.openLeases(match)...)
	}
	if len(all.list) > 1 {
		slices.SortFunc(found, (*Lease).compareAdmitted)
	}
	return found
}

// onTime handles everything that is due, and the schedulers that were changed since. It returns when to be called again; zero
// means never. The Leases that it has unblocked on other machines are handled too.
func (all *schedulers) onTime(now time.Time) (next time.Time) {
	for _, sc := range all.list {
		if sc.touched || !sc.wake.IsZero() && !sc.wake.After(now) {
			sc.touched = false
			sc.wake = sc.onTime()
		}
	}
	var leaving []*scheduler
	for _, sc := range all.list {
		if sc.hasLeft() {
			leaving = append(leaving, sc)
			continue
		}
		if sc.unblocked { // filling it takes Slots and unblocks nobody
			sc.unblocked = false
			sc.fill()
			sc.wake = sc.nextWake()
		}
		if !sc.wake.IsZero() && (next.IsZero() || sc.wake.Before(next)) {
			next = sc.wake
		}
	}
	for _, sc := range leaving {
		all.remove(sc)
		sc.effects.left()
	}
	return next
}

// applyLimits marks waiting leases that are blocked by a concurrency limit (per Space or per user), over all machines. Blocked
// leases are skipped: no Slot is searched for them, and later leases may overtake. A waiting Lease that is not blocked
// counts against the limit already. Otherwise a Lease that needs a whole Device would never get it among large
// Leases of its own Space.
func (sc *scheduler) applyLimits() {
	claimed := slotCounts{map[string]int{}, map[string]int{}}
	for _, lease := range sc.waitingEverywhere() {
		before := lease.limit
		if lease.limit = sc.shared.reachedLimit(lease, sc.limitsOf(lease), claimed); lease.limit == "" {
			claimed.add(lease)
		}
		if before != "" && lease.limit == "" && lease.Machine != sc.machine {
			sc.shared.owners[lease.ID].unblocked = true
		}
	}
}

// waitingEverywhere returns the waiting leases of all machines in their order. With one machine it copies nothing.
func (sc *scheduler) waitingEverywhere() (all []*Lease) {
	if len(sc.shared.list) == 1 {
		return sc.waiting
	}
	for _, o := range sc.shared.list {
		all = append(all, o.waiting...)
	}
	if len(all) > len(sc.waiting) {
		slices.SortFunc(all, (*Lease).compare)
	}
	return all
}

// reachedLimit is the limit that blocks another Lease. claimed are the Leases that will take Slots before it.
func (all *schedulers) reachedLimit(lease *Lease, limits limits, claimed slotCounts) Limit {
	switch {
	case limits.space > 0 && all.onSlot.spaces[lease.Space]+claimed.spaces[lease.Space] >= limits.space:
		return OfSpace
	case limits.payer > 0 && all.onSlot.payers[lease.payer]+claimed.payers[lease.payer] >= limits.payer:
		return OfIdentity
	}
	return ""
}

// slotCounts counts Leases that hold or will take Slots, by Space and payer.
type slotCounts struct{ spaces, payers map[string]int }

func newSlotCounts() slotCounts { return slotCounts{map[string]int{}, map[string]int{}} }

func (c slotCounts) add(lease *Lease) {
	c.spaces[lease.Space]++
	c.payers[lease.payer]++
}

func (c slotCounts) remove(lease *Lease) {
	if c.spaces[lease.Space]--; c.spaces[lease.Space] == 0 {
		delete(c.spaces, lease.Space)
	}
	if c.payers[lease.payer]--; c.payers[lease.payer] == 0 {
		delete(c.payers, lease.payer)
	}
}

// countOnSlot counts a Lease that holds Slots from now on, or no more. It may be called twice.
func (sc *scheduler) countOnSlot(lease *Lease, holds bool) {
	switch {
	case holds == lease.counted:
		return
	case holds:
		sc.shared.onSlot.add(lease)
	default:
		sc.shared.onSlot.remove(lease)
	}
	lease.counted = holds
}
