package lease

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"spacehost/gpu"
	"spacehost/quota"
)

// reach is whether the broker can reach a machine.
type reach string

const (
	reachable reach = ""
	suspect   reach = "suspect" // its beat is late: no Lease starts there, and those under way go on
	lost      reach = "lost"    // nothing is known about its Devices and processes until it joins again
)

// ReasonMachineLost is the stored reason of a Lease that ended because its machine could not be reached.
const ReasonMachineLost = "machine lost"

const reasonParted = "machine has left"

// lostGrace is how long after its deadline and the time for the kill a Lease of a lost machine stays open: the machine ends
// the worker by its own clock, and may still report when.
const lostGrace = 5 * time.Second

// MachineReport lists the Leases of a machine that joins again, as the machine has recorded them.
type MachineReport struct {
	Open  []OpenLease
	Ended []EndedLease
}

// OpenLease is a Lease whose worker still runs.
type OpenLease struct {
	Lease  string
	Worker Worker
}

// EndedLease is a Lease that the machine has ended while it could not be reached.
type EndedLease struct {
	Lease  string
	State  State // Released, Expired or Revoked
	Reason string
	// Used is the time from Arm to the end by the machine's own clock. Below 0 it is not known: the Lease is charged up to the
	// last beat.
	Used time.Duration
}

// mayStart reports whether Leases may start on the machine now.
func (sc *scheduler) mayStart() bool { return sc.reach == reachable && !sc.parting }

// onSuspect stops new Leases until onReachable.
func (sc *scheduler) onSuspect() {
	if sc.reach == reachable {
		sc.reach = suspect
	}
}

func (sc *scheduler) onReachable() {
	if sc.reach == suspect {
		sc.reach = reachable
		sc.fill()
	}
}

// onLost handles that a machine cannot be reached. lastBeat is the time of its last beat.
//
//  1. A waiting Lease is withdrawn: the process that waits for it cannot be reached.
//  2. A grant without an /allow is taken back: the machine cannot deliver the /allow.
//  3. An active Lease is unreachable until the machine joins again, another event ends it, or its time is over.
//  4. No Slot is lent, because its Device cannot be checked. Idle workers are not reused.
func (sc *scheduler) onLost(lastBeat time.Time) {
	sc.reach = lost
	for _, lease := range sc.committing() {
		lease.endAfterCommit, lease.hostEnded = ReasonMachineLost, true
	}
	for _, lease := range sc.openLeases(func(*Lease) bool { return true }) {
		switch lease.State {
		case Waiting: // 1
			sc.withdraw(lease, Withdrawn, ReasonMachineLost, ErrGone)
		case Granted: // 2
			lease.hostEnded = true
			sc.end(lease, Revoked, ReasonMachineLost, 0)
		case Active: // 3
			lease.State, lease.lastBeat = Unreachable, later(lease.Active, lastBeat)
			sc.effects.changed(lease)
		}
	}
	for _, s := range sc.slots { // 4
		switch s.phase {
		case free, drained:
			sc.vacate(allocation{s})
		case checking:
			s.wasLost = true
		case warm:
			s.holder = s.idle.lease
			sc.markBusy(allocation{s}, sc.errLost())
		}
	}
}

// checkResult discards the result of a check during which the machine was lost.
func (sc *scheduler) checkResult(a allocation, err error) error {
	for _, s := range a {
		if s.wasLost {
			s.wasLost, err = false, sc.errLost()
		}
	}
	return err
}

func (sc *scheduler) errLost() error {
	return &UnreachableError{Machine: sc.machine}
}

// onJoin handles that the machine joins again, with its present Slots and a report of its Leases. Without onLost
// before, only its Devices have changed.
//
// A Lease that was unreachable
//
//  1. goes on if its worker runs, on the Slot that it had;
//  2. ends as the machine has ended it;
//  3. ends if the report does not contain it, charged up to its last beat. The machine had its deadline before its client had an answer
//     (Machine.BeginArm), so either the record was lost, with the agent, or the Lease was disarmed and its settlement was lost, with the host.
//
// Every Slot is checked before it is lent, and the workers of ended Leases are ended again.
func (sc *scheduler) onJoin(slots []gpu.Slot, report MachineReport) {
	wasLost := sc.reach == lost
	sc.reach, sc.parting = reachable, false
	sc.setSlots(slots)
	if wasLost {
		sc.adopt(report)
	}
	for _, s := range sc.slots {
		if s.phase == busy {
			s.recheckAt = sc.now()
		}
	}
	sc.fill()
}

