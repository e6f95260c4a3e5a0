package lease

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
)

const device0, device1 gpu.DeviceUUID = "GPU-fake-0", "GPU-fake-1"

var byOperator = Drain{Reason: "new fan", Operator: true}

func TestDrainedDeviceFinishesItsLeases(t *testing.T) {
	h := newSchedulerHarness(t, 2)
	first := h.active()
	h.onDrain(device0, byOperator)
	h.want(first, Active)
	second, third := h.granted(), h.schedule()
	h.wantPhase(1, held)
	if _, err := h.onRelease(first.Space, first.ID, false); err != nil {
		t.Fatal(err)
	}
	h.finishReclaims()
	h.wantPhase(0, drained)
	h.want(third, Waiting)
	if second.Slot.Index != 1 || h.slots[0].reason != "new fan" {
		t.Errorf("the second lease has slot %d, and the reason of slot 0 is %q", second.Slot.Index, h.slots[0].reason)
	}
	h.onUndrain(device0)
	h.passChecks()
	h.want(third, Granted)
}

func TestDrainEvictsIdleWorkers(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.warmFor = time.Minute
	l := h.active()
	if _, err := h.onRelease(l.Space, l.ID, false); err != nil {
		t.Fatal(err)
	}
	h.wantPhase(0, warm)
	h.onDrain(device0, byOperator)
	h.wantPhase(0, reclaiming)
	h.finishReclaims()
	h.wantPhase(0, drained)

	h.onUndrain(device0)
	l = h.active()
	h.onDrain(device0, byOperator)
	if _, err := h.onRelease(l.Space, l.ID, false); err != nil {
		t.Fatal(err)
	}
	h.wantPhase(0, reclaiming) // it is not kept
}

// TestDrainDuringCheck: the result of the check does not matter.
func TestDrainDuringCheck(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.schedule()
	h.wantPhase(0, checking)
	h.onDrain(device0, byOperator)
	h.passChecks()
	h.want(l, Waiting)
	h.wantPhase(0, drained)
}

func TestDrainedDeviceIsNotReserved(t *testing.T) {
	h := newSharedSchedulerHarness(t, 2, 2)
	h.onDrain(device0, byOperator)
	half := h.active()
	whole := h.schedule(xlarge)
	if half.Slot.Device.UUID != device1 || h.reserved.device[0].Device.UUID != device1 {
		t.Errorf("large lease on %s, reserved %s; want both on the other device", half.Slot.Device.UUID, h.reserved.device[0].Device.UUID)
	}
	h.onDrain(device1, Drain{Reason: "Xid 79"})
	h.onTime()
	if h.reserved.device != nil {
		t.Errorf("%s is reserved", h.reserved.device[0].Device.UUID)
	}
	h.onUndrain(device0)
	h.passChecks()
	h.want(whole, Granted)
}

func TestOperatorDrainSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		if err := h.Drain(t.Context(), device0, "new fan"); err != nil {
			t.Fatal(err)
		}
		h.drainDevice(device0, Drain{Reason: "Xid 79"})
		if got := h.Drains(); len(got) != 1 || got[device0] != byOperator {
			t.Errorf("drained: %+v, want the operator's", got)
		}
		var unknown *gpu.UnknownDeviceError
		if err := h.Drain(t.Context(), "GPU-elsewhere", ""); !errors.As(err, &unknown) {
			t.Errorf("drain of an unknown device: %v", err)
		}
		h.stop()
		h.Broker = h.newBroker()
		if err := h.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.run()
		if got := h.Drains(); got[device0] != byOperator || h.Slots()[0].Phase != "drained" {
			t.Errorf("after a restart: %+v, %+v", got, h.Slots())
		}
		if err := h.Return(t.Context(), device0); err != nil {
			t.Fatal(err)
		}
		if got := h.Slots()[0]; len(h.Drains()) != 0 || got.Phase != "free" || h.count(`SELECT count(*) FROM drains`) != 0 {
			t.Errorf("after its return: %+v", got)
		}
	})
}
