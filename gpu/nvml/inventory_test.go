package nvml

import (
	"context"
	"errors"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"go.uber.org/goleak"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRealInventory(t *testing.T) {
	inv, err := Open()
	if err != nil {
		t.Skipf("no real GPU was tested, because Open failed: %v", err)
	}
	if devices, _ := inv.Devices(t.Context()); len(devices) == 0 {
		t.Skipf("no real GPU was tested: NVML is installed and lists none; Close: %v", inv.Close())
	}
	if err := inv.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	gputest.TestInventory(t, func(t *testing.T) gpu.Inventory {
		inv, err := Open()
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		return inv
	})
}

// machine is a simulated library of n T4 whose functions a test can replace.
type machine struct {
	*mock.Interface
	devices []*mock.Device
}

func newMachine(n int) *machine {
	m := &machine{}
	var handles []nvml.Device
	for index := range n {
		d := simulatedDevice(stableUUID("T4", index), models["T4"], &occupants{})
		m.devices, handles = append(m.devices, d), append(handles, d)
	}
	m.Interface = simulatedLibrary(handles)
	return m
}

func (m *machine) open(t *testing.T) *Inventory {
	t.Helper()
	inv, err := open(m, false)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return inv
}

// hang makes the Device's memory call block until release is called; calls counts the calls made.
func (m *machine) hang(index int) (calls *atomic.Int32, release func()) {
	calls = new(atomic.Int32)
	gate := make(chan struct{})
	usual := m.devices[index].GetMemoryInfoFunc
	m.devices[index].GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
		calls.Add(1)
		<-gate
		return usual()
	}
	return calls, func() { close(gate) }
}

var t4 = []gpu.DeviceUUID{stableUUID("T4", 0), stableUUID("T4", 1), stableUUID("T4", 2)}

func mustBeHung(t *testing.T, err error, uuid gpu.DeviceUUID) {
	t.Helper()
	if hung, ok := errors.AsType[*gpu.HungError](err); !ok || hung.UUID != uuid {
		t.Errorf("got %v; want HungError of %s", err, uuid)
	}
}

func TestEachErrorAtEachCall(t *testing.T) {
	for ret, want := range map[nvml.Return]error{
		nvml.ERROR_LIBRARY_NOT_FOUND:       &gpu.NoLibraryError{},
		nvml.ERROR_DRIVER_NOT_LOADED:       &gpu.NoDriverError{},
		nvml.ERROR_NO_PERMISSION:           &gpu.NoPermissionError{},
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: &gpu.VersionMismatchError{},
		nvml.ERROR_GPU_IS_LOST:             &gpu.LostError{},
		nvml.ERROR_RESET_REQUIRED:          &gpu.LostError{},
		nvml.ERROR_UNKNOWN:                 &gpu.DriverError{},
		nvml.ERROR_NOT_FOUND:               &gpu.DriverError{},
	} {
		for call, err := range failEverywhere(t, ret) {
			if reflect.TypeOf(err) != reflect.TypeOf(want) {
				t.Errorf("%s in %s becomes %T (%v); want %T", ret, call, err, err, want)
			}
		}
	}
}

// failEverywhere makes one call fail at a time, and returns the resulting errors.
func failEverywhere(t *testing.T, ret nvml.Return) map[string]error {
	errs := make(map[string]error)
	m := newMachine(1)
	m.InitFunc = func() nvml.Return { return ret }
	_, errs["Init"] = open(m, false)

	m = newMachine(1)
	m.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, ret }
	_, errs["DeviceGetCount"] = open(m, false)
	if n := len(m.ShutdownCalls()); n != 1 {
		t.Errorf("library shut down %d times after DeviceGetCount failed; want 1", n)
	}

	for call, spoil := range map[string]func(*machine){
		"DeviceGetHandleByIndex": func(m *machine) {
			m.DeviceGetHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return nil, ret }
		},
		"GetUUID":       func(m *machine) { m.devices[0].GetUUIDFunc = func() (string, nvml.Return) { return "", ret } },
		"GetName":       func(m *machine) { m.devices[0].GetNameFunc = func() (string, nvml.Return) { return "", ret } },
		"GetMemoryInfo": func(m *machine) { m.devices[0].GetMemoryInfoFunc = noMemory(ret) },
	} {
		m := newMachine(1)
		spoil(m)
		inv := m.open(t)
		_, err := inv.Devices(t.Context())
		if missing, ok := errors.AsType[*gpu.MissingError](err); ok {
			errs[call] = missing.Reasons[0]
		}
		mustClose(t, inv)
	}

	m = newMachine(1)
	inv := m.open(t)
	m.devices[0].GetMemoryInfoFunc = noMemory(ret)
	m.devices[0].GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, ret }
	_, errs["GetMemoryInfo later"] = inv.Memory(t.Context(), t4[0])
	_, _, errs["GetComputeRunningProcesses"] = inv.Usage(t.Context(), t4[0])
	m.ShutdownFunc = func() nvml.Return { return ret }
	errs["Shutdown"] = inv.Close()
	return errs
}

func noMemory(ret nvml.Return) func() (nvml.Memory, nvml.Return) {
	return func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, ret }
}