// disarmUnknown lets a machine forget the Leases of its report that are not open: they were settled, also by Recover, or never committed.
func (sc *scheduler) disarmUnknown(machine Machine, report MachineReport) {
	for _, id := range report.leases() {
		if sc.leases[id] == nil {
			machine.Disarm(id)
		}
	}
}

func (sc *scheduler) adopt(report MachineReport) {
	known := map[string]bool{}
	for _, o := range report.Open {
		known[o.Lease] = true
		if lease := sc.leases[o.Lease]; lease == nil || lease.State != Unreachable || lease.Worker != o.Worker {
			sc.effects.dismiss(o.Worker) // settled meanwhile, or another worker than that of the /allow
		} else if !sc.regain(lease) {
			sc.end(lease, Revoked, reasonDeviceGone, 0)
		}
	}
	for _, e := range report.Ended {
		known[e.Lease] = true
		lease := sc.leases[e.Lease]
		if lease == nil || lease.State != Unreachable {
			sc.effects.reportedLate(e)
			continue
		}
		if e.Used >= 0 {
			lease.lastBeat = earlier(sc.now(), lease.Active.Add(e.Used))
		}
		state := Revoked
		if e.State == Released || e.State == Expired {
			state = e.State
		}
		sc.end(lease, state, e.Reason, 0)
	}
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.State == Unreachable && !known[o.ID] }) { // 3
		sc.end(lease, Revoked, reasonNoRecord, 0)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

const (
	reasonDeviceGone = "device has left"
	reasonNoRecord   = "machine has no record"
)

// regain lets an unreachable Lease go on. A Lease of an earlier start of the host takes the Slots that it had then. It returns
// false if they are gone.
func (sc *scheduler) regain(lease *Lease) bool {
	if lease.allocation == nil {
		a := sc.findAllocation(lease)
		if a == nil {
			return false
		}
		lease.allocation, lease.Slot = a, &a[0].Slot
		for _, s := range a {
			s.phase, s.holder, s.reason = held, lease, ""
		}
	}
	lease.State, lease.lastBeat = Active, time.Time{}
	sc.effects.changed(lease)
	if !lease.watched {
		lease.watched = true
		sc.effects.watch(lease.Worker)
	}
	return true
}

// findAllocation returns the free Slots that the Lease had, by their Device and number.
func (sc *scheduler) findAllocation(lease *Lease) allocation {
	for _, device := range sc.devices {
		if device[0].Device.UUID != lease.Slot.Device.UUID {
			continue
		}
		a := device
		if !sc.needsWholeDevice(lease) {
			at := slices.IndexFunc(device, func(s *slot) bool { return s.Index == lease.Slot.Index })
			if at < 0 {
				return nil
			}
			a = device[at : at+1 : at+1]
		}
		if a.count(free)+a.count(drained) == len(a) {
			return a
		}
	}
	return nil
}

// onPart handles that the machine leaves: no Lease starts there, and those under way finish. Where they cannot be reached, they
// are settled now.
func (sc *scheduler) onPart() {
	sc.parting = true
	for _, device := range sc.devices {
		sc.retire(device[0].Device.UUID)
	}
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.State == Waiting || o.State == Unreachable }) {
		if lease.State == Waiting {
			sc.withdraw(lease, Withdrawn, reasonParted, ErrGone)
		} else {
			sc.end(lease, Revoked, ReasonMachineLost, 0)
		}
	}
}

// hasLeft reports whether a machine that leaves has nothing under way. The Slots of a lost one do not count, because their state is
// unknown.
func (sc *scheduler) hasLeft() bool {
	return sc.parting && len(sc.leases) == 0 && len(sc.committing()) == 0 && (len(sc.slots) == 0 || sc.reach == lost)
}

