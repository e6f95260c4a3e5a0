package lease

import (
	"database/sql"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/quota"
)

// newWarmBrokerHarness has an idle worker with a last Lease of ten seconds.
func newWarmBrokerHarness(t *testing.T, alter ...func(*Config)) *brokerHarness {
	h := newBrokerHarness(t, append(alter, func(c *Config) { c.WarmFor = 5 * time.Minute })...).run()
	g := h.active(7)
	time.Sleep(10 * time.Second)
	h.release(g)
	return h
}

func TestWarmStartHoldsAndActivatesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		g := h.grant(h.schedule())
		if !g.Idle || h.count(`SELECT count(*) FROM leases WHERE state = 'active' AND worker_pid = 7`) != 1 {
			t.Errorf("got %+v, want its own worker, and an active row", g)
		}
		h.wantBalance(ada, 10*time.Second, time.Minute)
		time.Sleep(3 * time.Second)
		h.release(g)
		h.wantBalance(ada, 13*time.Second, 0)
		h.wantLast(Released, "released", 3*time.Second)
		h.stop()
	})
}

// TestRefusedWarmStartHoldsNothing: the quota refuses it, or the disk fails between hold and activation, which are
// one transaction. Its worker stays idle.
func TestRefusedWarmStartHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		_, err := h.Schedule(t.Context(), request(declared(201*time.Second)))
		if exceeded, ok := errors.AsType[*quota.ExceededError](err); !ok || exceeded.LeftSeconds() != 200 {
			t.Errorf("got %v, want 200 s left", err)
		}
		h.exec(`CREATE TRIGGER full BEFORE UPDATE ON leases WHEN NEW.state = 'active' BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
		if _, err := h.Schedule(t.Context(), request()); err == nil {
			t.Error("a Lease was admitted although its activation could not be written")
		}
		h.exec(`DROP TRIGGER full`)
		h.wantBalance(ada, 10*time.Second, 0)
		if g := h.grant(h.schedule()); !g.Idle {
			t.Errorf("got %+v, want the idle worker", g)
		}
		h.stop()
	})
}

// TestShutdownDuringWarmStartCommit: the hold is returned whole, and the worker is ended.
func TestShutdownDuringWarmStartCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		tx, err := h.db.BeginTx(t.Context(), &sql.TxOptions{})
		if err != nil {
			t.Fatal(err)
		}
		result := make(chan error, 1)
		go func() { _, err := h.Schedule(t.Context(), request()); result <- err }()
		synctest.Wait()
		h.cancel()
		synctest.Wait()
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := <-result; !errors.Is(err, ErrGone) {
			t.Errorf("got %v, want ErrGone", err)
		}
		<-h.runResult
		h.wantBalance(ada, 10*time.Second, 0)
		h.wantLast(Withdrawn, "host stopped", 0)
		if h.processes.Alive(7) {
			t.Error("its worker is still running")
		}
	})
}

// besideForeignProcess is a case of TestWarmStartBesideForeignProcess.
type besideForeignProcess struct {
	alter    func(*Request)
	diskFull bool          // for 1.5 s
	taken    int           // taken back
	held     time.Duration // as soon as the Lease waits
}

// TestWarmStartBesideForeignProcess: the warm start is taken back before its client has an answer. The Lease then
// waits, and its worker is ended.
func TestWarmStartBesideForeignProcess(t *testing.T) {
	bens := func(r *Request) { r.Payer = ben }
	for name, row := range map[string]besideForeignProcess{
		"for the whole remaining quota": {declared(200 * time.Second), false, 1, 200 * time.Second},
		"while the disk is full":        {declared(100 * time.Second), true, 0, 200 * time.Second},
		"of a payer without usage":      {bens, false, 0, 0}, // and may not, so their day does not begin
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { row.run(newWarmBrokerHarness(t)) })
		})
	}
}

func (row besideForeignProcess) run(h *brokerHarness) {
	uuid := gputest.Devices(1)[0].UUID
	h.inventory.SetProcesses(uuid, gpu.Process{PID: 99, Memory: 1 << 30})
	if row.diskFull {
		h.exec(`CREATE TRIGGER full BEFORE UPDATE OF ended_at ON leases BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
		time.AfterFunc(1500*time.Millisecond, func() { h.exec(`DROP TRIGGER full`) })
	}
	began := time.Now()
	ticket := h.schedule(row.alter)
	if took := time.Since(began); took != 0 {
		h.t.Errorf("Schedule took %v, want no delay", took)
	}
	h.wantBalance(ada, 10*time.Second, row.held)
	if _, waits := ticket.Forecast(); !waits || h.count(`SELECT count(*) FROM leases WHERE state = 'withdrawn' AND charged_ms = 0`) != row.taken {
		h.t.Errorf("want one waiting lease, and %d taken back", row.taken)
	}
	if n := h.count(`SELECT count(*) FROM windows WHERE opened_at IS NOT NULL`); n != 1 {
		h.t.Errorf("%d windows are open, want only that of ada", n)
	}
	time.Sleep(3 * time.Second)
	if ends := h.processes.Ends(7); len(ends) == 0 {
		h.t.Error("the worker that cannot be reused is still running")
	}
	h.inventory.SetProcesses(uuid)
	if g := h.grant(ticket); g.Idle {
		h.t.Errorf("got %+v, want a slot for a new worker", g)
	}
	want := ticket.lease.Declared
	if ticket.lease.Payer != ada {
		want = 0
	}
	h.wantBalance(ada, 10*time.Second, want)
	h.stop()
}

