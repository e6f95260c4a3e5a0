package nvml

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"

	"spacehost/gpu"
)

func TestWatchReportsDeviceAndXid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulated(t, "2xT4")
		ctx, cancel := context.WithCancel(t.Context())
		reported, ended := make(chan deviceEvent), make(chan error)
		go func() {
			ended <- s.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) { reported <- deviceEvent{uuid: uuid, xid: xid} })
		}()
		time.Sleep(time.Minute) // in which nothing happens
		for _, want := range []deviceEvent{{uuid: t4[1], xid: 79}, {uuid: t4[0], xid: 31}} {
			inject(t, s, want.uuid, gpu.Fault{Kind: gpu.FaultXid, Xid: int(want.xid)}.String())
			if got := <-reported; got != want {
				t.Errorf("reported %+v, want %+v", got, want)
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
}

func TestWatchWithoutEventSupport(t *testing.T) {
	m := newMachine(2)
	m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED }
	inv := m.open(t)
	defer mustClose(t, inv)
	if _, ok := errors.AsType[*gpu.NotSupportedError](inv.Watch(t.Context(), nil)); !ok {
		t.Errorf("Watch fails with %v", inv.Watch(t.Context(), nil))
	}

	events := make(simulatedEvents, 1)
	m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return events, nvml.SUCCESS }
	m.devices[0].RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.ERROR_NOT_SUPPORTED }
	events.emit(m.devices[1], 48, anyInstance, anyInstance)
	ctx, cancel := context.WithCancel(t.Context())
	err := inv.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) {
		if uuid != t4[1] || xid != 48 {
			t.Errorf("reported %s of %s, want Xid 48 of the device that can report", xid, uuid)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("one device that cannot report ended Watch with %v", err)
	}

	m.devices[1].RegisterEventsFunc = m.devices[0].RegisterEventsFunc
	if _, ok := errors.AsType[*gpu.NotSupportedError](inv.Watch(t.Context(), nil)); !ok {
		t.Errorf("Watch where none can report fails with %v", inv.Watch(t.Context(), nil))
	}
}

// watched is an Inventory under Watch.
type watched struct {
	reported chan deviceEvent
	ended    chan error
	stop     context.CancelFunc
}

func watch(t *testing.T, inv *Inventory) *watched {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{make(chan deviceEvent, 64), make(chan error, 1), cancel}
	go func() {
		w.ended <- inv.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) { w.reported <- deviceEvent{uuid: uuid, xid: xid} })
	}()
	return w
}

// wants waits for a second, and checks that exactly these events are reported in it.
func (w *watched) wants(t *testing.T, what string, want ...deviceEvent) {
	t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	var got []deviceEvent
	for len(w.reported) > 0 {
		got = append(got, <-w.reported)
	}
	slices.SortFunc(got, func(a, b deviceEvent) int { return slices.Index(t4, a.uuid) - slices.Index(t4, b.uuid) })
	if !slices.Equal(got, want) {
		t.Errorf("%s: reported %+v, want %+v", what, got, want)
	}
}

// end stops Watch and checks that it was still running.
func (w *watched) end(t *testing.T) {
	t.Helper()
	w.stop()
	if err := <-w.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
}

func watchable(n int) (*machine, simulatedEvents) {
	m, events := newMachine(n), make(simulatedEvents, 4)
	m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return events, nvml.SUCCESS }
	return m, events
}

func noUUID() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }

// uncomparable is a handle on which == panics.
type uncomparable struct {
	*mock.Device
	_ []int
}

// TestEventIsIdentifiedByHandle: a GPU that falls off the bus answers no query any more. The others stay watched.
func TestEventIsIdentifiedByHandle(t *testing.T) {
	for name, row := range map[string]struct {
		of   func(*machine) nvml.Device
		want []deviceEvent
	}{
		"known handle of a lost GPU": {
			func(m *machine) nvml.Device { m.devices[1].GetUUIDFunc = noUUID; return m.devices[1] },
			[]deviceEvent{{uuid: t4[1], xid: 79}},
		},
		"uncomparable handle": {
			func(m *machine) nvml.Device { return uncomparable{Device: m.devices[1]} },
			[]deviceEvent{{uuid: t4[1], xid: 79}},
		},
		"unknown GPU": {
			func(*machine) nvml.Device { return simulatedDevice("GPU-other", models["T4"], &occupants{}) }, nil,
		},
		"unknown handle without UUID": {
			func(*machine) nvml.Device { return uncomparable{Device: &mock.Device{GetUUIDFunc: noUUID}} },
			[]deviceEvent{{uuid: t4[0], xid: 79}, {uuid: t4[1], xid: 79}}, // the third cannot report
		},
		"no handle": {
			func(*machine) nvml.Device { return nil },
			[]deviceEvent{{uuid: t4[0], xid: 79}, {uuid: t4[1], xid: 79}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, events := watchable(3)
				m.devices[2].RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.ERROR_NOT_SUPPORTED }
				inv := m.open(t)
				defer mustClose(t, inv)
				w := watch(t, inv)
				events.emit(row.of(m), 79, anyInstance, anyInstance)
				w.wants(t, "first event", row.want...)
				events.emit(m.devices[0], 48, anyInstance, anyInstance)
				w.wants(t, "next event", deviceEvent{uuid: t4[0], xid: 48})
				w.end(t)
			})
		})
	}
}

// lossyEvents fails each Wait with ERROR_GPU_IS_LOST as long as a lost GPU is in the set.
type lossyEvents struct {
	simulatedEvents
	waits *atomic.Int32
	lost  func() bool
}

