// Package gputest provides a fake gpu.Inventory, and the test suite that every Inventory must pass.
//
// FakeInventory returns what a test sets: processes, memory in use, and errors or delays by a hook. Tests of the
// packages that use gpu call NewFakeInventory. TestInventory runs the suite; the tests of this package and of
// gpu/nvml call it.
package gputest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"spacehost/gpu"
)

// IdleMemory is the memory in use on an idle Device of a new FakeInventory.
const IdleMemory = 512 << 20

// FakeInventory is an Inventory whose state a test sets. It is safe for concurrent use.
type FakeInventory struct {
	mu        sync.Mutex
	devices   []gpu.Device
	held      map[gpu.DeviceUUID]uint64
	processes map[gpu.DeviceUUID][]gpu.Process
	hook      func(ctx context.Context, uuid gpu.DeviceUUID) error
	closed    bool
}

var _ gpu.Inventory = (*FakeInventory)(nil)

// Devices returns n Devices of 80 GiB: GPU-fake-0, GPU-fake-1 and so on.
func Devices(n int) []gpu.Device {
	devices := make([]gpu.Device, n)
	for i := range devices {
		devices[i] = gpu.Device{UUID: gpu.DeviceUUID(fmt.Sprintf("GPU-fake-%d", i)), Index: i, Name: "Fake 80GB", MemoryTotal: 80 << 30}
	}
	return devices
}

// NewFakeInventory returns an inventory of the given Devices, all idle.
func NewFakeInventory(devices ...gpu.Device) *FakeInventory {
	f := &FakeInventory{devices: devices, held: make(map[gpu.DeviceUUID]uint64), processes: make(map[gpu.DeviceUUID][]gpu.Process)}
	for _, d := range devices {
		f.held[d.UUID] = IdleMemory
	}
	return f
}

// SetProcesses sets the processes listed on the Device. Their memory counts as used.
func (f *FakeInventory) SetProcesses(uuid gpu.DeviceUUID, processes ...gpu.Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.processes[uuid] = processes
}

// SetHeld sets the memory in use beyond that of the listed processes. More than IdleMemory simulates memory that has
// not been freed.
func (f *FakeInventory) SetHeld(uuid gpu.DeviceUUID, bytes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[uuid] = bytes
}

// SetHook sets a function that runs before every answer, outside the lock (uuid is empty for Devices). It may delay
// the answer by waiting for ctx or a channel, and its error is returned. nil removes it.
func (f *FakeInventory) SetHook(hook func(ctx context.Context, uuid gpu.DeviceUUID) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// Devices is part of gpu.Inventory.
func (f *FakeInventory) Devices(ctx context.Context) ([]gpu.Device, error) {
	if err := f.beforeAnswer(ctx, ""); err != nil {
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

// Usage is part of gpu.Inventory.
func (f *FakeInventory) Usage(ctx context.Context, uuid gpu.DeviceUUID) ([]gpu.Process, gpu.Memory, error) {
	if _, err := f.device(ctx, uuid); err != nil {
		return nil, gpu.Memory{}, err
	}
	f.mu.Lock()
	processes := slices.SortedFunc(slices.Values(f.processes[uuid]), func(a, b gpu.Process) int { return a.PID - b.PID })
	f.mu.Unlock()
	memory, err := f.Memory(ctx, uuid)
	return processes, memory, err
}

// Close is part of gpu.Inventory.
func (f *FakeInventory) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// beforeAnswer returns the errors that every Inventory returns, then the hook's.
func (f *FakeInventory) beforeAnswer(ctx context.Context, uuid gpu.DeviceUUID) error {
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
	return f.devices[i], f.beforeAnswer(ctx, uuid)
}