// TestWarmStartOpensWindow: the payer has used nothing yet, and reuses another payer's worker.
func TestWarmStartOpensWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		g := h.grant(h.schedule(func(r *Request) { r.Payer = ben }))
		if n := h.count(`SELECT count(*) FROM windows WHERE opened_at IS NOT NULL`); !g.Idle || n != 2 {
			t.Errorf("got %+v and %d open windows, want ada's worker and two windows", g, n)
		}
		time.Sleep(3 * time.Second)
		h.release(g)
		h.wantBalance(ben, 3*time.Second, 0)
		h.stop()
	})
}

// TestSecondAllowKeepsClock: a Space that names one worker after the other is charged for all of them, also in a
// crash of the host, and reaches its deadline.
func TestSecondAllowKeepsClock(t *testing.T) {
	another := func(h *brokerHarness) Grant {
		g := h.grant(h.schedule())
		time.Sleep(55 * time.Second)
		h.processes.Start("demo", 8)
		if err := h.Allow(h.t.Context(), "demo", g.Lease, 8); err != nil {
			h.t.Fatal(err)
		}
		return g
	}
	for name, row := range map[string]struct {
		end    func(h *brokerHarness, g Grant)
		state  State
		reason string
		used   time.Duration
	}{
		"released":          {func(h *brokerHarness, g Grant) { h.release(g) }, Released, "released", 55 * time.Second},
		"at its deadline":   {func(*brokerHarness, Grant) { time.Sleep(5*time.Second + deadlineGrace) }, Expired, "deadline", time.Minute},
		"in a crash, later": {func(h *brokerHarness, _ Grant) { time.Sleep(2500 * time.Millisecond); h.recoverNow(isolatedProcesses) }, Revoked, "host crashed", 56 * time.Second},
		"in a crash":        {func(h *brokerHarness, _ Grant) { h.recoverNow(isolatedProcesses) }, Revoked, "host crashed", 55 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newWarmBrokerHarness(t)
				row.end(h, another(h))
				synctest.Wait()
				h.wantLast(row.state, row.reason, row.used)
				h.wantBalance(ada, 10*time.Second+row.used, 0)
				h.stop()
				if h.processes.Alive(7) || h.processes.Alive(8) {
					t.Error("a worker is still running")
				}
			})
		})
	}
}

// TestFsyncsOfWarmCall: no call waits for the disk. A short call needs one fsync. A long one is on disk before
// there is anything to charge.
func TestFsyncsOfWarmCall(t *testing.T) {
	for name, row := range map[string]struct {
		takes time.Duration
		want  []time.Duration // after the grant
	}{
		"short": {5 * time.Millisecond, []time.Duration{5*time.Millisecond + settleSyncDelay}},
		"long":  {time.Second, []time.Duration{warmStartSyncDelay, time.Second + settleSyncDelay}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newWarmBrokerHarness(t)
				synctest.Wait()
				began := make(chan time.Time, 10)
				h.store.writer.sync = func() error { began <- time.Now(); time.Sleep(10 * time.Millisecond); return nil }
				g := h.grant(h.schedule())
				granted := time.Now()
				time.Sleep(row.takes)
				h.release(g)
				if waited := time.Since(granted) - row.takes; waited != 0 {
					t.Errorf("the release waited %v for the disk", waited)
				}
				time.Sleep(time.Second)
				h.stop()
				close(began)
				var got []time.Duration
				for at := range began {
					got = append(got, at.Sub(granted))
				}
				if !slices.Equal(got, row.want) {
					t.Errorf("fsyncs began %v after the grant, want %v", got, row.want)
				}
			})
		})
	}
}
