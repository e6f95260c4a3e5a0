package nodes

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// seenBatches groups the notes of nodes into transactions: all nodes of a front connect at the same time after its restart, and a commit
// for each would delay the leases.
type seenBatches struct {
	mu      sync.Mutex
	next    *seenBatch // nil: none is collected
	writing bool
}

// seenBatch is written in one transaction.
type seenBatch struct {
	notes []seenNote
	done  chan struct{} // closed when it is written
	err   error         // of the transaction
}

type seenNote struct {
	name            string
	at              time.Time
	version, labels *string // nil: as before
	unknown         bool    // read after done
}

// Seen notes that a node has a connection now, and what its agent reports. The notes of concurrent calls are one commit. If ctx ends, the
// note may be stored or not. Errors: *UnknownError.
func (s *Store) Seen(ctx context.Context, name, version string, labels []string) error {
	text, err := json.Marshal(append([]string{}, labels...))
	if err != nil {
		return err
	}
	stored := string(text)
	return s.note(ctx, seenNote{name: name, at: s.now(), version: &version, labels: &stored})
}

// SeenAt notes that nodes had a connection at that time, unless a later time is known. Names that are not known are ignored. It shares
// commits with Seen.
func (s *Store) SeenAt(ctx context.Context, at time.Time, names ...string) error {
	var notes []seenNote
	if len(names) == 0 {
		return nil
	}
	for _, name := range names {
		notes = append(notes, seenNote{name: name, at: at})
	}
	return s.note(ctx, notes...)
}

// note stores notes with the next batch.
func (s *Store) note(ctx context.Context, notes ...seenNote) error {
	b := &s.batches
	b.mu.Lock()
	if b.next == nil {
		b.next = &seenBatch{done: make(chan struct{})}
	}
	batch, first := b.next, len(b.next.notes)
	batch.notes = append(batch.notes, notes...)
	if !b.writing {
		b.writing = true
		go s.writeBatches()
	}
	b.mu.Unlock()
	select {
	case <-batch.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if batch.err != nil {
		return batch.err
	}
	for _, n := range batch.notes[first : first+len(notes)] {
		if n.unknown && n.version != nil {
			return &UnknownError{n.name}
		}
	}
	return nil
}

// writeBatches writes batches until none is collected.
func (s *Store) writeBatches() {
	b := &s.batches
	for {
		b.mu.Lock()
		batch := b.next
		b.next = nil
		b.writing = batch != nil
		b.mu.Unlock()
		if batch == nil {
			return
		}
		batch.err = s.writeBatch(batch)
		close(batch.done)
	}
}

func (s *Store) writeBatch(batch *seenBatch) error {
	ctx, cancel := context.WithTimeout(context.Background(), seenTimeout)
	defer cancel()
	return s.within(ctx, "note nodes as seen", func(tx *sql.Tx) error {
		update, err := tx.PrepareContext(ctx, `UPDATE nodes SET seen_at = max(coalesce(seen_at, 0), ?), version = coalesce(?, version), labels = coalesce(?, labels) WHERE name = ?`)
		if err != nil {
			return fmt.Errorf("note nodes as seen: %w", err)
		}
		defer update.Close()
		for i := range batch.notes {
			n := &batch.notes[i]
			result, err := update.ExecContext(ctx, n.at.UnixMilli(), n.version, n.labels, n.name)
			if err != nil {
				return fmt.Errorf("note node %s as seen: %w", n.name, err)
			}
			changed, err := result.RowsAffected()
			if err != nil {
				return fmt.Errorf("note node %s as seen: %w", n.name, err)
			}
			n.unknown = changed == 0
		}
		return nil
	})
}