func mustClose(t *testing.T, inv *Inventory) {
	t.Helper()
	if err := inv.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestDriverErrorText(t *testing.T) {
	got := check("GPU-1", "read memory", nvml.ERROR_UNKNOWN).Error()
	if want := "read memory of GPU-1: the NVIDIA driver returned ERROR_UNKNOWN"; got != want {
		t.Errorf("error = %q; want %q", got, want)
	}
}

func TestLostDeviceDoesNotHideTheOthers(t *testing.T) {
	m := newMachine(3)
	m.devices[1].GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
	inv := m.open(t)
	defer mustClose(t, inv)
	devices, err := inv.Devices(t.Context())
	if len(devices) != 2 || devices[0].UUID != t4[0] || devices[1].UUID != t4[2] || devices[1].Index != 2 {
		t.Errorf("Devices = %+v; want those with index 0 and 2", devices)
	}
	if missing, ok := errors.AsType[*gpu.MissingError](err); !ok || len(missing.Reasons) != 1 || missing.Reasons[1] == nil {
		t.Errorf("Devices fails with %v; want MissingError about index 1", err)
	}
}

func TestProcessesAreMerged(t *testing.T) {
	m := newMachine(1)
	m.devices[0].GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: 9, UsedGpuMemory: 5}, {Pid: 4, UsedGpuMemory: notAvailable}, {Pid: 9, UsedGpuMemory: 6}}, nvml.SUCCESS
	}
	inv := m.open(t)
	defer mustClose(t, inv)
	got, _, err := inv.Usage(t.Context(), t4[0])
	if want := []gpu.Process{{PID: 4}, {PID: 9, Memory: 11}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Processes = %v, %v; want %v", got, err, want)
	}
}

func TestUnsupportedProcessListIsEmpty(t *testing.T) {
	m := newMachine(1)
	m.devices[0].GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED }
	inv := m.open(t)
	defer mustClose(t, inv)
	if got, _, err := inv.Usage(t.Context(), t4[0]); err != nil || len(got) != 0 {
		t.Errorf("Processes = %v, %v; want none", got, err)
	}
}

func TestHangEndsAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(2)
		inv := m.open(t)
		calls, release := m.hang(0)

		began := time.Now()
		for range 500 {
			_, err := inv.Memory(t.Context(), t4[0])
			mustBeHung(t, err, t4[0])
		}
		if took := time.Since(began); took != callLimit {
			t.Errorf("500 calls took %s; want %s, for the first only", took, callLimit)
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls went into the hung library; want 1", n)
		}
		if _, err := inv.Memory(t.Context(), t4[1]); err != nil {
			t.Errorf("the other device: %v", err)
		}

		release()
		synctest.Wait()
		if _, err := inv.Memory(t.Context(), t4[0]); err != nil {
			t.Errorf("after the driver answered: %v", err)
		}
		mustClose(t, inv)
	})
}

func TestCallEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(1)
		inv := m.open(t)
		_, release := m.hang(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := inv.Memory(ctx, t4[0]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Memory with a context of 1s fails with %v; want its cause", err)
		}
		release()
		mustClose(t, inv)
	})
}

func TestCallWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(1)
		inv := m.open(t)
		_, release := m.hang(0)
		time.AfterFunc(callLimit-1, release)
		for range 3 {
			go func() {
				if _, err := inv.Memory(t.Context(), t4[0]); err != nil {
					t.Errorf("one of three: %v", err)
				}
			}()
		}
		synctest.Wait()
		time.Sleep(callLimit)
		mustClose(t, inv)
	})
}

func TestDeviceThatHangsAtOpenIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(2)
		_, release := m.hang(0)
		inv := m.open(t)
		devices, err := inv.Devices(t.Context())
		missing, ok := errors.AsType[*gpu.MissingError](err)
		if len(devices) != 1 || devices[0].UUID != t4[1] || !ok {
			t.Fatalf("Devices = %v, %v; want the second, and MissingError", devices, err)
		}
		mustBeHung(t, missing.Reasons[0], "")
		mustBeHung(t, inv.Close(), "")
		if n := len(m.ShutdownCalls()); n != 0 {
			t.Errorf("library shut down %d times during a call; want 0", n)
		}
		release()
	})
}

func TestLibraryThatHangsAtOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(1)
		gate := make(chan struct{})
		m.InitFunc = func() nvml.Return { <-gate; return nvml.SUCCESS }
		_, err := open(m, false)
		mustBeHung(t, err, "")
		close(gate)
	})
}

func TestCloseWaitsForRunningCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(1)
		inv := m.open(t)
		_, release := m.hang(0)
		m.ShutdownFunc = func() nvml.Return {
			select {
			case <-inv.guards[1].turn:
				t.Error("shut down during a call")
			default:
			}
			return nvml.SUCCESS
		}
		go func() {
			if _, err := inv.Memory(t.Context(), t4[0]); err != nil {
				t.Errorf("the running call: %v", err)
			}
		}()
		synctest.Wait()
		go func() {
			if _, err := inv.Memory(t.Context(), t4[0]); !errors.Is(err, gpu.ErrClosed) {
				t.Errorf("the waiting call: %v; want ErrClosed", err)
			}
		}()
		synctest.Wait()
		time.AfterFunc(time.Second, release)
		began := time.Now()
		mustClose(t, inv)
		if took := time.Since(began); took != time.Second {
			t.Errorf("Close took %s; want 1s", took)
		}
	})
}

func TestCloseDoesNotWaitForHungCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(2)
		inv := m.open(t)
		_, release := m.hang(0)
		_, err := inv.Memory(t.Context(), t4[0])
		mustBeHung(t, err, t4[0])
		mustBeHung(t, inv.Close(), t4[0])
		mustBeHung(t, inv.Close(), t4[0])
		if n := len(m.ShutdownCalls()); n != 0 {
			t.Errorf("library shut down %d times during a call; want 0", n)
		}
		release()
		synctest.Wait()
		if _, err := inv.Memory(t.Context(), t4[0]); !errors.Is(err, gpu.ErrClosed) {
			t.Errorf("Memory after Close and release fails with %v; want ErrClosed", err)
		}
	})
}
