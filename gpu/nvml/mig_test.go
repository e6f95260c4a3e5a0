package nvml

import (
	"context"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"

	"spacehost/gpu"
)

const h200Half = "H200-MIG-3G.71GB"

// mixedMachine has a whole T4, then an H200 in MIG mode with n instances.
type mixedMachine struct {
	*machine
	parent    *mock.Device
	instances []*mock.Device
	events    simulatedEvents
}

func newMixedMachine(n int) *mixedMachine {
	m := &mixedMachine{machine: newMachine(1), events: make(simulatedEvents, 8)}
	var handles []nvml.Device
	for index := range n {
		d := simulatedInstance(stableInstanceUUID(h200Half, index), profiles[h200Half], index, &occupants{})
		m.instances, handles = append(m.instances, d), append(handles, d)
	}
	m.parent = simulatedParent(stableUUID(h200Half, 0), profiles[h200Half], handles)
	m.Interface = simulatedLibrary([]nvml.Device{m.devices[0], m.parent})
	m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return m.events, nvml.SUCCESS }
	return m
}

var halves = []gpu.DeviceUUID{stableInstanceUUID(h200Half, 0), stableInstanceUUID(h200Half, 1), stableInstanceUUID(h200Half, 2)}

func uuidsOf(devices []gpu.Device) (uuids []gpu.DeviceUUID) {
	for _, d := range devices {
		uuids = append(uuids, d.UUID)
	}
	return uuids
}

