package quota

import (
	"context"
	"database/sql"
	"fmt"
	"sort"
	"time"

	"spacehost/internal/sqlrows"
)

// Runs are the GPU calls of an identity that count against its tier's limit. A run counts from the moment at which its lease
// became active, for exactly a Span. Unlike charges, runs do not end with a Window.
type Runs struct {
	Limit    int        // the tier's limit plus what was granted in the last Span
	Granted  int        // the part of Limit that was granted
	Used     int        // calls that were granted a GPU in the last Span
	Reserved int        // calls that wait for a GPU
	ResetsAt *time.Time // when the oldest of the Used returns; nil without one
	Advisory bool       // the limit is not enforced, see Tier.RunsAdvisory
}

// Left returns the number of calls that may still be made. It is never negative.
func (r Runs) Left() int { return max(0, r.Limit-r.Used-r.Reserved) }

// RunsExceededError refuses a hold because too many calls were granted a GPU in the last Span.
type RunsExceededError struct {
	Requested, Left time.Duration // of the quota of seconds
	Runs            Runs
	Wait            time.Duration // until At; a Span if only waiting calls are in the way
	At              time.Time     // when enough runs have returned; zero if only waiting calls are in the way
}

func (e *RunsExceededError) Error() string {
	return fmt.Sprintf("runs limit exceeded: %d used and %d reserved of %d, try again in %v", e.Runs.Used, e.Runs.Reserved, e.Runs.Limit, e.Wait)
}

// Again returns Wait for display, from a second to a Span.
func (e *RunsExceededError) Again() time.Duration { return min(max(e.Wait, time.Second), Span) }

// Reason explains the refusal to a user.
func (e *RunsExceededError) Reason() string {
	text := fmt.Sprintf("%d of %d runs in 24 hours are used", e.Runs.Used, e.Runs.Limit)
	if e.Runs.Reserved > 0 {
		text += fmt.Sprintf(", and %d calls wait for a GPU", e.Runs.Reserved)
	}
	return text
}

// Runs returns the runs of an identity at now, or nil if the tier has no limit.
func (l *Ledger) Runs(ctx context.Context, identity string, t Tier, now time.Time) (*Runs, error) {
	if t.Runs == 0 {
		return nil, nil
	}
	b, err := readRuns(ctx, l.reads, identity, now)
	if err != nil {
		return nil, err
	}
	runs := b.at(t, now)
	return &runs, nil
}

// runBook has the runs and the grants of runs that count at the time of reading.
type runBook struct {
	counted  []time.Time // in order
	reserved int
	grants   []runGrant
}

type runGrant struct {
	at   time.Time
	runs int
}

func readRuns(ctx context.Context, q querier, identity string, now time.Time) (b runBook, err error) {
	cutoff := now.Add(-Span).UnixMilli()
	rows, err := q.QueryContext(ctx, `SELECT at FROM runs WHERE identity = ? AND returned = 0 AND (at IS NULL OR at > ?) ORDER BY at`, identity, cutoff)
	all, err := sqlrows.Collect(rows, err, "read runs of "+identity, func(row sqlrows.Scanner) (at sql.NullInt64, err error) {
		return at, row.Scan(&at)
	})
	if err != nil {
		return b, err
	}
	for _, at := range all {
		if at.Valid {
			b.counted = append(b.counted, time.UnixMilli(at.Int64).UTC())
		} else {
			b.reserved++
		}
	}
	rows, err = q.QueryContext(ctx, `SELECT at, runs FROM ledger WHERE identity = ? AND kind = 'grant' AND runs > 0 AND at > ?`, identity, cutoff)
	b.grants, err = sqlrows.Collect(rows, err, "read granted runs of "+identity, func(row sqlrows.Scanner) (g runGrant, err error) {
		var at int64
		err = row.Scan(&at, &g.runs)
		g.at = time.UnixMilli(at)
		return g, err
	})
	return b, err
}

