package lease

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/quota"
)

// TestIdleWorkerIsFrozen checks that a worker is frozen exactly while it is idle.
func TestIdleWorkerIsFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		wantFrozen := func(when string, want bool) {
			t.Helper()
			synctest.Wait()
			if got := h.processes.Frozen(7); got != want {
				t.Errorf("%s: frozen is %v, want %v", when, got, want)
			}
		}
		wantFrozen("after a call", true)
		if _, err := h.Schedule(t.Context(), request(declared(201*time.Second))); err == nil {
			t.Fatal("a call above the quota was admitted")
		} else if _, ok := err.(quota.Refused); !ok {
			t.Fatal(err)
		}
		wantFrozen("after a refused call", true)
		g := h.grant(h.schedule())
		if !g.Idle || h.processes.Frozen(7) {
			t.Errorf("got %+v and a worker that is frozen: %v; want a running worker at the time of the grant", g, h.processes.Frozen(7))
		}
		wantFrozen("during a call", false)
		time.Sleep(time.Second)
		waits := h.schedule() // resumed without a warm start, because it waits
		h.release(g)
		if g = h.grant(waits); !g.Idle || h.processes.Frozen(7) {
			t.Errorf("got %+v and a worker that is frozen: %v", g, h.processes.Frozen(7))
		}
		wantFrozen("during the next call", false)
		h.release(g)
		wantFrozen("after the calls", true)
		h.stop()
		if h.processes.Alive(7) {
			t.Error("the frozen worker is still running")
		}
	})
}

// TestIdleWorkerStaysFrozen checks that a worker that cannot be thawed is ended. Its Lease gets another one, and nothing is
// charged for the first.
func TestIdleWorkerStaysFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		synctest.Wait()
		h.processes.SetIcebound(7, true)
		g := h.grant(h.schedule())
		if g.Idle || h.processes.Alive(7) {
			t.Errorf("got %+v, old worker running: %v; want a Slot for a new worker", g, h.processes.Alive(7))
		}
		h.wantBalance(ada, 10*time.Second, time.Minute)
		h.processes.Start("demo", 8)
		if err := h.Allow(t.Context(), "demo", g.Lease, 8); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		h.release(g)
		h.wantBalance(ada, 13*time.Second, 0)
		if log := h.journal.String(); !strings.Contains(log, "the process stays frozen") {
			t.Errorf("the log does not report the cause:\n%s", log)
		}
		h.stop()
	})
}

// TestWaitingLeaseOfAFrozenWorker checks the same for a Lease without a warm start.
func TestWaitingLeaseOfAFrozenWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		synctest.Wait()
		h.processes.SetIcebound(7, true)
		waits := newLease(request(), h.now()) // admitted before the worker became idle
		waits.Size = "large"
		if err := h.store.admit(t.Context(), waits, time.Minute); err != nil {
			t.Fatal(err)
		}
		h.do(func(all *schedulers) { all.of("").onSchedule(waits) })
		if g := h.grant(&Ticket{h.Broker, waits}); g.Idle || h.processes.Alive(7) {
			t.Errorf("got %+v, old worker running: %v; want a Slot for a new worker", g, h.processes.Alive(7))
		}
		h.wantBalance(ada, 10*time.Second, time.Minute)
		h.stop()
	})
}

// TestFreezeIsRequestedOnce checks that a worker that gets another Lease at once is not frozen.
func TestFreezeIsRequestedOnce(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.warmFor = time.Hour
	first := h.active()
	second := h.schedule()
	h.release(first)
	if len(h.frozen) != 0 || !slices.Equal(h.resumes, []*Lease{second}) {
		t.Fatalf("frozen after %v, resumed for %v; want it resumed only", h.frozen, h.resumes)
	}
	h.onResumed(second, h.clock, nil)
	h.release(second)
	if !slices.Equal(h.frozen, []*Lease{second}) {
		t.Errorf("frozen after %v, want once", h.frozen)
	}
}
