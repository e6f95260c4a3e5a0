package quota

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"spacehost/internal/sqlrows"
)

// Forgotten is the result of one step of Forget.
type Forgotten struct {
	Leases  []string // leases with no entry left
	Windows int      // number of deleted windows
	More    bool     // there may be more to delete: call Forget again
}

// Forget deletes what ended before a time, up to a number of leases and windows per call. It deletes both entries of a
// lease or none. No Balance changes:
//
//  1. A Window that had ended by then, with nothing held of quota or credits and no later run, no longer counts. All of it is deleted. The
//     credits that its entries leave are carried.
//  2. A Window that is not open yet stays current, and so do grants in it. Leases in it that ended without having been
//     active sum up to zero and are deleted.
//  3. An identity's latest Window stays while an earlier one has not ended, as after a clock that was far ahead. Otherwise
//     the earlier Window would be the latest and count again.
//
// The time is a Span ago or earlier, so that no run is forgotten that still counts.
//
// It takes the caller's transaction, so that the rows of the leases are deleted together with their entries.
func (l *Ledger) Forget(ctx context.Context, tx Tx, before time.Time, most int) (gone Forgotten, err error) {
	for done := 0; done < most; done = len(gone.Leases) + gone.Windows {
		id, err := endedWindow(ctx, tx, before)
		if errors.Is(err, sql.ErrNoRows) {
			err = deleteUnopened(ctx, tx, before, most-done, &gone) // 2
			return gone, err
		} else if err != nil {
			return gone, fmt.Errorf("find ended windows: %w", err)
		}
		if err := deleteWindow(ctx, tx, id, most-done, &gone); err != nil { // 1
			return gone, fmt.Errorf("delete window %d: %w", id, err)
		}
	}
	gone.More = true
	return gone, nil
}

func endedWindow(ctx context.Context, tx Tx, before time.Time) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT id FROM windows AS w WHERE ends_at < ?1 AND held_ms = 0 AND NOT `+recentRuns+`
		AND NOT EXISTS (SELECT 1 FROM credits WHERE identity = w.identity AND held_ms > 0)
		AND (EXISTS (SELECT 1 FROM windows WHERE identity = w.identity AND id > w.id) OR NOT `+earlierWindowCounts+`) ORDER BY ends_at LIMIT 1`, // 3
		before.UnixMilli()).Scan(&id)
	return id, err
}

// earlierWindowCounts is true if an earlier window than w had not ended before ?1. (The index windows_identity finds those of one identity.)
const earlierWindowCounts = `EXISTS (SELECT 1 FROM windows WHERE identity = w.identity AND id < w.id AND ends_at >= ?1)`

// recentRuns is true if a lease of w was granted a GPU after ?1, in spite of the end of w. ?1 is a Span ago or earlier.
const recentRuns = `EXISTS (SELECT 1 FROM ledger AS e CROSS JOIN runs AS r ON r.lease_id = e.lease_id WHERE e.window_id = w.id AND e.kind = 'settle' AND r.at > ?1)`

// deleteWindow deletes a window, or only some leases of a window with many; the next call deletes the rest.
func deleteWindow(ctx context.Context, tx Tx, id int64, most int, gone *Forgotten) error {
	leases, err := queryLeases(ctx, tx, `SELECT lease_id FROM ledger WHERE window_id = ? AND kind = 'hold' LIMIT ?`, id, most)
	if err != nil {
		return err
	}
	return withDeletion(ctx, tx, id, func() error {
		if err := deleteEntries(ctx, tx, leases, gone); err != nil || len(leases) == most {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM ledger WHERE window_id = ?`, id); err != nil { // grants and resets
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM windows WHERE id = ?`, id)
		gone.Windows++
		return err
	})
}

func deleteUnopened(ctx context.Context, tx Tx, before time.Time, most int, gone *Forgotten) error {
	const over = `kind = 'settle' AND charged_ms = 0 AND at < ?`
	var id int64
	err := tx.QueryRowContext(ctx, `SELECT id FROM windows WHERE opened_at IS NULL
		AND EXISTS (SELECT 1 FROM ledger WHERE window_id = windows.id AND `+over+`) LIMIT 1`, before.UnixMilli()).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	} else if err != nil {
		return fmt.Errorf("find leases that were never active: %w", err)
	}
	gone.More = true
	leases, err := queryLeases(ctx, tx, `SELECT lease_id FROM ledger WHERE window_id = ? AND `+over+` LIMIT ?`, id, before.UnixMilli(), most)
	if err != nil {
		return err
	}
	if err := withDeletion(ctx, tx, id, func() error { return deleteEntries(ctx, tx, leases, gone) }); err != nil {
		return fmt.Errorf("delete leases of window %d: %w", id, err)
	}
	result, err := tx.ExecContext(ctx, `DELETE FROM windows AS w WHERE id = ?2 AND NOT EXISTS (SELECT 1 FROM ledger WHERE window_id = ?2)
		AND NOT `+earlierWindowCounts, before.UnixMilli(), id) // 3
	if err != nil {
		return fmt.Errorf("delete window %d: %w", id, err)
	}
	empty, err := result.RowsAffected()
	gone.Windows += int(empty)
	return err
}

// withDeletion lets do delete entries of a Window. The trigger ledger_no_delete forbids it outside.
func withDeletion(ctx context.Context, tx Tx, id int64, do func() error) error {
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

func deleteEntries(ctx context.Context, tx Tx, leases []string, gone *Forgotten) error {
	for _, lease := range leases {
		for _, table := range []string{"ledger", "runs"} {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE lease_id = ?`, lease); err != nil {
				return err
			}
		}
	}
	gone.Leases = append(gone.Leases, leases...)
	return nil
}

func queryLeases(ctx context.Context, tx Tx, question string, values ...any) ([]string, error) {
	rows, err := tx.QueryContext(ctx, question, values...)
	return sqlrows.Collect(rows, err, "list ended leases", func(row sqlrows.Scanner) (lease string, err error) {
		err = row.Scan(&lease)
		return lease, err
	})
}