// at returns the runs at a time from the time of reading on, if nothing else happens.
func (b runBook) at(t Tier, now time.Time) Runs {
	cutoff := now.Add(-Span)
	first := sort.Search(len(b.counted), func(i int) bool { return b.counted[i].After(cutoff) })
	r := Runs{Used: len(b.counted) - first, Reserved: b.reserved, Advisory: t.RunsAdvisory}
	for _, g := range b.grants {
		if g.at.After(cutoff) {
			r.Granted += g.runs
		}
	}
	r.Limit = t.Runs + r.Granted
	if first < len(b.counted) {
		at := b.counted[first].Add(Span)
		r.ResetsAt = &at
	}
	return r
}

// freeAt returns the first time at which a run is left. Runs return and grants end meanwhile. It returns false if no run that
// returns leaves one.
func (b runBook) freeAt(t Tier) (time.Time, bool) {
	for _, at := range b.counted {
		if back := at.Add(Span); b.at(t, back).Left() > 0 {
			return back, true
		}
	}
	return time.Time{}, false
}

// checkRuns returns whether the runs are used up. If they are and the limit is enforced, the error is a *RunsExceededError.
func (r HoldRequest) checkRuns(ctx context.Context, tx Tx, requested time.Duration, w window) (over bool, err error) {
	if r.Tier.Runs == 0 {
		return false, nil
	}
	b, err := readRuns(ctx, tx, r.Identity, r.Now)
	if err != nil {
		return false, err
	}
	runs := b.at(r.Tier, r.Now)
	if runs.Left() > 0 {
		return false, nil
	}
	if r.Tier.RunsAdvisory {
		return true, nil
	}
	e := &RunsExceededError{Requested: requested, Left: max(0, r.left(w)), Runs: runs, Wait: Span}
	if back, ok := b.freeAt(r.Tier); ok {
		e.Wait, e.At = back.Sub(r.Now), back
	}
	return true, e
}

// reserveRun writes the run of a lease that is being admitted. If the lease becomes active in the same transaction, the run
// counts at once.
func (r HoldRequest) reserveRun(ctx context.Context, tx Tx) error {
	at := sql.NullInt64{Int64: r.Now.UnixMilli(), Valid: r.Start}
	if _, err := tx.ExecContext(ctx, `INSERT INTO runs (lease_id, identity, at) VALUES (?, ?, ?)`, r.Lease, r.Identity, at); err != nil {
		return fmt.Errorf("reserve run of lease %s: %w", r.Lease, err)
	}
	return nil
}

// countRun lets the run of a lease count from a time on, unless it counts already.
func countRun(ctx context.Context, tx Tx, hold Entry, at time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO runs (lease_id, identity, at) VALUES (?, ?, ?)
		ON CONFLICT (lease_id) DO UPDATE SET at = excluded.at WHERE runs.at IS NULL`, hold.Lease, hold.Identity, at.UnixMilli())
	if err != nil {
		return fmt.Errorf("count run of lease %s: %w", hold.Lease, err)
	}
	return nil
}

// settleRun ends the reservation of a run: it counts from ran, or not at all if ran is zero.
func settleRun(ctx context.Context, tx Tx, hold Entry, ran time.Time) error {
	if !ran.IsZero() {
		return countRun(ctx, tx, hold, ran)
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM runs WHERE lease_id = ?`, hold.Lease); err != nil {
		return fmt.Errorf("release run of lease %s: %w", hold.Lease, err)
	}
	return nil
}

// returnRuns returns all runs of ended leases that still count, and their number.
func returnRuns(ctx context.Context, tx Tx, identity string, now time.Time) (int, error) {
	result, err := tx.ExecContext(ctx, `UPDATE runs SET returned = 1 WHERE identity = ? AND returned = 0 AND at > ?
		AND EXISTS (SELECT 1 FROM ledger WHERE lease_id = runs.lease_id AND kind = 'settle')`, identity, now.Add(-Span).UnixMilli())
	if err != nil {
		return 0, fmt.Errorf("return runs of %s: %w", identity, err)
	}
	n, err := result.RowsAffected()
	return int(n), err
}

// MostRuns is the maximum of a limit of runs, and of one grant of runs.
const MostRuns = 100_000
