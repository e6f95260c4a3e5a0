package quota

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"spacehost/internal/sqlrows"

	"github.com/mattn/go-sqlite3"
)

// Ledger is the account book. It holds no state of its own: all of it is in the tables windows and ledger.
//
// Hold, Open and Settle take the caller's transaction, so that a hold and its Lease's row are one. The other methods
// bring their own connection, and the pool has only one: never call them with a transaction open.
type Ledger struct {
	db    *sql.DB
	reads *sql.DB // answers also while db waits for its turn to write
	now   func() time.Time
}

// Config has the means of a Ledger.
type Config struct {
	Now   func() time.Time // wall clock for an operator's deeds; nil is the real one
	Reads *sql.DB          // as migrations.OpenReads makes it, for questions outside of a transaction; nil: the one that writes
}

// New returns the Ledger in db, which migrations.Open has opened.
func New(db *sql.DB, c Config) *Ledger {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Reads == nil {
		c.Reads = db
	}
	return &Ledger{db: db, reads: c.Reads, now: c.Now}
}

// Held is what Hold has set aside, and where that leaves the identity.
type Held struct {
	Time      time.Duration
	Remaining float64 // what part of the quota is left beside charges and holds, this one included: between 0 and 1
	IsOpen    bool    // its Window is open already: Open would change nothing
}

// Hold sets seconds aside, or refuses with *IllegalDurationError or *ExceededError and writes nothing. The hold, and later
// its charge, belong to the Window that counts at r.Now.
func (l *Ledger) Hold(ctx context.Context, tx *sql.Tx, r HoldRequest) (Held, error) {
	requested, err := r.requested()
	if err != nil {
		return Held{}, err
	}
	w, err := currentWindow(ctx, tx, r.Identity, r.Now)
	if err != nil {
		return Held{}, err
	}
	if !r.fits(requested, w) {
		return Held{}, refuse(ctx, tx, r, requested, w)
	}
	err = add(ctx, tx, w, Entry{
		At: r.Now, Identity: r.Identity, Lease: r.Lease, Kind: KindHold,
		Space: r.Space, Task: r.Task, Held: requested, Factor: r.Factor, Via: r.Via,
	})
	if err != nil {
		return Held{}, err
	}
	w.held += requested
	return Held{Time: requested, Remaining: w.remaining(r.Tier), IsOpen: !w.opened.IsZero()}, nil
}

// Ask is what Hold would say, and writes nothing.
func (l *Ledger) Ask(ctx context.Context, tx *sql.Tx, r HoldRequest) error {
	requested, err := r.requested()
	if err != nil {
		return err
	}
	w, err := currentWindow(ctx, tx, r.Identity, r.Now)
	if err != nil || r.fits(requested, w) {
		return err
	}
	return refuse(ctx, tx, r, requested, w)
}

