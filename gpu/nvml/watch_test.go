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

func TestWatchTellsWhichDeviceHasWhichError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulated(t, "2xT4")
		ctx, cancel := context.WithCancel(t.Context())
		told, ended := make(chan happened), make(chan error)
		go func() {
			ended <- s.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) { told <- happened{uuid: uuid, xid: xid} })
		}()
		time.Sleep(time.Minute) // in which nothing happens
		for _, want := range []happened{{uuid: t4[1], xid: 79}, {uuid: t4[0], xid: 31}} {
			give(t, s, want.uuid, gpu.Fault{Kind: gpu.FaultXid, Xid: int(want.xid)}.String())
			if got := <-told; got != want {
				t.Errorf("told %+v, want %+v", got, want)
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
}

func TestWatchWhereTheDriverReportsNothing(t *testing.T) {
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
	events.happen(m.devices[1], 48, anyInstance, anyInstance)
	ctx, cancel := context.WithCancel(t.Context())
	err := inv.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) {
		if uuid != t4[1] || xid != 48 {
			t.Errorf("told %s of %s, want Xid 48 of the device that can report", xid, uuid)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("one device that cannot report ended it with %v", err)
	}

	m.devices[1].RegisterEventsFunc = m.devices[0].RegisterEventsFunc
	if _, ok := errors.AsType[*gpu.NotSupportedError](inv.Watch(t.Context(), nil)); !ok {
		t.Errorf("Watch where none can report fails with %v", inv.Watch(t.Context(), nil))
	}
}

// watched is an Inventory under Watch.
type watched struct {
	told  chan happened
	ended chan error
	stop  context.CancelFunc
}

func watch(t *testing.T, inv *Inventory) *watched {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{make(chan happened, 64), make(chan error, 1), cancel}
	go func() {
		w.ended <- inv.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) { w.told <- happened{uuid: uuid, xid: xid} })
	}()
	return w
}

// wants waits for a second, and wants just that to be told in it.
func (w *watched) wants(t *testing.T, what string, want ...happened) {
	t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	var got []happened
	for len(w.told) > 0 {
		got = append(got, <-w.told)
	}
	slices.SortFunc(got, func(a, b happened) int { return slices.Index(t4, a.uuid) - slices.Index(t4, b.uuid) })
	if !slices.Equal(got, want) {
		t.Errorf("%s: told %+v, want %+v", what, got, want)
	}
}

// end wants Watch to have gone on until now.
func (w *watched) end(t *testing.T) {
	t.Helper()
	w.stop()
	if err := <-w.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
}

func listening(n int) (*machine, simulatedEvents) {
	m, events := newMachine(n), make(simulatedEvents, 4)
	m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return events, nvml.SUCCESS }
	return m, events
}

func noUUID() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }

// stranger is a handle at which == panics.
type stranger struct {
	*mock.Device
	_ []int
}

// TestAnEventIsToldByItsHandle, since a GPU that falls off the bus answers no question any more. The others are watched on.
func TestAnEventIsToldByItsHandle(t *testing.T) {
	for name, row := range map[string]struct {
		of   func(*machine) nvml.Device
		want []happened
	}{
		"a handle of ours, lost": {
			func(m *machine) nvml.Device { m.devices[1].GetUUIDFunc = noUUID; return m.devices[1] },
			[]happened{{uuid: t4[1], xid: 79}},
		},
		"a handle that cannot be compared": {
			func(m *machine) nvml.Device { return stranger{Device: m.devices[1]} },
			[]happened{{uuid: t4[1], xid: 79}},
		},
		"of a GPU that is not ours": {
			func(*machine) nvml.Device { return simulatedDevice("GPU-other", models["T4"], &occupants{}) }, nil,
		},
		"nobody can tell": {
			func(*machine) nvml.Device { return stranger{Device: &mock.Device{GetUUIDFunc: noUUID}} },
			[]happened{{uuid: t4[0], xid: 79}, {uuid: t4[1], xid: 79}}, // the third cannot report
		},
		"no handle": {
			func(*machine) nvml.Device { return nil },
			[]happened{{uuid: t4[0], xid: 79}, {uuid: t4[1], xid: 79}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, events := listening(3)
				m.devices[2].RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.ERROR_NOT_SUPPORTED }
				inv := m.open(t)
				defer mustClose(t, inv)
				w := watch(t, inv)
				events.happen(row.of(m), 79, anyInstance, anyInstance)
				w.wants(t, "of the first", row.want...)
				events.happen(m.devices[0], 48, anyInstance, anyInstance)
				w.wants(t, "of the next", happened{uuid: t4[0], xid: 48})
				w.end(t)
			})
		})
	}
}

