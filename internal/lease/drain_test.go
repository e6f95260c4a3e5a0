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

func TestADrainedDeviceFinishesAndGetsNothingNew(t *testing.T) {
	w := newWorld(t, 2)
	first := w.active()
	w.onDrain(device0, byOperator)
	w.want(first, Active)
	second, third := w.granted(), w.schedule()
	w.wantPhase(1, held)
	if _, err := w.onRelease(first.Space, first.ID, false); err != nil {
		t.Fatal(err)
	}
	w.reclaimed()
	w.wantPhase(0, drained)
	w.want(third, Waiting)
	if second.Slot.Index != 1 || w.slots[0].reason != "new fan" {
		t.Errorf("the second has slot %d, and slot 0 says %q", second.Slot.Index, w.slots[0].reason)
	}
	w.onReturn(device0)
	w.clear()
	w.want(third, Granted)
}

func TestDrainSendsIdleWorkersAway(t *testing.T) {
	w := newWorld(t, 1)
	w.warmFor = time.Minute
	l := w.active()
	if _, err := w.onRelease(l.Space, l.ID, false); err != nil {
		t.Fatal(err)
	}
	w.wantPhase(0, warm)
	w.onDrain(device0, byOperator)
	w.wantPhase(0, reclaiming)
	w.reclaimed()
	w.wantPhase(0, drained)

	w.onReturn(device0)
	l = w.active()
	w.onDrain(device0, byOperator)
	if _, err := w.onRelease(l.Space, l.ID, false); err != nil {
		t.Fatal(err)
	}
	w.wantPhase(0, reclaiming) // it does not stay
}

// TestDrainWhileTheDeviceIsLookedAt: what is found then is of no use.
func TestDrainWhileTheDeviceIsLookedAt(t *testing.T) {
	w := newWorld(t, 1)
	l := w.schedule()
	w.wantPhase(0, checking)
	w.onDrain(device0, byOperator)
	w.clear()
	w.want(l, Waiting)
	w.wantPhase(0, drained)
}

func TestADrainedDeviceIsReservedForNobody(t *testing.T) {
	w := newSharedWorld(t, 2, 2)
	w.onDrain(device0, byOperator)
	half := w.active()
	whole := w.schedule(xlarge)
	if half.Slot.Device.UUID != device1 || w.reserved.device[0].Device.UUID != device1 {
		t.Errorf("half on %s, reserved %s; want both on the other device", half.Slot.Device.UUID, w.reserved.device[0].Device.UUID)
	}
	w.onDrain(device1, Drain{Reason: "Xid 79"})
	w.onTime()
	if w.reserved.device != nil {
		t.Errorf("%s is reserved", w.reserved.device[0].Device.UUID)
	}
	w.onReturn(device0)
	w.clear()
	w.want(whole, Granted)
}

func TestAnOperatorsDrainStandsAndOutlivesTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).run()
		if err := h.Drain(t.Context(), device0, "new fan"); err != nil {
			t.Fatal(err)
		}
		h.drain(device0, Drain{Reason: "Xid 79"})
		if got := h.Drains(); len(got) != 1 || got[device0] != byOperator {
			t.Errorf("drained: %+v, want the operator's", got)
		}
		var unknown *gpu.UnknownDeviceError
		if err := h.Drain(t.Context(), "GPU-elsewhere", ""); !errors.As(err, &unknown) {
			t.Errorf("drain of a device that is not here: %v", err)
		}
		h.stop()
		h.Broker = h.newBroker()
		if err := h.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.run()
		if got := h.Drains(); got[device0] != byOperator || h.Slots()[0].Phase != "drained" {
			t.Errorf("after the next start: %+v, %+v", got, h.Slots())
		}
		if err := h.Return(t.Context(), device0); err != nil {
			t.Fatal(err)
		}
		if got := h.Slots()[0]; len(h.Drains()) != 0 || got.Phase != "free" || h.count(`SELECT count(*) FROM drains`) != 0 {
			t.Errorf("after its return: %+v", got)
		}
	})
}
