package gpu_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zapcore"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const first, second gpu.DeviceUUID = "GPU-fake-0", "GPU-fake-1"

func newPool(t *testing.T, inv gpu.Inventory) *gpu.Pool {
	t.Helper()
	pool, err := gpu.NewPool(t.Context(), inv, 1)
	if err != nil {
		t.Fatalf("NewPool: %v", err)
	}
	return pool
}

func mustBeClear(t *testing.T, pool *gpu.Pool, uuid gpu.DeviceUUID) {
	t.Helper()
	if err := pool.Clear(t.Context(), uuid, gpu.Neighbours{}); err != nil {
		t.Errorf("Clear(%s) = %v; want nil", uuid, err)
	}
}

func mustBeBusy(t *testing.T, pool *gpu.Pool, want gpu.BusyError) {
	t.Helper()
	err := pool.Clear(t.Context(), want.UUID, gpu.Neighbours{})
	if got, ok := errors.AsType[*gpu.BusyError](err); !ok || !reflect.DeepEqual(*got, want) {
		t.Errorf("Clear(%s) = %#v; want %#v", want.UUID, err, want)
	}
}

const limit = gputest.IdleMemory + 256<<20

func TestListedProcessMakesDeviceBusy(t *testing.T) {
	fake := gputest.NewFakeInventory(gputest.Devices(2)...)
	pool := newPool(t, fake)
	fake.SetProcesses(first, gpu.Process{PID: 7, Memory: 1 << 20}, gpu.Process{PID: 5})
	mustBeBusy(t, pool, gpu.BusyError{UUID: first, PIDs: []int{5, 7}, Used: gputest.IdleMemory + 1<<20, Limit: limit})
	mustBeClear(t, pool, second)
	fake.SetProcesses(first)
	mustBeClear(t, pool, first)
}

func TestUnfreedMemoryMakesDeviceBusy(t *testing.T) {
	fake := gputest.NewFakeInventory(gputest.Devices(1)...)
	pool := newPool(t, fake)
	fake.SetHeld(first, limit+1)
	mustBeBusy(t, pool, gpu.BusyError{UUID: first, PIDs: []int{}, Used: limit + 1, Limit: limit})
	fake.SetHeld(first, limit)
	mustBeClear(t, pool, first)
}

func TestWorkerOfCrashedHostDoesNotRaiseBaseline(t *testing.T) {
	fake := gputest.NewFakeInventory(gputest.Devices(1)...)
	fake.SetProcesses(first, gpu.Process{PID: 5, Memory: 40 << 30})
	pool := newPool(t, fake)
	fake.SetProcesses(first) // it exited; its memory is freed in two steps
	fake.SetHeld(first, 20<<30)
	mustBeBusy(t, pool, gpu.BusyError{UUID: first, PIDs: []int{}, Used: 20 << 30, Limit: limit})
	fake.SetHeld(first, gputest.IdleMemory)
	mustBeClear(t, pool, first)
}

func TestFaultyDeviceDoesNotStopThePool(t *testing.T) {
	fake := gputest.NewFakeInventory(gputest.Devices(2)...)
	lost := &gpu.LostError{UUID: first}
	fake.SetHook(func(_ context.Context, uuid gpu.DeviceUUID) error {
		if uuid == first {
			return lost
		}
		return nil
	})
	pool := newPool(t, fake)
	if err := pool.Clear(t.Context(), first, gpu.Neighbours{}); !errors.Is(err, lost) {
		t.Errorf("Clear of the lost device = %v; want %v", err, lost)
	}
	mustBeClear(t, pool, second)

	fake.SetHook(nil) // it is back, but its idle baseline is unknown
	mustBeBusy(t, pool, gpu.BusyError{UUID: first, PIDs: []int{}, Used: gputest.IdleMemory, Limit: 256 << 20})
	fake.SetHeld(first, 10<<20)
	mustBeClear(t, pool, first)
}

func TestUnknownDeviceIsNotClear(t *testing.T) {
	pool := newPool(t, gputest.NewFakeInventory(gputest.Devices(1)...))
	err := pool.Clear(t.Context(), "GPU-elsewhere", gpu.Neighbours{})
	if unknown, ok := errors.AsType[*gpu.UnknownDeviceError](err); !ok || unknown.UUID != "GPU-elsewhere" {
		t.Errorf("Clear = %v; want UnknownDeviceError", err)
	}
}

func TestNewPoolFailsWithoutDeviceList(t *testing.T) {
	fake := gputest.NewFakeInventory(gputest.Devices(1)...)
	why := &gpu.HungError{After: time.Second}
	fake.SetHook(func(context.Context, gpu.DeviceUUID) error { return why })
	if pool, err := gpu.NewPool(t.Context(), fake, 1); pool != nil || !errors.Is(err, why) {
		t.Errorf("NewPool = %v, %v; want %v", pool, err, why)
	}
}

