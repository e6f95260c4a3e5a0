package quota

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fillForForget writes entries from around two times: the leases old-0 to old-4, later, held, never and gone with an
// operator's adjustments, and the leases new and newer.
func (f ledgerFixture) fillForForget(old, now time.Time) {
	f.t.Helper()
	of := func(who string) func(*HoldRequest) { return func(r *HoldRequest) { r.Identity = who } }
	for i := range 5 { // a window with several leases and an operator's adjustments
		f.use(fmt.Sprintf("old-%d", i), 10*time.Second, old.Add(time.Duration(i)*time.Minute))
	}
	for _, adjust := range []func(context.Context, Adjustment) error{f.Grant, f.Reset} { // at noon, by New's clock
		if err := adjust(f.t.Context(), Adjustment{Identity: "user:ada", Amount: time.Minute, By: "operator"}); err != nil {
			f.t.Fatal(err)
		}
	}
	f.use("later", 10*time.Second, old.Add(48*time.Hour))
	f.mustHold("held", time.Minute, old, of("user:eve")) // of a crashed host, never settled
	f.open("held", old)
	f.mustHold("never", time.Minute, old, of("user:ben"))
	f.mustSettle("never", 0, old.Add(time.Minute))
	if err := f.Grant(f.t.Context(), Adjustment{Identity: "user:ben", Amount: time.Hour, By: "operator"}); err != nil {
		f.t.Fatal(err)
	}
	f.mustHold("gone", time.Minute, old, of("user:cy"))
	f.mustSettle("gone", 0, old.Add(time.Minute))
	f.use("new", 20*time.Second, now.Add(-time.Hour))
	f.mustHold("newer", 30*time.Second, now)
}

// balances returns the balances of all identities of fillForForget.
func (f ledgerFixture) balances(now time.Time) (all []Balance) {
	f.t.Helper()
	for _, key := range []string{"user:ada", "user:ben", "user:cy", "user:eve"} {
		balance, err := f.Balance(f.t.Context(), key, free, now)
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, balance)
	}
	return all
}

// TestForget: after each small step every sum equals its entries and no balance has changed. In the end there remains
// what is recent, what is held, and what an operator has granted in an unopened window.
func TestForget(t *testing.T) {
	f := newFixture(t)
	now := noon.Add(100 * 24 * time.Hour)
	f.fillForForget(noon, now)
	want, leases := f.balances(now), 0
	f.check()
	for step, more := 0, true; more; step++ {
		if step > 50 {
			t.Fatal("Forget does not finish in 50 steps")
		}
		gone := f.forget(now.Add(-90*24*time.Hour), 2)
		if len(gone.Leases)+gone.Windows > 3 {
			t.Errorf("one step deleted %+v, want at most two and an emptied window", gone)
		}
		leases, more = leases+len(gone.Leases), gone.More
		f.check()
		if got := f.balances(now); !reflect.DeepEqual(got, want) {
			t.Fatalf("balances have changed: got %+v, want %+v", got, want)
		}
	}
	if leases != 8 { // old-0 to old-4, later, never, gone
		t.Errorf("%d leases are deleted, want 8", leases)
	}
	var lines []string
	for _, e := range f.entries() {
		lines = append(lines, e.Lease+" "+string(e.Kind))
	}
	if got := strings.Join(lines, ", "); got != "newer hold, new settle, new hold" {
		t.Errorf("entries of Ada: got %s", got)
	}
	if n := f.count(`SELECT count(*) FROM windows`); n != 3 { // Ada's of today, Eve's with a hold, Ben's with a grant
		t.Errorf("%d windows are left, want 3", n)
	}
	f.mustSettle("held", time.Second, now) // the hold is still there to be settled
	f.check()
	if _, err := f.db.Exec(`DELETE FROM ledger WHERE lease_id = 'new'`); err == nil || !strings.Contains(err.Error(), "append only") {
		t.Errorf("a recent entry could be deleted: %v", err)
	}
}

// TestForgetAfterClockAhead: it was ahead during two windows, and Reanchor repairs only the latest. The first must not
// count again because the later ones are deleted, until it has ended itself.
func TestForgetAfterClockAhead(t *testing.T) {
	const day = 24 * time.Hour
	now := noon.Add(100 * day)
	for name, row := range map[string]struct {
		then    func(f ledgerFixture)
		windows int // that remain besides the first
	}{
		"the next has ended, too": {func(ledgerFixture) {}, 1},
		"more have ended": {func(f ledgerFixture) {
			f.use("later", 5*time.Second, noon.Add(3*day))
			f.use("last", 5*time.Second, noon.Add(5*day))
		}, 1},
		"the last was never opened": {func(f ledgerFixture) {
			f.mustHold("never", time.Second, noon.Add(3*day))
			f.mustSettle("never", 0, noon.Add(3*day))
		}, 1},
		"the last is of today": {func(f ledgerFixture) { f.use("today", 5*time.Second, now.Add(-time.Hour)) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.use("ahead", 100*time.Second, noon.Add(200*day))
			f.use("further", 10*time.Second, noon.Add(202*day))
			if n, err := f.Reanchor(t.Context(), noon); err != nil || n != 1 {
				t.Fatalf("reanchored %d, %v", n, err)
			}
			row.then(f)
			want := f.balance(now)
			for more := true; more; {
				more = f.forget(now.Add(-90*day), 1).More
				f.check()
				if got := f.balance(now); !reflect.DeepEqual(got, want) {
					t.Fatalf("the balance has changed: got %+v, want %+v", got, want)
				}
			}
			if n := f.count(`SELECT count(*) FROM windows`); n != 1+row.windows {
				t.Errorf("%d windows are left, want %d", n, 1+row.windows)
			}
			for f.forget(noon.Add(400*day), 1).More {
			}
			f.check()
			if n := f.count(`SELECT count(*) FROM windows WHERE opened_at IS NOT NULL`); n != 0 {
				t.Errorf("%d windows are left after a year, want none", n)
			}
		})
	}
}