// setSlots adds the Slots of new Devices, and retires the Devices that are not listed. A Device that stays keeps its Slots, with
// their numbers: the clients know their idle workers by these. A number that is taken is replaced by the next free one.
func (sc *scheduler) setSlots(slots []gpu.Slot) {
	listed, next := map[gpu.DeviceUUID]gpu.Device{}, 0
	for _, s := range slots {
		listed[s.Device.UUID] = s.Device
	}
	known, taken := map[gpu.DeviceUUID]bool{}, map[int]bool{}
	for _, s := range sc.slots {
		known[s.Device.UUID], taken[s.Index], next = true, true, max(next, s.Index+1)
	}
	for _, device := range sc.devices {
		uuid := device[0].Device.UUID
		now, stays := listed[uuid]
		if !stays {
			sc.retire(uuid)
			continue
		}
		for _, s := range device { // without the UUID, which goroutines of effects read
			s.Device.Index, s.Device.Name, s.Device.MemoryTotal, s.Device.Simulated = now.Index, now.Name, now.MemoryTotal, now.Simulated
		}
		if sc.retired[uuid] {
			delete(sc.retired, uuid)
			sc.applyDrain(uuid)
		}
	}
	for _, s := range slots {
		if known[s.Device.UUID] {
			continue
		}
		if taken[s.Index] {
			s.Index = next
		}
		taken[s.Index], next = true, max(next, s.Index+1)
		sc.addSlot(s)
	}
}

func (sc *scheduler) addSlot(s gpu.Slot) {
	one := &slot{Slot: s}
	sc.slots = append(sc.slots, one)
	if last := len(sc.devices) - 1; last >= 0 && sc.devices[last][0].Device.UUID == s.Device.UUID {
		sc.devices[last] = append(sc.devices[last], one)
	} else {
		sc.devices = append(sc.devices, allocation{one})
	}
	sc.vacate(allocation{one})
}

// retire stops lending a Device that has left the machine. Its Slots are removed once no Lease and no worker is on them.
func (sc *scheduler) retire(uuid gpu.DeviceUUID) {
	if sc.retired == nil {
		sc.retired = map[gpu.DeviceUUID]bool{}
	}
	sc.retired[uuid] = true
	sc.applyDrain(uuid)
}

// dropRetired removes the Slots of retired Devices that nothing uses.
func (sc *scheduler) dropRetired() {
	for uuid := range sc.retired {
		at := slices.IndexFunc(sc.devices, func(a allocation) bool { return a[0].Device.UUID == uuid })
		if at >= 0 && slices.ContainsFunc(sc.devices[at], func(s *slot) bool { return s.phase != drained && (s.phase != busy || s.holder != nil) }) {
			continue
		}
		if at >= 0 {
			sc.devices = slices.Delete(slices.Clone(sc.devices), at, at+1)
			sc.slots = slices.DeleteFunc(slices.Clone(sc.slots), func(s *slot) bool { return s.Device.UUID == uuid })
			sc.reserved = reservation{} // it may be the reserved Device
		}
		delete(sc.retired, uuid)
	}
}

// restore adds a Lease that was active when an earlier start of the host ended. It is unreachable until its machine joins, or the
// agent of the host's own machine has reported.
func (sc *scheduler) restore(lease *Lease) {
	lease.State, lease.restored = Unreachable, true
	sc.open(lease)
	sc.countOnSlot(lease, true)
	sc.effects.changed(lease)
}

// isLostWorker reports whether an error leaves open whether a worker still runs.
func isLostWorker(err error) bool {
	return errors.Is(err, errNotReclaimed) || errors.Is(err, ErrUnreachable)
}

// endOverdue ends a Lease whose State has lasted too long.
func (sc *scheduler) endOverdue(lease *Lease) {
	switch lease.State {
	case Waiting:
		sc.withdraw(lease, TimedOut, fmt.Sprintf("no GPU within %s", sc.queueTimeout), ErrTimedOut)
	case Granted:
		sc.end(lease, Unclaimed, "never allowed", 0)
	case Active:
		sc.effects.expired(lease)
		sc.end(lease, Expired, quota.ReasonDeadline, 0)
	case Unreachable:
		sc.end(lease, Revoked, ReasonMachineLost, 0)
	}
}