func TestNewPoolFailsIfContextEnds(t *testing.T) {
	fake := gputest.NewFakeInventory(gputest.Devices(1)...)
	ctx, cancel := context.WithCancel(t.Context())
	fake.SetHook(func(_ context.Context, uuid gpu.DeviceUUID) error {
		if uuid != "" {
			cancel()
		}
		return context.Cause(ctx)
	})
	if pool, err := gpu.NewPool(ctx, fake, 1); pool != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("NewPool whose context ends during the reads = %v, %v; want context.Canceled", pool, err)
	}
}

// halfRead lists its Devices and reports that one more is missing.
type halfRead struct {
	*gputest.FakeInventory
	missing *gpu.MissingError
}

func (h halfRead) Devices(ctx context.Context) ([]gpu.Device, error) {
	devices, _ := h.FakeInventory.Devices(ctx)
	return devices, h.missing
}

func TestStatusHasRowForMissingDevice(t *testing.T) {
	missing := &gpu.MissingError{Reasons: map[int]error{0: &gpu.NoPermissionError{}}}
	devices := gputest.Devices(2)[1:] // the one with index 1
	fake := halfRead{gputest.NewFakeInventory(devices...), missing}
	fake.SetProcesses(second, gpu.Process{PID: 5, Memory: 1 << 30})
	want := []gpu.DeviceStatus{
		{Device: gpu.Device{Index: 0}, Processes: []gpu.Process{}, Error: missing.Reasons[0].Error(), Cause: missing.Reasons[0]},
		{
			Device: devices[0], MemoryUsed: gputest.IdleMemory + 1<<30, MemoryFree: 79<<30 - gputest.IdleMemory,
			Processes: []gpu.Process{{PID: 5, Memory: 1 << 30}},
		},
	}
	if got := newPool(t, fake).Status(t.Context()); !reflect.DeepEqual(got, want) {
		t.Errorf("Status = %+v; want %+v", got, want)
	}
}

func TestNewPoolFailsWhenAllAreMissing(t *testing.T) {
	missing := &gpu.MissingError{Reasons: map[int]error{0: &gpu.LostError{}}}
	pool, err := gpu.NewPool(t.Context(), halfRead{gputest.NewFakeInventory(), missing}, 1)
	if pool != nil || !errors.Is(err, missing) {
		t.Errorf("NewPool = %v, %v; want %v", pool, err, missing)
	}
}

func TestMachineWithoutDevicesHasAnEmptyPool(t *testing.T) {
	pool := newPool(t, gputest.NewFakeInventory())
	if slots, rows := pool.Slots(), pool.Status(t.Context()); len(slots) != 0 || rows == nil || len(rows) != 0 {
		t.Errorf("Slots = %v, Status = %#v; want both empty, and [] in JSON", slots, rows)
	}
}

func TestEachShareIsASlot(t *testing.T) {
	pool, err := gpu.NewPool(t.Context(), gputest.NewFakeInventory(gputest.Devices(2)...), 2)
	if err != nil {
		t.Fatal(err)
	}
	var got []gpu.DeviceUUID
	for i, slot := range pool.Slots() {
		if slot.Index != i {
			t.Errorf("slot %d has the index %d", i, slot.Index)
		}
		got = append(got, slot.Device.UUID)
	}
	if want := []gpu.DeviceUUID{first, first, second, second}; !reflect.DeepEqual(got, want) || len(pool.Status(t.Context())) != 2 {
		t.Errorf("Slots are on %v, with %d rows; want %v, with 2", got, len(pool.Status(t.Context())), want)
	}
}

