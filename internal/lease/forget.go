package lease

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Forgotten is what Forget took out of the database.
type Forgotten struct{ Leases, Windows int }

const (
	// forgetTogether bounds what a grant may have to wait for.
	forgetBatch = 100
	// forgetPause leaves the database to others.
	forgetPause = 100 * time.Millisecond
)

// Forget takes out what was over before a moment: ended Leases with their lines in the ledger, and quota windows. It
// writes a little at a time, and what it has written when ctx ends or an error comes is whole. No balance changes.
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

// forget adds to all what one transaction took out.
func (s *store) forget(ctx context.Context, before time.Time, all *Forgotten) (more bool, err error) {
	var leases, windows int
	err = s.writer.write(ctx, "forget what is over", func(tx *sql.Tx) error {
		// Others share the transaction: no single one's context may end it.
		gone, err := s.ledger.Forget(context.Background(), tx, before, forgetBatch)
		if err != nil {
			return err
		}
		for _, id := range gone.Leases {
			if _, err := tx.Exec(`DELETE FROM leases WHERE id = ? AND ended_at IS NOT NULL`, id); err != nil {
				return fmt.Errorf("forget lease: %w", err)
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
