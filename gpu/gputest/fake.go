// Package gputest has what tests of other rooms need of gpu: a fake Inventory, and the suite that every Inventory passes.
package gputest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"spacehost/gpu"
)

// IdleMemory is in use on a Device of a new FakeInventory, where nobody sits.
const IdleMemory = 512 << 20

// FakeInventory does what the test says. Safe for concurrent use.
type FakeInventory struct {
	mu        sync.Mutex
	devices   []gpu.Device
	held      map[gpu.DeviceUUID]uint64
	processes map[gpu.DeviceUUID][]gpu.Process
	hook      func(ctx context.Context, uuid gpu.DeviceUUID) error
	closed    bool
}

var _ gpu.Inventory = (*FakeInventory)(nil)

// Devices makes n Devices of 80 GiB: GPU-fake-0, GPU-fake-1 and so on.
func Devices(n int) []gpu.Device {
	devices := make([]gpu.Device, n)
	for i := range devices {
		devices[i] = gpu.Device{UUID: gpu.DeviceUUID(fmt.Sprintf("GPU-fake-%d", i)), Index: i, Name: "Fake 80GB", MemoryTotal: 80 << 30}
	}
	return devices
}

// NewFakeInventory has the given Devices, all idle.
func NewFakeInventory(devices ...gpu.Device) *FakeInventory {
	f := &FakeInventory{devices: devices, held: make(map[gpu.DeviceUUID]uint64), processes: make(map[gpu.DeviceUUID][]gpu.Process)}
	for _, d := range devices {
		f.held[d.UUID] = IdleMemory
	}
	return f
}

// SetProcesses says who is listed on the Device from now on. Their memory is in use with them.
func (f *FakeInventory) SetProcesses(uuid gpu.DeviceUUID, processes ...gpu.Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.processes[uuid] = processes
}

// SetHeld says how much is in use beside the memory of who is listed: more than IdleMemory is memory that has not come back.
func (f *FakeInventory) SetHeld(uuid gpu.DeviceUUID, bytes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[uuid] = bytes
}

// SetHook sets what runs before every answer (uuid is empty for Devices), outside the lock: it may lag by waiting for ctx or a channel, and
// its error is the answer. nil takes it away.
func (f *FakeInventory) SetHook(hook func(ctx context.Context, uuid gpu.DeviceUUID) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// Devices is part of gpu.Inventory.
func (f *FakeInventory) Devices(ctx context.Context) ([]gpu.Device, error) {
	if err := f.before(ctx, ""); err != nil {
		return nil, err
	}
	return slices.Clone(f.devices), nil
}

// Memory is part of gpu.Inventory.
func (f *FakeInventory) Memory(ctx context.Context, uuid gpu.DeviceUUID) (gpu.Memory, error) {
	d, err := f.device(ctx, uuid)
	if err != nil {
		return gpu.Memory{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	used := f.held[uuid]
	for _, p := range f.processes[uuid] {
		used += p.Memory
	}
	used = min(used, d.MemoryTotal)
	return gpu.Memory{Total: d.MemoryTotal, Used: used, Free: d.MemoryTotal - used}, nil
}

// Processes is part of gpu.Inventory.
func (f *FakeInventory) Processes(ctx context.Context, uuid gpu.DeviceUUID) ([]gpu.Process, error) {
	if _, err := f.device(ctx, uuid); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(slices.Values(f.processes[uuid]), func(a, b gpu.Process) int { return a.PID - b.PID }), nil
}

// Close is part of gpu.Inventory.
func (f *FakeInventory) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// before fails as every Inventory does, then as the hook says.
func (f *FakeInventory) before(ctx context.Context, uuid gpu.DeviceUUID) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	hook, closed := f.hook, f.closed
	f.mu.Unlock()
	if closed {
		return gpu.ErrClosed
	}
	if hook == nil {
		return nil
	}
	return hook(ctx, uuid)
}

func (f *FakeInventory) device(ctx context.Context, uuid gpu.DeviceUUID) (gpu.Device, error) {
	i := slices.IndexFunc(f.devices, func(d gpu.Device) bool { return d.UUID == uuid })
	if i < 0 {
		return gpu.Device{}, &gpu.UnknownDeviceError{UUID: uuid}
	}
	return f.devices[i], f.before(ctx, uuid)
}