// TestClearBesideNeighbours: another Slot is held by a Lease with the processes 5 and 6.
func TestClearBesideNeighbours(t *testing.T) {
	const slack = 256 << 20
	for name, row := range map[string]struct {
		listed []gpu.Process
		held   uint64 // without the neighbours' processes
		busy   *gpu.BusyError
	}{
		"neighbours not yet on the device":   {nil, gputest.IdleMemory, nil},
		"neighbours on the device":           {[]gpu.Process{{PID: 5, Memory: 30 << 30}, {PID: 6, Memory: 1 << 30}}, gputest.IdleMemory, nil},
		"tables of the neighbours' contexts": {[]gpu.Process{{PID: 5, Memory: 30 << 30}}, limit + slack, nil},
		"an external process beside the neighbours": {
			[]gpu.Process{{PID: 5, Memory: 30 << 30}, {PID: 7, Memory: 1 << 30}}, gputest.IdleMemory,
			&gpu.BusyError{UUID: first, PIDs: []int{7}, Used: 31<<30 + gputest.IdleMemory, Limit: limit + 30<<30 + slack},
		},
		"unfreed memory": {
			[]gpu.Process{{PID: 5, Memory: 30 << 30}}, limit + slack + 1,
			&gpu.BusyError{UUID: first, PIDs: []int{}, Used: 30<<30 + limit + slack + 1, Limit: limit + 30<<30 + slack},
		},
		"the driver reports no memory per process": {[]gpu.Process{{PID: 5}}, limit + 40<<30, nil},
		"more than the neighbours' share": {
			[]gpu.Process{{PID: 5}}, limit + 40<<30 + 1,
			&gpu.BusyError{UUID: first, PIDs: []int{}, Used: limit + 40<<30 + 1, Limit: limit + 40<<30},
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake := gputest.NewFakeInventory(gputest.Devices(1)...)
			pool, err := gpu.NewPool(t.Context(), fake, 2)
			if err != nil {
				t.Fatal(err)
			}
			fake.SetProcesses(first, row.listed...)
			fake.SetHeld(first, row.held)
			err = pool.Clear(t.Context(), first, gpu.Neighbours{Slots: 1, Own: func(pid int) bool { return pid == 5 || pid == 6 }})
			got, _ := errors.AsType[*gpu.BusyError](err)
			if !reflect.DeepEqual(got, row.busy) || (err == nil) != (row.busy == nil) {
				t.Errorf("Clear = %v; want %v", err, row.busy)
			}
		})
	}
}

func TestParseShare(t *testing.T) {
	for text, want := range map[string]gpu.Share{"1": 1, "1/2": 2, "1/8": 8, "1/1": 0, "1/9": 0, "1/0": 0, "1/+2": 0, "2": 0, "": 0, "0.5": 0, "1/2 ": 0} {
		got, err := gpu.ParseShare(text)
		if got != want || (err == nil) != (want != 0) || err == nil && got.String() != text {
			t.Errorf("ParseShare(%q) = %v, %v; want %d", text, got, err, want)
		}
	}
}

func TestSlotsBelongToTheCaller(t *testing.T) {
	pool := newPool(t, gputest.NewFakeInventory(gputest.Devices(2)...))
	pool.Slots()[0].Index = 9
	if got := pool.Slots()[0].Index; got != 0 {
		t.Errorf("Slots()[0].Index = %d after a caller wrote into the slice; want 0", got)
	}
}

func TestHangingDevicesAreReadConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := gputest.NewFakeInventory(gputest.Devices(8)...)
		pool := newPool(t, fake)
		fake.SetHook(func(_ context.Context, uuid gpu.DeviceUUID) error {
			time.Sleep(2 * time.Second)
			return &gpu.HungError{UUID: uuid, After: 2 * time.Second}
		})
		began := time.Now()
		rows := pool.Status(t.Context())
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("Status took %s; want 2s", took)
		}
		for _, row := range rows {
			if !strings.Contains(row.Error, string(row.UUID)+" did not answer within 2s") {
				t.Errorf("row of %s has the error %q; want that it did not answer", row.UUID, row.Error)
			}
		}
	})
}

func TestStatusInJSON(t *testing.T) {
	row := newPool(t, gputest.NewFakeInventory(gputest.Devices(1)...)).Status(t.Context())
	got, err := json.Marshal(row)
	want := `[{"uuid":"GPU-fake-0","index":0,"name":"Fake 80GB","memoryTotal":85899345920,"simulated":false,` +
		`"memoryUsed":536870912,"memoryFree":85362475008,"processes":[]}]`
	if err != nil || string(got) != want {
		t.Errorf("json = %s, %v; want %s", got, err, want)
	}
}

func TestBusyErrorText(t *testing.T) {
	tests := []struct {
		err  gpu.BusyError
		want string
	}{
		{gpu.BusyError{UUID: first, PIDs: []int{5, 7}, Used: 3 << 30, Limit: limit}, "device GPU-fake-0 is busy: pid 5, 7 on it, 3072 MiB in use"},
		{gpu.BusyError{UUID: first, Used: 3 << 30, Limit: limit}, "device GPU-fake-0 is busy: no process is listed on it, but 3072 MiB are in use (idle: at most 768 MiB)"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%#v has the text %q; want %q", tt.err, got, tt.want)
		}
	}
}

func TestDeviceMarshalLogObject(t *testing.T) {
	enc := zapcore.NewMapObjectEncoder()
	if err := (gpu.Device{UUID: first, Index: 3, Name: "Fake", Simulated: true}).MarshalLogObject(enc); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"uuid": "GPU-fake-0", "index": 3, "name": "Fake", "simulated": true}
	if !reflect.DeepEqual(enc.Fields, want) {
		t.Errorf("fields = %v; want %v", enc.Fields, want)
	}
}
