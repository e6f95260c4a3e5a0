package lease

import (
	"database/sql"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/quota"
)

// newWarmHouse has an idle worker, whose Lease took ten seconds.
func newWarmHouse(t *testing.T) *house {
	h := newHouse(t, func(c *Config) { c.WarmFor = 5 * time.Minute }).run()
	g := h.active(7)
	time.Sleep(10 * time.Second)
	h.release(g)
	return h
}

func TestAWarmLeaseIsHeldAndActiveAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWarmHouse(t)
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
		h := newWarmHouse(t)
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
		h := newWarmHouse(t)
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
		<-h.ran
		h.wantBalance(ada, 10*time.Second, 0)
		h.wantLast(Withdrawn, "host stopped", 0)
		if h.processes.Alive(7) {
			t.Error("its worker lives")
		}
	})
}

// TestACallMayEndOnceTheDiskHasItsHold: the fsync of a warm Lease's hold goes on beside the call, and its settlement waits
// for one only if it has not ended by then.
func TestACallMayEndOnceTheDiskHasItsHold(t *testing.T) {
	for name, row := range map[string]struct {
		slow bool
		want int // how its settlement is committed
	}{"as a rule": {false, 1}, "a slow disk": {true, 2}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newWarmHouse(t)
				synctest.Wait()
				disk := make(chan struct{})
				h.store.writer.sync = func() error { <-disk; return nil }
				if !row.slow {
					close(disk)
				}
				g := h.grant(h.schedule())
				synctest.Wait()
				if level := h.settled(g); level != row.want {
					t.Errorf("its settlement was committed with synchronous=%d, want %d", level, row.want)
				}
				if row.slow {
					close(disk)
				}
				h.stop()
			})
		})
	}
}

// settled releases, and returns SQLite's word for how that was committed.
func (h *house) settled(g Grant) (level int) {
	h.t.Helper()
	h.exec(`CREATE TEMP TABLE seen (level); CREATE TEMP TRIGGER settling AFTER UPDATE OF ended_at ON leases
		BEGIN INSERT INTO seen SELECT synchronous FROM pragma_synchronous; END`)
	h.release(g)
	if err := h.db.QueryRow(`SELECT level FROM seen`).Scan(&level); err != nil {
		h.t.Fatal(err)
	}
	return level
}
