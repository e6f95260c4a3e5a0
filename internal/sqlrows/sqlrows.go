// Package sqlrows reads the rows of SQL queries into slices. The packages that own tables, people and quota, use it.
package sqlrows

import (
	"database/sql"
	"fmt"
)

// Scanner is a *sql.Row or *sql.Rows.
type Scanner interface{ Scan(into ...any) error }

// Collect reads all rows with scan and closes them. It takes the results of Query, and wraps an error with what, which
// names the attempted operation.
func Collect[T any](rows *sql.Rows, err error, what string, scan func(Scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return all, nil
}