// lossyEvents say that a GPU is lost, at each Wait, for as long as one that is lost is in the set.
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

// lossy makes a set of its own for each watch, so that who has registered for the last one is known. lost is by index.
func lossy(n int) (m *machine, events simulatedEvents, lost []atomic.Bool, waits *atomic.Int32) {
	m, events = listening(n)
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

// TestALostDeviceIsToldOnce when the event set says that there is one, and not who; the others are watched all the while.
func TestALostDeviceIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, events, lost, waits := lossy(3)
		inv := m.open(t)
		defer mustClose(t, inv)
		w := watch(t, inv)
		w.wants(t, "of a machine that is well")
		lost[1].Store(true)
		w.wants(t, "of the lost one", happened{uuid: t4[1], xid: 79})
		events.happen(m.devices[0], 48, anyInstance, anyInstance)
		w.wants(t, "of another", happened{uuid: t4[0], xid: 48})
		before := waits.Load()
		time.Sleep(2 * lostAgain)
		if n := waits.Load() - before; n > int32(2*lostAgain/eventWait)+2 {
			t.Errorf("%d calls in %s", n, 2*lostAgain)
		}
		w.wants(t, "of it later")
		lost[1].Store(false) // reset by an operator
		time.Sleep(lostAgain)
		events.happen(m.devices[1], 62, anyInstance, anyInstance)
		w.wants(t, "of one that has come back", happened{uuid: t4[1], xid: 62})
		lost[1].Store(true)
		w.wants(t, "of one that is lost again", happened{uuid: t4[1], xid: 79})
		w.end(t)
	})
}

func TestAllDevicesAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, events, lost, waits := lossy(2)
		inv := m.open(t)
		defer mustClose(t, inv)
		w := watch(t, inv)
		events.happen(m.devices[1], 79, anyInstance, anyInstance)
		w.wants(t, "of the first", happened{uuid: t4[1], xid: 79})
		lost[0].Store(true)
		lost[1].Store(true)
		w.wants(t, "of the other", happened{uuid: t4[0], xid: 79})
		if err := <-w.ended; !errors.As(err, new(*gpu.LostError)) {
			t.Errorf("Watch of none ends with %v", err)
		}
		w = watch(t, inv) // after the caller's pause
		w.wants(t, "of both")
		<-w.ended
		lost[0].Store(false)
		w = watch(t, inv)
		events.happen(m.devices[0], 48, anyInstance, anyInstance)
		w.wants(t, "of who has come back", happened{uuid: t4[0], xid: 48})
		if n := waits.Load(); n > 20 {
			t.Errorf("%d calls in 4s", n)
		}
		w.end(t)
	})
}

// TestNobodyAdmitsToBeLost: then Watch ends, for its caller to pause.
func TestNobodyAdmitsToBeLost(t *testing.T) {
	m, events := listening(2)
	m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		return lossyEvents{events, new(atomic.Int32), func() bool { return true }}, nvml.SUCCESS
	}
	inv := m.open(t)
	defer mustClose(t, inv)
	err := inv.Watch(t.Context(), func(uuid gpu.DeviceUUID, xid gpu.Xid) { t.Errorf("told %s of %s", xid, uuid) })
	if _, ok := errors.AsType[*gpu.LostError](err); !ok {
		t.Errorf("Watch ended with %v", err)
	}
}

// hangingEvents are a driver's that is wedged.
type hangingEvents struct{ over chan struct{} }

func (e hangingEvents) Free() nvml.Return { return nvml.SUCCESS }
func (e hangingEvents) Wait(uint32) (nvml.EventData, nvml.Return) {
	<-e.over
	return nvml.EventData{}, nvml.ERROR_TIMEOUT
}

func TestWatchThatHangsHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := hangingEvents{make(chan struct{})}
		m := newMachine(1)
		m.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return events, nvml.SUCCESS }
		inv := m.open(t)
		defer mustClose(t, inv)
		began := time.Now()
		mustBeHung(t, inv.Watch(t.Context(), nil), "")
		if took := time.Since(began); took > 3*(callLimit+eventWait) {
			t.Errorf("it took %s to find out", took)
		}
		if _, err := inv.Memory(t.Context(), t4[0]); err != nil {
			t.Errorf("Memory meanwhile: %v", err)
		}
		close(events.over)
		synctest.Wait()
	})
}

func TestXidsOfApplicationsCondemnNothing(t *testing.T) {
	for xid, want := range map[gpu.Xid]bool{13: false, 31: false, 43: false, 45: false, 68: false, 109: false, 48: true, 62: true, 79: true, 95: true} {
		if xid.Condemns() != want {
			t.Errorf("%s condemns: %v, want %v", xid, xid.Condemns(), want)
		}
	}
}
