package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
)

// Commits notices transactions of other connections, by SQLite's PRAGMA data_version. It keeps one connection of the handle from the
// first use on. It may be used concurrently. Close it before the handle.
type Commits struct {
	db *sql.DB

	mu   sync.Mutex
	conn *sql.Conn
}

// NewCommits returns the Commits of a database. db comes from OpenReads.
func NewCommits(db *sql.DB) *Commits { return &Commits{db: db} }

// Version returns a number that changes with each commit.
func (c *Commits) Version(ctx context.Context) (version int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		if c.conn, err = c.db.Conn(ctx); err != nil {
			return 0, fmt.Errorf("watch commits: %w", err)
		}
	}
	if err := c.conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("watch commits: %w", err)
	}
	return version, nil
}

// Close returns the connection.
func (c *Commits) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close() // it has no transaction
		c.conn = nil
	}
}
