package lease

import (
	"errors"
	"testing"
	"time"
)

func lasting(d time.Duration) func(*Request) { return func(r *Request) { r.Declared = d } }

func (w *world) wantSlots(l *Lease, want ...int) {
	w.t.Helper()
	w.want(l, Granted)
	got := make([]int, len(l.place))
	for i, s := range l.place {
		got[i] = s.Index
	}
	if len(got) != len(want) || l.Slot.Index != want[0] || w.answers[l][0].grant.Slot != want[0] {
		w.t.Fatalf("lease %s got slots %v, told %+v; want %v", l.ID, got, *w.answers[l][0].grant, want)
	}
	for i := range want {
		if got[i] != want[i] {
			w.t.Fatalf("lease %s got slots %v, want %v", l.ID, got, want)
		}
	}
}

func TestHalvesSpreadOverDevices(t *testing.T) {
	w := newSharedWorld(t, 2, 2)
	w.wantSlots(w.granted(), 0)
	w.wantSlots(w.granted(), 2)
	w.wantSlots(w.granted(), 1)
	w.wantSlots(w.granted(), 3)
	l := w.schedule()
	w.clear()
	w.want(l, Waiting)
}

func TestXlargeTakesAllSlotsOfADevice(t *testing.T) {
	w := newSharedWorld(t, 2, 2)
	w.wantSlots(w.granted(), 0)
	whole := w.granted(xlarge)
	w.wantSlots(whole, 2, 3)
	w.wantSlots(w.granted(), 1)
	if _, err := w.onRelease("demo", whole.ID, false); err != nil {
		t.Fatal(err)
	}
	w.wantPhase(2, reclaiming)
	w.wantPhase(3, reclaiming)
	w.reclaimed()
	w.wantSlots(w.granted(), 2)
	w.wantSlots(w.granted(), 3)
}

func TestXlargeOnUnsharedDevicesIsLikeAnyOther(t *testing.T) {
	w := newWorld(t, 2)
	w.wantSlots(w.granted(xlarge), 0)
	w.wantSlots(w.granted(), 1)
}

// TestXlargeIsNotOvertakenForEver: halves come and go without end, each long before the other has left.
func TestXlargeIsNotOvertakenForEver(t *testing.T) {
	w := newSharedWorld(t, 1, 2)
	w.queueTimeout = time.Hour
	long := w.active(lasting(30 * time.Second))
	whole := w.schedule(xlarge)
	w.clear()
	for range 29 { // they leave in time, so they pass it
		small := w.active(lasting(time.Second - time.Nanosecond))
		w.wantSlotsOf(small, 1)
		if _, err := w.onRelease("demo", small.ID, false); err != nil {
			t.Fatal(err)
		}
		w.reclaimed()
		w.pass(time.Second)
	}
	late := w.schedule(lasting(2 * time.Second)) // it would still sit there when long has left
	w.clear()
	w.want(late, Waiting)
	w.pass(3 * time.Second)
	w.want(long, Expired)
	w.reclaimed()
	w.wantSlots(whole, 0, 1)
	w.want(late, Waiting)
}

func (w *world) wantSlotsOf(l *Lease, slot int) {
	w.t.Helper()
	if l.Slot.Index != slot {
		w.t.Fatalf("lease %s got slot %d, want %d", l.ID, l.Slot.Index, slot)
	}
}

// TestXlargeStopsNobodyElsewhere: only one Device is kept for it.
func TestXlargeStopsNobodyElsewhere(t *testing.T) {
	w := newSharedWorld(t, 2, 2)
	first, second := w.active(lasting(20*time.Second)), w.active(lasting(time.Minute))
	whole := w.schedule(xlarge)
	other := w.granted(lasting(time.Minute))
	w.wantSlots(other, 3) // beside the one that stays longest
	w.want(whole, Waiting)
	if _, err := w.onRelease("demo", first.ID, false); err != nil {
		t.Fatal(err)
	}
	w.reclaimed()
	w.wantSlots(whole, 0, 1)
	w.want(second, Active)
}

func TestReservationMovesWhenAStrangerComes(t *testing.T) {
	w := newSharedWorld(t, 2, 2)
	soon, later := w.active(lasting(10*time.Second)), w.active(lasting(20*time.Second))
	whole := w.schedule(xlarge)
	w.clear()
	if w.reserved.device[0].Index != 0 {
		t.Fatalf("reserved slot %d, want that which is free sooner", w.reserved.device[0].Index)
	}
	if _, err := w.onRelease("demo", soon.ID, false); err != nil {
		t.Fatal(err)
	}
	r := w.reclaims[0]
	w.reclaims = nil
	w.onReclaimed(r.place, nil)
	w.checks = nil
	w.onChecked(w.devices[0], errors.New("somebody sits there"))
	if w.reserved.device[0].Index != 2 {
		t.Fatalf("reserved slot %d, want the other device's", w.reserved.device[0].Index)
	}
	if _, err := w.onRelease("demo", later.ID, false); err != nil {
		t.Fatal(err)
	}
	w.reclaimed()
	w.wantSlots(whole, 2, 3)
}

func TestNeighboursAreWhoSitsBeside(t *testing.T) {
	w := newSharedWorld(t, 2, 2)
	a, b := w.active(), w.active()
	c := w.active()
	if got := w.neighbours(c.place); len(got) != 1 || got[0] != a.Worker {
		t.Errorf("got %+v, want the worker of %s alone", got, a.ID)
	}
	if got := w.neighbours(place{w.slots[3]}); len(got) != 1 || got[0] != b.Worker {
		t.Errorf("beside a free slot: got %+v, want the worker of %s", got, b.ID)
	}
	if _, err := w.onRelease("demo", a.ID, false); err != nil {
		t.Fatal(err)
	}
	if got := w.neighbours(c.place); len(got) != 1 {
		t.Errorf("a worker that is being ended is still listed: got %+v", got)
	}
	w.reclaimed()
	if got := w.neighbours(c.place); len(got) != 0 {
		t.Errorf("got %+v, want nobody", got)
	}
}
