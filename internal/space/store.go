package space

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
)

// UIDsExhaustedError reports that no uid of a range is left for a Space.
type UIDsExhaustedError struct {
	Space       string
	First, Last uint32
	Absent      []string // Spaces that have a uid of the range and are not configured
}

func (e *UIDsExhaustedError) Error() string {
	text := fmt.Sprintf("all uids of %d-%d are reserved, and the Space %s has none", e.First, e.Last, e.Space)
	if len(e.Absent) > 0 {
		text += fmt.Sprintf(" (Spaces that are not configured keep theirs: %s)", strings.Join(e.Absent, ", "))
	}
	return text + "; extend the range"
}

// ReserveUIDs returns the uid of each Space, from the range first to last. db is the handle of migrations.Open. A Space
// keeps its uid for good, also while it is not configured. A new Space, and a Space whose uid is outside of the range,
// gets the lowest free uid, in the order of spaces. After an error nothing is reserved. Errors: *UIDsExhaustedError.
func ReserveUIDs(ctx context.Context, db *sql.DB, spaces []string, first, last uint32, now time.Time) (map[string]uint32, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("reserve uids: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	reserved, err := readUIDs(ctx, tx)
	if err != nil {
		return nil, err
	}
	used := map[uint32]string{}
	for name, uid := range reserved {
		used[uid] = name
	}
	found := map[string]uint32{}
	for _, name := range spaces {
		uid, known := reserved[name]
		if !known || uid < first || uid > last {
			if uid, err = freeUID(used, name, spaces, first, last); err != nil {
				return nil, err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO space_uids (space, uid, reserved_at) VALUES (?, ?, ?)
				ON CONFLICT (space) DO UPDATE SET uid = excluded.uid, reserved_at = excluded.reserved_at`, name, uid, now.UnixMilli()); err != nil {
				return nil, fmt.Errorf("reserve uid %d for %s: %w", uid, name, err)
			}
		}
		used[uid], found[name] = name, uid
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("reserve uids: %w", err)
	}
	return found, nil
}

func readUIDs(ctx context.Context, tx *sql.Tx) (map[string]uint32, error) {
	rows, err := tx.QueryContext(ctx, `SELECT space, uid FROM space_uids`)
	if err != nil {
		return nil, fmt.Errorf("read uids of Spaces: %w", err)
	}
	defer rows.Close()
	all := map[string]uint32{}
	for rows.Next() {
		var name string
		var uid uint32
		if err := rows.Scan(&name, &uid); err != nil {
			return nil, fmt.Errorf("read uids of Spaces: %w", err)
		}
		all[name] = uid
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read uids of Spaces: %w", err)
	}
	return all, nil
}

// freeUID returns the lowest uid of the range that is not used. used maps uids to Spaces.
func freeUID(used map[uint32]string, name string, spaces []string, first, last uint32) (uint32, error) {
	exhausted := &UIDsExhaustedError{Space: name, First: first, Last: last}
	for uid := first; uid <= last; uid++ {
		other, isUsed := used[uid]
		if !isUsed {
			return uid, nil
		}
		if !slices.Contains(spaces, other) {
			exhausted.Absent = append(exhausted.Absent, other)
		}
	}
	return 0, exhausted
}
