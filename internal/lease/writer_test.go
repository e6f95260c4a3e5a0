package lease

import (
	"context"
	"database/sql"
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
)

// desk is a writer with a table of its own, whose connection somebody else has until free is called.
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

// notes writes all at once, frees the connection once they wait, and returns what each was told and how many
// transactions there were.
func (h *writerHarness) insertAll(all ...int) (told []error, transactions int) {
	used := make(chan *sql.Tx, len(all))
	told = make([]error, len(all))
	done := make(chan struct{})
	for i, n := range all {
		go func() {
			told[i] = h.write(context.Background(), "note", func(tx *sql.Tx) error {
				used <- tx
				_, err := tx.Exec(`INSERT INTO notes VALUES (?)`, n)
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
	seen := map[*sql.Tx]bool{}
	for tx := range used {
		seen[tx] = true
	}
	return told, len(seen)
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

func TestWritesThatWaitGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		told, transactions := h.insertAll(1, 2, 3, 4, 5, 6, 7, 8)
		if err := errors.Join(told...); err != nil || transactions != 1 {
			t.Errorf("%d transactions, %v; want all in one", transactions, err)
		}
		if got := h.inserted(); len(got) != 8 {
			t.Errorf("written %v, want all", got)
		}
	})
}

// TestAWriteThatFailsTakesNobodyWithIt: the second 1 breaks the key.
func TestAWriteThatFailsTakesNobodyWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		told, transactions := h.insertAll(1, 1, 2)
		if told[0] != nil || told[1] == nil || told[2] != nil || transactions != 1 {
			t.Errorf("told %v in %d transactions, want the second refused alone", told, transactions)
		}
		if got := h.inserted(); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("written %v, want 1 and 2", got)
		}
	})
}

// TestALostTransactionIsEverybodys: SQLite gives up all of it, as it does at a full disk; then it goes on.
func TestALostTransactionIsEverybodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		told, _ := h.insertAll(1, 99, 2)
		for i, err := range told {
			if err == nil {
				t.Errorf("write %d was told that it is written", i)
			}
		}
		if got := h.inserted(); len(got) != 0 {
			t.Errorf("written %v, want nothing", got)
		}
		if told, _ := h.insertAll(3); told[0] != nil || !slices.Equal(h.inserted(), []int{3}) {
			t.Errorf("afterwards: %v, written %v", told, h.inserted())
		}
	})
}

// TestNobodyWaitsForEver: a write whose turn does not come is told so in five seconds, and is not made later.
func TestNobodyWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		first := make(chan error, 1)
		note := func(n int) func(*sql.Tx) error {
			return func(tx *sql.Tx) error { _, err := tx.Exec(`INSERT INTO notes VALUES (?)`, n); return err }
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
			t.Errorf("got %v, written %v; want the one that had patience", err, h.inserted())
		}
	})
}

// durability is SQLite's word for how a transaction is committed: 1 is without its fsync, 2 with it.
func durability(t *testing.T, tx *sql.Tx) (level int) {
	t.Helper()
	if err := tx.QueryRow("PRAGMA synchronous").Scan(&level); err != nil {
		t.Error(err)
	}
	return level
}

