package quota

import (
	"context"
	"fmt"
	"time"
)

// Adjustment is a grant, a reset or a credit by an operator.
type Adjustment struct {
	Identity string
	Amount   time.Duration // of a grant or a credit; Reset ignores it
	Runs     int           // of a grant
	Reason   string
	By       string // the operator
}

// MostGrant is the maximum of one grant or credit. It equals the maximum quota of a tier and cannot overflow a duration.
const MostGrant = 10_000 * time.Hour

// AdjustmentError refuses an invalid adjustment. Nothing was changed.
type AdjustmentError struct{ text string }

func (e *AdjustmentError) Error() string { return e.text }

// Grant adds seconds to an identity's quota until the end of the current Window, and runs to its limit for a Span. The error
// is an *AdjustmentError for an amount that is not from a second to MostGrant, or for more runs than MostRuns.
func (l *Ledger) Grant(ctx context.Context, a Adjustment) error {
	if a.Runs < 0 || a.Runs > MostRuns {
		return &AdjustmentError{fmt.Sprintf("grant %d runs to %s: choose a number from 1 to %d", a.Runs, a.Identity, MostRuns)}
	}
	if (a.Amount != 0 || a.Runs == 0) && !isAmount(a.Amount) {
		return &AdjustmentError{fmt.Sprintf("grant %v to %s: choose an amount from 1s to %v", a.Amount, a.Identity, MostGrant)}
	}
	return l.adjust(ctx, a, func(_ Tx, _ window, e Entry) (Entry, error) {
		e.Kind, e.Returned, e.Runs = KindGrant, a.Amount, a.Runs
		return e, nil
	})
}

// Credit adds prepaid seconds to an identity. They are used after the quota, and stay until they are used. The error is an
// *AdjustmentError for an amount that is not from a second to MostGrant, and for credits above MostGrant in all.
func (l *Ledger) Credit(ctx context.Context, a Adjustment) error {
	if !isAmount(a.Amount) {
		return &AdjustmentError{fmt.Sprintf("credit %v to %s: choose an amount from 1s to %v", a.Amount, a.Identity, MostGrant)}
	}
	return l.adjust(ctx, a, func(tx Tx, _ window, e Entry) (Entry, error) {
		c, err := readCredits(ctx, tx, a.Identity)
		if err == nil && c.left+c.held+a.Amount > MostGrant {
			err = &AdjustmentError{fmt.Sprintf("credit %v to %s: %v are left, and the maximum is %v; choose less", a.Amount, a.Identity, c.left, MostGrant)}
		}
		e.Kind, e.Returned = KindCredit, a.Amount
		return e, err
	})
}

func isAmount(d time.Duration) bool { return d >= time.Second && d <= MostGrant }

// Reset refunds all charges of the current Window, and returns the runs of ended calls. Open calls keep their holds and runs,
// and are charged later. Credits are not refunded. The error is an *AdjustmentError if nothing was charged and no run counts.
func (l *Ledger) Reset(ctx context.Context, a Adjustment) error {
	return l.adjust(ctx, a, func(tx Tx, w window, e Entry) (_ Entry, err error) {
		e.Kind, e.Returned = KindReset, w.charged
		if e.Runs, err = returnRuns(ctx, tx, a.Identity, e.At); err != nil {
			return e, err
		}
		if e.Returned <= 0 && e.Runs == 0 {
			return e, &AdjustmentError{fmt.Sprintf("reset of %s: nothing was charged in the current window", a.Identity)}
		}
		return e, nil
	})
}

// adjust writes the entry that complete returns, in one transaction.
func (l *Ledger) adjust(ctx context.Context, a Adjustment, complete func(Tx, window, Entry) (Entry, error)) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("adjust %s: %w", a.Identity, err)
	}
	defer tx.Rollback()
	now := l.now()
	w, err := currentWindow(ctx, tx, a.Identity, now)
	if err != nil {
		return err
	}
	e, err := complete(tx, w, Entry{At: now, Identity: a.Identity, Reason: a.Reason, By: a.By})
	if err != nil {
		return err
	}
	if err := add(ctx, tx, w, e); err != nil {
		return err
	}
	return tx.Commit()
}

// Reanchor repairs Windows and runs after a clock that was ahead. Such a Window would last too long, so it is opened again
// now, and such a run counts from now on. It returns the number of repaired Windows. Call it at start and after the clock has
// stepped back, for instance after `clock advance` and a restart.
func (l *Ledger) Reanchor(ctx context.Context, now time.Time) (int64, error) {
	if _, err := l.db.ExecContext(ctx, `UPDATE runs SET at = ?1 WHERE at > ?1`, now.UnixMilli()); err != nil {
		return 0, fmt.Errorf("reanchor runs: %w", err)
	}
	end := now.Add(Span).UnixMilli()
	result, err := l.db.ExecContext(ctx, `UPDATE windows SET opened_at = ?, ends_at = ?
		WHERE ends_at > ? AND id IN (SELECT max(id) FROM windows GROUP BY identity)`, now.UnixMilli(), end, end)
	if err != nil {
		return 0, fmt.Errorf("reanchor windows: %w", err)
	}
	return result.RowsAffected()
}
