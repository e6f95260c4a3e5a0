package quota

import (
	"context"
	"database/sql"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"spacehost/migrations"
)

// check is `spacehost db check`.
func (b book) check() {
	b.t.Helper()
	var path string
	if err := b.db.QueryRow(`SELECT file FROM pragma_database_list`).Scan(&path); err != nil {
		b.t.Fatal(err)
	}
	if err := migrations.Check(b.t.Context(), path); err != nil {
		b.t.Fatalf("db check: %v", err)
	}
}

func (b book) forget(before time.Time, most int) (gone Forgotten) {
	b.t.Helper()
	err := b.inTx(func(ctx context.Context, tx *sql.Tx) (err error) {
		gone, err = b.Forget(ctx, tx, before, most)
		return err
	})
	if err != nil {
		b.t.Fatalf("forget: %v", err)
	}
	return gone
}

func (b book) count(question string) (n int) {
	b.t.Helper()
	if err := b.db.QueryRow(question).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// TestForget: after each small step every sum is that of its lines and nobody's balance has moved; in the end there is
// what is recent, what is held, and what an operator has granted for a day that has not begun.
func TestForget(t *testing.T) {
	b := newBook(t)
	of := func(who string) func(*HoldRequest) { return func(r *HoldRequest) { r.Identity = who } }
	long, now := noon, noon.Add(100*24*time.Hour)
	for i := range 5 { // a long day, and one of an operator
		b.use(fmt.Sprintf("old-%d", i), 10*time.Second, long.Add(time.Duration(i)*time.Minute))
	}
	for _, deed := range []func(context.Context, Adjustment) error{b.Grant, b.Reset} { // at noon, by New's clock
		if err := deed(t.Context(), Adjustment{Identity: "user:ada", Amount: time.Minute, By: "operator"}); err != nil {
			t.Fatal(err)
		}
	}
	b.use("later", 10*time.Second, long.Add(48*time.Hour))
	b.mustHold("held", time.Minute, long, of("user:eve")) // whose host has crashed, and who was forgotten
	b.open("held", long)
	b.mustHold("never", time.Minute, long, of("user:ben"))
	b.mustSettle("never", 0, long.Add(time.Minute))
	if err := b.Grant(t.Context(), Adjustment{Identity: "user:ben", Amount: time.Hour, By: "operator"}); err != nil {
		t.Fatal(err)
	}
	b.mustHold("gone", time.Minute, long, of("user:cy"))
	b.mustSettle("gone", 0, long.Add(time.Minute))
	b.use("new", 20*time.Second, now.Add(-time.Hour))
	b.mustHold("newer", 30*time.Second, now)

	balances := func() (all []Balance) {
		for _, who := range []string{"user:ada", "user:ben", "user:cy", "user:eve"} {
			balance, err := b.Balance(t.Context(), who, free, now)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, balance)
		}
		return all
	}
	want, leases := balances(), 0
	b.check()
	for step, more := 0, true; more; step++ {
		if step > 50 {
			t.Fatal("it does not come to an end")
		}
		gone := b.forget(now.Add(-90*24*time.Hour), 2)
		if len(gone.Leases)+gone.Windows > 3 {
			t.Errorf("one step took %+v, want two at most and a window that they leave empty", gone)
		}
		leases, more = leases+len(gone.Leases), gone.More
		b.check()
		if got := balances(); !reflect.DeepEqual(got, want) {
			t.Fatalf("balances have moved: got %+v, want %+v", got, want)
		}
	}
	if leases != 8 { // old-0 to old-4, later, never, gone
		t.Errorf("%d leases are forgotten, want 8", leases)
	}
	var lines []string
	for _, e := range b.entries() {
		lines = append(lines, e.Lease+" "+string(e.Kind))
	}
	if got := strings.Join(lines, ", "); got != "newer hold, new settle, new hold" {
		t.Errorf("Ada reads %s", got)
	}
	if n := b.count(`SELECT count(*) FROM windows`); n != 3 { // Ada's of today, Eve's with a hold, Ben's with a grant
		t.Errorf("%d windows are left, want 3", n)
	}
	b.mustSettle("held", time.Second, now) // and the pair is whole
	b.check()
	if _, err := b.db.Exec(`DELETE FROM ledger WHERE lease_id = 'new'`); err == nil || !strings.Contains(err.Error(), "append only") {
		t.Errorf("a line of today could be deleted: %v", err)
	}
}

// TestForgetAfterAClockThatWasAhead: it was so over two windows, and Reanchor mends the latest alone. The first must not
// count again because those after it are forgotten, until it is over itself.
func TestForgetAfterAClockThatWasAhead(t *testing.T) {
	const day = 24 * time.Hour
	now := noon.Add(100 * day)
	for name, row := range map[string]struct {
		then    func(b book)
		windows int // that are left beside the first
	}{
		"the next has ended, too": {func(book) {}, 1},
		"more have ended": {func(b book) {
			b.use("later", 5*time.Second, noon.Add(3*day))
			b.use("last", 5*time.Second, noon.Add(5*day))
		}, 1},
		"the last was never opened": {func(b book) {
			b.mustHold("never", time.Second, noon.Add(3*day))
			b.mustSettle("never", 0, noon.Add(3*day))
		}, 1},
		"the last is of today": {func(b book) { b.use("today", 5*time.Second, now.Add(-time.Hour)) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			b.use("ahead", 100*time.Second, noon.Add(200*day))
			b.use("further", 10*time.Second, noon.Add(202*day))
			if n, err := b.Reanchor(t.Context(), noon); err != nil || n != 1 {
				t.Fatalf("reanchored %d, %v", n, err)
			}
			row.then(b)
			want := b.balance(now)
			for more := true; more; {
				more = b.forget(now.Add(-90*day), 1).More
				b.check()
				if got := b.balance(now); !reflect.DeepEqual(got, want) {
					t.Fatalf("the balance has moved: got %+v, want %+v", got, want)
				}
			}
			if n := b.count(`SELECT count(*) FROM windows`); n != 1+row.windows {
				t.Errorf("%d windows are left, want %d", n, 1+row.windows)
			}
			for b.forget(noon.Add(400*day), 1).More {
			}
			b.check()
			if n := b.count(`SELECT count(*) FROM windows WHERE opened_at IS NOT NULL`); n != 0 {
				t.Errorf("%d windows are left after a year, want none", n)
			}
		})
	}
}
