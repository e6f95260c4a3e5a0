package lease

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"spacehost/migrations"
	"spacehost/quota"
)

// writerHarness is a writer with a table of its own. Its connection is taken until release is called.
type writerHarness struct {
	*writer
	t       *testing.T
	release func()
}

func newWriterHarness(t *testing.T) *writerHarness {
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h := &writerHarness{writer: &writer{db: db, log: zap.NewNop()}, t: t}
	if _, err := db.Exec(`CREATE TABLE notes (n INTEGER PRIMARY KEY);
		CREATE TRIGGER full BEFORE INSERT ON notes WHEN NEW.n = 99 BEGIN SELECT RAISE(ROLLBACK, 'disk full'); END`); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	h.release = func() { _ = tx.Rollback() }
	return h
}

// insertAll writes all at once, and frees the connection once they wait. It returns the result of each, and the
// number of transactions.
func (h *writerHarness) insertAll(all ...int) (errs []error, transactions int) {
	used := make(chan quota.Tx, len(all))
	errs = make([]error, len(all))
	done := make(chan struct{})
	for i, n := range all {
		go func() {
			errs[i] = h.write(context.Background(), "note", func(tx quota.Tx) error {
				used <- tx
				_, err := tx.ExecContext(context.Background(), `INSERT INTO notes VALUES (?)`, n)
				return err
			})
			done <- struct{}{}
		}()
		synctest.Wait()
	}
	h.release()
	for range all {
		<-done
	}
	close(used)
	seen := map[quota.Tx]bool{}
	for tx := range used {
		seen[tx] = true
	}
	return errs, len(seen)
}

func (h *writerHarness) inserted() (all []int) {
	h.t.Helper()
	rows, err := h.db.Query(`SELECT n FROM notes ORDER BY n`)
	if err != nil {
		h.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			h.t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

func TestWaitingWritesAreBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		errs, transactions := h.insertAll(1, 2, 3, 4, 5, 6, 7, 8)
		if err := errors.Join(errs...); err != nil || transactions != 1 {
			t.Errorf("%d transactions, %v; want all in one", transactions, err)
		}
		if got := h.inserted(); len(got) != 8 {
			t.Errorf("inserted %v, want all", got)
		}
	})
}

// TestFailedWriteLeavesOthers: the second 1 violates the primary key.
func TestFailedWriteLeavesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		errs, transactions := h.insertAll(1, 1, 2)
		if errs[0] != nil || errs[1] == nil || errs[2] != nil || transactions != 1 {
			t.Errorf("got %v in %d transactions, want only the second refused", errs, transactions)
		}
		if got := h.inserted(); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("inserted %v, want 1 and 2", got)
		}
	})
}

// TestLostTransactionFailsAllWrites: SQLite rolls back the whole transaction, as it does when the disk is full.
// Later writes work.
func TestLostTransactionFailsAllWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		errs, _ := h.insertAll(1, 99, 2)
		for i, err := range errs {
			if err == nil {
				t.Errorf("write %d returned no error", i)
			}
		}
		if got := h.inserted(); len(got) != 0 {
			t.Errorf("inserted %v, want nothing", got)
		}
		if errs, _ := h.insertAll(3); errs[0] != nil || !slices.Equal(h.inserted(), []int{3}) {
			t.Errorf("afterwards: %v, inserted %v", errs, h.inserted())
		}
	})
}

// TestWriteTimeout: a write that does not get its turn fails after five seconds, and is not made later.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		first := make(chan error, 1)
		note := func(n int) func(quota.Tx) error {
			return func(tx quota.Tx) error {
				_, err := tx.ExecContext(context.Background(), `INSERT INTO notes VALUES (?)`, n)
				return err
			}
		}
		go func() { first <- h.write(context.Background(), "note", note(1)) }()
		synctest.Wait()
		began := time.Now()
		err := h.write(context.Background(), "note", note(2))
		if busy := (*busyError)(nil); !errors.As(err, &busy) || time.Since(began) != writeTimeout {
			t.Errorf("after %v: %v, want busy after %v", time.Since(began), err, writeTimeout)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := h.write(ctx, "note", note(3)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's own deadline", err)
		}
		h.release()
		if err := <-first; err != nil || !slices.Equal(h.inserted(), []int{1}) {
			t.Errorf("got %v, inserted %v; want the first write", err, h.inserted())
		}
	})
}

// durability is SQLite's synchronous level of a transaction: 1 commits without fsync, 2 with it.
func durability(t *testing.T, tx quota.Tx) (level int) {
	t.Helper()
	if err := tx.QueryRowContext(context.Background(), "PRAGMA synchronous").Scan(&level); err != nil {
		t.Error(err)
	}
	return level
}

// Values of durability.
const withoutFsync, withFsync = 1, 2

// fsyncOfCommits is a case of TestFsyncOfCommits.
type fsyncOfCommits struct {
	deferred []bool // in order of arrival, while the connection is taken
	want     []int
	syncs    int32
	noSync   bool // there is no sync function
}

// TestFsyncOfCommits: only transactions that consist of deferred writes are committed without fsync. The fsync
// follows shortly after.
func TestFsyncOfCommits(t *testing.T) {
	for name, row := range map[string]fsyncOfCommits{
		"a settlement":                       {[]bool{true}, []int{withoutFsync}, 1, false},
		"two settlements":                    {[]bool{true, true}, []int{withoutFsync, withoutFsync}, 1, false},
		"an admission":                       {[]bool{false}, []int{withFsync}, 0, false},
		"a settlement, then an admission":    {[]bool{true, false}, []int{withFsync, withFsync}, 0, false},
		"an admission, then a settlement":    {[]bool{false, true}, []int{withFsync, withFsync}, 0, false},
		"a settlement without sync function": {[]bool{true}, []int{withFsync}, 0, true},
		"three settlements and an admission": {[]bool{true, true, true, false}, []int{withFsync, withFsync, withFsync, withFsync}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { row.run(newWriterHarness(t)) })
		})
	}
}

