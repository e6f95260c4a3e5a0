package lease

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// Drain is why a Device is no longer lent. Leases on it finish.
type Drain struct {
	Reason string `json:"reason"`
	// Operator is true if an operator requested the drain; it then survives a restart of the host. A fault that
	// the host found is found again.
	Operator bool `json:"operator"`
}

// onDrain stops lending the Device: its idle workers are evicted, and its Slots become drained as they come free.
// Leases on a failed Device are charged nothing, because what they have computed may be worthless.
func (sc *scheduler) onDrain(uuid gpu.DeviceUUID, d Drain) {
	if sc.drains == nil {
		sc.drains = map[gpu.DeviceUUID]Drain{}
	}
	if known, ok := sc.drains[uuid]; !ok || !known.Operator || d.Operator { // an operator's drain is not replaced
		sc.drains[uuid] = d
	}
	for _, lease := range append(sc.openLeases(func(*Lease) bool { return true }), sc.committing()...) {
		if lease.Slot != nil && lease.Slot.Device.UUID == uuid && !d.Operator {
			lease.deviceFailed = true
		}
	}
	for _, w := range sc.idleWorkers() {
		if w.lease.allocation[0].Device.UUID == uuid {
			sc.evict(w, idleTermGrace)
		}
	}
	for _, s := range sc.slots {
		if s.Device.UUID == uuid && s.phase == free {
			sc.vacate(allocation{s})
		}
	}
	sc.fill()
}

// onUndrain lends the Device again.
func (sc *scheduler) onUndrain(uuid gpu.DeviceUUID) {
	delete(sc.drains, uuid)
	for _, s := range sc.slots {
		if s.Device.UUID == uuid && s.phase == drained {
			sc.vacate(allocation{s})
		}
	}
	sc.fill()
}

func (sc *scheduler) isDrained(a allocation) bool {
	_, ok := sc.drains[a[0].Device.UUID]
	return ok
}

// Drain stops lending the Device; Leases on it run to their end. The drain is stored, and survives a restart of
// the host. If it returns *gpu.UnknownDeviceError, nothing was done.
func (b *Broker) Drain(ctx context.Context, uuid gpu.DeviceUUID, reason string) error {
	if err := b.checkDevice(uuid); err != nil {
		return err
	}
	if err := b.store.drain(ctx, uuid, reason, b.now()); err != nil {
		return err
	}
	b.drainDevice(uuid, Drain{Reason: reason, Operator: true})
	return nil
}

// drainDevice also serves for faults that the host has found.
func (b *Broker) drainDevice(uuid gpu.DeviceUUID, d Drain) {
	b.log.Warn("device drained", zap.String("device", string(uuid)), zap.String("reason", d.Reason), zap.Bool("operator", d.Operator))
	b.post(func(sc *scheduler) { sc.onDrain(uuid, d) })
}

// Return lends the Device again, whatever caused the drain. If it returns *gpu.UnknownDeviceError, nothing was
// done.
func (b *Broker) Return(ctx context.Context, uuid gpu.DeviceUUID) error {
	if err := b.checkDevice(uuid); err != nil {
		return err
	}
	if err := b.store.undrain(ctx, uuid); err != nil {
		return err
	}
	b.log.Info("device returned", zap.String("device", string(uuid)))
	b.post(func(sc *scheduler) { sc.onUndrain(uuid) })
	return nil
}

// Drains returns the drained Devices and the reasons.
func (b *Broker) Drains() map[gpu.DeviceUUID]Drain {
	all := map[gpu.DeviceUUID]Drain{}
	b.do(func(sc *scheduler) {
		for uuid, d := range sc.drains {
			all[uuid] = d
		}
	})
	return all
}

func (b *Broker) checkDevice(uuid gpu.DeviceUUID) error {
	for _, s := range b.config.Pool.Slots() {
		if s.Device.UUID == uuid {
			return nil
		}
	}
	return &gpu.UnknownDeviceError{UUID: uuid}
}

// recoverDrains restores the drains of operators before Run, as part of Recover. A Device that is missing now may
// come back.
func (b *Broker) recoverDrains(ctx context.Context) error {
	drains, err := b.store.drains(ctx)
	if err != nil {
		return fmt.Errorf("read drained devices: %w", err)
	}
	for uuid, reason := range drains {
		b.scheduler.onDrain(uuid, Drain{Reason: reason, Operator: true})
	}
	return nil
}