// TestWhoNeedsTheDiskGetsIt: only what is written with soon, and nothing else beside it, is committed without its fsync,
// which is then made before long.
func TestWhoNeedsTheDiskGetsIt(t *testing.T) {
	const without, with = 1, 2
	for name, c := range map[string]struct {
		soon  []bool // in the order in which they come while the connection is somebody's
		want  []int
		syncs int32
		never bool // there is no sync
	}{
		"a settlement":             {[]bool{true}, []int{without}, 1, false},
		"two":                      {[]bool{true, true}, []int{without, without}, 1, false},
		"an admission":             {[]bool{false}, []int{with}, 0, false},
		"one after the other":      {[]bool{true, false}, []int{with, with}, 0, false},
		"the other way round":      {[]bool{false, true}, []int{with, with}, 0, false},
		"a settlement by itself":   {[]bool{true}, []int{with}, 0, true},
		"many settlements and one": {[]bool{true, true, true, false}, []int{with, with, with, with}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newWriterHarness(t)
				var syncs atomic.Int32
				if !c.never {
					h.sync = func() error { syncs.Add(1); return nil }
				}
				got := make([]int, len(c.soon))
				for i, soon := range c.soon {
					enter := h.write
					if soon {
						enter = h.writeDeferred
					}
					go func() {
						if err := enter(context.Background(), "note", func(tx *sql.Tx) error { got[i] = durability(t, tx); return nil }); err != nil {
							t.Error(err)
						}
					}()
					synctest.Wait()
				}
				h.release()
				synctest.Wait()
				h.close()
				if !slices.Equal(got, c.want) || syncs.Load() != c.syncs {
					t.Errorf("committed with %v and then %d syncs, want %v and %d", got, syncs.Load(), c.want, c.syncs)
				}
				if err := h.write(context.Background(), "note", func(tx *sql.Tx) error {
					if level := durability(t, tx); level != with {
						t.Errorf("afterwards the connection commits with %d, want %d", level, with)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func (h *writerHarness) writeDeferred(ctx context.Context, what string, do func(*sql.Tx) error) error {
	return h.writer.writeDeferred(ctx, what, time.Millisecond, do)
}

// TestWhenTheDiskGetsIt: at its time, or with what comes before that, or with the end of the host; an fsync that fails is made
// again with the next commit.
func TestWhenTheDiskGetsIt(t *testing.T) {
	const lag = 20 * time.Millisecond
	note := func(*sql.Tx) error { return nil }
	for name, row := range map[string]struct {
		also  func(t *testing.T, h *writerHarness) error
		fails int
		want  []time.Duration
	}{
		"by itself": {nil, 0, []time.Duration{lag}},
		"not with what comes while another fsync is made": {func(_ *testing.T, h *writerHarness) error {
			quick := h.sync
			h.sync = func() error { err := quick(); time.Sleep(3 * lag / 4); return err } // 10 ms to 25 ms
			err := h.writer.writeDeferred(context.Background(), "note", lag/4, note)
			time.Sleep(lag / 2)
			return errors.Join(err, h.writer.writeDeferred(context.Background(), "note", lag, note)) // at 15 ms
		}, 0, []time.Duration{lag / 2, 7 * lag / 4}},
		"with its settlement": {func(_ *testing.T, h *writerHarness) error {
			return h.writer.writeDeferred(context.Background(), "note", lag/4, note)
		}, 0, []time.Duration{10 * time.Millisecond}},
		"by itself, though one waits for the disk that changes nothing there": {func(_ *testing.T, h *writerHarness) error {
			return h.write(context.Background(), "note", note)
		}, 0, []time.Duration{lag}},
		"with another that can wait": {func(_ *testing.T, h *writerHarness) error {
			return h.writer.writeDeferred(context.Background(), "note", lag, note)
		}, 0, []time.Duration{lag}},
		"again after a failure": {func(_ *testing.T, h *writerHarness) error {
			return h.writer.writeDeferred(context.Background(), "note", lag, note)
		}, 1, []time.Duration{lag, lag + 5*time.Millisecond}},
		"with the end": {func(_ *testing.T, h *writerHarness) error { h.close(); return nil }, 0, []time.Duration{5 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newWriterHarness(t)
				h.release()
				began := time.Now()
				var syncs []time.Duration
				h.sync = func() error {
					if syncs = append(syncs, time.Since(began)); len(syncs) <= row.fails {
						return errors.New("the disk is gone")
					}
					return nil
				}
				if err := h.writer.writeDeferred(context.Background(), "note", lag, note); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Millisecond)
				if row.also != nil {
					if err := row.also(t, h); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if !slices.Equal(syncs, row.want) {
					t.Errorf("fsyncs after %v, want %v", syncs, row.want)
				}
				h.close()
			})
		})
	}
}

// TestEachCommitIsSynced: what is committed while the disk works for an earlier one is not forgotten.
func TestEachCommitIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		h.release()
		began, turn := make(chan bool, 3), make(chan bool)
		h.sync = func() error { began <- true; <-turn; return nil }
		for range 3 {
			if err := h.writeDeferred(context.Background(), "note", func(*sql.Tx) error { return nil }); err != nil {
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
			t.Errorf("%d syncs, want the one for the first and one for the two that came meanwhile", len(began))
		}
	})
}

// TestAPanicIsAnErrorOfItsOwn: who leads answers for others.
func TestAPanicIsAnErrorOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newWriterHarness(t)
		first := make(chan error, 1)
		go func() { first <- h.write(context.Background(), "note", func(*sql.Tx) error { panic("of mine") }) }()
		synctest.Wait()
		told, _ := h.insertAll(1, 2)
		if err := <-first; err == nil || !strings.Contains(err.Error(), "note: panic: of mine") {
			t.Errorf("got %v, want the panic as an error", err)
		}
		if err := errors.Join(told...); err != nil || !slices.Equal(h.inserted(), []int{1, 2}) {
			t.Errorf("the others: %v, written %v", err, h.inserted())
		}
	})
}
