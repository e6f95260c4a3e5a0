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

// newWarmHouse has an idle worker, whose Lease took ten seconds.
func newWarmBrokerHarness(t *testing.T) *brokerHarness {
	h := newBrokerHarness(t, func(c *Config) { c.WarmFor = 5 * time.Minute }).run()
	g := h.active(7)
	time.Sleep(10 * time.Second)
	h.release(g)
	return h
}

func TestAWarmLeaseIsHeldAndActiveAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		g := h.grant(h.schedule())
		if !g.Idle || h.count(`SELECT count(*) FROM leases WHERE state = 'active' AND worker_pid = 7`) != 1 {
			t.Errorf("got %+v, want its own worker, written down as active", g)
		}
		h.wantBalance(ada, 10*time.Second, time.Minute)
		time.Sleep(3 * time.Second)
		h.release(g)
		h.wantBalance(ada, 13*time.Second, 0)
		h.wantLast(Released, "released", 3*time.Second)
		h.stop()
	})
}

// TestAWarmLeaseThatIsRefusedHoldsNothing: by the quota, or by the disk between hold and start, which are one
// transaction; its worker idles on.
func TestAWarmLeaseThatIsRefusedHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		_, err := h.Schedule(t.Context(), request(declared(201*time.Second)))
		if exceeded, ok := errors.AsType[*quota.ExceededError](err); !ok || exceeded.LeftSeconds() != 200 {
			t.Errorf("got %v, want 200 s left", err)
		}
		h.exec(`CREATE TRIGGER full BEFORE UPDATE ON leases WHEN NEW.state = 'active' BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
		if _, err := h.Schedule(t.Context(), request()); err == nil {
			t.Error("a Lease whose start could not be written was admitted")
		}
		h.exec(`DROP TRIGGER full`)
		h.wantBalance(ada, 10*time.Second, 0)
		if g := h.grant(h.schedule()); !g.Idle {
			t.Errorf("got %+v, want the worker that idles", g)
		}
		h.stop()
	})
}

// TestStopWhileAWarmLeaseIsBeingWritten: it is returned whole, and its worker ended.
func TestStopWhileAWarmLeaseIsBeingWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		tx, err := h.db.BeginTx(t.Context(), &sql.TxOptions{})
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan error, 1)
		go func() { _, err := h.Schedule(t.Context(), request()); told <- err }()
		synctest.Wait()
		h.cancel()
		synctest.Wait()
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := <-told; !errors.Is(err, ErrGone) {
			t.Errorf("got %v, want the host gone", err)
		}
		<-h.runResult
		h.wantBalance(ada, 10*time.Second, 0)
		h.wantLast(Withdrawn, "host stopped", 0)
		if h.processes.Alive(7) {
			t.Error("its worker lives")
		}
	})
}

// TestAWarmLeaseBesideAStranger is taken back before its client hears of it, and waits its turn; its worker goes.
func TestAWarmLeaseBesideAStranger(t *testing.T) {
	bens := func(r *Request) { r.Payer = ben }
	for name, row := range map[string]struct {
		alter func(*Request)
		full  bool          // the disk, for a second and a half
		taken int           // back
		held  time.Duration // as soon as it waits
	}{
		"for all that is left":        {declared(200 * time.Second), false, 1, 200 * time.Second},
		"while the disk is full":      {declared(100 * time.Second), true, 0, 200 * time.Second},
		"of one who has used nothing": {bens, false, 0, 0}, // and may not, so their day does not begin
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newWarmBrokerHarness(t)
				uuid := gputest.Devices(1)[0].UUID
				h.inventory.SetProcesses(uuid, gpu.Process{PID: 99, Memory: 1 << 30})
				if row.full {
					h.exec(`CREATE TRIGGER full BEFORE UPDATE OF ended_at ON leases BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
					time.AfterFunc(1500*time.Millisecond, func() { h.exec(`DROP TRIGGER full`) })
				}
				began := time.Now()
				ticket := h.schedule(row.alter)
				if took := time.Since(began); took != 0 {
					t.Errorf("it waited %v to wait", took)
				}
				h.wantBalance(ada, 10*time.Second, row.held)
				if _, waits := ticket.Forecast(); !waits || h.count(`SELECT count(*) FROM leases WHERE state = 'withdrawn' AND charged_ms = 0`) != row.taken {
					t.Errorf("want one that waits, and %d taken back", row.taken)
				}
				if n := h.count(`SELECT count(*) FROM windows WHERE opened_at IS NOT NULL`); n != 1 {
					t.Errorf("%d windows are open, want Ada's", n)
				}
				time.Sleep(3 * time.Second)
				if ends := h.processes.Ends(7); len(ends) == 0 {
					t.Error("the worker that cannot go on is still there")
				}
				h.inventory.SetProcesses(uuid)
				if g := h.grant(ticket); g.Idle {
					t.Errorf("got %+v, want a place for a new worker", g)
				}
				want := ticket.lease.Declared
				if ticket.lease.Payer != ada {
					want = 0
				}
				h.wantBalance(ada, 10*time.Second, want)
				h.stop()
			})
		})
	}
}

// TestAWarmLeaseOpensAWindow of one who has used nothing yet, on another's worker.
func TestAWarmLeaseOpensAWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmBrokerHarness(t)
		g := h.grant(h.schedule(func(r *Request) { r.Payer = ben }))
		if n := h.count(`SELECT count(*) FROM windows WHERE opened_at IS NOT NULL`); !g.Idle || n != 2 {
			t.Errorf("got %+v and %d open windows, want Ada's worker and both", g, n)
		}
		time.Sleep(3 * time.Second)
		h.release(g)
		h.wantBalance(ben, 3*time.Second, 0)
		h.stop()
	})
}

// TestASecondAllowIsNoNewClock: a Space that names one worker after the other pays for all of them, in a crash of the host too,
// and comes to its deadline.
func TestASecondAllowIsNoNewClock(t *testing.T) {
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
					t.Error("a worker lives")
				}
			})
		})
	}
}

// TestTheDiskGetsAWarmCall beside it: no call waits for it, a short one is one fsync, and a long one is on the disk before
// there is anything to charge.
func TestTheDiskGetsAWarmCall(t *testing.T) {
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