// Open says that the Lease became active: its Window opens now, unless it is open already.
func (l *Ledger) Open(ctx context.Context, tx *sql.Tx, lease string, now time.Time) error {
	hold, err := holdOf(ctx, tx, lease)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE windows SET opened_at = ?, ends_at = ? WHERE id = ? AND opened_at IS NULL`,
		now.UnixMilli(), now.Add(Span).UnixMilli(), hold.Window)
	if err != nil {
		return fmt.Errorf("open window of lease %s: %w", lease, err)
	}
	return nil
}

// Settle ends the hold of a Lease: what is charged stays in the Window of the hold, the rest is returned. It refuses
// with *SettledError, *UnknownHoldError or *ChargeError and then writes nothing; the transaction can go on.
func (l *Ledger) Settle(ctx context.Context, tx *sql.Tx, s Settlement) error {
	hold, err := holdOf(ctx, tx, s.Lease)
	if err != nil {
		return err
	}
	charged, err := s.charge(hold.Held)
	if err != nil {
		return err
	}
	err = add(ctx, tx, window{id: hold.Window}, Entry{
		At: s.Now, Identity: hold.Identity, Lease: s.Lease, Kind: KindSettle, Space: hold.Space, Task: hold.Task,
		Held: hold.Held, Charged: charged, Returned: hold.Held - charged, Factor: hold.Factor, Reason: s.Reason, Via: hold.Via,
	})
	if isDuplicate(err) {
		return &SettledError{Lease: s.Lease}
	}
	return err
}

// Balance is where an identity stands at now.
func (l *Ledger) Balance(ctx context.Context, identity string, t Tier, now time.Time) (Balance, error) {
	w, err := currentWindow(ctx, l.reads, identity, now)
	if err != nil {
		return Balance{}, err
	}
	return w.balance(identity).For(t), nil
}

// List is where everybody stands who has entries, by identity. The ledger does not know tiers: Base and Left are
// empty until Balance.For fills them in.
func (l *Ledger) List(ctx context.Context, now time.Time) ([]Balance, error) {
	rows, err := l.reads.QueryContext(ctx, `SELECT identity, `+windowColumns+` FROM windows
		WHERE id IN (SELECT max(id) FROM windows GROUP BY identity) ORDER BY identity`)
	return sqlrows.Collect(rows, err, "list balances", func(row sqlrows.Scanner) (Balance, error) {
		var identity string
		w, err := scanWindow(row, &identity)
		return w.at(now).balance(identity), err
	})
}

// Entries are an identity's lines of the ledger, newest first. No limit is asked for with 0.
func (l *Ledger) Entries(ctx context.Context, identity string, limit int) ([]Entry, error) {
	if limit <= 0 {
		limit = -1
	}
	rows, err := l.reads.QueryContext(ctx,
		`SELECT `+entryColumns+` FROM ledger WHERE identity = ? ORDER BY id DESC LIMIT ?`, identity, limit)
	return sqlrows.Collect(rows, err, "list entries of "+identity, scanEntry)
}

// Grant gives an identity more than its quota, until the Window that counts now is over. The error is an
// *AdjustmentError for what is not from a second to MostGrant.
func (l *Ledger) Grant(ctx context.Context, a Adjustment) error {
	if a.Amount < time.Second || a.Amount > MostGrant {
		return &AdjustmentError{fmt.Sprintf("grant %v to %s: give from 1s to %v", a.Amount, a.Identity, MostGrant)}
	}
	return l.adjust(ctx, a, KindGrant, func(window) time.Duration { return a.Amount })
}

// Reset gives back all that was charged in the Window that counts now. What is held stays held, and is charged later.
// The error is an *AdjustmentError if nothing was.
func (l *Ledger) Reset(ctx context.Context, a Adjustment) error {
	return l.adjust(ctx, a, KindReset, func(w window) time.Duration { return w.charged })
}

func (l *Ledger) adjust(ctx context.Context, a Adjustment, kind Kind, amount func(window) time.Duration) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s for %s: %w", kind, a.Identity, err)
	}
	defer tx.Rollback()
	now := l.now()
	w, err := currentWindow(ctx, tx, a.Identity, now)
	if err != nil {
		return err
	}
	e := Entry{At: now, Identity: a.Identity, Kind: kind, Returned: amount(w), Reason: a.Reason, By: a.By}
	if e.Returned <= 0 {
		return &AdjustmentError{fmt.Sprintf("%s of %s: nothing was charged in the window that counts now", kind, a.Identity)}
	}
	if err := add(ctx, tx, w, e); err != nil {
		return err
	}
	return tx.Commit()
}

// Reanchor mends what a wrong clock has done: a Window that was opened in what is now the future would last until
// then, so it is taken as opened now. It returns how many there were. To be called at start and when the clock was
// seen to step back, for instance after `clock advance` and a restart.
func (l *Ledger) Reanchor(ctx context.Context, now time.Time) (int64, error) {
	end := now.Add(Span).UnixMilli()
	result, err := l.db.ExecContext(ctx, `UPDATE windows SET opened_at = ?, ends_at = ?
		WHERE ends_at > ? AND id IN (SELECT max(id) FROM windows GROUP BY identity)`, now.UnixMilli(), end, end)
	if err != nil {
		return 0, fmt.Errorf("reanchor windows: %w", err)
	}
	return result.RowsAffected()
}

// asker is a transaction or, for a single question, the pool.
type asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// currentWindow is the one that counts at now; it has no row if the next one is still to be made.
func currentWindow(ctx context.Context, q asker, identity string, now time.Time) (window, error) {
	row := q.QueryRowContext(ctx,
		`SELECT `+windowColumns+` FROM windows WHERE identity = ? ORDER BY id DESC LIMIT 1`, identity)
	w, err := scanWindow(row)
	if errors.Is(err, sql.ErrNoRows) {
		return window{}, nil
	}
	if err != nil {
		return window{}, fmt.Errorf("read window of %s: %w", identity, err)
	}
	return w.at(now), nil
}

func refuse(ctx context.Context, tx *sql.Tx, r HoldRequest, requested time.Duration, w window) error {
	var pending []Pending
	for _, p := range r.Pending {
		counts, via, err := holdsIn(ctx, tx, w, p.Lease)
		if err != nil {
			return err
		}
		if counts {
			p.via = via
			pending = append(pending, p)
		}
	}
	return r.exceeded(requested, w, pending)
}

// holdsIn says whether the hold of a Lease counts in w, and whether it is one via a Space. One that was admitted before
// the last reset does not: its end frees nothing here.
func holdsIn(ctx context.Context, tx *sql.Tx, w window, lease string) (counts, via bool, err error) {
	if lease == "" {
		return true, false, nil
	}
	err = tx.QueryRowContext(ctx, `SELECT via <> '' FROM ledger WHERE lease_id = ? AND kind = 'hold' AND window_id = ?`,
		lease, w.id).Scan(&via)
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("read hold of lease %s: %w", lease, err)
	}
	return true, via, nil
}

// holdOf is the hold of a Lease, settled or not.
func holdOf(ctx context.Context, tx *sql.Tx, lease string) (Entry, error) {
	row := tx.QueryRowContext(ctx, `SELECT `+entryColumns+` FROM ledger WHERE lease_id = ? AND kind = 'hold'`, lease)
	hold, err := scanEntry(row)
	if errors.Is(err, sql.ErrNoRows) {
		return Entry{}, &UnknownHoldError{Lease: lease}
	}
	if err != nil {
		return Entry{}, fmt.Errorf("read hold of lease %s: %w", lease, err)
	}
	return hold, nil
}

// add writes a line into w, and w itself if it has no row yet. The sums of w follow by the trigger ledger_sums.
func add(ctx context.Context, tx *sql.Tx, w window, e Entry) error {
	if err := w.ensureRow(ctx, tx, e.Identity); err != nil {
		return err
	}
	lease := sql.NullString{String: e.Lease, Valid: e.Lease != ""}
	_, err := tx.ExecContext(ctx, `INSERT INTO ledger
		(at, identity, window_id, lease_id, kind, space, task, held_ms, charged_ms, returned_ms, reason, by_whom, via, factor)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.At.UnixMilli(), e.Identity, w.id, lease, string(e.Kind), e.Space, e.Task,
		e.Held.Milliseconds(), e.Charged.Milliseconds(), e.Returned.Milliseconds(), e.Reason, e.By, e.Via, max(1, e.Factor))
	if err != nil {
		return fmt.Errorf("write %s of %s: %w", e.Kind, e.Identity, err)
	}
	return nil
}

