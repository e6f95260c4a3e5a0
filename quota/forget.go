package quota

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"spacehost/internal/sqlrows"
)

// Forgotten is what one step of Forget took out of the ledger.
type Forgotten struct {
	Leases  []string // of which there is no line any more
	Windows int      // of which there is nothing any more
	More    bool     // there may be more of what is over: ask again
}

// Forget takes out of the ledger what was over before a moment, at most some leases and windows at a time: both lines of
// a lease or none. No Balance changes by it:
//
//  1. A Window that had ended then, with nothing held, counts for nobody: all of it goes.
//  2. A Window that has not been opened yet counts for ever, and so do grants in it; leases that ended without
//     having been active add up to nothing in it, and go.
//  3. An identity's latest Window stays while an earlier one is not over, as after a clock that was far ahead: that one
//     would be the latest then, and count again.
//
// It takes the caller's transaction, so that the rows of the leases go with their lines.
func (l *Ledger) Forget(ctx context.Context, tx *sql.Tx, before time.Time, most int) (gone Forgotten, err error) {
	for done := 0; done < most; done = len(gone.Leases) + gone.Windows {
		id, err := endedWindow(ctx, tx, before)
		if errors.Is(err, sql.ErrNoRows) {
			err = forgetUnopened(ctx, tx, before, most-done, &gone) // 2
			return gone, err
		} else if err != nil {
			return gone, fmt.Errorf("look for windows that are over: %w", err)
		}
		if err := forgetWindow(ctx, tx, id, most-done, &gone); err != nil { // 1
			return gone, fmt.Errorf("forget window %d: %w", id, err)
		}
	}
	gone.More = true
	return gone, nil
}

func endedWindow(ctx context.Context, tx *sql.Tx, before time.Time) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT id FROM windows AS w WHERE ends_at < ?1 AND held_ms = 0
		AND (EXISTS (SELECT 1 FROM windows WHERE identity = w.identity AND id > w.id) OR NOT `+revived+`) ORDER BY ends_at LIMIT 1`, // 3
		before.UnixMilli()).Scan(&id)
	return id, err
}

// revived says whether an earlier window than w was not over before ?1. (The index windows_identity finds those of one identity.)
const revived = `EXISTS (SELECT 1 FROM windows WHERE identity = w.identity AND id < w.id AND ends_at >= ?1)`

// forgetWindow leaves the rest of a long one for the next time.
func forgetWindow(ctx context.Context, tx *sql.Tx, id int64, most int, gone *Forgotten) error {
	leases, err := leasesOf(ctx, tx, `SELECT lease_id FROM ledger WHERE window_id = ? AND kind = 'hold' LIMIT ?`, id, most)
	if err != nil {
		return err
	}
	return forgetting(ctx, tx, id, func() error {
		if err := forgetLines(ctx, tx, leases, gone); err != nil || len(leases) == most {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM ledger WHERE window_id = ?`, id); err != nil { // an operator's
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM windows WHERE id = ?`, id)
		gone.Windows++
		return err
	})
}

func forgetUnopened(ctx context.Context, tx *sql.Tx, before time.Time, most int, gone *Forgotten) error {
	const over = `kind = 'settle' AND charged_ms = 0 AND at < ?`
	var id int64
	err := tx.QueryRowContext(ctx, `SELECT id FROM windows WHERE opened_at IS NULL
		AND EXISTS (SELECT 1 FROM ledger WHERE window_id = windows.id AND `+over+`) LIMIT 1`, before.UnixMilli()).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look for leases that were never active: %w", err)
	}
	gone.More = true
	leases, err := leasesOf(ctx, tx, `SELECT lease_id FROM ledger WHERE window_id = ? AND `+over+` LIMIT ?`, id, before.UnixMilli(), most)
	if err != nil {
		return err
	}
	if err := forgetting(ctx, tx, id, func() error { return forgetLines(ctx, tx, leases, gone) }); err != nil {
		return fmt.Errorf("forget leases of window %d: %w", id, err)
	}
	result, err := tx.ExecContext(ctx, `DELETE FROM windows AS w WHERE id = ?2 AND NOT EXISTS (SELECT 1 FROM ledger WHERE window_id = ?2)
		AND NOT `+revived, before.UnixMilli(), id) // 3
	if err != nil {
		return fmt.Errorf("forget window %d: %w", id, err)
	}
	empty, err := result.RowsAffected()
	gone.Windows += int(empty)
	return err
}

// forgetting lets do take lines out of a Window; the trigger ledger_no_delete forbids it elsewhere.
func forgetting(ctx context.Context, tx *sql.Tx, id int64, do func() error) error {
	const mark = `UPDATE windows SET forgetting = ? WHERE id = ?`
	if _, err := tx.ExecContext(ctx, mark, 1, id); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, mark, 0, id)
	return err
}

func forgetLines(ctx context.Context, tx *sql.Tx, leases []string, gone *Forgotten) error {
	for _, lease := range leases {
		if _, err := tx.ExecContext(ctx, `DELETE FROM ledger WHERE lease_id = ?`, lease); err != nil {
			return err
		}
	}
	gone.Leases = append(gone.Leases, leases...)
	return nil
}

func leasesOf(ctx context.Context, tx *sql.Tx, question string, values ...any) ([]string, error) {
	rows, err := tx.QueryContext(ctx, question, values...)
	return sqlrows.Collect(rows, err, "list leases that are over", func(row sqlrows.Scanner) (lease string, err error) {
		err = row.Scan(&lease)
		return lease, err
	})
}
