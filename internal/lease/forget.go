package lease

import (
	"context"
	"fmt"
	"time"

	"spacehost/quota"
)

// Forgotten counts what Forget has deleted from the database.
type Forgotten struct{ Leases, Windows int }

const (
	// forgetBatch bounds how long a grant may have to wait.
	forgetBatch = 100
	// forgetPause leaves the database to other writers.
	forgetPause = 100 * time.Millisecond
)

// Forget deletes what ended before a given time: ended Leases with their ledger entries, and quota windows. It
// writes in small transactions. If ctx ends or an error occurs, the deletions so far are consistent. No balance
// changes.
func (b *Broker) Forget(ctx context.Context, before time.Time) (all Forgotten, err error) {
	for {
		more, err := b.store.forget(ctx, before, &all)
		if err != nil || !more {
			return all, err
		}
		select {
		case <-ctx.Done():
			return all, context.Cause(ctx)
		case <-time.After(forgetPause):
		}
	}
}

// forget adds the deletions of one transaction to all.
func (s *store) forget(ctx context.Context, before time.Time, all *Forgotten) (more bool, err error) {
	var leases, windows int
	err = s.writer.write(ctx, "delete ended leases", func(tx quota.Tx) error {
		// Other writers share the transaction, so the context of one caller must not end it.
		gone, err := s.ledger.Forget(context.Background(), tx, before, forgetBatch)
		if err != nil {
			return err
		}
		for _, id := range gone.Leases {
			if _, err := tx.ExecContext(context.Background(), `DELETE FROM leases WHERE id = ? AND ended_at IS NOT NULL`, id); err != nil {
				return fmt.Errorf("delete lease: %w", err)
			}
		}
		leases, windows, more = len(gone.Leases), gone.Windows, gone.More
		return nil
	})
	if err == nil {
		all.Leases, all.Windows = all.Leases+leases, all.Windows+windows
	}
	return more && err == nil, err
}
