package lease

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"

	"go.uber.org/zap"
)

// Recover cleans up after a crashed host, before the first new grant. It ends every recorded worker, settles every
// open hold once, and restores the drains of operators. The caller has ended the Orphans before. Processes of an
// earlier boot are not signalled, because they cannot exist any more.
func (b *Broker) Recover(ctx context.Context) error {
	runners, err := b.store.runners(ctx)
	if err != nil {
		return err
	}
	if err := b.settleLeftovers(ctx); err != nil {
		return err
	}
	for _, r := range runners {
		b.log.Warn("leftover space ended", zap.String("space", r.Space), zap.Int("pid", r.PID))
		if err := b.store.removeRunner(ctx, r.Instance); err != nil {
			return err
		}
	}
	return b.recoverDrains(ctx)
}

// Orphans lists the markers of processes that an earlier host of this boot left running. End them before a Pool is
// made: where the driver lists no processes, their memory would be taken for that of an idle Device.
func Orphans(ctx context.Context, db *sql.DB) (markers []string, err error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	runners, err := (&store{db: db}).runners(ctx)
	for _, r := range runners {
		if r.boot == boot {
			markers = append(markers, r.Marker)
		}
	}
	return markers, err
}

func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func (b *Broker) settleLeftovers(ctx context.Context) error {
	leftovers, err := b.store.leftovers(ctx)
	if err != nil {
		return err
	}
	for _, o := range leftovers {
		if o.worker.PID != 0 && o.boot == b.store.bootID && !b.config.Processes.End(o.worker.PID, o.worker.Start, 0) {
			// A worker that is blocked in the driver may survive SIGKILL for hours. Its Device is not clear
			// meanwhile.
			b.log.Error("leftover worker could not be ended", zap.Int("worker", o.worker.PID))
		}
		if err := b.store.settleLeftover(ctx, o, b.now()); err != nil {
			return err
		}
		b.log.Warn("leftover lease settled", zap.String("lease", o.id[:8]), zap.Duration("charged", o.charge()))
	}
	return nil
}