func TestInstancesAreDevicesAndTheirGPUIsNot(t *testing.T) {
	m := newMixedMachine(2)
	m.parent.GetMemoryInfoFunc = noMemory(nvml.ERROR_NO_PERMISSION) // of all instances together: only for root
	inv := m.open(t)
	defer mustClose(t, inv)
	half := gpu.Device{UUID: halves[0], Index: 1, Name: "NVIDIA H200 MIG 3g.71gb", MemoryTotal: 74625056768}
	other := half
	other.UUID = halves[1]
	got := devicesOf(t, inv)
	if len(got) != 3 || got[0].UUID != t4[0] || got[1] != half || got[2] != other {
		t.Errorf("Devices = %+v; want the T4, %+v and %+v", got, half, other)
	}
	if _, err := inv.Memory(t.Context(), stableUUID(h200Half, 0)); err == nil {
		t.Error("the GPU in MIG mode is a Device")
	}
	form := regexp.MustCompile(`^MIG-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	if !form.MatchString(string(halves[0])) || !halves[0].IsInstance() || t4[0].IsInstance() {
		t.Errorf("IsInstance does not distinguish %s from %s", halves[0], t4[0])
	}
	want := gpu.Architecture{Major: 9, Multiprocessors: 60}
	if a, err := inv.Architecture(t.Context(), halves[1]); err != nil || a != want {
		t.Errorf("Architecture = %+v, %v; want %+v", a, err, want)
	}
}

var noInstance = &gpu.NoInstanceError{UUID: stableUUID(h200Half, 0), Index: 1}

// missingRow is a fault of the GPU in MIG mode, the expected error, and the Devices that are still listed.
type missingRow struct {
	instances int
	spoil     func(*mixedMachine)
	want      error
	left      []gpu.DeviceUUID
}

func missingRows() map[string]missingRow {
	return map[string]missingRow{
		"no instance": {0, func(*mixedMachine) {}, noInstance, t4[:1]},
		"mode unknown": {1, func(m *mixedMachine) {
			m.parent.GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_GPU_IS_LOST }
		}, &gpu.LostError{}, t4[:1]},
		"instance count unknown": {1, func(m *mixedMachine) {
			m.parent.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNKNOWN }
		}, &gpu.DriverError{}, t4[:1]},
		"no permission to read an instance": {2, func(m *mixedMachine) {
			m.instances[0].GetMemoryInfoFunc = noMemory(nvml.ERROR_NO_PERMISSION)
		}, &gpu.NoPermissionError{}, []gpu.DeviceUUID{t4[0], halves[1]}},
		"instance id unavailable": {2, func(m *mixedMachine) {
			m.instances[1].GetGpuInstanceIdFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
		}, &gpu.NotSupportedError{}, []gpu.DeviceUUID{t4[0], halves[0]}},
		"a gap": {3, func(m *mixedMachine) {
			usual := m.parent.GetMigDeviceHandleByIndexFunc
			m.parent.GetMigDeviceHandleByIndexFunc = func(n int) (nvml.Device, nvml.Return) {
				if n == 1 {
					return nil, nvml.ERROR_NOT_FOUND
				}
				return usual(n)
			}
		}, nil, []gpu.DeviceUUID{t4[0], halves[0], halves[2]}},
		"a driver before MIG": {0, func(m *mixedMachine) {
			m.parent.GetMigModeFunc = nil // calling it would end the program
			m.ExtensionsFunc = func() nvml.ExtendedInterface {
				return &mock.ExtendedInterface{LookupSymbolFunc: func(string) error { return errors.New("no such symbol") }}
			}
			m.parent.GetNameFunc = m.devices[0].GetNameFunc
			m.parent.GetMemoryInfoFunc = m.devices[0].GetMemoryInfoFunc
		}, nil, []gpu.DeviceUUID{t4[0], stableUUID(h200Half, 0)}},
	}
}

func TestMissingDevicesOfGPUInMIGMode(t *testing.T) {
	for name, row := range missingRows() {
		t.Run(name, func(t *testing.T) {
			m := newMixedMachine(row.instances)
			row.spoil(m)
			inv := m.open(t)
			defer mustClose(t, inv)
			devices, err := inv.Devices(t.Context())
			if got := uuidsOf(devices); !reflect.DeepEqual(got, row.left) {
				t.Errorf("devices %v; want %v", got, row.left)
			}
			missing, _ := errors.AsType[*gpu.MissingError](err)
			if row.want == nil {
				if err != nil {
					t.Errorf("Devices fails with %v", err)
				}
			} else if missing == nil || reflect.TypeOf(missing.Reasons[1]) != reflect.TypeOf(row.want) {
				t.Errorf("Devices fails with %v; want %T about index 1", err, row.want)
			}
		})
	}
	if want := "`sudo nvidia-smi mig -i 1 -cgi SIZE -C`"; !strings.Contains(noInstance.Error(), want) {
		t.Errorf("%q does not contain %s", noInstance, want)
	}
}

func TestInstanceThatHangsAtOpenDoesNotHideTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMixedMachine(2)
		gate := make(chan struct{})
		m.instances[0].GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { <-gate; return nvml.Memory{}, nvml.SUCCESS }
		inv := m.open(t)
		devices, err := inv.Devices(t.Context())
		missing, _ := errors.AsType[*gpu.MissingError](err)
		if got := uuidsOf(devices); missing == nil || !reflect.DeepEqual(got, []gpu.DeviceUUID{t4[0], halves[1]}) {
			t.Fatalf("devices %v, %v", got, err)
		}
		mustBeHung(t, missing.Reasons[1], stableUUID(h200Half, 0))
		close(gate)
		synctest.Wait()
		mustClose(t, inv)
	})
}

// TestProcessesOfAnInstance: some drivers list by instance, some by GPU, and some not at all.
func TestProcessesOfAnInstance(t *testing.T) {
	all := []nvml.ProcessInfo{
		{Pid: 1, UsedGpuMemory: 5, GpuInstanceId: 1}, {Pid: 2, UsedGpuMemory: notAvailable, GpuInstanceId: 2},
		{Pid: 3, GpuInstanceId: 2, ComputeInstanceId: 1}, {Pid: 4, GpuInstanceId: anyInstance, ComputeInstanceId: anyInstance},
	}
	give := func(infos []nvml.ProcessInfo, ret nvml.Return) func() ([]nvml.ProcessInfo, nvml.Return) {
		return func() ([]nvml.ProcessInfo, nvml.Return) { return append([]nvml.ProcessInfo(nil), infos...), ret }
	}
	second := []gpu.Process{{PID: 2}, {PID: 4}} // the processes of GPU instance 2; 4 may be one of them
	for name, row := range map[string]struct {
		own, parents func() ([]nvml.ProcessInfo, nvml.Return)
		want         []gpu.Process
	}{
		"by instance":   {give(all[1:2], nvml.SUCCESS), nil, second[:1]},
		"too many":      {give(all, nvml.SUCCESS), nil, second},
		"by GPU":        {give(nil, nvml.ERROR_NOT_SUPPORTED), give(all, nvml.SUCCESS), second},
		"for root only": {give(nil, nvml.ERROR_NOT_SUPPORTED), give(nil, nvml.ERROR_NO_PERMISSION), nil},
		"not at all":    {give(nil, nvml.ERROR_NOT_SUPPORTED), give(nil, nvml.ERROR_NOT_SUPPORTED), nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMixedMachine(2)
			m.instances[1].GetComputeRunningProcessesFunc, m.parent.GetComputeRunningProcessesFunc = row.own, row.parents
			inv := m.open(t)
			defer mustClose(t, inv)
			if got, _, err := inv.Usage(t.Context(), halves[1]); err != nil || !reflect.DeepEqual(got, row.want) {
				t.Errorf("Processes = %v, %v; want %v", got, err, row.want)
			}
		})
	}
}

// TestErrorsOfGPUAffectItsInstances: all of them, unless the driver names one.
func TestErrorsOfGPUAffectItsInstances(t *testing.T) {
	type report struct {
		uuid gpu.DeviceUUID
		xid  gpu.Xid
	}
	m := newMixedMachine(2)
	inv := m.open(t)
	defer mustClose(t, inv)
	m.events.emit(m.parent, 94, 2, 0)
	m.events.emit(m.parent, 79, anyInstance, anyInstance)
	m.events.emit(m.parent, 95, 1, anyInstance)
	m.events.emit(m.parent, 48, 5, 0) // of an instance created after Open
	m.events.emit(m.devices[0], 62, anyInstance, anyInstance)
	ctx, cancel := context.WithCancel(t.Context())
	var got []report
	err := inv.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) {
		if got = append(got, report{uuid, xid}); xid == 62 {
			cancel()
		}
	})
	want := []report{{halves[1], 94}, {halves[0], 79}, {halves[1], 79}, {halves[0], 95}, {t4[0], 62}}
	if !errors.Is(err, context.Canceled) || !reflect.DeepEqual(got, want) {
		t.Errorf("reported %v (%v); want %v", got, err, want)
	}
	if n := len(m.parent.RegisterEventsCalls()); n != 1 {
		t.Errorf("registered the GPU %d times for events; want once for all its instances", n)
	}
}

func TestFaultsOfSimulatedInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulated(t, "3x"+h200Half) // two on the first GPU, one on the second
		ctx, cancel := context.WithCancel(t.Context())
		hit, ended := make(map[gpu.Xid][]gpu.DeviceUUID), make(chan error)
		go func() {
			ended <- s.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) { hit[xid] = append(hit[xid], uuid) })
		}()
		inject(t, s, halves[0], "xid=94")
		inject(t, s, halves[1], "xid=79")
		synctest.Wait()
		cancel()
		<-ended
		if want := map[gpu.Xid][]gpu.DeviceUUID{94: halves[:1], 79: halves[:2]}; !reflect.DeepEqual(hit, want) {
			t.Errorf("hit %v; want %v", hit, want)
		}
		inject(t, s, halves[0], "lost")
		if _, err := s.Memory(t.Context(), halves[0]); err == nil || !strings.Contains(err.Error(), "nvidia-smi -L") {
			t.Errorf("Memory of a lost instance fails with %v; want the command that finds its GPU", err)
		}
		mustBeClear(t, poolOf(t, s), halves[1])
	})
}
