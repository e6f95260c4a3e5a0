package lease

import (
	"errors"
	"slices"
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
	h.drain(device0, byOperator)
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
	h.drain(device0, byOperator)
	h.wantPhase(0, reclaiming)
	h.finishReclaims()
	h.wantPhase(0, drained)

	h.onUndrain(device0)
	l = h.active()
	h.drain(device0, byOperator)
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
	h.drain(device0, byOperator)
	h.passChecks()
	h.want(l, Waiting)
	h.wantPhase(0, drained)
}

func TestDrainedDeviceIsNotReserved(t *testing.T) {
	h := newSharedSchedulerHarness(t, 2, 2)
	h.drain(device0, byOperator)
	half := h.active()
	whole := h.schedule(xlarge)
	if half.Slot.Device.UUID != device1 || h.reserved.device[0].Device.UUID != device1 {
		t.Errorf("large lease on %s, reserved %s; want both on the other device", half.Slot.Device.UUID, h.reserved.device[0].Device.UUID)
	}
	h.drain(device1, Drain{Reason: "Xid 79"})
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
		if err := h.Drain(t.Context(), device0, Drain{Reason: "new fan"}); err != nil {
			t.Fatal(err)
		}
		h.drainDevice(device0, Drain{Reason: "Xid 79"})
		if got, _ := h.Drains(); len(got) != 1 || got[device0] != byOperator {
			t.Errorf("drained: %+v, want the operator's", got)
		}
		var unknown *gpu.UnknownDeviceError
		if err := h.Drain(t.Context(), "GPU-elsewhere", Drain{}); !errors.As(err, &unknown) {
			t.Errorf("drain of an unknown device: %v", err)
		}
		h.stop()
		h.Broker = h.newBroker()
		if err := h.Recover(t.Context(), Kept{}); err != nil {
			t.Fatal(err)
		}
		h.run()
		if got, _ := h.Drains(); got[device0] != byOperator || h.Slots()[0].Phase != "drained" {
			t.Errorf("after a restart: %+v, %+v", got, h.Slots())
		}
		if err := h.Return(t.Context(), device0); err != nil {
			t.Fatal(err)
		}
		if got, left := h.Slots()[0], drainCount(h); left != 0 || got.Phase != "free" || h.count(`SELECT count(*) FROM drains`) != 0 {
			t.Errorf("after its return: %+v", got)
		}
	})
}

// window is a drain of an operator from one time after noon to another.
func window(from, until time.Duration) Drain {
	return Drain{Reason: "new fan", Operator: true, From: noon.Add(from), Until: noon.Add(until)}
}

// TestWindowOfDrain: a Lease that would run into the window waits, one that ends before it is granted, a running Lease
// ends by itself, and the Device is lent again at the end of the window.
func TestWindowOfDrain(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.drain(device0, window(time.Minute, 2*time.Minute))
	short := h.active()
	if _, err := h.onRelease(short.Space, short.ID, false); err != nil {
		t.Fatal(err)
	}
	h.finishReclaims()
	long := h.schedule(declared(58*time.Second + time.Nanosecond)) // and 2 s of grace
	h.passChecks()
	h.finishReclaims()
	h.want(long, Waiting)
	f := h.simulation().forecasts()[long]
	if f.Start == nil || !f.Start.Equal(noon.Add(2*time.Minute)) {
		t.Errorf("forecast of the long lease: %v, want the end of the window", f.Start)
	}
	h.onHangUp(long)
	running := h.granted(declared(58 * time.Second))
	h.advance(5 * time.Second) // its /allow comes late, so that it runs into the window
	h.allow(running)
	h.advance(55 * time.Second)
	h.want(running, Active)
	if got, ok := h.inForce(device0); !ok || got != window(time.Minute, 2*time.Minute) || !slices.Equal(h.windows, []string{"began GPU-fake-0"}) {
		t.Errorf("in force at its beginning: %+v, %v; effects %v", got, ok, h.windows)
	}
	if _, err := h.onRelease(running.Space, running.ID, false); err != nil {
		t.Fatal(err)
	}
	h.finishReclaims()
	h.wantPhase(0, drained)
	if next := h.onTime(); !next.Equal(noon.Add(2 * time.Minute)) {
		t.Errorf("next time %v, want the end of the window", next)
	}
	h.advance(time.Second)
	waiting := h.schedule()
	h.advance(59*time.Second - time.Nanosecond)
	h.onTime()
	h.wantPhase(0, drained)
	h.want(waiting, Waiting)
	h.advance(time.Nanosecond)
	h.onTime()
	h.passChecks()
	h.want(waiting, Granted)
	if !slices.Equal(h.windows, []string{"began GPU-fake-0", "ended GPU-fake-0"}) {
		t.Errorf("effects: %v", h.windows)
	}
}

