package lease

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/internal/identity"
)

// TestRecoverOfMachines lets a host start again that has crashed with an active Lease on its own machine and on each of n others.
// Each payer's Lease is settled once. The machines join with it, after they have ended it, without it, with another Device, or not at
// all. For an odd n, an agent has kept the Space of the own machine.
func TestRecoverOfMachines(t *testing.T) {
	for n := range 6 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testRecoverOfMachines(t, n) })
		})
	}
}

func testRecoverOfMachines(t *testing.T, n int) {
	h := newBrokerHarness(t)
	payer := func(i int) identity.Identity {
		return identity.Identity{Kind: identity.User, Name: fmt.Sprint("payer-", i), Tier: "free"}
	}
	var fars []*farMachine
	var leases []*Lease
	own := h.workerOf(100)
	ownLease, kept, ownCharge := h.insertOpenLease("", own), Kept{}, 10*time.Second
	if n%2 == 1 {
		kept = Kept{Instances: []string{"run-1"}, Report: MachineReport{Open: []OpenLease{{ownLease.ID, *own}}}}
		ownCharge = 15 * time.Second // the time of its release
	}
	for i := range n {
		far := newFarMachine(h, fmt.Sprint("m", i), gpu.DeviceUUID(fmt.Sprint("GPU-m", i)))
		worker := Worker{PID: 7, Start: far.processes().StartIn("run-far", "demo", 7)}
		asPayer := func(r *Request) { r.Payer = payer(i) }
		leases = append(leases, h.insertOpenLease("", &worker, on(far.name, "run-far"), asPayer))
		h.insertOpenLease("", nil, on(far.name, "run-far"), asPayer) // it waited
		fars = append(fars, far)
	}
	time.Sleep(10 * time.Second)
	h.beatNow()
	time.Sleep(5 * time.Second)
	if err := h.Recover(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	h.run()
	if len(kept.Instances) > 0 {
		h.release(Grant{Lease: ownLease.ID})
	}
	h.wantBalance(ada, ownCharge, 0)
	if open := h.List(); len(open) != n {
		t.Fatalf("open leases %+v, want one of each machine", open)
	}
	want := []time.Duration{20 * time.Second, 12 * time.Second, 10 * time.Second, 10 * time.Second, 10 * time.Second}
	for i, far := range fars {
		worker, report := leases[i].Worker, MachineReport{}
		if worker == (Worker{}) {
			worker = Worker{PID: 7, Start: 1}
		}
		switch i {
		case 0:
			report.Open = []OpenLease{{leases[i].ID, worker}}
		case 1:
			report.Ended = []EndedLease{{leases[i].ID, Released, "released", 12 * time.Second}}
		case 2: // its agent has lost the record
		case 3: // with another Device: the Lease cannot go on, and is charged up to the last beat
			report.Open = []OpenLease{{leases[i].ID, worker}}
			far = far.changed(h, "GPU-other")
		case 4:
			continue // it does not join
		}
		h.join(far, report)
	}
	synctest.Wait()
	if n > 0 {
		h.wantActive(leases[0].ID)
		time.Sleep(5 * time.Second)
		if err := h.Release(t.Context(), "demo", leases[0].ID, false); err != nil {
			t.Errorf("release of an adopted lease: %v", err)
		}
	}
	time.Sleep(time.Minute + lostGrace + deadlineGrace)
	synctest.Wait()
	for i, far := range fars {
		h.wantBalance(payer(i), want[i], 0)
		if i != 4 && far.processes().Alive(7) {
			t.Errorf("the worker of machine %d runs", i)
		}
	}
	if rows := h.count(`SELECT count(*) FROM leases WHERE ended_at IS NULL`); rows != 0 {
		t.Errorf("%d leases are open", rows)
	}
	if holds, settled := h.count(`SELECT count(*) FROM ledger WHERE kind = 'hold'`), h.count(`SELECT count(*) FROM ledger WHERE kind = 'settle'`); holds != settled || holds != 1+2*n {
		t.Errorf("%d holds and %d settlements", holds, settled)
	}
	h.stop()
}

// wantActive checks that the only active Lease is that one, on its Slot.
func (h *brokerHarness) wantActive(id string) {
	h.t.Helper()
	active := 0
	for _, s := range h.List() {
		if s.State == Active {
			active++
			if s.Lease != id[:8] || s.Slot == nil || s.Device == "" {
				h.t.Errorf("active lease %+v, want %s on its slot", s, id[:8])
			}
		}
	}
	if active != 1 {
		h.t.Errorf("%d active leases, want 1", active)
	}
}
