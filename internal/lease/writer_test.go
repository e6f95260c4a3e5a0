package lease

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"spacehost/migrations"
)

// desk is a writer with a table of its own, whose connection somebody else has until free is called.
type desk struct {
	*writer
	t    *testing.T
	free func()
}

func newDesk(t *testing.T) *desk {
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d := &desk{writer: &writer{db: db, log: zap.NewNop()}, t: t}
	if _, err := db.Exec(`CREATE TABLE notes (n INTEGER PRIMARY KEY);
		CREATE TRIGGER full BEFORE INSERT ON notes WHEN NEW.n = 99 BEGIN SELECT RAISE(ROLLBACK, 'disk full'); END`); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	d.free = func() { _ = tx.Rollback() }
	return d
}

// notes writes all at once, frees the connection once they wait, and returns what each was told and how many
// transactions there were.
func (d *desk) notes(all ...int) (told []error, transactions int) {
	used := make(chan *sql.Tx, len(all))
	told = make([]error, len(all))
	done := make(chan struct{})
	for i, n := range all {
		go func() {
			told[i] = d.write(context.Background(), "note", func(tx *sql.Tx) error {
				used <- tx
				_, err := tx.Exec(`INSERT INTO notes VALUES (?)`, n)
				return err
			})
			done <- struct{}{}
		}()
		synctest.Wait()
	}
	d.free()
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

func (d *desk) written() (all []int) {
	d.t.Helper()
	rows, err := d.db.Query(`SELECT n FROM notes ORDER BY n`)
	if err != nil {
		d.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			d.t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

func TestWritesThatWaitGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		told, transactions := d.notes(1, 2, 3, 4, 5, 6, 7, 8)
		if err := errors.Join(told...); err != nil || transactions != 1 {
			t.Errorf("%d transactions, %v; want all in one", transactions, err)
		}
		if got := d.written(); len(got) != 8 {
			t.Errorf("written %v, want all", got)
		}
	})
}

// TestAWriteThatFailsTakesNobodyWithIt: the second 1 breaks the key.
func TestAWriteThatFailsTakesNobodyWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		told, transactions := d.notes(1, 1, 2)
		if told[0] != nil || told[1] == nil || told[2] != nil || transactions != 1 {
			t.Errorf("told %v in %d transactions, want the second refused alone", told, transactions)
		}
		if got := d.written(); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("written %v, want 1 and 2", got)
		}
	})
}

// TestALostTransactionIsEverybodys: SQLite gives up all of it, as it does at a full disk; then it goes on.
func TestALostTransactionIsEverybodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		told, _ := d.notes(1, 99, 2)
		for i, err := range told {
			if err == nil {
				t.Errorf("write %d was told that it is written", i)
			}
		}
		if got := d.written(); len(got) != 0 {
			t.Errorf("written %v, want nothing", got)
		}
		if told, _ := d.notes(3); told[0] != nil || !slices.Equal(d.written(), []int{3}) {
			t.Errorf("afterwards: %v, written %v", told, d.written())
		}
	})
}

// TestNobodyWaitsForEver: a write whose turn does not come is told so in five seconds, and is not made later.
func TestNobodyWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		first := make(chan error, 1)
		note := func(n int) func(*sql.Tx) error {
			return func(tx *sql.Tx) error { _, err := tx.Exec(`INSERT INTO notes VALUES (?)`, n); return err }
		}
		go func() { first <- d.write(context.Background(), "note", note(1)) }()
		synctest.Wait()
		began := time.Now()
		err := d.write(context.Background(), "note", note(2))
		if busy := (*busyError)(nil); !errors.As(err, &busy) || time.Since(began) != patience {
			t.Errorf("after %v: %v, want busy after %v", time.Since(began), err, patience)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := d.write(ctx, "note", note(3)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's own deadline", err)
		}
		d.free()
		if err := <-first; err != nil || !slices.Equal(d.written(), []int{1}) {
			t.Errorf("got %v, written %v; want the one that had patience", err, d.written())
		}
	})
}