func (row fsyncOfCommits) run(h *writerHarness) {
	t := h.t
	var syncs atomic.Int32
	if !row.noSync {
		h.sync = func() error { syncs.Add(1); return nil }
	}
	got := make([]int, len(row.deferred))
	for i, deferred := range row.deferred {
		write := h.write
		if deferred {
			write = h.writeDeferred
		}
		go func() {
			if err := write(context.Background(), "note", func(tx quota.Tx) error { got[i] = durability(t, tx); return nil }); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
	}
	h.release()
	synctest.Wait()
	h.close()
	if !slices.Equal(got, row.want) || syncs.Load() != row.syncs {
		t.Errorf("committed with %v and then %d syncs, want %v and %d", got, syncs.Load(), row.want, row.syncs)
	}
	if err := h.write(context.Background(), "note", func(tx quota.Tx) error {
		if level := durability(t, tx); level != withFsync {
			t.Errorf("afterwards the connection commits with %d, want %d", level, withFsync)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func (h *writerHarness) writeDeferred(ctx context.Context, what string, do func(quota.Tx) error) error {
	return h.writer.writeDeferred(ctx, what, time.Millisecond, do)
}

// fsyncTimes is a case of TestFsyncTimes.
type fsyncTimes struct {
	also  func(h *writerHarness) error // 5 ms after the first write
	fails int                          // number of fsyncs that fail
	want  []time.Duration
}

// TestFsyncTimes: an fsync happens at its own time, with an earlier one, or at the end of the host. A failed one
// is repeated with the next commit.
func TestFsyncTimes(t *testing.T) {
	const lag = 20 * time.Millisecond
	note := func(quota.Tx) error { return nil }
	deferred := func(delay time.Duration) func(*writerHarness) error {
		return func(h *writerHarness) error { return h.writer.writeDeferred(context.Background(), "note", delay, note) }
	}
	for name, row := range map[string]fsyncTimes{
		"by itself": {nil, 0, []time.Duration{lag}},
		"a commit during another fsync": {func(h *writerHarness) error {
			quick := h.sync
			h.sync = func() error { err := quick(); time.Sleep(3 * lag / 4); return err } // 10 ms to 25 ms
			err := deferred(lag / 4)(h)
			time.Sleep(lag / 2)
			return errors.Join(err, deferred(lag)(h)) // at 15 ms
		}, 0, []time.Duration{lag / 2, 7 * lag / 4}},
		"with its settlement": {deferred(lag / 4), 0, []time.Duration{10 * time.Millisecond}},
		"by itself, although a write with fsync changes nothing": {func(h *writerHarness) error {
			return h.write(context.Background(), "note", note)
		}, 0, []time.Duration{lag}},
		"with another deferred write": {deferred(lag), 0, []time.Duration{lag}},
		"again after a failure":       {deferred(lag), 1, []time.Duration{lag, lag + 5*time.Millisecond}},
		"at the end of the host":      {func(h *writerHarness) error { h.close(); return nil }, 0, []time.Duration{5 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { row.run(newWriterHarness(t), deferred(lag)) })
		})
	}
}

func (row fsyncTimes) run(h *writerHarness, first func(*writerHarness) error) {
	h.release()
	began := time.Now()
	var syncs []time.Duration
	h.sync = func() error {
		if syncs = append(syncs, time.Since(began)); len(syncs) <= row.fails {
			return errors.New("the disk is gone")
		}
		return nil
	}
	if err := first(h); err != nil {
		h.t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)
	if row.also != nil {
		if err := row.also(h); err != nil {
			h.t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	synctest.Wait()
	if !slices.Equal(syncs, row.want) {
		h.t.Errorf("fsyncs after %v, want %v", syncs, row.want)
	}
	h.close()
}

// TestEachCommitIsSynced: a commit during the fsync of an earlier one gets its own fsync.
func TestEachCommitIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		h.release()
		began, turn := make(chan bool, 3), make(chan bool)
		h.sync = func() error { began <- true; <-turn; return nil }
		for range 3 {
			if err := h.writeDeferred(context.Background(), "note", func(quota.Tx) error { return nil }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond) // it is due
			synctest.Wait()
		}
		if len(began) != 1 {
			t.Fatalf("%d syncs at a time, want one", len(began))
		}
		close(turn)
		h.close()
		if len(began) != 2 {
			t.Errorf("%d syncs, want one for the first commit and one for the two that followed", len(began))
		}
	})
}

// TestPanicFailsOnlyItsWrite: the leader answers other requests too.
func TestPanicFailsOnlyItsWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		first := make(chan error, 1)
		go func() { first <- h.write(context.Background(), "note", func(quota.Tx) error { panic("of mine") }) }()
		synctest.Wait()
		errs, _ := h.insertAll(1, 2)
		if err := <-first; err == nil || !strings.Contains(err.Error(), "note: panic: of mine") {
			t.Errorf("got %v, want the panic as an error", err)
		}
		if err := errors.Join(errs...); err != nil || !slices.Equal(h.inserted(), []int{1, 2}) {
			t.Errorf("the others: %v, inserted %v", err, h.inserted())
		}
	})
}
