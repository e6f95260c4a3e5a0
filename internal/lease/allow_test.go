package lease

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

func TestAllowIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.grant(h.schedule())
		h.processes.Start("demo", 100)
		h.processes.Start("other", 200)
		for name, row := range map[string]struct {
			space, lease string
			pid          int
			foreign      bool
		}{
			"a foreign pid":    {"demo", g.Lease, 200, true},
			"an unknown pid":   {"demo", g.Lease, 300, true},
			"another Space":    {"other", g.Lease, 200, false},
			"an unknown lease": {"demo", "nonsense", 100, false},
		} {
			err := h.Allow(t.Context(), row.space, row.lease, row.pid)
			var notOwned *NotOwnedError
			if errors.As(err, &notOwned) != row.foreign || !row.foreign && err != ErrUnknown {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err != nil {
			t.Errorf("its own worker afterwards: got %v", err)
		}
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err != ErrUnknown {
			t.Errorf("a second allow: got %v, want ErrUnknown", err)
		}
	})
}

func TestAllowRefusedByDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.grant(h.schedule())
		h.processes.Start("demo", 100)
		h.exec(`CREATE TRIGGER full BEFORE UPDATE ON leases BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err == nil || errors.Is(err, ErrUnknown) {
			t.Errorf("got %v, want the database's error", err)
		}
		h.exec(`DROP TRIGGER full`)
		time.Sleep(claimTimeout)
		synctest.Wait()
		h.wantLast(Unclaimed, "never allowed", 0)
		if h.processes.Alive(100) {
			t.Error("the worker that was not allowed is still running")
		}
	})
}

// simulator runs code between the commit of an /allow and its effect.
type simulator struct {
	*gputest.FakeInventory
	occupy func(uuid gpu.DeviceUUID, pid int) error
}

func (s *simulator) Occupy(uuid gpu.DeviceUUID, pid int) error { return s.occupy(uuid, pid) }

func TestCancelledWhileAllowIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		machine := &simulator{FakeInventory: h.inventory}
		h.Broker = h.newBroker(func(c *Config) { c.Machine.(*Local).Pool = h.pool(machine) })
		machine.occupy = func(gpu.DeviceUUID, int) error {
			h.Cancelled("event-1")
			if open := h.List(); len(open) != 0 {
				t.Errorf("got %+v, want it revoked", open)
			}
			return nil
		}
		h.run()
		g := h.grant(h.schedule())
		h.processes.Start("demo", 100)
		time.Sleep(time.Second)
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err != ErrUnknown {
			t.Errorf("got %v, want ErrUnknown", err)
		}
		synctest.Wait()
		h.wantLast(Revoked, "cancelled", 0)
		h.wantBalance(ada, 0, 0)
		if h.processes.Alive(100) {
			t.Error("the worker is still running, without a lease")
		}
	})
}

func TestSimulatedMachineLearnsWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		var occupied []int
		machine := &simulator{FakeInventory: h.inventory, occupy: func(uuid gpu.DeviceUUID, pid int) error {
			occupied = append(occupied, pid)
			return &gpu.UnknownDeviceError{UUID: uuid} // only logged
		}}
		h.Broker = h.newBroker(func(c *Config) { c.Machine.(*Local).Pool = h.pool(machine) })
		h.run().active(100)
		if !slices.Equal(occupied, []int{100}) {
			t.Errorf("got %v, want pid 100 once", occupied)
		}
	})
}

func TestClaim(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.granted()
	waiting := h.schedule()
	for name, row := range map[string]struct{ space, id string }{
		"a lease that waits": {"demo", waiting.ID},
		"another Space's":    {"other", l.ID},
		"an unknown lease":   {"demo", "nonsense"},
	} {
		if _, _, err := h.onClaim(row.space, row.id, Worker{PID: 1}); err != ErrUnknown {
			t.Errorf("%s: got %v, want ErrUnknown", name, err)
		}
	}
	h.allow(l)
	if _, _, err := h.onClaim("demo", l.ID, Worker{PID: 2}); err != ErrUnknown {
		t.Errorf("an active lease: got %v, want ErrUnknown", err)
	}
}

func TestSecondClaimIsRefused(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.granted()
	h.claim(l)
	first := l.Worker
	if _, _, err := h.onClaim("demo", l.ID, Worker{PID: 2}); err != ErrUnknown || l.Worker != first {
		t.Errorf("got %v and worker %+v, want ErrUnknown and %+v", err, l.Worker, first)
	}
}

// TestEndWhileAllowIsCommitted: the worker is not watched yet, and must not be left behind.
func TestEndWhileAllowIsCommitted(t *testing.T) {
	for name, event := range map[string]func(*schedulerHarness, *Lease){
		"cancelled":     func(h *schedulerHarness, l *Lease) { h.onCancelled(l.Event) },
		"never allowed": func(h *schedulerHarness, _ *Lease) { h.advance(claimTimeout) },
		"released":      func(h *schedulerHarness, l *Lease) { _, _ = h.onRelease("demo", l.ID, true) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newSchedulerHarness(t, 1)
			l := h.granted()
			h.claim(l)
			event(h, l)
			if h.onAllow(l, h.clock) || len(h.watched) != 0 || l.Charged != 0 {
				t.Errorf("got allowed in state %s, charged %v", l.State, l.Charged)
			}
			if len(h.reclaims) != 1 || h.reclaims[0].lease.Worker.PID == 0 {
				t.Errorf("got %+v, want the claiming worker ended", h.reclaims)
			}
		})
	}
}
