package quota

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"spacehost/internal/sqlrows"
)

// Ledger is the account book. It has no state of its own: all data is in the tables windows, ledger, runs and
// credits.
//
// Hold, Ask, Open, Settle and Forget take the caller's transaction, so that a hold and its lease's row are committed
// together. The other methods take a connection from the pool, which has only one: never call them with a transaction
// open.
type Ledger struct {
	db    *sql.DB
	reads *sql.DB // reads even while a transaction waits for db
	now   func() time.Time
}

// Config configures a Ledger.
type Config struct {
	Now   func() time.Time // wall clock for an operator's adjustments; nil is the real one
	Reads *sql.DB          // handle of migrations.OpenReads for queries outside a transaction; nil: the writing handle
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

// Held is the result of Hold.
type Held struct {
	Time      time.Duration
	Remaining float64 // fraction of the quota left after all charges and holds, including this one: from 0 to 1
	IsOpen    bool    // the Window is already open, so Open would change nothing
	OverRuns  bool    // the tier's runs were used up before, and its limit is not enforced
}

// Hold reserves seconds and a run, or refuses with an error that is Refused and writes nothing. Seconds come from the quota
// first, and the rest from the credits. The hold, and later its charge, belong to the Window that is current at r.Now.
func (l *Ledger) Hold(ctx context.Context, tx Tx, r HoldRequest) (Held, error) {
	requested, err := r.requested()
	if err != nil {
		return Held{}, err
	}
	w, err := currentWindow(ctx, tx, r.Identity, r.Now)
	if err != nil {
		return Held{}, err
	}
	credit, overRuns, err := admit(ctx, tx, r, requested, w)
	if err != nil {
		return Held{}, err
	}
	err = add(ctx, tx, w, Entry{
		At: r.Now, Identity: r.Identity, Lease: r.Lease, Kind: KindHold,
		Space: r.Space, Task: r.Task, Held: requested, CreditHeld: credit, Factor: r.Factor, Via: r.Via,
	})
	if err == nil {
		err = r.reserveRun(ctx, tx)
	}
	if err != nil {
		return Held{}, err
	}
	w.held += requested - credit
	return Held{Time: requested, Remaining: w.remaining(r.Tier), IsOpen: !w.opened.IsZero(), OverRuns: overRuns}, nil
}

// admit checks the runs and the seconds. It returns the part of the request that the credits pay for.
func admit(ctx context.Context, tx Tx, r HoldRequest, requested time.Duration, w window) (credit time.Duration, overRuns bool, err error) {
	if overRuns, err = r.checkRuns(ctx, tx, requested, w); err != nil || r.fits(requested, w) {
		return 0, overRuns, err
	}
	c, err := r.creditsOf(ctx, tx)
	if err != nil {
		return 0, overRuns, err
	}
	if credit = requested - max(0, r.left(w)); credit <= c.left {
		return credit, overRuns, nil
	}
	return 0, overRuns, refuse(ctx, tx, r, requested, w, c)
}

// Ask returns the error that Hold would return, and writes nothing.
func (l *Ledger) Ask(ctx context.Context, tx Tx, r HoldRequest) error {
	requested, err := r.requested()
	if err != nil {
		return err
	}
	w, err := currentWindow(ctx, tx, r.Identity, r.Now)
	if err != nil {
		return err
	}
	_, _, err = admit(ctx, tx, r, requested, w)
	return err
}

// Open counts the run of a Lease that has become active, and opens its Window. What is counted or open already stays so.
func (l *Ledger) Open(ctx context.Context, tx Tx, lease string, now time.Time) error {
	hold, err := holdOf(ctx, tx, lease)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE windows SET opened_at = ?, ends_at = ? WHERE id = ? AND opened_at IS NULL`,
		now.UnixMilli(), now.Add(Span).UnixMilli(), hold.Window)
	if err != nil {
		return fmt.Errorf("open window of lease %s: %w", lease, err)
	}
	return countRun(ctx, tx, hold, now)
}

// Settle ends the hold of a Lease: the charge counts in the hold's Window, the rest is refunded. The quota pays before the
// credits. It refuses with
// *SettledError, *UnknownHoldError or *ChargeError and then writes nothing; the transaction can continue.
func (l *Ledger) Settle(ctx context.Context, tx Tx, s Settlement) error {
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
		Held: hold.Held, CreditHeld: hold.CreditHeld, Charged: charged, CreditCharged: max(0, charged-(hold.Held-hold.CreditHeld)),
		Returned: hold.Held - charged, Runs: s.runs(), Factor: hold.Factor, Reason: s.Reason, Via: hold.Via,
	})
	if isDuplicate(err) {
		return &SettledError{Lease: s.Lease}
	}
	if err != nil {
		return err
	}
	return settleRun(ctx, tx, hold, s.Ran)
}

// Balance returns the balance of an identity at now.
func (l *Ledger) Balance(ctx context.Context, identity string, t Tier, now time.Time) (Balance, error) {
	w, err := currentWindow(ctx, l.reads, identity, now)
	if err != nil {
		return Balance{}, err
	}
	c, err := readCredits(ctx, l.reads, identity)
	if err != nil {
		return Balance{}, err
	}
	b := w.balance(identity, c).For(t)
	b.Runs, err = l.Runs(ctx, identity, t, now)
	return b, err
}

// List returns the balances of all identities with entries, by identity. The ledger does not know tiers: Balance.For
// fills in Base and Left, and Runs the runs.
func (l *Ledger) List(ctx context.Context, now time.Time) ([]Balance, error) {
	rows, err := l.reads.QueryContext(ctx, `SELECT windows.identity, coalesce(carried_ms + bought_ms - used_ms - credits.held_ms, 0), coalesce(credits.held_ms, 0), `+windowColumns+`
		FROM windows LEFT JOIN credits ON credits.identity = windows.identity WHERE id IN (SELECT max(id) FROM windows GROUP BY identity) ORDER BY windows.identity`)
	return sqlrows.Collect(rows, err, "list balances", func(row sqlrows.Scanner) (Balance, error) {
		var identity string
		var c credits
		w, err := scanWindow(row, &identity, (*millis)(&c.left), (*millis)(&c.held))
		return w.at(now).balance(identity, c), err
	})
}

// EntryFilter selects entries of one identity. The zero value of a field selects all.
type EntryFilter struct {
	Space, Task string
	Spaces      []string // only entries of these Spaces and those of none, such as grants; empty: of all
	Kind        Kind
	From, To    time.Time // To is excluded
	Before      int64     // only entries with a smaller ID
}

// Matching returns an identity's entries that a filter selects, newest first, at most limit of them.
func (l *Ledger) Matching(ctx context.Context, identity string, f EntryFilter, limit int) ([]Entry, error) {
	where, values := "identity = ?", []any{identity}
	add := func(is bool, condition string, value any) {
		if is {
			where, values = where+" AND "+condition, append(values, value)
		}
	}
	add(f.Space != "", "space = ?", f.Space)
	if len(f.Spaces) > 0 {
		where += " AND space IN (''" + strings.Repeat(", ?", len(f.Spaces)) + ")"
		for _, space := range f.Spaces {
			values = append(values, space)
		}
	}
	add(f.Task != "", "task = ?", f.Task)
	add(f.Kind != "", "kind = ?", string(f.Kind))
	add(!f.From.IsZero(), "at >= ?", f.From.UnixMilli())
	add(!f.To.IsZero(), "at < ?", f.To.UnixMilli())
	add(f.Before > 0, "id < ?", f.Before)
	rows, err := l.reads.QueryContext(ctx, `SELECT `+entryColumns+` FROM ledger INDEXED BY ledger_identity WHERE `+where+` ORDER BY id DESC LIMIT ?`, append(values, limit)...)
	return sqlrows.Collect(rows, err, "list entries of "+identity, scanEntry)
}

// querier is a transaction or, for a single query, the pool.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// currentWindow returns the Window that is current at now. It has no row if the next Window is not created yet.
func currentWindow(ctx context.Context, q querier, identity string, now time.Time) (window, error) {
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

func refuse(ctx context.Context, tx Tx, r HoldRequest, requested time.Duration, w window, c credits) error {
	missing := requested - max(0, r.left(w)) - c.left
	onlyCredits := missing > 0 && missing <= c.held
	pending, err := pendingIn(ctx, tx, r, func(p Pending) bool { return p.credit > 0 || !onlyCredits && p.isIn(w) })
	switch {
	case err != nil:
		return err
	case onlyCredits:
		return r.pendingCredits(requested, w, c, pending)
	}
	return r.exceeded(requested, w, c, pending)
}

// pendingIn returns the open holds that match. The hold of an earlier Window does not count in w: its end frees nothing there.
func pendingIn(ctx context.Context, tx Tx, r HoldRequest, matches func(Pending) bool) (all []Pending, err error) {
	for _, p := range r.Pending {
		if p.Lease != "" {
			err := tx.QueryRowContext(ctx, `SELECT window_id, via <> '', credit_held_ms FROM ledger WHERE lease_id = ? AND kind = 'hold'`, p.Lease).
				Scan(&p.window, &p.via, (*millis)(&p.credit))
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read hold of lease %s: %w", p.Lease, err)
			}
		}
		if matches(p) {
			all = append(all, p)
		}
	}
	return all, nil
}

// holdOf returns the hold of a Lease, settled or not.
func holdOf(ctx context.Context, tx Tx, lease string) (Entry, error) {
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

// add writes an entry into w, and creates the row of w if there is none. The trigger ledger_sums updates the sums of w.
func add(ctx context.Context, tx Tx, w window, e Entry) error {
	if err := w.ensureRow(ctx, tx, e.Identity); err != nil {
		return err
	}
	lease := sql.NullString{String: e.Lease, Valid: e.Lease != ""}
	_, err := tx.ExecContext(ctx, `INSERT INTO ledger
		(at, identity, window_id, lease_id, kind, space, task, held_ms, charged_ms, returned_ms, reason, by_whom, via, factor,
		runs, credit_held_ms, credit_charged_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.At.UnixMilli(), e.Identity, w.id, lease, string(e.Kind), e.Space, e.Task,
		e.Held.Milliseconds(), e.Charged.Milliseconds(), e.Returned.Milliseconds(), e.Reason, e.By, e.Via, max(1, e.Factor),
		e.Runs, e.CreditHeld.Milliseconds(), e.CreditCharged.Milliseconds())
	if err != nil {
		return fmt.Errorf("write %s of %s: %w", e.Kind, e.Identity, err)
	}
	return nil
}

func (w *window) ensureRow(ctx context.Context, tx Tx, identity string) error {
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

const windowColumns = `id, opened_at, ends_at, windows.held_ms, charged_ms, granted_ms, credit_charged_ms, via_held_ms, via_charged_ms`

// scanWindow reads windowColumns, which follow the columns of before.
func scanWindow(row sqlrows.Scanner, before ...any) (window, error) {
	var w window
	var opened, ends sql.NullInt64
	err := row.Scan(append(before, &w.id, &opened, &ends,
		(*millis)(&w.held), (*millis)(&w.charged), (*millis)(&w.granted), (*millis)(&w.credit), (*millis)(&w.viaHeld), (*millis)(&w.viaCharged))...)
	if opened.Valid {
		w.opened, w.ends = time.UnixMilli(opened.Int64).UTC(), time.UnixMilli(ends.Int64).UTC()
	}
	return w, err
}

const entryColumns = `id, at, identity, window_id, coalesce(lease_id, ''), kind, space, task,
	held_ms, charged_ms, returned_ms, reason, by_whom, via, factor, runs, credit_held_ms, credit_charged_ms,
	CASE WHEN kind = 'settle' AND charged_ms = 0 THEN coalesce((SELECT ` + UnpaidMillis + ` FROM leases WHERE leases.id = ledger.lease_id), 0) ELSE 0 END`

func scanEntry(row sqlrows.Scanner) (Entry, error) {
	var e Entry
	var at int64
	err := row.Scan(&e.ID, &at, &e.Identity, &e.Window, &e.Lease, &e.Kind, &e.Space, &e.Task,
		(*millis)(&e.Held), (*millis)(&e.Charged), (*millis)(&e.Returned), &e.Reason, &e.By, &e.Via, &e.Factor,
		&e.Runs, (*millis)(&e.CreditHeld), (*millis)(&e.CreditCharged), (*millis)(&e.unpaid))
	e.At = time.UnixMilli(at).UTC()
	return e, err
}

// millis is a time.Duration as stored in SQL.
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
