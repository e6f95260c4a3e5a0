package gpu

import "context"

// None is the Inventory of a machine without GPUs to lease.
type None struct{}

var _ Inventory = None{}

// Devices returns an empty list.
func (None) Devices(context.Context) ([]Device, error) { return nil, nil }

// Memory always fails with *UnknownDeviceError.
func (None) Memory(_ context.Context, uuid DeviceUUID) (Memory, error) {
	return Memory{}, &UnknownDeviceError{UUID: uuid}
}

// Usage always fails with *UnknownDeviceError.
func (None) Usage(_ context.Context, uuid DeviceUUID) ([]Process, Memory, error) {
	return nil, Memory{}, &UnknownDeviceError{UUID: uuid}
}

// Close does nothing.
func (None) Close() error { return nil }
