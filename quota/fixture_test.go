package quota

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"spacehost/migrations"
)

// ledgerFixture is a Ledger in a real file with one method per operation, each in its own transaction.
type ledgerFixture struct {
	*Ledger
	t  *testing.T
	db *sql.DB
}

func newFixture(t *testing.T) ledgerFixture {
	t.Helper()
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return ledgerFixture{Ledger: New(db, Config{Now: func() time.Time { return noon }}), t: t, db: db}
}

func (f ledgerFixture) inTx(do func(ctx context.Context, tx *sql.Tx) error) error {
	ctx := f.t.Context()
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// hold requests declared seconds at now, for user:ada unless alter changes the request.
func (f ledgerFixture) hold(lease string, declared time.Duration, now time.Time, alter ...func(*HoldRequest)) (held time.Duration, err error) {
	r := HoldRequest{Lease: lease, Identity: "user:ada", Tier: free, Space: "demo", Task: "draw", Declared: declared, Factor: 1, Now: now}
	for _, a := range alter {
		a(&r)
	}
	err = f.inTx(func(ctx context.Context, tx *sql.Tx) error {
		all, err := f.Ledger.Hold(ctx, tx, r)
		held = all.Time
		return err
	})
	return held, err
}

func (f ledgerFixture) mustHold(lease string, declared time.Duration, now time.Time, alter ...func(*HoldRequest)) {
	f.t.Helper()
	if held, err := f.hold(lease, declared, now, alter...); err != nil || held < declared {
		f.t.Fatalf("hold %s: got %v (%v), want %v", lease, held, err, declared)
	}
}

func (f ledgerFixture) open(lease string, now time.Time) {
	f.t.Helper()
	err := f.inTx(func(ctx context.Context, tx *sql.Tx) error { return f.Ledger.Open(ctx, tx, lease, now) })
	if err != nil {
		f.t.Fatalf("open %s: %v", lease, err)
	}
}

// settle counts the lease as a run if it is charged.
func (f ledgerFixture) settle(lease string, charged time.Duration, now time.Time) error {
	var ran time.Time
	if charged > 0 {
		ran = now
	}
	return f.settleRan(lease, charged, ran, now)
}

// settleRan settles a lease that was granted a GPU at ran; zero: never.
func (f ledgerFixture) settleRan(lease string, charged time.Duration, ran, now time.Time) error {
	return f.inTx(func(ctx context.Context, tx *sql.Tx) error {
		return f.Ledger.Settle(ctx, tx, Settlement{Lease: lease, Charged: charged, Reason: "released", Now: now, Ran: ran})
	})
}

func (f ledgerFixture) mustSettle(lease string, charged time.Duration, now time.Time) {
	f.t.Helper()
	if err := f.settle(lease, charged, now); err != nil {
		f.t.Fatalf("settle %s: %v", lease, err)
	}
}

// use runs a whole lease that begins at now and is charged in full.
func (f ledgerFixture) use(lease string, seconds time.Duration, now time.Time) {
	f.t.Helper()
	f.mustHold(lease, seconds, now)
	f.open(lease, now)
	f.mustSettle(lease, seconds, now.Add(seconds))
}

func (f ledgerFixture) balance(now time.Time) Balance {
	f.t.Helper()
	balance, err := f.Balance(f.t.Context(), "user:ada", free, now)
	if err != nil {
		f.t.Fatalf("balance: %v", err)
	}
	return balance
}

func (f ledgerFixture) wantLeft(now time.Time, want time.Duration) {
	f.t.Helper()
	if got := f.balance(now); got.Left != want {
		f.t.Errorf("left at %v: got %v (%+v), want %v", now, got.Left, got, want)
	}
}

func (f ledgerFixture) entries() []Entry {
	f.t.Helper()
	entries, err := f.Matching(f.t.Context(), "user:ada", EntryFilter{}, 1000)
	if err != nil {
		f.t.Fatalf("entries: %v", err)
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

func pending(lease string, held time.Duration, until time.Time) Pending {
	return Pending{Lease: lease, Held: held, Until: until}
}

const s = time.Second

// noon is a time with a whole millisecond; every test's clock starts at it.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

var free = Tier{Name: "free", Quota: 210 * s}

// check runs `spacehost db check`.
func (f ledgerFixture) check() {
	f.t.Helper()
	if err := f.checkError(); err != nil {
		f.t.Fatalf("db check: %v", err)
	}
}

func (f ledgerFixture) checkError() error {
	f.t.Helper()
	var path string
	if err := f.db.QueryRow(`SELECT file FROM pragma_database_list`).Scan(&path); err != nil {
		f.t.Fatal(err)
	}
	return migrations.Check(f.t.Context(), path)
}

func (f ledgerFixture) forget(before time.Time, most int) (gone Forgotten) {
	f.t.Helper()
	err := f.inTx(func(ctx context.Context, tx *sql.Tx) (err error) {
		gone, err = f.Forget(ctx, tx, before, most)
		return err
	})
	if err != nil {
		f.t.Fatalf("forget: %v", err)
	}
	return gone
}

func (f ledgerFixture) count(question string) (n int) {
	f.t.Helper()
	if err := f.db.QueryRow(question).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// via makes a hold one of a Space that spends through another Space.
func via(space string) func(*HoldRequest) {
	return func(r *HoldRequest) { r.Via = space }
}
