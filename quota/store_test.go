package quota

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spacehost/migrations"
)

func TestLeaseFromHoldToCharge(t *testing.T) {
	f := newFixture(t)
	f.mustHold("a", 60*s, noon)
	if got := f.balance(noon); got.Held != 60*s || got.Left != 150*s || got.ResetsAt != nil || got.Opened != nil {
		t.Errorf("held: got %+v", got)
	}
	f.open("a", noon.Add(10*s))
	f.mustSettle("a", 12345*time.Millisecond, noon.Add(30*s))
	got := f.balance(noon.Add(30 * s))
	if got.Held != 0 || got.Charged != 12345*time.Millisecond || got.Left != 210*s-12345*time.Millisecond || got.Base != 210*s {
		t.Errorf("settled: got %+v", got)
	}
	if got.Opened == nil || !got.Opened.Equal(noon.Add(10*s)) || !got.ResetsAt.Equal(noon.Add(10*s+Span)) {
		t.Errorf("window: got %v to %v, want 24 h from the first activity", got.Opened, got.ResetsAt)
	}
	lines := f.entries()
	if len(lines) != 2 || lines[0].Kind != KindSettle || lines[1].Kind != KindHold {
		t.Fatalf("got %+v, want settle above hold", lines)
	}
	want := Entry{ID: 2, At: noon.Add(30 * s), Identity: "user:ada", Window: 1, Lease: "a", Kind: KindSettle, Space: "demo", Task: "draw",
		Held: 60 * s, Charged: 12345 * time.Millisecond, Returned: 60*s - 12345*time.Millisecond, Factor: 1, Reason: "released", Runs: 1}
	if lines[0] != want {
		t.Errorf("got %+v\nwant %+v", lines[0], want)
	}
}

