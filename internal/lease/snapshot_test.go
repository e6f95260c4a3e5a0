package lease

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestSnapshot(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.active(func(r *Request) { r.Tier.Name = "free" })
	h.advance(time.Second)
	h.schedule()
	h.schedule()
	h.advance(2500 * time.Millisecond)
	all := h.list()
	if len(all) != 3 || all[0].State != Active || all[1].Forecast == nil || all[1].Rank != 0 || all[2].Rank != 1 {
		t.Fatalf("got %+v, want one active, then two waiting ones with their ranks", all)
	}
	got := all[0]
	if got.Forecast != nil || got.UsedSeconds != 3.5 || got.DeclaredSeconds != 10 || *got.Slot != 0 || got.Worker != l.Worker.PID ||
		!got.Deadline.Equal(noon.Add(10*time.Second)) || got.Lease != l.ID[:8] || got.Tier != "free" || got.Identity != "user:ada" {
		t.Errorf("got %+v", got)
	}
}

func TestSlotViews(t *testing.T) {
	h := newSchedulerHarness(t, 2)
	l := h.active()
	got := h.slotViews()
	want := []SlotView{
		{Slot: 0, Device: "GPU-fake-0", Phase: "held", Space: "demo", Lease: l.Short()},
		{Slot: 1, Device: "GPU-fake-1", Phase: "free"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	h.onCancelled(l.Event)
	if got := h.slotViews()[0]; got.Phase != "reclaiming" || got.Lease != "" {
		t.Errorf("got %+v, want it reclaiming, without a lease", got)
	}
}

// TestNoLeaseIsAnEmptyList: clients read the list as a JSON array, which nil is not.
func TestNoLeaseIsAnEmptyList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		if all := h.List(); all == nil || len(all) != 0 {
			t.Errorf("got %#v, want an empty list", all)
		}
		h.stop()
	})
}
