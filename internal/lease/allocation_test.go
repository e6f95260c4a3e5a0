package lease

import (
	"errors"
	"testing"
	"time"
)

func lasting(d time.Duration) func(*Request) { return func(r *Request) { r.Declared = d } }

func (h *schedulerHarness) wantSlots(l *Lease, want ...int) {
	h.t.Helper()
	h.want(l, Granted)
	got := make([]int, len(l.allocation))
	for i, s := range l.allocation {
		got[i] = s.Index
	}
	if len(got) != len(want) || l.Slot.Index != want[0] || h.answers[l][0].grant.Slot != want[0] {
		h.t.Fatalf("lease %s got slots %v, grant %+v; want %v", l.ID, got, *h.answers[l][0].grant, want)
	}
	for i := range want {
		if got[i] != want[i] {
			h.t.Fatalf("lease %s got slots %v, want %v", l.ID, got, want)
		}
	}
}

func TestLargeLeasesSpreadOverDevices(t *testing.T) {
	h := newSharedSchedulerHarness(t, 2, 2)
	h.wantSlots(h.granted(), 0)
	h.wantSlots(h.granted(), 2)
	h.wantSlots(h.granted(), 1)
	h.wantSlots(h.granted(), 3)
	l := h.schedule()
	h.passChecks()
	h.want(l, Waiting)
}

func TestXlargeTakesAllSlotsOfADevice(t *testing.T) {
	h := newSharedSchedulerHarness(t, 2, 2)
	h.wantSlots(h.granted(), 0)
	whole := h.granted(xlarge)
	h.wantSlots(whole, 2, 3)
	h.wantSlots(h.granted(), 1)
	if _, err := h.onRelease("demo", whole.ID, false); err != nil {
		t.Fatal(err)
	}
	h.wantPhase(2, reclaiming)
	h.wantPhase(3, reclaiming)
	h.finishReclaims()
	h.wantSlots(h.granted(), 2)
	h.wantSlots(h.granted(), 3)
}

func TestXlargeOnUnsharedDevices(t *testing.T) {
	h := newSchedulerHarness(t, 2)
	h.wantSlots(h.granted(xlarge), 0)
	h.wantSlots(h.granted(), 1)
}

// TestXlargeIsNotOvertakenForever runs large Leases without a pause, each started before the other has ended.
func TestXlargeIsNotOvertakenForever(t *testing.T) {
	h := newSharedSchedulerHarness(t, 1, 2)
	h.queueTimeout = time.Hour
	long := h.active(lasting(30 * time.Second))
	whole := h.schedule(xlarge)
	h.passChecks()
	for range 29 { // they end in time, so they overtake
		small := h.active(lasting(time.Second - time.Nanosecond))
		h.wantSlotsOf(small, 1)
		if _, err := h.onRelease("demo", small.ID, false); err != nil {
			t.Fatal(err)
		}
		h.finishReclaims()
		h.advance(time.Second)
	}
	late := h.schedule(lasting(2 * time.Second)) // it would still hold its Slot when long has ended
	h.passChecks()
	h.want(late, Waiting)
	h.advance(3 * time.Second)
	h.want(long, Expired)
	h.finishReclaims()
	h.wantSlots(whole, 0, 1)
	h.want(late, Waiting)
}

func (h *schedulerHarness) wantSlotsOf(l *Lease, slot int) {
	h.t.Helper()
	if l.Slot.Index != slot {
		h.t.Fatalf("lease %s got slot %d, want %d", l.ID, l.Slot.Index, slot)
	}
}

// TestXlargeReservesOneDevice: the other Devices are lent as usual.
func TestXlargeReservesOneDevice(t *testing.T) {
	h := newSharedSchedulerHarness(t, 2, 2)
	first, second := h.active(lasting(20*time.Second)), h.active(lasting(time.Minute))
	whole := h.schedule(xlarge)
	other := h.granted(lasting(time.Minute))
	h.wantSlots(other, 3) // beside the Lease that stays longest
	h.want(whole, Waiting)
	if _, err := h.onRelease("demo", first.ID, false); err != nil {
		t.Fatal(err)
	}
	h.finishReclaims()
	h.wantSlots(whole, 0, 1)
	h.want(second, Active)
}

func TestReservationMovesAwayFromForeignProcess(t *testing.T) {
	h := newSharedSchedulerHarness(t, 2, 2)
	soon, later := h.active(lasting(10*time.Second)), h.active(lasting(20*time.Second))
	whole := h.schedule(xlarge)
	h.passChecks()
	if h.reserved.device[0].Index != 0 {
		t.Fatalf("reserved slot %d, want the one that is free sooner", h.reserved.device[0].Index)
	}
	if _, err := h.onRelease("demo", soon.ID, false); err != nil {
		t.Fatal(err)
	}
	r := h.reclaims[0]
	h.reclaims = nil
	h.onReclaimed(r.allocation, nil)
	h.checks = nil
	h.onChecked(h.devices[0], errors.New("foreign process"))
	if h.reserved.device[0].Index != 2 {
		t.Fatalf("reserved slot %d, want the other device's", h.reserved.device[0].Index)
	}
	if _, err := h.onRelease("demo", later.ID, false); err != nil {
		t.Fatal(err)
	}
	h.finishReclaims()
	h.wantSlots(whole, 2, 3)
}

func TestNeighbours(t *testing.T) {
	h := newSharedSchedulerHarness(t, 2, 2)
	a, b := h.active(), h.active()
	c := h.active()
	if got := h.neighbours(c.allocation); len(got) != 1 || got[0] != a.Worker {
		t.Errorf("got %+v, want only the worker of %s", got, a.ID)
	}
	if got := h.neighbours(allocation{h.slots[3]}); len(got) != 1 || got[0] != b.Worker {
		t.Errorf("beside a free slot: got %+v, want the worker of %s", got, b.ID)
	}
	if _, err := h.onRelease("demo", a.ID, false); err != nil {
		t.Fatal(err)
	}
	if got := h.neighbours(c.allocation); len(got) != 1 {
		t.Errorf("a worker that is being ended is still listed: got %+v", got)
	}
	h.finishReclaims()
	if got := h.neighbours(c.allocation); len(got) != 0 {
		t.Errorf("got %+v, want none", got)
	}
}