func TestConcurrentHoldsStayWithinQuota(t *testing.T) {
	f := newFixture(t)
	var granted, refused atomic.Int64
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			_, err := f.hold(fmt.Sprint("lease-", i), 10*s, noon)
			var exceeded *ExceededError
			switch {
			case err == nil:
				granted.Add(1)
			case errors.As(err, &exceeded):
				refused.Add(1)
			default:
				t.Errorf("hold %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if granted.Load() != 21 || refused.Load() != 29 {
		t.Errorf("granted %d, refused %d, want 21 and 29", granted.Load(), refused.Load())
	}
	f.wantLeft(noon, 0)
}

func TestFourthHoldIsRefused(t *testing.T) {
	f := newFixture(t)
	for i, until := range []time.Duration{50 * s, 20 * s, 40 * s} {
		f.mustHold(fmt.Sprint(i), 60*s, noon.Add(until-60*s))
	}
	f.wantLeft(noon, 30*s)
	_, err := f.hold("fourth", 60*s, noon, func(r *HoldRequest) {
		r.Pending = []Pending{pending("0", 60*s, noon.Add(50*s)), pending("1", 60*s, noon.Add(20*s)), pending("2", 60*s, noon.Add(40*s))}
	})
	wantExceeded(t, err, 30, 20, true)
	if got := len(f.entries()); got != 3 {
		t.Errorf("entries after the refusal: got %d, want 3", got)
	}
	f.mustHold("exactly the rest", 30*s, noon)
}

func TestChargesCountUntilReset(t *testing.T) {
	f := newFixture(t)
	f.use("a", 180*s, noon)
	_, err := f.hold("b", 60*s, noon.Add(time.Hour))
	wantExceeded(t, err, 30, 23*3600, false)
}

func TestXlargeHoldsDouble(t *testing.T) {
	f := newFixture(t)
	f.mustHold("a", 45*s, noon, func(r *HoldRequest) { r.Factor = Factor("xlarge") })
	if got := f.balance(noon).Held; got != 90*s {
		t.Errorf("held: got %v, want 90 s", got)
	}
}

func TestSecondSettleChangesNothing(t *testing.T) {
	f := newFixture(t)
	f.mustHold("a", 60*s, noon)
	f.mustSettle("a", 10*s, noon)
	err := f.inTx(func(ctx context.Context, tx *sql.Tx) error {
		var settled *SettledError
		if err := f.Settle(ctx, tx, Settlement{Lease: "a", Charged: 50 * s, Now: noon}); !errors.As(err, &settled) || settled.Lease != "a" {
			t.Errorf("got %v, want a SettledError of a", err)
		}
		// The transaction can continue.
		_, err := f.Hold(ctx, tx, HoldRequest{Lease: "b", Identity: "user:ada", Tier: free, Declared: s, Factor: 1, Now: noon})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.wantLeft(noon, 199*s)
}

func TestSecondHoldOfLeaseIsRefused(t *testing.T) {
	f := newFixture(t)
	f.mustHold("a", 60*s, noon)
	if _, err := f.hold("a", 60*s, noon); err == nil {
		t.Error("two holds for one lease")
	}
	f.wantLeft(noon, 150*s)
}

func TestChargeCannotExceedHold(t *testing.T) {
	f := newFixture(t)
	f.mustHold("a", 60*s, noon)
	for _, charged := range []time.Duration{60*s + 1, 61 * s, -1, -s} {
		err := f.settle("a", charged, noon)
		var charge *ChargeError
		if !errors.As(err, &charge) || charge.Held != 60*s || charge.Charged != charged {
			t.Errorf("charge %v: got %v, want a ChargeError", charged, err)
		}
	}
	if got := len(f.entries()); got != 1 {
		t.Errorf("entries: got %d, want only the hold", got)
	}
	f.mustSettle("a", 60*s-1, noon) // rounded up to the millisecond, which is the whole hold
	f.wantLeft(noon, 150*s)
}

func TestOpenAndSettleNeedHold(t *testing.T) {
	f := newFixture(t)
	var unknown *UnknownHoldError
	if err := f.settle("a", s, noon); !errors.As(err, &unknown) {
		t.Errorf("settle: got %v, want an UnknownHoldError", err)
	}
	err := f.inTx(func(ctx context.Context, tx *sql.Tx) error { return f.Open(ctx, tx, "a", noon) })
	if !errors.As(err, &unknown) {
		t.Errorf("open: got %v, want an UnknownHoldError", err)
	}
}

// TestHeldReportsRemaining: package lease orders by Remaining, and skips Open if IsOpen.
func TestHeldReportsRemaining(t *testing.T) {
	f := newFixture(t)
	hold := func(lease string, tier Tier) (held Held) {
		t.Helper()
		err := f.inTx(func(ctx context.Context, tx *sql.Tx) (err error) {
			held, err = f.Hold(ctx, tx, HoldRequest{Lease: lease, Identity: "user:ada", Tier: tier, Declared: 21 * s, Factor: 1, Now: noon})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	for _, want := range []Held{{21 * s, 0.9, false, false}, {21 * s, 0.8, false, false}} {
		if got := hold(fmt.Sprint(want.Remaining), free); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	f.open("0.9", noon)
	f.mustSettle("0.8", 0, noon)
	if got, want := hold("open", free), (Held{21 * s, 0.8, true, false}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := hold("unlimited", Tier{Unlimited: true}), (Held{21 * s, 1, true, false}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRolledBackHoldLeavesNothing(t *testing.T) {
	f := newFixture(t)
	gone := errors.New("the lease row failed")
	err := f.inTx(func(ctx context.Context, tx *sql.Tx) error {
		if _, err := f.Hold(ctx, tx, HoldRequest{Lease: "a", Identity: "user:ada", Tier: free, Declared: s, Factor: 1, Now: noon}); err != nil {
			return err
		}
		return gone
	})
	if !errors.Is(err, gone) || len(f.entries()) != 0 {
		t.Errorf("got %v and %d entries, want none", err, len(f.entries()))
	}
}

func TestUnlimitedIsRecordedAndNeverRefused(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.mustHold(fmt.Sprint(i), 86399*s, noon, func(r *HoldRequest) { r.Tier = unlimited })
	}
	got, err := f.Balance(t.Context(), "user:ada", unlimited, noon)
	if err != nil || !got.Unlimited || got.Held != 5*86399*s {
		t.Errorf("got %+v (%v), want all of it recorded", got, err)
	}
}

func TestIdentitiesHaveSeparateQuotas(t *testing.T) {
	f := newFixture(t)
	f.mustHold("a", 200*s, noon)
	f.mustHold("b", 200*s, noon, func(r *HoldRequest) { r.Identity = "space:demo" })
	list, err := f.List(t.Context(), noon)
	if err != nil || len(list) != 2 || list[0].Identity != "space:demo" || list[1].Identity != "user:ada" {
		t.Fatalf("got %+v (%v), want both, by name", list, err)
	}
	for _, balance := range list {
		if got := balance.For(free); got.Held != 200*s || got.Left != 10*s {
			t.Errorf("%s: got %+v", got.Identity, got)
		}
	}
}

func TestEntriesAreNewestFirstAndLimited(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.mustHold(fmt.Sprint(i), s, noon, via("a"))
	}
	got, err := f.Matching(t.Context(), "user:ada", EntryFilter{}, 2)
	if err != nil || len(got) != 2 || got[0].Lease != "4" || got[1].Lease != "3" || got[0].Via != "a" {
		t.Errorf("got %+v (%v), want leases 4 and 3", got, err)
	}
	if none, err := f.Matching(t.Context(), "user:bob", EntryFilter{}, 2); err != nil || len(none) != 0 {
		t.Errorf("user:bob: got %+v (%v), want nothing", none, err)
	}
}

// The sums of a window equal its entries after any sequence of operations.
func TestBalanceIsSumOfEntries(t *testing.T) {
	f := newFixture(t)
	dice := rand.New(rand.NewPCG(1, 2))
	now, open := noon, []string{}
	for i := range 300 {
		now = now.Add(time.Duration(dice.IntN(1200)) * s)
		lease := fmt.Sprint(i)
		if _, err := f.hold(lease, time.Duration(1+dice.IntN(60))*s, now); err == nil {
			f.open(lease, now)
			open = append(open, lease)
		}
		if len(open) > dice.IntN(4) {
			f.mustSettle(open[0], time.Duration(dice.IntN(1000))*time.Millisecond, now)
			open = open[1:]
		}
	}
	var windows, wrong int
	err := f.db.QueryRowContext(t.Context(), `SELECT count(*), coalesce(sum(w.held_ms <> l.held OR w.charged_ms <> l.charged), 0)
		FROM windows w JOIN (SELECT window_id,
			sum(CASE kind WHEN 'hold' THEN held_ms ELSE -held_ms END) held,
			sum(charged_ms) charged FROM ledger GROUP BY window_id) l ON l.window_id = w.id`).Scan(&windows, &wrong)
	if err != nil || windows < 2 || wrong != 0 {
		t.Errorf("%d of %d windows differ from their entries (%v)", wrong, windows, err)
	}
}

func BenchmarkHoldAndSettle(b *testing.B) {
	db, err := migrations.Open(b.Context(), filepath.Join(b.TempDir(), "spacehost.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	ledger := New(db, Config{})
	for i := 0; b.Loop(); i++ {
		tx, err := db.BeginTx(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		r := HoldRequest{Lease: fmt.Sprint(i), Identity: "local", Tier: free, Declared: s, Factor: 1, Now: noon}
		_, held := ledger.Hold(b.Context(), tx, r)
		settled := ledger.Settle(b.Context(), tx, Settlement{Lease: r.Lease, Now: noon})
		if err := errors.Join(held, settled, tx.Commit()); err != nil {
			b.Fatal(err)
		}
	}
}
