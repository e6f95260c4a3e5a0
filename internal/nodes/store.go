package nodes

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"spacehost/internal/sqlrows"
)

// Fingerprint is the SHA-256 of an agent's public key.
type Fingerprint = [32]byte

// Node is a machine that has joined. Times are to the millisecond.
type Node struct {
	Name        string
	Fingerprint Fingerprint
	JoinedAt    time.Time
	JoinedBy    string   // the operator that created the join token
	Labels      []string // as the agent reported them last
	Version     string   // of the agent; "": it has not connected yet
	SeenAt      time.Time
	RevokedAt   time.Time // zero: valid
	Drain       *Drain    // nil: in service
}

// Drain is why a node is out of service.
type Drain struct {
	At     time.Time
	By     string // the operator
	Reason string
}

// Store keeps the tables nodes, joins and space_nodes. It may be used concurrently. Its methods take a connection from the pool, which has only one:
// never call them with a transaction open.
type Store struct {
	db, reads *sql.DB
	now       func() time.Time
	batches   seenBatches
}

// seenTimeout bounds a commit of Seen while another program has locked the database.
const seenTimeout = 10 * time.Second

// NewStore returns the Store of a database: db is the handle of migrations.Open, reads that of OpenReads. now is the wall clock.
func NewStore(db, reads *sql.DB, now func() time.Time) *Store {
	return &Store{db: db, reads: reads, now: now}
}

const columns = `name, fingerprint, joined_at, joined_by, labels, version, seen_at, revoked_at, drained_at, drained_by, drained_for`

// List returns all nodes by name, revoked ones included.
func (s *Store) List(ctx context.Context) ([]Node, error) {
	rows, err := s.reads.QueryContext(ctx, `SELECT `+columns+` FROM nodes ORDER BY name`)
	return sqlrows.Collect(rows, err, "list nodes", scanNode)
}

// Get returns one node. Errors: *UnknownError.
func (s *Store) Get(ctx context.Context, name string) (Node, error) { return get(ctx, s.reads, name) }

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func get(ctx context.Context, from querier, name string) (Node, error) {
	n, err := scanNode(from.QueryRowContext(ctx, `SELECT `+columns+` FROM nodes WHERE name = ?`, name))
	if errors.Is(err, sql.ErrNoRows) {
		return Node{}, &UnknownError{name}
	}
	if err != nil {
		return Node{}, fmt.Errorf("read node %s: %w", name, err)
	}
	return n, nil
}

func scanNode(row sqlrows.Scanner) (n Node, err error) {
	var fingerprint []byte
	var joined int64
	var seen, revoked, drained sql.NullInt64
	var labels string
	var drain Drain
	if err := row.Scan(&n.Name, &fingerprint, &joined, &n.JoinedBy, &labels, &n.Version, &seen, &revoked, &drained, &drain.By, &drain.Reason); err != nil {
		return n, err
	}
	copy(n.Fingerprint[:], fingerprint)
	n.JoinedAt, n.SeenAt, n.RevokedAt = time.UnixMilli(joined).UTC(), timeOf(seen), timeOf(revoked)
	if drained.Valid {
		drain.At = timeOf(drained)
		n.Drain = &drain
	}
	return n, json.Unmarshal([]byte(labels), &n.Labels)
}

// timeOf returns the zero time for NULL.
func timeOf(at sql.NullInt64) time.Time {
	if !at.Valid {
		return time.Time{}
	}
	return time.UnixMilli(at.Int64).UTC()
}

// Authorize admits the connection of a node with that key. Errors: *RefusedError.
func (s *Store) Authorize(ctx context.Context, name string, key Fingerprint) error {
	n, err := s.Get(ctx, name)
	if unknown := (*UnknownError)(nil); errors.As(err, &unknown) || err == nil && n.Fingerprint != key {
		return &RefusedError{Name: name}
	}
	if err == nil && !n.RevokedAt.IsZero() {
		return &RefusedError{name, n.RevokedAt}
	}
	return err
}

// Drain takes a node out of service. It replaces an earlier drain. Errors: *UnknownError.
func (s *Store) Drain(ctx context.Context, name, reason, by string) (Node, error) {
	return s.change(ctx, name, `drained_at = ?, drained_by = ?, drained_for = ?`, s.now().UnixMilli(), by, reason)
}

// Return puts a node back into service. It does nothing for a node that is not drained. Errors: *UnknownError.
func (s *Store) Return(ctx context.Context, name string) (Node, error) {
	return s.change(ctx, name, `drained_at = NULL, drained_by = '', drained_for = ''`)
}

// Revoke lets Authorize refuse a node from now on, for good. The time of an earlier revocation stays. Errors: *UnknownError.
func (s *Store) Revoke(ctx context.Context, name string) (Node, error) {
	return s.change(ctx, name, `revoked_at = coalesce(revoked_at, ?)`, s.now().UnixMilli())
}

// change is update that returns the node afterwards.
func (s *Store) change(ctx context.Context, name, set string, args ...any) (Node, error) {
	if err := s.update(ctx, name, set, args...); err != nil {
		return Node{}, err
	}
	return s.Get(ctx, name)
}

func (s *Store) update(ctx context.Context, name, set string, args ...any) error {
	result, err := s.db.ExecContext(ctx, `UPDATE nodes SET `+set+` WHERE name = ?`, append(args, name)...)
	if err != nil {
		return fmt.Errorf("change node %s: %w", name, err)
	}
	changed, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("change node %s: %w", name, err)
	}
	if changed == 0 {
		return &UnknownError{name}
	}
	return nil
}

// Forget removes a node, so that its name is free again. Errors: *UnknownError, *BusyError.
func (s *Store) Forget(ctx context.Context, name string) (n Node, err error) {
	err = s.within(ctx, "forget node "+name, func(tx *sql.Tx) error {
		if n, err = get(ctx, tx, name); err != nil {
			return err
		}
		open := 0 // a settlement changes the row of a lease, which names its machine
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM leases WHERE machine = ? AND ended_at IS NULL`, name).Scan(&open); err != nil {
			return err
		}
		if open > 0 {
			return &BusyError{name, open}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM space_nodes WHERE node = ?`, name); err != nil { // another machine may get the name
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM nodes WHERE name = ?`, name)
		return err
	})
	return n, err
}

// within runs do in a transaction. Typed errors of do are returned as they are.
func (s *Store) within(ctx context.Context, what string, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	if err := do(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
