package lease

import (
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

func TestSlotReturnsOnceMemoryIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.inventory.SetHeld("GPU-fake-0", 40<<30)
		h.release(g)
		next := h.schedule()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := h.Slots()[0]; s.Phase != "reclaiming" || h.Waiting() != 1 {
			t.Errorf("with its memory in use: got %+v and %d waiting", s, h.Waiting())
		}
		h.inventory.SetHeld("GPU-fake-0", gputest.IdleMemory)
		h.grant(next)
	})
}

func TestSlotWithUsedMemoryIsBusyWithReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.inventory.SetHeld("GPU-fake-0", 40<<30)
		h.release(g)
		time.Sleep(reclaimTimeout + time.Second)
		synctest.Wait()
		if s := h.Slots()[0]; s.Phase != "busy" || s.Reason == "" {
			t.Errorf("got %+v, want it busy with a reason", s)
		}
		next := h.schedule()
		time.Sleep(10 * time.Second)
		h.inventory.SetHeld("GPU-fake-0", gputest.IdleMemory)
		start := time.Now()
		if h.grant(next); time.Since(start) > recheckInterval {
			t.Errorf("got the grant %v after the memory was freed, want at most %v", time.Since(start), recheckInterval)
		}
	})
}

func TestForeignProcessKeepsSlotBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.inventory.SetProcesses("GPU-fake-0", gpu.Process{PID: 4711})
		ticket := h.schedule()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if h.Waiting() != 1 || len(h.processes.Ends(4711)) != 0 {
			t.Errorf("got %d waiting, pid 4711 ended %v", h.Waiting(), h.processes.Ends(4711))
		}
		h.inventory.SetProcesses("GPU-fake-0")
		h.grant(ticket)
	})
}

func TestStubbornWorkerKeepsItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.processes.SetStubborn(100, true)
		h.release(g) // answered nevertheless
		h.wantBalance(ada, 0, 0)
		next := h.schedule()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := h.Slots()[0]; h.Waiting() != 1 || s.Reason == "" {
			t.Errorf("got %d waiting and %+v, want the slot busy with a reason", h.Waiting(), s)
		}
		h.processes.SetStubborn(100, false)
		h.grant(next)
		if h.processes.Alive(100) {
			t.Error("the slot is lent while the last worker runs")
		}
	})
}

func TestSlotIsNotLentWhileReclaiming(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.active()
	next := h.schedule()
	h.onCancelled(l.Event)
	h.advance(30 * time.Second)
	h.passChecks()
	h.want(next, Waiting)
	h.wantPhase(0, reclaiming)
	h.finishReclaims()
	h.want(next, Granted)
}

func TestStubbornWorkerIsEndedAgain(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.active()
	h.releaseAndReclaim(l, errNotReclaimed)
	h.wantPhase(0, busy)
	next := h.schedule()
	h.advance(recheckInterval)
	if len(h.checks) != 0 || len(h.reclaims) != 1 || h.reclaims[0].lease != l {
		t.Fatalf("got checks %v and reclaims %+v, want its worker ended before any check", h.checks, h.reclaims)
	}
	h.want(next, Waiting)
	h.finishReclaims()
	h.want(next, Granted)
}

func TestStubbornWorkerIsEndedAgainWithoutWaitingLease(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.releaseAndReclaim(h.active(), errNotReclaimed)
	if next := h.onTime(); !next.Equal(h.clock.Add(recheckInterval)) {
		t.Errorf("got woken at %s, want %v from %s", next, recheckInterval, h.clock)
	}
	h.advance(recheckInterval)
	if len(h.reclaims) != 1 {
		t.Errorf("got %d reclaims, want another", len(h.reclaims))
	}
}
