package lease

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// Drain is why a Device is no longer lent. Leases on it finish.
type Drain struct {
	Reason string `json:"reason"`
	// Operator is true if an operator requested the drain; it then survives a restart of the host. A fault that
	// the host found is found again.
	Operator bool `json:"operator"`
	// From and Until bound the drain of an operator, in whole milliseconds. Without From it is in force from the
	// command on, without Until it lasts until the Device is returned.
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

func (d Drain) hasBegun(now time.Time) bool { return !d.From.After(now) }

func (d Drain) isOver(now time.Time) bool { return !d.Until.IsZero() && !d.Until.After(now) }

// deviceDrains are the drains of one Device. Neither replaces the other: the end of a window must not lend a Device
// with a hardware error.
type deviceDrains struct {
	operator *Drain // by command; its window may lie in the future
	began    bool   // the beginning of operator was published
	fault    *Drain // of a hardware error; it lasts until the Device is returned
}

// inForce returns why a Device is not lent now.
func (sc *scheduler) inForce(uuid gpu.DeviceUUID) (Drain, bool) {
	known, now := sc.drains[uuid], sc.now()
	switch {
	case sc.retired[uuid]:
		return Drain{Reason: "the device has left the machine"}, true
	case known == nil:
	case known.operator != nil && known.operator.hasBegun(now) && !known.operator.isOver(now):
		return *known.operator, true
	case known.fault != nil:
		return *known.fault, true
	}
	return Drain{}, false
}

// planned returns the drain of a Device that begins later.
func (sc *scheduler) planned(uuid gpu.DeviceUUID) (Drain, bool) {
	known := sc.drains[uuid]
	if known == nil || known.operator == nil || known.operator.hasBegun(sc.now()) {
		return Drain{}, false
	}
	return *known.operator, true
}

// drainBlocking returns the drain that keeps a call of a duration from starting on a Device at a time: one in force
// now, or one that begins before the call must have ended.
func (sc *scheduler) drainBlocking(uuid gpu.DeviceUUID, at time.Time, declared time.Duration) (Drain, bool) {
	if d, ok := sc.inForce(uuid); ok {
		return d, true
	}
	d, ok := sc.planned(uuid)
	return d, ok && at.Add(declared+deadlineGrace).After(d.From)
}

// startDrain stops lending the Device, at once or from the beginning of its window on. A drain of an operator replaces an
// earlier one. If the beginning was not published, onWindows publishes it. The Device may be missing now, and come back.
func (all *schedulers) startDrain(uuid gpu.DeviceUUID, d Drain, published bool) {
	if all.drains[uuid] == nil {
		all.drains[uuid] = &deviceDrains{}
	}
	known := all.drains[uuid]
	if d.Operator {
		known.operator, known.began = &d, published
	} else {
		known.fault = &d
	}
	if sc := all.ofDevice(uuid); sc != nil {
		sc.onDrain(uuid, d)
	}
}

// onDrain handles a new drain of a Device. Leases on a failed Device are charged nothing, because what they have computed may be
// worthless.
func (sc *scheduler) onDrain(uuid gpu.DeviceUUID, d Drain) {
	for _, lease := range append(sc.openLeases(func(*Lease) bool { return true }), sc.committing()...) {
		if lease.Slot != nil && lease.Slot.Device.UUID == uuid && !d.Operator {
			lease.deviceFailed = true
		}
	}
	sc.applyDrain(uuid)
	sc.fill()
}

// applyDrain brings the free Slots and the idle workers of a Device into agreement with its drains. Its other Slots
// follow as they come free.
func (sc *scheduler) applyDrain(uuid gpu.DeviceUUID) {
	if _, isDrained := sc.inForce(uuid); isDrained {
		for _, w := range sc.idleWorkers() {
			if w.lease.allocation[0].Device.UUID == uuid {
				sc.evict(w, idleTermGrace)
			}
		}
	}
	for _, s := range sc.slots {
		if s.Device.UUID == uuid && (s.phase == free || s.phase == drained) {
			sc.vacate(allocation{s})
		}
	}
}

// onUndrain lends the Device again, and cancels a window that lies in the future.
func (sc *scheduler) onUndrain(uuid gpu.DeviceUUID) {
	delete(sc.drains, uuid)
	sc.applyDrain(uuid)
	sc.fill()
}

// onWindows handles the windows that begin or end now.
func (sc *scheduler) onWindows() {
	now := sc.now()
	for _, device := range sc.devices {
		uuid := device[0].Device.UUID
		known := sc.drains[uuid]
		if known == nil || known.operator == nil {
			continue
		}
		d := *known.operator
		if d.isOver(now) {
			known.operator = nil
			sc.effects.drainEnded(uuid, d)
			sc.applyDrain(uuid)
		} else if !known.began && d.hasBegun(now) {
			known.began = true
			sc.effects.drainBegan(uuid, d)
			sc.applyDrain(uuid)
		}
	}
}

// windowTimes returns the times at which windows begin or end, without those that onWindows has handled.
func (sc *scheduler) windowTimes() (all []time.Time) {
	for _, device := range sc.devices { // not those of missing Devices, which onWindows does not handle
		known := sc.drains[device[0].Device.UUID]
		if known == nil || known.operator == nil {
			continue
		}
		if !known.began {
			all = append(all, known.operator.From)
		}
		if !known.operator.Until.IsZero() {
			all = append(all, known.operator.Until)
		}
	}
	return all
}

func (sc *scheduler) isDrained(a allocation) bool {
	_, ok := sc.inForce(a[0].Device.UUID)
	return ok
}

// Drain stops lending the Device during the window of d, from now on if it has none; Leases on the Device run to their
// end. It replaces an earlier drain of an operator. The drain is stored, and survives a restart of the host. Leases
// that would still run at the beginning of the window are not granted on the Device. If it returns
// *gpu.UnknownDeviceError, nothing was done.
func (b *Broker) Drain(ctx context.Context, uuid gpu.DeviceUUID, d Drain) error {
	if err := b.checkDevice(uuid); err != nil {
		return err
	}
	d.Operator, d.From, d.Until = true, wholeMilliseconds(d.From), wholeMilliseconds(d.Until)
	if err := b.store.drain(ctx, uuid, d, b.now()); err != nil {
		return err
	}
	b.drainDevice(uuid, d)
	return nil
}

// wholeMilliseconds returns a time in the precision of the database, so that a drain equals its stored form.
func wholeMilliseconds(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// drainDevice also serves for faults that the host has found.
func (b *Broker) drainDevice(uuid gpu.DeviceUUID, d Drain) {
	hasBegun := !d.Operator || d.hasBegun(b.now())
	if hasBegun {
		b.drainBegan(uuid, d)
	} else {
		b.log.Info("drain of device planned", drainFields(uuid, d)...)
	}
	b.post(func(all *schedulers) { all.startDrain(uuid, d, hasBegun) })
}

func drainFields(uuid gpu.DeviceUUID, d Drain) []zap.Field {
	fields := []zap.Field{zap.String("device", string(uuid)), zap.String("reason", d.Reason), zap.Bool("operator", d.Operator)}
	if !d.From.IsZero() {
		fields = append(fields, zap.Time("from", d.From))
	}
	if !d.Until.IsZero() {
		fields = append(fields, zap.Time("until", d.Until))
	}
	return fields
}

// drainBegan implements effects.
func (b *Broker) drainBegan(uuid gpu.DeviceUUID, d Drain) {
	b.log.Warn("device drained", drainFields(uuid, d)...)
	if b.config.Drained != nil {
		b.config.Drained(uuid, d)
	}
}

// drainEnded implements effects. If the database refuses, the next start of the host finds that the window is over.
func (b *Broker) drainEnded(uuid gpu.DeviceUUID, d Drain) {
	b.log.Info("device returned at the end of its window", drainFields(uuid, d)...)
	b.effectsRunning.Go(func() {
		if err := b.store.undrainUntil(b.work, uuid, d.Until); err != nil {
			b.log.Warn("drain not removed from the database", zap.Error(err))
		}
	})
}

// Return lends the Device again, whatever caused the drain, and cancels a window that lies in the future. If it returns
// *gpu.UnknownDeviceError, nothing was done.
func (b *Broker) Return(ctx context.Context, uuid gpu.DeviceUUID) error {
	if err := b.checkDevice(uuid); err != nil {
		return err
	}
	if err := b.store.undrain(ctx, uuid); err != nil {
		return err
	}
	b.log.Info("device returned", zap.String("device", string(uuid)))
	b.forgetDriverErrors(uuid)
	b.post(func(all *schedulers) {
		if sc := all.ofDevice(uuid); sc != nil {
			sc.onUndrain(uuid)
		} else {
			delete(all.drains, uuid)
		}
	})
	return nil
}

// Drains returns the Devices that are not lent now, and those with a window that lies in the future.
func (b *Broker) Drains() (inForce, planned map[gpu.DeviceUUID]Drain) {
	inForce, planned = map[gpu.DeviceUUID]Drain{}, map[gpu.DeviceUUID]Drain{}
	b.do(func(all *schedulers) {
		sc := all.list[0] // all have the same drains
		for uuid := range all.drains {
			if d, ok := sc.inForce(uuid); ok {
				inForce[uuid] = d
			}
			if d, ok := sc.planned(uuid); ok {
				planned[uuid] = d
			}
		}
	})
	return inForce, planned
}

// Maintenance returns the drains of operators that keep a call of a duration from starting now on the host's own machine, each
// once. It is nil if the call could start on a Device, or if no operator has caused that it cannot.
func (b *Broker) Maintenance(declared time.Duration) (all []Drain) {
	b.do(func(machines *schedulers) {
		sc := machines.list[0]
		for _, device := range sc.devices {
			d, blocked := sc.drainBlocking(device[0].Device.UUID, sc.now(), declared)
			if !blocked {
				all = nil
				return
			}
			if d.Operator && !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	})
	return all
}

func (b *Broker) checkDevice(uuid gpu.DeviceUUID) error {
	if _, known := b.machineOf(uuid); known {
		return nil
	}
	return &gpu.UnknownDeviceError{UUID: uuid}
}

// recoverDrains restores the drains of operators before Run, as part of Recover. A Device that is missing now may
// come back. A window that ended while the host did not run is over.
func (b *Broker) recoverDrains(ctx context.Context) error {
	drains, err := b.store.drains(ctx)
	if err != nil {
		return fmt.Errorf("read drained devices: %w", err)
	}
	for uuid, d := range drains {
		if d.isOver(b.now()) {
			if err := b.store.undrainUntil(ctx, uuid, d.Until); err != nil {
				return err
			}
			continue
		}
		b.schedulers.startDrain(uuid, d, d.hasBegun(b.now()))
	}
	return nil
}