func (w *window) ensureRow(ctx context.Context, tx *sql.Tx, identity string) error {
	if w.id != 0 {
		return nil
	}
	result, err := tx.ExecContext(ctx, `INSERT INTO windows (identity) VALUES (?)`, identity)
	if err != nil {
		return fmt.Errorf("make window of %s: %w", identity, err)
	}
	w.id, err = result.LastInsertId()
	return err
}

func isDuplicate(err error) bool {
	var lite sqlite3.Error
	return errors.As(err, &lite) && lite.ExtendedCode == sqlite3.ErrConstraintUnique
}

const windowColumns = `id, opened_at, ends_at, held_ms, charged_ms, granted_ms, via_held_ms, via_charged_ms`

// scanWindow reads windowColumns, after whatever stands before them in the row.
func scanWindow(row sqlrows.Scanner, before ...any) (window, error) {
	var w window
	var opened, ends sql.NullInt64
	err := row.Scan(append(before, &w.id, &opened, &ends,
		(*millis)(&w.held), (*millis)(&w.charged), (*millis)(&w.granted), (*millis)(&w.viaHeld), (*millis)(&w.viaCharged))...)
	if opened.Valid {
		w.opened, w.ends = time.UnixMilli(opened.Int64).UTC(), time.UnixMilli(ends.Int64).UTC()
	}
	return w, err
}

const entryColumns = `id, at, identity, window_id, coalesce(lease_id, ''), kind, space, task,
	held_ms, charged_ms, returned_ms, reason, by_whom, via, factor`

func scanEntry(row sqlrows.Scanner) (Entry, error) {
	var e Entry
	var at int64
	err := row.Scan(&e.ID, &at, &e.Identity, &e.Window, &e.Lease, &e.Kind, &e.Space, &e.Task,
		(*millis)(&e.Held), (*millis)(&e.Charged), (*millis)(&e.Returned), &e.Reason, &e.By, &e.Via, &e.Factor)
	e.At = time.UnixMilli(at).UTC()
	return e, err
}

// millis is a time.Duration as SQL keeps it.
type millis time.Duration

// Scan implements sql.Scanner.
func (m *millis) Scan(value any) error {
	n, ok := value.(int64)
	if !ok {
		return fmt.Errorf("milliseconds are %T, want an integer", value)
	}
	*m = millis(time.Duration(n) * time.Millisecond)
	return nil
}
