package lease

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/identity"
)

// Recover cleans up after a crashed host, before the first new grant. It ends every recorded worker, settles every
// open hold once, and restores the drains of operators. The caller has ended the Orphans before. Processes of an
// earlier boot are not signalled, because they cannot exist any more. The active Leases of other machines stay open until their
// machine joins and reports, or until they must have ended.
//
// The active Leases of kept instances are adopted: they go on, or end as the agent reports. Their other workers are ended.
func (b *Broker) Recover(ctx context.Context, kept Kept) error {
	runners, err := b.store.runners(ctx)
	if err != nil {
		return err
	}
	if err := b.settleLeftovers(ctx, kept); err != nil {
		return err
	}
	b.adoptKept(kept.Report)
	if err := b.endKeptWorkers(ctx, kept); err != nil {
		return err
	}
	for _, r := range runners {
		if kept.has(r.Instance) {
			continue
		}
		b.log.Warn("leftover space ended", zap.String("space", r.Space), zap.Int("pid", r.PID))
		if err := b.store.removeRunner(ctx, r.Instance); err != nil {
			return err
		}
	}
	return b.recoverDrains(ctx)
}

// Orphans lists the markers of processes that an earlier host of this boot left running, without those of kept instances. End
// them before a Pool is made: where the driver lists no processes, their memory would be taken for that of an idle Device.
func Orphans(ctx context.Context, db *sql.DB, kept []string) (markers []string, err error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	runners, err := (&store{db: db}).runners(ctx)
	for _, r := range runners {
		if r.boot == boot && !slices.Contains(kept, r.Instance) {
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

func (b *Broker) settleLeftovers(ctx context.Context, kept Kept) error {
	leftovers, err := b.store.leftovers(ctx)
	if err != nil {
		return err
	}
	for _, o := range leftovers {
		if o.active.Valid && (o.machine != "" || kept.has(o.instance)) {
			if err := b.restore(ctx, o); err != nil {
				return err
			}
			continue
		}
		if o.machine == "" && o.worker.PID != 0 && o.boot == b.store.bootID {
			if err := b.config.Machine.End(ctx, o.worker, 0); err != nil {
				// A worker that is blocked in the driver may survive SIGKILL for hours. Its Device is not clear
				// meanwhile.
				b.log.Error("leftover worker could not be ended", zap.Int("worker", o.worker.PID), zap.Error(err))
			}
		}
		if err := b.store.settleLeftover(ctx, o, b.now()); err != nil {
			return err
		}
		b.log.Warn("leftover lease settled", zap.String("lease", o.id[:8]), zap.Duration("charged", o.charge()))
	}
	return nil
}

// restore lets an active Lease wait for the report of its machine.
func (b *Broker) restore(ctx context.Context, o leftover) error {
	lease, err := b.store.load(ctx, o)
	if err != nil {
		return err
	}
	sc := b.schedulers.of(lease.Machine)
	if sc == nil {
		sc = b.add(absentMachine(lease.Machine))
		sc.reach = lost
	}
	sc.restore(lease)
	return nil
}

// load reads an active Lease of an earlier start of the host.
func (s *store) load(ctx context.Context, o leftover) (*Lease, error) {
	l := &Lease{
		ID: o.id, Held: o.held, Worker: o.worker, Slot: &gpu.Slot{}, lastBeat: time.UnixMilli(min(o.beat.Int64, o.due.Int64)),
		decided: make(chan decision, 1), warmStarted: make(chan error, 1), settled: make(chan struct{}),
	}
	var declared, admitted, granted int64
	err := s.db.QueryRowContext(ctx, `SELECT machine, space, instance, event, identity, tier, task, function, size, declared_ms, slot, device,
		admitted_at, granted_at FROM leases WHERE id = ?`, o.id).Scan(&l.Machine, &l.Space, &l.Instance, &l.Event, &l.payer, &l.Tier.Name, &l.Task,
		&l.Function, &l.Size, &declared, &l.Slot.Index, &l.Slot.Device.UUID, &admitted, &granted)
	if err == nil {
		l.Payer, err = identity.ParseKey(l.payer)
	}
	if err != nil {
		return nil, fmt.Errorf("read open lease %s: %w", l.Short(), err)
	}
	l.Declared, l.Admitted, l.Granted, l.Active = milliseconds(declared), time.UnixMilli(admitted), time.UnixMilli(granted), time.UnixMilli(o.active.Int64)
	return l, nil
}
