package lease

import (
	"slices"
	"time"

	"spacehost/gpu"
)

// DriverError is an error that the driver has reported for a Device since the host started.
type DriverError struct {
	Xid      gpu.Xid   `json:"xid"`
	At       time.Time `json:"at"` // the last time
	Count    int       `json:"count"`
	Condemns bool      `json:"condemns"` // it is a hardware error, which drains the Device
}

// Sampler returns the samples of the Devices. The broker samples each two seconds, so other readers need no query to the driver.
func (b *Broker) Sampler() *gpu.Sampler { return b.sampler }

// Devices lists the Devices of all machines, by machine.
func (b *Broker) Devices() (all []gpu.Device) {
	for _, joined := range b.joinedMachines() {
		for i, s := range joined.slots {
			if i == 0 || joined.slots[i-1].Device.UUID != s.Device.UUID {
				all = append(all, s.Device)
			}
		}
	}
	return all
}

// DriverErrors returns the errors of a Device since the host started, or since `spacehost gpu return`, the latest last.
func (b *Broker) DriverErrors(uuid gpu.DeviceUUID) []DriverError {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.driverErrors[uuid])
}

// recordDriverError counts an error by its number.
func (b *Broker) recordDriverError(uuid gpu.DeviceUUID, xid gpu.Xid) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := DriverError{Xid: xid, Condemns: xid.Condemns()}
	all := b.driverErrors[uuid]
	if at := slices.IndexFunc(all, func(o DriverError) bool { return o.Xid == xid }); at >= 0 {
		e.Count = all[at].Count
		all = slices.Delete(slices.Clone(all), at, at+1)
	}
	e.At, e.Count = b.now().UTC(), e.Count+1
	if b.driverErrors == nil {
		b.driverErrors = map[gpu.DeviceUUID][]DriverError{}
	}
	b.driverErrors[uuid] = append(all, e)
}

// forgetDriverErrors is called when an operator has returned the Device.
func (b *Broker) forgetDriverErrors(uuid gpu.DeviceUUID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.driverErrors, uuid)
}
