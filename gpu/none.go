package gpu

import "context"

// None is the Inventory of a machine that lends no GPUs.
type None struct{}

var _ Inventory = None{}

// Devices lists none.
func (None) Devices(context.Context) ([]Device, error) { return nil, nil }

// Memory knows no Device.
func (None) Memory(_ context.Context, uuid DeviceUUID) (Memory, error) {
	return Memory{}, &UnknownDeviceError{UUID: uuid}
}

// Processes knows no Device.
func (None) Processes(_ context.Context, uuid DeviceUUID) ([]Process, error) {
	return nil, &UnknownDeviceError{UUID: uuid}
}

// Close has nothing to close.
func (None) Close() error { return nil }
