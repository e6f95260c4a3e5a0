package lease

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// Drain is why a Device is lent to nobody any more. Who is on it finishes.
type Drain struct {
	Reason string `json:"reason"`
	// Operator: somebody wished it, so it outlives the host. What the host has found of itself it finds again.
	Operator bool `json:"operator"`
}

// onDrain takes the Device out of the line: its idle workers go, and Slots that come free stay so. What a failed Device has
// done so far is worth nothing, and so costs nothing.
func (l *line) onDrain(uuid gpu.DeviceUUID, d Drain) {
	if l.drains == nil {
		l.drains = map[gpu.DeviceUUID]Drain{}
	}
	if known, ok := l.drains[uuid]; !ok || !known.Operator || d.Operator { // an operator's word stands
		l.drains[uuid] = d
	}
	for _, lease := range append(l.of(func(*Lease) bool { return true }), l.arrivals()...) {
		if lease.Slot != nil && lease.Slot.Device.UUID == uuid && !d.Operator {
			lease.lost = true
		}
	}
	for _, w := range l.idles() {
		if w.lease.place[0].Device.UUID == uuid {
			l.evict(w, farewell)
		}
	}
	for _, s := range l.slots {
		if s.Device.UUID == uuid && s.phase == free {
			l.vacate(place{s})
		}
	}
	l.fill()
}

// onReturn puts it back.
func (l *line) onReturn(uuid gpu.DeviceUUID) {
	delete(l.drains, uuid)
	for _, s := range l.slots {
		if s.Device.UUID == uuid && s.phase == drained {
			l.vacate(place{s})
		}
	}
	l.fill()
}

func (l *line) isDrained(p place) bool {
	_, ok := l.drains[p[0].Device.UUID]
	return ok
}

// Drain lends nobody the Device from here on; Leases on it go on to their end. It is written down, and holds for the
// next start of the host too. *gpu.UnknownDeviceError: nothing was done.
func (b *Broker) Drain(ctx context.Context, uuid gpu.DeviceUUID, reason string) error {
	if err := b.checkDevice(uuid); err != nil {
		return err
	}
	if err := b.store.drain(ctx, uuid, reason, b.now()); err != nil {
		return err
	}
	b.drain(uuid, Drain{Reason: reason, Operator: true})
	return nil
}

// drain may also be called for what the host has found of itself.
func (b *Broker) drain(uuid gpu.DeviceUUID, d Drain) {
	b.log.Warn("device drained", zap.String("device", string(uuid)), zap.String("reason", d.Reason), zap.Bool("operator", d.Operator))
	b.later(func(l *line) { l.onDrain(uuid, d) })
}

// Return lends the Device again, whoever has drained it. *gpu.UnknownDeviceError: nothing was done.
func (b *Broker) Return(ctx context.Context, uuid gpu.DeviceUUID) error {
	if err := b.checkDevice(uuid); err != nil {
		return err
	}
	if err := b.store.undrain(ctx, uuid); err != nil {
		return err
	}
	b.log.Info("device returned", zap.String("device", string(uuid)))
	b.later(func(l *line) { l.onReturn(uuid) })
	return nil
}

// Drains says which Devices are drained, and why.
func (b *Broker) Drains() map[gpu.DeviceUUID]Drain {
	all := map[gpu.DeviceUUID]Drain{}
	b.do(func(l *line) {
		for uuid, d := range l.drains {
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

// recoverDrains is part of Recover, before Run: what an operator has drained stays so. A Device that is not here
// now may come back.
func (b *Broker) recoverDrains(ctx context.Context) error {
	drains, err := b.store.drains(ctx)
	if err != nil {
		return fmt.Errorf("read drained devices: %w", err)
	}
	for uuid, reason := range drains {
		b.line.onDrain(uuid, Drain{Reason: reason, Operator: true})
	}
	return nil
}
