package quota

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spacehost/migrations"
)

// book is a Ledger on a real file, with one method per deed and a transaction around each.
type book struct {
	*Ledger
	t  *testing.T
	db *sql.DB
}

func newBook(t *testing.T) book {
	t.Helper()
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return book{Ledger: New(db, Config{Now: func() time.Time { return noon }}), t: t, db: db}
}

func (b book) inTx(do func(ctx context.Context, tx *sql.Tx) error) error {
	ctx := b.t.Context()
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// hold asks for declared seconds at now, for user:ada unless alter says otherwise.
func (b book) hold(lease string, declared time.Duration, now time.Time, alter ...func(*HoldRequest)) (held time.Duration, err error) {
	r := HoldRequest{Lease: lease, Identity: "user:ada", Tier: free, Space: "demo", Task: "draw", Declared: declared, Factor: 1, Now: now}
	for _, a := range alter {
		a(&r)
	}
	err = b.inTx(func(ctx context.Context, tx *sql.Tx) error {
		all, err := b.Ledger.Hold(ctx, tx, r)
		held = all.Time
		return err
	})
	return held, err
}

func (b book) mustHold(lease string, declared time.Duration, now time.Time, alter ...func(*HoldRequest)) {
	b.t.Helper()
	if held, err := b.hold(lease, declared, now, alter...); err != nil || held < declared {
		b.t.Fatalf("hold %s: got %v (%v), want %v", lease, held, err, declared)
	}
}

func (b book) open(lease string, now time.Time) {
	b.t.Helper()
	err := b.inTx(func(ctx context.Context, tx *sql.Tx) error { return b.Ledger.Open(ctx, tx, lease, now) })
	if err != nil {
		b.t.Fatalf("open %s: %v", lease, err)
	}
}

func (b book) settle(lease string, charged time.Duration, now time.Time) error {
	return b.inTx(func(ctx context.Context, tx *sql.Tx) error {
		return b.Ledger.Settle(ctx, tx, Settlement{Lease: lease, Charged: charged, Reason: "released", Now: now})
	})
}

func (b book) mustSettle(lease string, charged time.Duration, now time.Time) {
	b.t.Helper()
	if err := b.settle(lease, charged, now); err != nil {
		b.t.Fatalf("settle %s: %v", lease, err)
	}
}

// use is a whole lease that begins at now and is charged in full.
func (b book) use(lease string, seconds time.Duration, now time.Time) {
	b.t.Helper()
	b.mustHold(lease, seconds, now)
	b.open(lease, now)
	b.mustSettle(lease, seconds, now.Add(seconds))
}

func (b book) balance(now time.Time) Balance {
	b.t.Helper()
	balance, err := b.Balance(b.t.Context(), "user:ada", free, now)
	if err != nil {
		b.t.Fatalf("balance: %v", err)
	}
	return balance
}

func (b book) wantLeft(now time.Time, want time.Duration) {
	b.t.Helper()
	if got := b.balance(now); got.Left != want {
		b.t.Errorf("left at %v: got %v (%+v), want %v", now, got.Left, got, want)
	}
}

func (b book) entries() []Entry {
	b.t.Helper()
	entries, err := b.Entries(b.t.Context(), "user:ada", 0)
	if err != nil {
		b.t.Fatalf("entries: %v", err)
	}
	return entries
}

func wantExceeded(t *testing.T, err error, left, wait int, onlyHolds bool) {
	t.Helper()
	var e *ExceededError
	if !errors.As(err, &e) || e.LeftSeconds() != left || e.WaitSeconds() != wait || e.OnlyHolds != onlyHolds {
		t.Errorf("got %v, want exceeded with %d left, %d s to wait, only holds %v", err, left, wait, onlyHolds)
	}
}

func TestALeaseFromHoldToCharge(t *testing.T) {
	b := newBook(t)
	b.mustHold("a", 60*s, noon)
	if got := b.balance(noon); got.Held != 60*s || got.Left != 150*s || got.ResetsAt != nil || got.Opened != nil {
		t.Errorf("held: got %+v", got)
	}
	b.open("a", noon.Add(10*s))
	b.mustSettle("a", 12345*time.Millisecond, noon.Add(30*s))
	got := b.balance(noon.Add(30 * s))
	if got.Held != 0 || got.Charged != 12345*time.Millisecond || got.Left != 210*s-12345*time.Millisecond || got.Base != 210*s {
		t.Errorf("settled: got %+v", got)
	}
	if got.Opened == nil || !got.Opened.Equal(noon.Add(10*s)) || !got.ResetsAt.Equal(noon.Add(10*s+Span)) {
		t.Errorf("window: got %v to %v, want 24 h from the first activity", got.Opened, got.ResetsAt)
	}
	lines := b.entries()
	if len(lines) != 2 || lines[0].Kind != KindSettle || lines[1].Kind != KindHold {
		t.Fatalf("got %+v, want settle above hold", lines)
	}
	want := Entry{ID: 2, At: noon.Add(30 * s), Identity: "user:ada", Window: 1, Lease: "a", Kind: KindSettle, Space: "demo", Task: "draw",
		Held: 60 * s, Charged: 12345 * time.Millisecond, Returned: 60*s - 12345*time.Millisecond, Factor: 1, Reason: "released"}
	if lines[0] != want {
		t.Errorf("got %+v\nwant %+v", lines[0], want)
	}
}

func TestFiftyHoldsAtOnceNeverPassTheQuota(t *testing.T) {
	b := newBook(t)
	var granted, refused atomic.Int64
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			_, err := b.hold(fmt.Sprint("lease-", i), 10*s, noon)
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
	b.wantLeft(noon, 0)
}

func pending(lease string, held time.Duration, until time.Time) Pending {
	return Pending{Lease: lease, Held: held, Until: until}
}

func TestThreeHoldsLeaveThirtyAndAFourthIsRefused(t *testing.T) {
	b := newBook(t)
	for i, until := range []time.Duration{50 * s, 20 * s, 40 * s} {
		b.mustHold(fmt.Sprint(i), 60*s, noon.Add(until-60*s))
	}
	b.wantLeft(noon, 30*s)
	_, err := b.hold("fourth", 60*s, noon, func(r *HoldRequest) {
		r.Pending = []Pending{pending("0", 60*s, noon.Add(50*s)), pending("1", 60*s, noon.Add(20*s)), pending("2", 60*s, noon.Add(40*s))}
	})
	wantExceeded(t, err, 30, 20, true)
	if got := len(b.entries()); got != 3 {
		t.Errorf("lines after the refusal: got %d, want 3", got)
	}
	b.mustHold("exactly the rest", 30*s, noon)
}

func TestChargesAreInTheWayUntilTheReset(t *testing.T) {
	b := newBook(t)
	b.use("a", 180*s, noon)
	_, err := b.hold("b", 60*s, noon.Add(time.Hour))
	wantExceeded(t, err, 30, 23*3600, false)
}

func TestXlargeHoldsDouble(t *testing.T) {
	b := newBook(t)
	b.mustHold("a", 45*s, noon, func(r *HoldRequest) { r.Factor = Factor("xlarge") })
	if got := b.balance(noon).Held; got != 90*s {
		t.Errorf("held: got %v, want 90 s", got)
	}
}

func TestWindowEndsAfterExactly24Hours(t *testing.T) {
	b := newBook(t)
	opened := noon.Add(1234567 * time.Microsecond) // SQL keeps 1234 ms
	b.use("a", 210*s, opened)
	reset := noon.Add(1234*time.Millisecond + Span)
	if got := b.balance(opened).ResetsAt; got == nil || !got.Equal(reset) {
		t.Fatalf("resets at: got %v, want %v", got, reset)
	}
	before := reset.Add(-time.Millisecond)
	_, err := b.hold("b", 1*s, before)
	wantExceeded(t, err, 0, 1, false)
	b.wantLeft(before, 0)
	b.wantLeft(reset, 210*s)
	if got := b.balance(reset); got.ResetsAt != nil || got.Charged != 0 {
		t.Errorf("at the reset: got %+v, want nothing used", got)
	}
	b.mustHold("c", 210*s, reset)
}

// Windows belong to the admission: what was held before the reset is charged before the reset.
func TestHoldAndChargeStayInTheWindowOfTheAdmission(t *testing.T) {
	b := newBook(t)
	b.use("first", 10*s, noon)
	reset := noon.Add(Span)
	b.mustHold("late", 60*s, reset.Add(-s))
	b.wantLeft(reset.Add(-s), 140*s)
	b.wantLeft(reset, 210*s)
	b.open("late", reset.Add(5*s))
	b.mustHold("next", 60*s, reset.Add(6*s))
	b.mustSettle("late", 60*s, reset.Add(65*s))
	got := b.balance(reset.Add(65 * s))
	if got.Charged != 0 || got.Held != 60*s || got.ResetsAt != nil {
		t.Errorf("got %+v, want the next window untouched and not opened by the late lease", got)
	}
}

// A hold of an earlier Window frees nothing in this one, so its deadline is not the answer.
func TestWaitIgnoresHoldsOfAnEarlierWindow(t *testing.T) {
	b := newBook(t)
	b.use("first", 10*s, noon)
	reset := noon.Add(Span)
	b.mustHold("old", 180*s, reset.Add(-s))
	b.mustHold("new", 180*s, reset)
	_, err := b.hold("refused", 60*s, reset, func(r *HoldRequest) {
		r.Pending = []Pending{pending("old", 180*s, reset.Add(10*s)), pending("new", 180*s, reset.Add(50*s))}
	})
	wantExceeded(t, err, 30, 50, true)
}

func TestAnUnopenedWindowIsKeptForTheNext(t *testing.T) {
	b := newBook(t)
	b.mustHold("unclaimed", 60*s, noon)
	b.mustSettle("unclaimed", 0, noon.Add(30*s))
	later := noon.Add(72 * time.Hour)
	b.mustHold("a", 60*s, later)
	b.open("a", later)
	b.open("a", later.Add(s)) // a second activity moves nothing
	got := b.balance(later)
	if got.Opened == nil || !got.Opened.Equal(later) || b.entries()[0].Window != 1 {
		t.Errorf("got %+v, want the first window, opened at %v", got, later)
	}
}

func TestAClockThatStepsBackDoesNotReopenAWindow(t *testing.T) {
	b := newBook(t)
	b.use("first", 10*s, noon)
	b.use("second", 200*s, noon.Add(Span+time.Hour))
	back := noon.Add(2 * time.Hour) // within the first window, which had 200 s left
	b.wantLeft(back, 10*s)
	_, err := b.hold("a", 60*s, back)
	wantExceeded(t, err, 10, 86399, false)
	b.mustHold("b", 10*s, back)
	if got := b.entries()[0].Window; got != 2 {
		t.Errorf("window: got %d, want 2", got)
	}
}

func TestReanchorFreesThoseWhoUsedAClockThatWasAhead(t *testing.T) {
	b := newBook(t)
	b.use("a", 210*s, noon.Add(365*24*time.Hour))
	n, err := b.Reanchor(t.Context(), noon)
	if err != nil || n != 1 {
		t.Fatalf("got %d (%v), want 1", n, err)
	}
	if got := b.balance(noon); got.Left != 0 || !got.ResetsAt.Equal(noon.Add(Span)) {
		t.Errorf("got %+v, want nothing left until 24 h from now", got)
	}
	if n, err := b.Reanchor(t.Context(), noon); err != nil || n != 0 {
		t.Errorf("the second time: got %d (%v), want 0", n, err)
	}
}

func TestASecondSettleChangesNothing(t *testing.T) {
	b := newBook(t)
	b.mustHold("a", 60*s, noon)
	b.mustSettle("a", 10*s, noon)
	err := b.inTx(func(ctx context.Context, tx *sql.Tx) error {
		var settled *SettledError
		if err := b.Settle(ctx, tx, Settlement{Lease: "a", Charged: 50 * s, Now: noon}); !errors.As(err, &settled) || settled.Lease != "a" {
			t.Errorf("got %v, want a SettledError of a", err)
		}
		// The transaction is still good for what comes next.
		_, err := b.Hold(ctx, tx, HoldRequest{Lease: "b", Identity: "user:ada", Tier: free, Declared: s, Factor: 1, Now: noon})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.wantLeft(noon, 199*s)
}

func TestASecondHoldOfALeaseIsRefused(t *testing.T) {
	b := newBook(t)
	b.mustHold("a", 60*s, noon)
	if _, err := b.hold("a", 60*s, noon); err == nil {
		t.Error("two holds for one lease")
	}
	b.wantLeft(noon, 150*s)
}

func TestAChargeStaysWithinItsHold(t *testing.T) {
	b := newBook(t)
	b.mustHold("a", 60*s, noon)
	for _, charged := range []time.Duration{60*s + 1, 61 * s, -1, -s} {
		err := b.settle("a", charged, noon)
		var charge *ChargeError
		if !errors.As(err, &charge) || charge.Held != 60*s || charge.Charged != charged {
			t.Errorf("charge %v: got %v, want a ChargeError", charged, err)
		}
	}
	if got := len(b.entries()); got != 1 {
		t.Errorf("lines: got %d, want the hold alone", got)
	}
	b.mustSettle("a", 60*s-1, noon) // rounded up to the millisecond, which is the whole hold
	b.wantLeft(noon, 150*s)
}

func TestWithoutAHoldThereIsNothingToOpenOrSettle(t *testing.T) {
	b := newBook(t)
	var unknown *UnknownHoldError
	if err := b.settle("a", s, noon); !errors.As(err, &unknown) {
		t.Errorf("settle: got %v, want an UnknownHoldError", err)
	}
	err := b.inTx(func(ctx context.Context, tx *sql.Tx) error { return b.Open(ctx, tx, "a", noon) })
	if !errors.As(err, &unknown) {
		t.Errorf("open: got %v, want an UnknownHoldError", err)
	}
}

// TestWhatAHoldLeaves: the line orders by it, and need not open what is open.
func TestWhatAHoldLeaves(t *testing.T) {
	b := newBook(t)
	hold := func(lease string, tier Tier) (held Held) {
		t.Helper()
		err := b.inTx(func(ctx context.Context, tx *sql.Tx) (err error) {
			held, err = b.Hold(ctx, tx, HoldRequest{Lease: lease, Identity: "user:ada", Tier: tier, Declared: 21 * s, Factor: 1, Now: noon})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	for _, want := range []Held{{21 * s, 0.9, false}, {21 * s, 0.8, false}} {
		if got := hold(fmt.Sprint(want.Remaining), free); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	b.open("0.9", noon)
	b.mustSettle("0.8", 0, noon)
	if got, want := hold("open", free), (Held{21 * s, 0.8, true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := hold("unlimited", Tier{Unlimited: true}), (Held{21 * s, 1, true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestARolledBackHoldNeverWas(t *testing.T) {
	b := newBook(t)
	gone := errors.New("the lease row failed")
	err := b.inTx(func(ctx context.Context, tx *sql.Tx) error {
		if _, err := b.Hold(ctx, tx, HoldRequest{Lease: "a", Identity: "user:ada", Tier: free, Declared: s, Factor: 1, Now: noon}); err != nil {
			return err
		}
		return gone
	})
	if !errors.Is(err, gone) || len(b.entries()) != 0 {
		t.Errorf("got %v and %d lines, want none", err, len(b.entries()))
	}
}

func TestUnlimitedIsRecordedAndNeverRefused(t *testing.T) {
	b := newBook(t)
	for i := range 5 {
		b.mustHold(fmt.Sprint(i), 86399*s, noon, func(r *HoldRequest) { r.Tier = unlimited })
	}
	got, err := b.Balance(t.Context(), "user:ada", unlimited, noon)
	if err != nil || !got.Unlimited || got.Held != 5*86399*s {
		t.Errorf("got %+v (%v), want all of it recorded", got, err)
	}
}

func TestIdentitiesDoNotShare(t *testing.T) {
	b := newBook(t)
	b.mustHold("a", 200*s, noon)
	b.mustHold("b", 200*s, noon, func(r *HoldRequest) { r.Identity = "space:demo" })
	list, err := b.List(t.Context(), noon)
	if err != nil || len(list) != 2 || list[0].Identity != "space:demo" || list[1].Identity != "user:ada" {
		t.Fatalf("got %+v (%v), want both, by name", list, err)
	}
	for _, balance := range list {
		if got := balance.For(free); got.Held != 200*s || got.Left != 10*s {
			t.Errorf("%s: got %+v", got.Identity, got)
		}
	}
}

func TestListShowsTheWindowThatCounts(t *testing.T) {
	b := newBook(t)
	b.use("a", 10*s, noon)
	b.use("b", 20*s, noon.Add(Span))
	for at, want := range map[time.Duration]time.Duration{Span: 20 * s, 2*Span - 1: 20 * s, 2 * Span: 0} {
		list, err := b.List(t.Context(), noon.Add(at))
		if err != nil || len(list) != 1 || list[0].Charged != want {
			t.Errorf("after %v: got %+v (%v), want %v charged", at, list, err, want)
		}
	}
}

func TestEntriesAreNewestFirstAndLimited(t *testing.T) {
	b := newBook(t)
	for i := range 5 {
		b.mustHold(fmt.Sprint(i), s, noon, via("a"))
	}
	got, err := b.Entries(t.Context(), "user:ada", 2)
	if err != nil || len(got) != 2 || got[0].Lease != "4" || got[1].Lease != "3" || got[0].Via != "a" {
		t.Errorf("got %+v (%v), want leases 4 and 3", got, err)
	}
	if none, err := b.Entries(t.Context(), "user:bob", 2); err != nil || len(none) != 0 {
		t.Errorf("user:bob: got %+v (%v), want nothing", none, err)
	}
}

func TestGrantAndReset(t *testing.T) {
	b := newBook(t)
	b.use("a", 200*s, noon)
	b.mustHold("b", 10*s, noon)
	by := Adjustment{Identity: "user:ada", Amount: 100 * s, Reason: "demo day", By: "root"}
	if err := b.Grant(t.Context(), by); err != nil {
		t.Fatal(err)
	}
	b.wantLeft(noon, 100*s)
	if err := b.Reset(t.Context(), by); err != nil {
		t.Fatal(err)
	}
	b.wantLeft(noon, 300*s)
	b.mustSettle("b", 10*s, noon)
	b.wantLeft(noon, 300*s)
	b.wantLeft(noon.Add(Span), 210*s)
	reset := b.entries()[1]
	if reset.Kind != KindReset || reset.Returned != 200*s || reset.By != "root" || reset.Reason != "demo day" || reset.Lease != "" {
		t.Errorf("got %+v, want the reset with who did it", reset)
	}
	lines := len(b.entries())
	for what, err := range map[string]error{
		"nothing":           b.Grant(t.Context(), Adjustment{Identity: "user:ada"}),
		"less than nothing": b.Grant(t.Context(), Adjustment{Identity: "user:ada", Amount: -time.Hour}),
		"a thousand years":  b.Grant(t.Context(), Adjustment{Identity: "user:ada", Amount: math.MaxInt64}),
		"a reset of none":   b.Reset(t.Context(), Adjustment{Identity: "user:bob"}),
	} {
		var refused *AdjustmentError
		if !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want an *AdjustmentError", what, err)
		}
	}
	if got := len(b.entries()); got != lines {
		t.Errorf("refused deeds have written %d lines", got-lines)
	}
}

// A grant before the first use lasts until the end of the window that this use opens, and not a moment longer.
func TestAGrantBelongsToItsWindow(t *testing.T) {
	b := newBook(t)
	if err := b.Grant(t.Context(), Adjustment{Identity: "user:ada", Amount: 100 * s, By: "root"}); err != nil {
		t.Fatal(err)
	}
	b.use("a", 200*s, noon.Add(time.Hour))
	b.wantLeft(noon.Add(time.Hour), 110*s)
	b.wantLeft(noon.Add(time.Hour+Span-time.Millisecond), 110*s)
	b.wantLeft(noon.Add(time.Hour+Span), 210*s)
}

// The sums beside a window are those of its lines, whatever happened in whatever order.
func TestBalanceIsTheSumOfItsLines(t *testing.T) {
	b := newBook(t)
	dice := rand.New(rand.NewPCG(1, 2))
	now, open := noon, []string{}
	for i := range 300 {
		now = now.Add(time.Duration(dice.IntN(1200)) * s)
		lease := fmt.Sprint(i)
		if _, err := b.hold(lease, time.Duration(1+dice.IntN(60))*s, now); err == nil {
			b.open(lease, now)
			open = append(open, lease)
		}
		if len(open) > dice.IntN(4) {
			b.mustSettle(open[0], time.Duration(dice.IntN(1000))*time.Millisecond, now)
			open = open[1:]
		}
	}
	var windows, wrong int
	err := b.db.QueryRowContext(t.Context(), `SELECT count(*), coalesce(sum(w.held_ms <> l.held OR w.charged_ms <> l.charged), 0)
		FROM windows w JOIN (SELECT window_id,
			sum(CASE kind WHEN 'hold' THEN held_ms ELSE -held_ms END) held,
			sum(charged_ms) charged FROM ledger GROUP BY window_id) l ON l.window_id = w.id`).Scan(&windows, &wrong)
	if err != nil || windows < 2 || wrong != 0 {
		t.Errorf("%d of %d windows differ from their lines (%v)", wrong, windows, err)
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
