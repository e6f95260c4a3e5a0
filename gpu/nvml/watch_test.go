package nvml

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

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