// TestEndOfWindowKeepsFault: the end of a maintenance does not lend a Device with a hardware error.
func TestEndOfWindowKeepsFault(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.drain(device0, window(time.Minute, 2*time.Minute))
	h.drain(device0, Drain{Reason: "Xid 79"})
	if got, _ := h.inForce(device0); got.Reason != "Xid 79" {
		t.Errorf("before the window: %+v", got)
	}
	h.advance(90 * time.Second)
	h.onTime()
	if got, _ := h.inForce(device0); got.Reason != "new fan" {
		t.Errorf("in the window: %+v", got)
	}
	h.advance(time.Minute)
	h.onTime()
	h.wantPhase(0, drained)
	if got, _ := h.inForce(device0); got.Reason != "Xid 79" {
		t.Errorf("after the window: %+v", got)
	}
}

// TestWindowEvictsIdleWorkers at its beginning, and a later window replaces one that is in force.
func TestWindowEvictsIdleWorkers(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.warmFor = time.Hour
	l := h.active()
	if _, err := h.onRelease(l.Space, l.ID, false); err != nil {
		t.Fatal(err)
	}
	h.drain(device0, window(time.Minute, time.Hour))
	h.wantPhase(0, warm)
	h.advance(time.Minute)
	h.onTime()
	h.finishReclaims()
	h.wantPhase(0, drained)
	h.drain(device0, window(30*time.Minute, time.Hour))
	h.wantPhase(0, free)
	h.onUndrain(device0)
	h.advance(31 * time.Minute)
	h.onTime()
	h.wantPhase(0, free)
}

// TestWindowAvoidsReservation: a whole Device is not reserved for a Lease that the window would meet.
func TestWindowAvoidsReservation(t *testing.T) {
	h := newSharedSchedulerHarness(t, 2, 2)
	h.drain(device0, window(11*time.Second, time.Hour))
	for range 3 { // Leases of 8 s, on both Devices
		h.active(declared(8 * time.Second))
	}
	h.schedule(xlarge)
	if h.reserved.device == nil || h.reserved.device[0].Device.UUID != device1 {
		t.Errorf("reserved: %+v, want the device without a window", h.reserved.device)
	}
}

// TestDrainThatBeginsBeforeTheSchedulerSeesIt: a window that begins after the Broker has logged it as planned is published.
func TestDrainThatBeginsBeforeTheSchedulerSeesIt(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.shared.startDrain(device0, window(0, time.Hour), false)
	h.onTime()
	h.onTime()
	if want := []string{"began " + string(device0)}; !slices.Equal(h.windows, want) {
		t.Errorf("published %v, want %v", h.windows, want)
	}
	h.wantPhase(0, drained)
}

func TestPlannedDrainSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began []Drain
		note := func(c *Config) { c.Drained = func(_ gpu.DeviceUUID, d Drain) { began = append(began, d) } }
		h := newBrokerHarness(t, note).run()
		from := time.Now().Add(time.Hour)
		plan := Drain{Reason: "new fan", From: from, Until: from.Add(time.Hour)}
		if err := h.Drain(t.Context(), device0, plan); err != nil {
			t.Fatal(err)
		}
		plan.Operator, plan.From, plan.Until = true, wholeMilliseconds(plan.From), wholeMilliseconds(plan.Until)
		restart := func() {
			h.stop()
			h.Broker = h.newBroker(note)
			if err := h.Recover(t.Context(), Kept{}); err != nil {
				t.Fatal(err)
			}
			h.run()
		}
		restart()
		if inForce, planned := h.Drains(); len(inForce) != 0 || planned[device0] != plan || len(began) != 0 {
			t.Errorf("after a restart: in force %v, planned %v, began %v", inForce, planned, began)
		}
		if h.Maintenance(30*time.Minute) != nil || !slices.Equal(h.Maintenance(time.Hour), []Drain{plan}) {
			t.Errorf("maintenance for 30 min: %v, for 1 h: %v", h.Maintenance(30*time.Minute), h.Maintenance(time.Hour))
		}
		time.Sleep(time.Hour + time.Second)
		if inForce, planned := h.Drains(); inForce[device0] != plan || len(planned) != 0 || !slices.Equal(began, []Drain{plan}) || h.Slots()[0].Phase != "drained" {
			t.Errorf("in the window: in force %v, planned %v, began %v, %+v", inForce, planned, began, h.Slots())
		}
		restart()
		if h.Slots()[0].Phase != "drained" || len(began) != 1 {
			t.Errorf("after a restart in the window: %+v, began %v", h.Slots(), began)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if drainCount(h) != 0 || h.Slots()[0].Phase != "free" || h.count(`SELECT count(*) FROM drains`) != 0 {
			t.Errorf("after the window: %+v", h.Slots())
		}
		if err := h.Drain(t.Context(), device0, Drain{Reason: "over", Until: time.Now().Add(time.Second)}); err != nil {
			t.Fatal(err)
		}
		h.stop()
		time.Sleep(2 * time.Second)
		h.Broker = h.newBroker()
		if err := h.Recover(t.Context(), Kept{}); err != nil {
			t.Fatal(err)
		}
		h.run()
		if drainCount(h) != 0 || h.count(`SELECT count(*) FROM drains`) != 0 {
			t.Error("a window that ended while the host did not run is still there")
		}
	})
}

func drainCount(h *brokerHarness) int {
	inForce, planned := h.Drains()
	return len(inForce) + len(planned)
}
