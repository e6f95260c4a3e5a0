// Package stages keeps the history of each Space's stages, and which Spaces are paused, in the database.
//
// # Types
//
// The host creates one [Store]. It calls Record at each change of a stage, from any goroutine, and Pause and Resume at a command of
// an operator. The console and `spacehost space` read [Change] and [Pause] through package views.
//
// # Failures
//
// A change of a stage is written in the background: a Space never waits for the database. Without a database that can be
// written, the change is dropped and logged. Pause and Resume return after their commit, so that a pause survives a crash.
package stages

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Change is a stage that a Space has entered.
type Change struct {
	At     time.Time `json:"at"`
	Stage  string    `json:"stage"`            // in the Hub's words
	Reason string    `json:"reason,omitempty"` // for visitors
	Cause  string    `json:"cause,omitempty"`  // why a start has ended (worker.Cause)
	By     string    `json:"by,omitempty"`     // the operator
}

// Pause is why a Space is paused.
type Pause struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"` // of the operator, for visitors
	By     string    `json:"by,omitempty"`     // the operator; only for operators
}

// maxChanges is the number of changes that are kept for each Space. A Space that fails in a loop makes thousands a day.
const maxChanges = 2000

// maxWaiting bounds the changes that wait for the database.
const maxWaiting = 1000

// Store reads and writes both tables. It may be used concurrently.
type Store struct {
	db, reads *sql.DB
	now       func() time.Time
	log       *zap.Logger

	mu      sync.Mutex
	waiting []row
	busy    bool
	closed  bool
	writing sync.WaitGroup
}

// row is a Change of a Space.
type row struct {
	space string
	Change
}

// NewStore returns the Store of a database: db is the handle of migrations.Open, reads that of OpenReads. now is the wall clock. Call
// Close before the handles close.
func NewStore(db, reads *sql.DB, now func() time.Time, log *zap.Logger) *Store {
	return &Store{db: db, reads: reads, now: now, log: log}
}

// Record stores a change of a stage, and sets its time. It returns at once.
func (s *Store) Record(space string, c Change) {
	c.At = s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.waiting) >= maxWaiting {
		return
	}
	s.waiting = append(s.waiting, row{space, c})
	if s.busy {
		return
	}
	s.busy = true
	s.writing.Go(func() {
		for rows := s.take(); len(rows) > 0; rows = s.take() {
			if err := s.write(rows); err != nil {
				s.log.Warn("stages of spaces not recorded", zap.Int("changes", len(rows)), zap.Error(err))
			}
		}
	})
}

// take removes what waits. Without any it returns nil, and the writing goroutine must end.
func (s *Store) take() []row {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := s.waiting
	s.waiting, s.busy = nil, len(rows) > 0
	return rows
}

// writeTimeout bounds one write while another program has locked the database.
const writeTimeout = 10 * time.Second

func (s *Store) write(rows []row) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	for _, r := range rows {
		if _, err := tx.ExecContext(ctx, `INSERT INTO space_stages (space, at, stage, reason, cause, actor) VALUES (?, ?, ?, ?, ?, ?)`,
			r.space, r.At.UnixMilli(), r.Stage, r.Reason, r.Cause, r.By); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM space_stages WHERE space = ? AND id <= (
			SELECT id FROM space_stages WHERE space = ? ORDER BY id DESC LIMIT 1 OFFSET ?)`, r.space, r.space, maxChanges); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Close writes what waits. Later changes are dropped. It may be called twice.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.writing.Wait()
}

// List returns the last changes of a Space, newest first.
func (s *Store) List(ctx context.Context, space string, limit int) ([]Change, error) {
	rows, err := s.reads.QueryContext(ctx, `SELECT at, stage, reason, cause, actor FROM space_stages WHERE space = ? ORDER BY id DESC LIMIT ?`, space, limit)
	if err != nil {
		return nil, fmt.Errorf("read the stages of %s: %w", space, err)
	}
	defer rows.Close()
	all := []Change{}
	for rows.Next() {
		var c Change
		var at int64
		if err := rows.Scan(&at, &c.Stage, &c.Reason, &c.Cause, &c.By); err != nil {
			return nil, fmt.Errorf("read the stages of %s: %w", space, err)
		}
		c.At = time.UnixMilli(at).UTC()
		all = append(all, c)
	}
	return all, rows.Err()
}

// Forget deletes the changes before a time.
func (s *Store) Forget(ctx context.Context, before time.Time) (int64, error) {
	result, err := s.db.ExecContext(ctx, `DELETE FROM space_stages WHERE at < ?`, before.UnixMilli())
	if err != nil {
		return 0, fmt.Errorf("forget old stages: %w", err)
	}
	return result.RowsAffected()
}

// Pause stores that a Space is paused. It replaces an earlier pause.
func (s *Store) Pause(ctx context.Context, space, reason, by string) (Pause, error) {
	p := Pause{At: s.now().Truncate(time.Millisecond).UTC(), Reason: reason, By: by}
	_, err := s.db.ExecContext(ctx, `INSERT INTO space_pauses (space, at, reason, actor) VALUES (?, ?, ?, ?)
		ON CONFLICT (space) DO UPDATE SET at = excluded.at, reason = excluded.reason, actor = excluded.actor`, space, p.At.UnixMilli(), reason, by)
	if err != nil {
		return Pause{}, fmt.Errorf("store the pause of %s: %w", space, err)
	}
	return p, nil
}

// Resume ends the pause of a Space. It does nothing without one.
func (s *Store) Resume(ctx context.Context, space string) error {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM space_pauses WHERE space = ?`, space); err != nil {
		return fmt.Errorf("end the pause of %s: %w", space, err)
	}
	return nil
}

// Paused returns the pause of a Space, nil without one.
func (s *Store) Paused(ctx context.Context, space string) (*Pause, error) {
	var p Pause
	var at int64
	err := s.reads.QueryRowContext(ctx, `SELECT at, reason, actor FROM space_pauses WHERE space = ?`, space).Scan(&at, &p.Reason, &p.By)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the pause of %s: %w", space, err)
	}
	p.At = time.UnixMilli(at).UTC()
	return &p, nil
}
