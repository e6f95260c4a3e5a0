package lease

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/migrations"
	"spacehost/quota"
)

func limitedRuns(n int) func(*Request) {
	return func(r *Request) { r.Tier.Runs = n }
}

// wantRuns checks the runs of ada, and that the database is consistent.
func (h *brokerHarness) wantRuns(used, reserved int) {
	h.t.Helper()
	r, err := h.ledger.Runs(h.t.Context(), "user:ada", quota.Tier{Runs: 8}, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	if r.Used != used || r.Reserved != reserved {
		h.t.Errorf("got %d runs used and %d reserved, want %d and %d", r.Used, r.Reserved, used, reserved)
	}
	if err := migrations.Check(h.t.Context(), h.path); err != nil {
		h.t.Error(err)
	}
}

// TestRunIsReservedThenCounted: at the activation, and whatever becomes of the call.
func TestRunIsReservedThenCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.grant(h.schedule(limitedRuns(2)))
		h.wantRuns(0, 1)
		waiting := h.schedule(limitedRuns(2)) // for the only Slot
		h.wantRuns(0, 2)
		_, err := h.Schedule(t.Context(), request(limitedRuns(2)))
		if e, ok := errors.AsType[*quota.RunsExceededError](err); !ok || e.Runs.Reserved != 2 {
			t.Errorf("got %v, want a refusal by two reserved runs", err)
		}
		h.processes.Start("demo", 7)
		if err := h.Allow(t.Context(), "demo", g.Lease, 7); err != nil {
			t.Fatal(err)
		}
		h.wantRuns(1, 1)
		waiting.Leave()
		synctest.Wait()
		h.wantRuns(1, 0)
		if err := h.Release(t.Context(), "demo", g.Lease, true); err != nil { // the call has failed
			t.Fatal(err)
		}
		h.wantRuns(1, 0)
		h.stop()
	})
}

// TestGrantThatIsNeverClaimedIsARun: its worker was never made.
func TestGrantThatIsNeverClaimedIsARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.grant(h.schedule())
		time.Sleep(time.Minute)
		h.wantLast(Unclaimed, "never allowed", 0)
		h.wantRuns(1, 0)
		h.stop()
	})
}

// TestUndeliveredGrantIsNoRun: the client repeats its request, which would count twice.
func TestUndeliveredGrantIsNoRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		warm := h.schedule()
		h.wantRuns(2, 0)
		warm.Leave()
		synctest.Wait()
		h.wantRuns(1, 0)
		cold := h.schedule(func(r *Request) { r.Task = "other" })
		time.Sleep(10 * time.Second)
		cold.Leave()
		synctest.Wait()
		h.wantLast(Unclaimed, "connection lost", 0)
		h.wantRuns(1, 0)
		h.stop()
	})
}

// TestWarmStartIsOneRun: taken back for a foreign process it is none, and after the exit of its worker it is still one.
func TestWarmStartIsOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		h.wantRuns(1, 0)
		uuid := gputest.Devices(1)[0].UUID
		h.inventory.SetProcesses(uuid, gpu.Process{PID: 99, Memory: 1 << 30})
		ticket := h.schedule()
		h.wantRuns(1, 1)
		h.inventory.SetProcesses(uuid)
		g := h.grant(ticket)
		h.processes.Start("demo", 8)
		if err := h.Allow(t.Context(), "demo", g.Lease, 8); err != nil {
			t.Fatal(err)
		}
		h.wantRuns(2, 0)
		h.release(g)

		g = h.grant(h.schedule()) // warm, and its worker exits at once
		h.wantRuns(3, 0)
		h.processes.Exit(8)
		synctest.Wait()
		h.processes.Start("demo", 9)
		if err := h.Allow(t.Context(), "demo", g.Lease, 9); err != nil {
			t.Fatal(err)
		}
		h.wantRuns(3, 0)
		h.release(g)
		h.wantRuns(3, 0)
		h.stop()
	})
}

// TestRunsAfterACrash: no run is lost or counted twice, also if the crashed host's activation was not flushed in time.
func TestRunsAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(7)
		h.schedule()
		counted, err := h.ledger.Runs(t.Context(), "user:ada", quota.Tier{Runs: 8}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		h.wantRuns(1, 1)
		time.Sleep(10 * time.Second)
		for range 2 { // a second crash during the recovery changes nothing
			if err := h.newBroker().Recover(t.Context(), Kept{}); err != nil {
				t.Fatal(err)
			}
			h.wantRuns(1, 0)
		}
		again, err := h.ledger.Runs(t.Context(), "user:ada", quota.Tier{Runs: 8}, time.Now())
		if err != nil || !again.ResetsAt.Equal(*counted.ResetsAt) {
			t.Errorf("the run returns at %v (%v), want %v as before the crash", again.ResetsAt, err, counted.ResetsAt)
		}
	})
}

// TestConcurrentCallsShareTheLastRun: admission and reservation are one transaction.
func TestConcurrentCallsShareTheLastRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		results := make(chan error, 20)
		for range cap(results) {
			go func() {
				_, err := h.Schedule(t.Context(), request(declared(time.Second), limitedRuns(3)))
				results <- err
			}()
		}
		admitted := 0
		for range cap(results) {
			if err := <-results; err == nil {
				admitted++
			} else if _, ok := errors.AsType[*quota.RunsExceededError](err); !ok {
				t.Errorf("got %v", err)
			}
		}
		if admitted != 3 {
			t.Errorf("%d calls were admitted, want 3", admitted)
		}
		h.stop()
	})
}

// TestCreditsOfALease: held with the quota, and charged after it, also by the recovery after a crash.
func TestCreditsOfALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		if err := h.ledger.Credit(t.Context(), quota.Adjustment{Identity: "user:ada", Amount: time.Minute, By: "operator"}); err != nil {
			t.Fatal(err)
		}
		g := h.active(7, declared(200*time.Second))
		time.Sleep(200 * time.Second)
		h.release(g)
		h.active(8, declared(50*time.Second))
		h.wantBalance(ada, 200*time.Second, 10*time.Second)
		_, err := h.Schedule(t.Context(), request(declared(30*time.Second)))
		if e, ok := errors.AsType[*quota.CreditsPendingError](err); !ok || e.Wait != 50*time.Second {
			t.Errorf("got %v, want a wait of 50 s for the credits of the running call", err)
		}
		time.Sleep(31 * time.Second) // beats every 2 s
		if err := h.newBroker().Recover(t.Context(), Kept{}); err != nil {
			t.Fatal(err)
		}
		b, err := h.Account(t.Context(), ada, freeTier)
		if err != nil || b.Charged != 210*time.Second || b.CreditCharged < 18*time.Second || b.CreditCharged > 21*time.Second || b.Credits != time.Minute-b.CreditCharged || b.CreditHeld != 0 {
			t.Errorf("after the crash: got %+v (%v), want the quota used up and about 20 s of credits", b, err)
		}
		h.wantRuns(2, 0)
	})
}
