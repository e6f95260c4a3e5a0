package gputest

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"

	"spacehost/gpu"
)

// TestInventory checks the contract of gpu.Inventory. open returns a new Inventory on a machine with at least one
// Device.
func TestInventory(t *testing.T, open func(t *testing.T) gpu.Inventory) {
	tests := map[string]func(*testing.T, gpu.Inventory, []gpu.Device){
		"devices are distinct":         devicesAreDistinct,
		"devices stay the same":        devicesStayTheSame,
		"memory adds up":               memoryAddsUp,
		"processes are sorted":         processesAreSorted,
		"unknown device":               unknownDevice,
		"ended context":                endedContext,
		"concurrent calls":             concurrentCalls,
		"close twice":                  closeTwice,
		"pool has a slot per device":   poolHasSlotPerDevice,
		"simulator lists the occupant": simulatorListsOccupant,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inv := open(t)
			t.Cleanup(func() {
				if err := inv.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			devices, err := inv.Devices(t.Context())
			if err != nil || len(devices) == 0 {
				t.Fatalf("Devices = %v, %v; want at least one", devices, err)
			}
			test(t, inv, devices)
		})
	}
}

func devicesAreDistinct(t *testing.T, _ gpu.Inventory, devices []gpu.Device) {
	seen := make(map[gpu.DeviceUUID]bool)
	for i, d := range devices {
		if d.UUID == "" || seen[d.UUID] || d.Name == "" || d.MemoryTotal == 0 {
			t.Errorf("device %d of %d is %+v; want a unique UUID, a name and memory", i, len(devices), d)
		}
		seen[d.UUID] = true
	}
	if !slices.IsSortedFunc(devices, func(a, b gpu.Device) int { return a.Index - b.Index }) {
		t.Errorf("devices are not in the order of their index: %+v", devices)
	}
}

func devicesStayTheSame(t *testing.T, inv gpu.Inventory, first []gpu.Device) {
	want := slices.Clone(first)
	first[0].Name = "overwritten by the caller"
	again, err := inv.Devices(t.Context())
	if err != nil || !slices.Equal(again, want) {
		t.Errorf("Devices = %+v, %v in the second call; want %+v", again, err, want)
	}
}

func memoryAddsUp(t *testing.T, inv gpu.Inventory, devices []gpu.Device) {
	for _, d := range devices {
		m, err := inv.Memory(t.Context(), d.UUID)
		if err != nil || m.Total != d.MemoryTotal || m.Used+m.Free != m.Total {
			t.Errorf("Memory(%s) = %+v, %v; want a total of %d, made of used and free", d.UUID, m, err, d.MemoryTotal)
		}
	}
}

func processesAreSorted(t *testing.T, inv gpu.Inventory, devices []gpu.Device) {
	for _, d := range devices {
		got, m, err := inv.Usage(t.Context(), d.UUID)
		if err != nil || m.Total != d.MemoryTotal || m.Used+m.Free != m.Total {
			t.Fatalf("Usage(%s) = %+v, %+v, %v; want a total of %d, made of used and free", d.UUID, got, m, err, d.MemoryTotal)
		}
		last := 0
		for _, p := range got {
			if p.PID <= last || p.Memory > d.MemoryTotal {
				t.Errorf("Usage(%s) = %+v; want ascending positive pids, and at most %d bytes each", d.UUID, got, d.MemoryTotal)
			}
			last = p.PID
		}
	}
}

func unknownDevice(t *testing.T, inv gpu.Inventory, _ []gpu.Device) {
	const uuid = gpu.DeviceUUID("GPU-00000000-dead-beef-0000-000000000000")
	_, memoryErr := inv.Memory(t.Context(), uuid)
	_, _, usageErr := inv.Usage(t.Context(), uuid)
	errs := map[string]error{"Memory": memoryErr, "Usage": usageErr}
	if s, ok := inv.(gpu.Simulator); ok {
		errs["Occupy"] = s.Occupy(uuid, os.Getpid())
	}
	if f, ok := inv.(gpu.Faulter); ok {
		errs["Fault"] = f.Fault(uuid, gpu.Fault{Kind: gpu.FaultLost})
	}
	for method, err := range errs {
		if unknown, ok := errors.AsType[*gpu.UnknownDeviceError](err); !ok || unknown.UUID != uuid {
			t.Errorf("%s(%s) fails with %v; want UnknownDeviceError with that UUID", method, uuid, err)
		}
	}
}

func endedContext(t *testing.T, inv gpu.Inventory, devices []gpu.Device) {
	why := errors.New("result no longer needed")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	for method, err := range callAll(ctx, inv, devices[0].UUID) {
		if !errors.Is(err, why) {
			t.Errorf("%s with an ended context fails with %v; want its cause", method, err)
		}
	}
}

func concurrentCalls(t *testing.T, inv gpu.Inventory, devices []gpu.Device) {
	var all sync.WaitGroup
	for range 20 {
		for _, d := range devices {
			all.Go(func() {
				for method, err := range callAll(t.Context(), inv, d.UUID) {
					if err != nil {
						t.Errorf("%s(%s) during concurrent calls: %v", method, d.UUID, err)
					}
				}
			})
		}
	}
	all.Wait()
}

func closeTwice(t *testing.T, inv gpu.Inventory, devices []gpu.Device) {
	for range 2 {
		if err := inv.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	for method, err := range callAll(t.Context(), inv, devices[0].UUID) {
		if !errors.Is(err, gpu.ErrClosed) {
			t.Errorf("%s after Close fails with %v; want ErrClosed", method, err)
		}
	}
}

func poolHasSlotPerDevice(t *testing.T, inv gpu.Inventory, devices []gpu.Device) {
	pool, err := gpu.NewPool(t.Context(), inv, 1)
	if err != nil {
		t.Fatalf("NewPool: %v", err)
	}
	var want []gpu.Slot
	for i, d := range devices {
		want = append(want, gpu.Slot{Index: i, Device: d})
	}
	if got := pool.Slots(); !reflect.DeepEqual(got, want) {
		t.Errorf("Slots = %+v; want %+v", got, want)
	}
	for i, row := range pool.Status(t.Context()) {
		if row.Device != devices[i] || row.Error != "" || row.MemoryUsed+row.MemoryFree != row.MemoryTotal {
			t.Errorf("status %d = %+v; want %+v without error, with used + free = total", i, row, devices[i])
		}
	}
}

// simulatorListsOccupant puts the test process on the Device, because that process is certainly running.
func simulatorListsOccupant(t *testing.T, inv gpu.Inventory, devices []gpu.Device) {
	simulator, ok := inv.(gpu.Simulator)
	if !ok {
		t.Skip("not a simulator: its driver observes which process opens a context")
	}
	for range 2 {
		if err := simulator.Occupy(devices[0].UUID, os.Getpid()); err != nil {
			t.Fatalf("Occupy: %v", err)
		}
	}
	got, _, err := inv.Usage(t.Context(), devices[0].UUID)
	if err != nil || len(got) != 1 || got[0].PID != os.Getpid() || got[0].Memory == 0 {
		t.Errorf("Usage = %+v, %v; want pid %d once, with memory", got, err, os.Getpid())
	}
}

// callAll calls every method that has a context, and returns the errors by method.
func callAll(ctx context.Context, inv gpu.Inventory, uuid gpu.DeviceUUID) map[string]error {
	_, devicesErr := inv.Devices(ctx)
	_, memoryErr := inv.Memory(ctx, uuid)
	_, _, usageErr := inv.Usage(ctx, uuid)
	return map[string]error{"Devices": devicesErr, "Memory": memoryErr, "Usage": usageErr}
}