func (e lossyEvents) Wait(milliseconds uint32) (nvml.EventData, nvml.Return) {
	e.waits.Add(1)
	if e.lost() {
		return nvml.EventData{}, nvml.ERROR_GPU_IS_LOST
	}
	return e.simulatedEvents.Wait(milliseconds)
}

// lossy creates a new set for each Watch, so that the GPUs registered for the latest set are known. lost is by index.
func lossy(n int) (m *machine, events simulatedEvents, lost []atomic.Bool, waits *atomic.Int32) {
	m, events = watchable(n)
	lost, waits = make([]atomic.Bool, n), new(atomic.Int32)
	var registered map[int]bool
	m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		mine := make(map[int]bool)
		registered = mine
		return lossyEvents{events, waits, func() bool {
			return slices.ContainsFunc(slices.Collect(maps.Keys(mine)), func(index int) bool { return lost[index].Load() })
		}}, nvml.SUCCESS
	}
	for index, d := range m.devices {
		d.RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { registered[index] = true; return nvml.SUCCESS }
		usual := d.GetMemoryInfoFunc
		d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
			if lost[index].Load() {
				return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST
			}
			return usual()
		}
	}
	return m, events, lost, waits
}

// TestLostDeviceIsReportedOnce: the event set reports that a GPU is lost, but not which. The others are watched all
// the time.
func TestLostDeviceIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, events, lost, waits := lossy(3)
		inv := m.open(t)
		defer mustClose(t, inv)
		w := watch(t, inv)
		w.wants(t, "healthy machine")
		lost[1].Store(true)
		w.wants(t, "lost device", deviceEvent{uuid: t4[1], xid: 79})
		events.emit(m.devices[0], 48, anyInstance, anyInstance)
		w.wants(t, "other device", deviceEvent{uuid: t4[0], xid: 48})
		before := waits.Load()
		time.Sleep(2 * lostRecheck)
		if n := waits.Load() - before; n > int32(2*lostRecheck/eventWait)+2 {
			t.Errorf("%d calls in %s", n, 2*lostRecheck)
		}
		w.wants(t, "lost device later")
		lost[1].Store(false) // reset by an operator
		time.Sleep(lostRecheck)
		events.emit(m.devices[1], 62, anyInstance, anyInstance)
		w.wants(t, "recovered device", deviceEvent{uuid: t4[1], xid: 62})
		lost[1].Store(true)
		w.wants(t, "device lost again", deviceEvent{uuid: t4[1], xid: 79})
		w.end(t)
	})
}

func TestAllDevicesLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, events, lost, waits := lossy(2)
		inv := m.open(t)
		defer mustClose(t, inv)
		w := watch(t, inv)
		events.emit(m.devices[1], 79, anyInstance, anyInstance)
		w.wants(t, "first device", deviceEvent{uuid: t4[1], xid: 79})
		lost[0].Store(true)
		lost[1].Store(true)
		w.wants(t, "second device", deviceEvent{uuid: t4[0], xid: 79})
		if err := <-w.ended; !errors.As(err, new(*gpu.LostError)) {
			t.Errorf("Watch without devices ends with %v", err)
		}
		w = watch(t, inv) // after the caller's pause
		w.wants(t, "both devices")
		<-w.ended
		lost[0].Store(false)
		w = watch(t, inv)
		events.emit(m.devices[0], 48, anyInstance, anyInstance)
		w.wants(t, "recovered device", deviceEvent{uuid: t4[0], xid: 48})
		if n := waits.Load(); n > 20 {
			t.Errorf("%d calls in 4s", n)
		}
		w.end(t)
	})
}

// TestLostDeviceNotFound: no GPU reports itself lost. Then Watch ends, for its caller to pause.
func TestLostDeviceNotFound(t *testing.T) {
	m, events := watchable(2)
	m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		return lossyEvents{events, new(atomic.Int32), func() bool { return true }}, nvml.SUCCESS
	}
	inv := m.open(t)
	defer mustClose(t, inv)
	err := inv.Watch(t.Context(), func(uuid gpu.DeviceUUID, xid gpu.Xid) { t.Errorf("reported %s of %s", xid, uuid) })
	if _, ok := errors.AsType[*gpu.LostError](err); !ok {
		t.Errorf("Watch ended with %v", err)
	}
}

// hangingEvents is the event set of a wedged driver.
type hangingEvents struct{ over chan struct{} }

func (e hangingEvents) Free() nvml.Return { return nvml.SUCCESS }
func (e hangingEvents) Wait(uint32) (nvml.EventData, nvml.Return) {
	<-e.over
	return nvml.EventData{}, nvml.ERROR_TIMEOUT
}

func TestHangingWatchDoesNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := hangingEvents{make(chan struct{})}
		m := newMachine(1)
		m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return events, nvml.SUCCESS }
		inv := m.open(t)
		defer mustClose(t, inv)
		began := time.Now()
		mustBeHung(t, inv.Watch(t.Context(), nil), "")
		if took := time.Since(began); took > 3*(callLimit+eventWait) {
			t.Errorf("the hang was detected after %s", took)
		}
		if _, err := inv.Memory(t.Context(), t4[0]); err != nil {
			t.Errorf("Memory meanwhile: %v", err)
		}
		close(events.over)
		synctest.Wait()
	})
}

func TestApplicationXidsDoNotCondemn(t *testing.T) {
	for xid, want := range map[gpu.Xid]bool{13: false, 31: false, 43: false, 45: false, 68: false, 109: false, 48: true, 62: true, 79: true, 95: true} {
		if xid.Condemns() != want {
			t.Errorf("%s condemns: %v, want %v", xid, xid.Condemns(), want)
		}
	}
}
