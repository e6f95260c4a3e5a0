package lease

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/internal/lease/leasetest"
)

// insertOpenLease writes a row as a crashed host leaves it. An empty boot means this one.
func (h *brokerHarness) insertOpenLease(boot string, worker *Worker, alter ...func(*Request)) *Lease {
	h.t.Helper()
	s := *h.store
	if boot != "" {
		s.bootID = boot
	}
	l := newLease(request(alter...), time.Now())
	if err := s.admit(h.t.Context(), l, time.Minute); err != nil {
		h.t.Fatal(err)
	}
	if worker != nil {
		l.Slot, l.Granted = &h.schedulers.list[0].slots[0].Slot, time.Now()
		if l.Machine != "" {
			l.Slot = &gpu.Slot{Device: gpu.Device{UUID: gpu.DeviceUUID("GPU-" + l.Machine)}}
		}
		if err := s.activate(h.t.Context(), l, *worker, time.Now(), time.Now()); err != nil {
			h.t.Fatal(err)
		}
	}
	return l
}

func (h *brokerHarness) beatNow() {
	h.t.Helper()
	if err := h.store.beat(h.t.Context(), h.used()); err != nil {
		h.t.Fatal(err)
	}
}

// used returns the elapsed time of the Leases that a host has left open.
func (h *brokerHarness) used() map[string]time.Duration {
	h.t.Helper()
	all, err := h.store.leftovers(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	used := map[string]time.Duration{}
	for _, o := range all {
		used[o.id] = time.Since(time.UnixMilli(o.active.Int64))
	}
	return used
}

// isolatedProcesses hides the actions of a new host from the first one, which stays as it is. Unlike a crashed
// host, the first one would notice the exit of its worker.
func isolatedProcesses(c *Config) { c.Machine.(*Local).Processes = leasetest.NewProcesses() }

// recoverNow runs Recover of a new host on the same machine. It returns the markers of the processes to end.
func (h *brokerHarness) recoverNow(alter ...func(*Config)) (markers []string) {
	h.t.Helper()
	markers, err := Orphans(h.t.Context(), h.store.db, nil)
	if err != nil {
		h.t.Fatalf("list orphans: %v", err)
	}
	if err := h.newBroker(alter...).Recover(h.t.Context(), Kept{}); err != nil {
		h.t.Fatalf("recover: %v", err)
	}
	return markers
}

func (h *brokerHarness) workerOf(pid int) *Worker {
	return &Worker{PID: pid, Start: h.processes.Start("demo", pid)}
}

func TestRecoverReturnsInactiveHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		h.insertOpenLease("", nil) // it waited or was granted: the database does not distinguish them
		h.insertOpenLease("another boot", nil)
		time.Sleep(time.Minute)
		h.recoverNow()
		h.wantBalance(ada, 0, 0)
		h.wantLast(Withdrawn, "host crashed", 0)
	})
}

func TestRecoverChargesToLastBeat(t *testing.T) {
	for name, row := range map[string]struct {
		boot  string
		beat  time.Duration // after /allow; 0: only the first one
		alter func(*Request)
		want  time.Duration
	}{
		"no beat yet":               {"", 0, xlarge, 0},
		"beat":                      {"", 6 * time.Second, func(*Request) {}, 6 * time.Second},
		"beat, xlarge":              {"", 6 * time.Second, xlarge, 12 * time.Second},
		"beat, on another boot":     {"another boot", 6 * time.Second, func(*Request) {}, 6 * time.Second},
		"beat past the deadline":    {"", 61 * time.Second, func(*Request) {}, time.Minute},
		"past the deadline, xlarge": {"", 61 * time.Second, xlarge, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newBrokerHarness(t)
				h.insertOpenLease(row.boot, h.workerOf(100), row.alter)
				if time.Sleep(row.beat); row.beat > 0 {
					h.beatNow()
				}
				time.Sleep(time.Hour)
				h.recoverNow()
				h.wantBalance(ada, row.want, 0)
				h.wantLast(Revoked, "host crashed", row.want)
			})
		})
	}
}

// TestRecoverAfterTheClockWasSetBack: the beat may then be older than the /allow.
func TestRecoverAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		l := h.insertOpenLease("", h.workerOf(100))
		if err := h.store.beat(t.Context(), map[string]time.Duration{l.ID: -time.Hour}); err != nil {
			t.Fatal(err)
		}
		h.recoverNow()
		h.wantBalance(ada, 0, 0)
	})
}

func TestRecoverEndsOnlyWorkersOfThisBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		ours, foreign := h.workerOf(100), h.workerOf(101)
		recycled := h.workerOf(102)
		h.processes.Start("innocent", 102) // the pid was reused
		h.insertOpenLease("", ours)
		h.insertOpenLease("another boot", foreign)
		h.insertOpenLease("", recycled)
		h.recoverNow()
		if ends := h.processes.Ends(100); h.processes.Alive(100) || !slices.Equal(ends, []time.Duration{0}) {
			t.Errorf("our worker runs: %v, ended with %v; want it killed once", h.processes.Alive(100), ends)
		}
		for pid, what := range map[int]string{101: "a process of this boot with the pid of another boot's worker", 102: "an innocent process on a recycled pid"} {
			if !h.processes.Alive(pid) || len(h.processes.Ends(pid)) != 0 {
				t.Errorf("%s was signalled", what)
			}
		}
		h.wantBalance(ada, 0, 0)
	})
}

func TestRecoverContinuesWithStubbornWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		h.insertOpenLease("", h.workerOf(100))
		h.processes.SetStubborn(100, true)
		h.recoverNow()
		h.wantBalance(ada, 0, 0)
	})
}

func TestRecoverEndsOnlySpacesOfThisBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		earlier := *h.store
		earlier.bootID = "another boot"
		for _, row := range []struct {
			store  *store
			marker string
		}{{h.store, "/run/1"}, {&earlier, "/run/2"}, {h.store, "/run/3"}} {
			r := Runner{Instance: "of " + row.marker, Space: "demo", PID: 50, Start: 7, Marker: row.marker}
			if err := row.store.addRunner(t.Context(), r, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		markers := h.recoverNow()
		slices.Sort(markers)
		if !slices.Equal(markers, []string{"/run/1", "/run/3"}) || h.count(`SELECT count(*) FROM runners`) != 0 {
			t.Errorf("got %q ended and %d runners left, want those of this boot ended and none left", markers, h.count(`SELECT count(*) FROM runners`))
		}
	})
}

func TestSecondRecoverChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		h.insertOpenLease("", nil)
		h.insertOpenLease("", h.workerOf(100))
		if err := h.Started(Runner{Instance: "run-1", Space: "demo", Marker: "/run/1"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		h.beatNow()
		h.recoverNow()
		before, lines := h.leaseRows(), h.count(`SELECT count(*) FROM ledger`)
		time.Sleep(time.Hour)
		if markers := h.recoverNow(); len(markers) != 0 {
			t.Errorf("got %q ended again", markers)
		}
		if after := h.leaseRows(); !slices.Equal(before, after) || h.count(`SELECT count(*) FROM ledger`) != lines {
			t.Errorf("got %q, want %q and %d ledger entries", after, before, lines)
		}
		h.wantBalance(ada, 2*time.Second, 0)
	})
}

// leaseRows returns the rows of the table leases.
func (h *brokerHarness) leaseRows() (all []string) {
	h.t.Helper()
	rows, err := h.db.QueryContext(h.t.Context(), `SELECT id || state || reason || charged_ms || ' ' || ended_at FROM leases ORDER BY id`)
	if err != nil {
		h.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			h.t.Fatal(err)
		}
		all = append(all, row)
	}
	return all
}

func TestCrashOfRunningHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100)
		h.schedule()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		h.recoverNow(isolatedProcesses)
		h.wantBalance(ada, 4*time.Second, 0)
		before, start := h.leaseRows(), time.Now()
		h.stop() // settles them again, without effect and without delay
		h.wantBalance(ada, 4*time.Second, 0)
		if after := h.leaseRows(); !slices.Equal(before, after) || time.Since(start) > 0 {
			t.Errorf("after %v got %q, want %q", time.Since(start), after, before)
		}
	})
}

// TestCrashChargesOnlyDeliveredTime: beats count a Lease only once its client knows that the clock runs. The
// database lists a Lease as active also while its Device is still being checked, after its warm worker has exited,
// and when its settlement failed.
func TestCrashChargesOnlyDeliveredTime(t *testing.T) {
	for name, row := range map[string]struct {
		leave func(h *brokerHarness)
		want  time.Duration
	}{
		"its Device does not answer": {func(h *brokerHarness) {
			h.inventory.SetHook(func(ctx context.Context, uuid gpu.DeviceUUID) error {
				time.Sleep(15 * time.Second)
				return &gpu.HungError{UUID: uuid, After: 15 * time.Second}
			})
			go func() { _, _ = h.Schedule(h.t.Context(), request()) }()
		}, 0},
		"its worker had exited": {func(h *brokerHarness) {
			h.grant(h.schedule())
			h.processes.Exit(7)
		}, 0},
		"it has ended, and the disk is full": {func(h *brokerHarness) {
			g := h.grant(h.schedule())
			time.Sleep(3 * time.Second)
			h.refuseToSettle()
			go func() { _ = h.Release(h.t.Context(), "demo", g.Lease, false) }()
		}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newWarmBrokerHarness(t)
				row.leave(h)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				h.exec(`DROP TRIGGER IF EXISTS full`)
				h.inventory.SetHook(nil)
				if n := h.count(`SELECT count(*) FROM leases WHERE ended_at IS NULL AND active_at IS NOT NULL`); n != 1 {
					t.Fatalf("the database has %d open and active leases, want the one of this test", n)
				}
				h.recoverNow(isolatedProcesses)
				h.wantLast(Revoked, "host crashed", row.want)
				h.wantBalance(ada, 10*time.Second+row.want, 0)
				h.stop()
			})
		})
	}
}
