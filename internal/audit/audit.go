// Package audit stores the changes that operators make to a host.
//
// # Terms
//
// A [Record] is one change, or the refusal of one: by an operator on the command line, by an admin or a person at the console, or by
// the host itself when it applies its configuration file again.
//
// # Types
//
// [Log] is the table audit. The host queues a Record after each request that changes something, and the answer does not
// wait for the database. Package control lists
// the entries for the command line and the console. No Record contains a token or another secret: package control removes them.
//
// # Failures
//
// The change itself does not depend on its Record. If a Record cannot be stored, or too many wait for a locked database, the host logs it as a
// warning.
package audit

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"spacehost/internal/sqlrows"
)

// Origin is the way by which a change came.
type Origin string

// The origins.
const (
	CLI     Origin = "cli"     // the control socket
	Console Origin = "console" // the API of the console's pages
	Host    Origin = "host"    // a signal, or a watched file
	Node    Origin = "node"    // the address for agents, where a node joins
)

// Record is one change. Actor is a login name for CLI, and the key of an identity for Console.
type Record struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"` // to the millisecond
	Actor  string    `json:"actor"`
	Origin Origin    `json:"origin"`
	Action string    `json:"action"` // such as person.tier
	Object string    `json:"object"` // such as a name or the UUID of a GPU; empty: the host
	// Fields are those of the request, without secrets.
	Fields map[string]any `json:"fields"`
	Status int            `json:"status"`           // of the answer: below 400, the change was made
	Detail string         `json:"detail,omitempty"` // why it was refused
	Token  string         `json:"token,omitempty"`  // ID of the token with which it was requested; empty: without a token
}

// Log is the table audit. It may be used concurrently. Its methods take a connection from the pool: never call them with a
// transaction open.
type Log struct {
	db, reads *sql.DB

	mu      sync.Mutex
	waiting []queued
	idle    chan struct{} // closed when nothing waits any more; nil: nothing waits
	closed  bool
}

// New returns the Log in db, which migrations.Open has opened. reads is the handle for queries.
// Call Close before the handles close.
func New(db, reads *sql.DB) *Log { return &Log{db: db, reads: reads} }

// maxText bounds each text of a Record in bytes.
const maxText = 1000

// Add stores a Record with a new ID.
func (l *Log) Add(ctx context.Context, e Record) error {
	fields, err := json.Marshal(e.Fields)
	if e.Fields == nil || err != nil {
		fields = []byte("{}")
	}
	_, err = l.db.ExecContext(ctx, `INSERT INTO audit (at, actor, origin, action, object, fields, status, detail, token) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.At.UnixMilli(), cut(e.Actor), e.Origin, cut(e.Action), cut(e.Object), string(fields), e.Status, cut(e.Detail), cut(e.Token))
	if err != nil {
		return fmt.Errorf("store audit entry: %w", err)
	}
	return nil
}

// cut returns a text of at most maxText bytes, without a part of a character at its end.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// List returns the entries since a time (the zero time: all), newest first, limit at most.
func (l *Log) List(ctx context.Context, since time.Time, limit int) ([]Record, error) {
	l.awaitWritten(ctx)
	from := int64(0)
	if !since.IsZero() {
		from = since.UnixMilli()
	}
	rows, err := l.reads.QueryContext(ctx, `SELECT id, at, actor, origin, action, object, fields, status, detail, token FROM audit
		WHERE at >= ? ORDER BY id DESC LIMIT ?`, from, limit)
	return sqlrows.Collect(rows, err, "list audit entries", scanRecord)
}

func scanRecord(row sqlrows.Scanner) (e Record, err error) {
	var at int64
	var fields string
	if err := row.Scan(&e.ID, &at, &e.Actor, &e.Origin, &e.Action, &e.Object, &fields, &e.Status, &e.Detail, &e.Token); err != nil {
		return e, err
	}
	e.At = time.UnixMilli(at).UTC()
	return e, json.Unmarshal([]byte(fields), &e.Fields)
}

// Latest returns the ID of the newest entry, 0 without one. IDs are never used twice.
func (l *Log) Latest(ctx context.Context) (id int64, err error) {
	if err := l.reads.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM audit`).Scan(&id); err != nil {
		return 0, fmt.Errorf("read the newest audit entry: %w", err)
	}
	return id, nil
}

// Forget deletes the entries before a time (the zero time: none) and returns their number.
func (l *Log) Forget(ctx context.Context, before time.Time) (int64, error) {
	if before.IsZero() {
		return 0, nil
	}
	result, err := l.db.ExecContext(ctx, `DELETE FROM audit WHERE at < ?`, before.UnixMilli())
	if err != nil {
		return 0, fmt.Errorf("delete audit entries: %w", err)
	}
	return result.RowsAffected()
}
