package lease

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestForget deletes old Leases and their ledger entries while others are active. Recent and open ones stay.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		for range 3 {
			g := h.active(7)
			if err := h.Release(t.Context(), "demo", g.Lease, true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(25 * time.Hour)
		}
		cut := time.Now()
		g := h.active(8)
		gone, err := h.Forget(t.Context(), cut)
		if err != nil || gone != (Forgotten{Leases: 3, Windows: 3}) {
			t.Errorf("got %+v (%v), want three days and their leases", gone, err)
		}
		if leases, lines := h.count(`SELECT count(*) FROM leases`), h.count(`SELECT count(*) FROM ledger`); leases != 1 || lines != 1 {
			t.Errorf("%d leases and %d ledger entries are left, want those of the active lease", leases, lines)
		}
		if err := h.Release(t.Context(), "demo", g.Lease, false); err != nil {
			t.Errorf("release: %v", err)
		}
		if again, err := h.Forget(t.Context(), cut); err != nil || again != (Forgotten{}) {
			t.Errorf("second Forget: %+v, %v", again, err)
		}
		h.stop()
	})
}
