package lease

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"go.uber.org/zap"
)

// Kept is what an agent on the host's own machine has kept while no host was connected to it. The zero value means that nothing
// was kept.
type Kept struct {
	Instances []string      // the starts of Spaces whose processes still run
	Report    MachineReport // what the agent has recorded about their Leases
}

func (k Kept) has(instance string) bool { return slices.Contains(k.Instances, instance) }

// adoptKept lets the restored Leases of the host's own machine go on or end, by the rules of adopt. A Lease whose recorded worker
// differs from that of the agent counts as unknown: the host has crashed during the commit of an /allow of another worker, so no
// client uses that worker. It runs before Run, so the scheduler has no other user.
func (b *Broker) adoptKept(report MachineReport) {
	sc := b.schedulers.of("")
	machine := effectsOf(sc).machine
	sc.disarmUnknown(machine, report)
	report.Open = slices.DeleteFunc(slices.Clone(report.Open), func(o OpenLease) bool {
		lease := sc.leases[o.Lease]
		differs := lease != nil && lease.Worker != o.Worker
		if differs {
			sc.effects.dismiss(o.Worker)
		}
		return differs
	})
	sc.adopt(report)
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.State == Active }) {
		machine.Confine(lease.Instance, lease.Worker)
		if err := machine.Occupy(lease.Slot.Device.UUID, lease.Worker); err != nil {
			b.log.Warn("occupy simulated device", zap.Object("lease", lease), zap.Error(err))
		}
	}
}

// leases lists the IDs of all Leases of the report.
func (r MachineReport) leases() (all []string) {
	for _, o := range r.Open {
		all = append(all, o.Lease)
	}
	for _, e := range r.Ended {
		all = append(all, e.Lease)
	}
	return all
}

// endKeptWorkers ends the workers of kept instances that have no open Lease: idle ones, and those that the earlier host was about to
// end. Their clients do not notice, because every grant of this host is the first of its Slot, and such a grant makes the
// client fork another worker. Keeping idle workers would require the scheduler to trust a Device on which it has never seen them.
// Each worker is recorded at its /allow, before it uses a Device. A worker that cannot be ended keeps its Device busy.
func (b *Broker) endKeptWorkers(ctx context.Context, kept Kept) error {
	if len(kept.Instances) == 0 {
		return nil
	}
	workers, err := b.store.workersOf(ctx, kept.Instances)
	if err != nil {
		return err
	}
	adopted := b.schedulers.of("").openLeases(func(o *Lease) bool { return o.State == Active })
	for _, w := range workers {
		if !b.config.Machine.Runs(w) || slices.ContainsFunc(adopted, func(o *Lease) bool { return o.Worker == w }) {
			continue
		}
		if err := b.config.Machine.End(ctx, w, 0); err != nil {
			b.log.Error("leftover worker could not be ended", zap.Int("worker", w.PID), zap.Error(err))
			continue
		}
		b.log.Info("idle worker of an earlier host ended", zap.Int("worker", w.PID))
	}
	return nil
}

// workersOf lists every worker that these starts have had since the machine has booted. Most of them have exited.
func (s *store) workersOf(ctx context.Context, instances []string) (all []Worker, err error) {
	list, err := json.Marshal(instances)
	if err != nil {
		return nil, fmt.Errorf("encode instances: %w", err)
	}
	rows, err := s.db.QueryContext(ctx, `SELECT DISTINCT worker_pid, worker_start FROM leases WHERE machine = '' AND boot_id = ?
		AND worker_pid <> 0 AND instance IN (SELECT value FROM json_each(?))`, s.bootID, string(list))
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var w Worker
		var start int64
		if err := rows.Scan(&w.PID, &start); err != nil {
			return nil, fmt.Errorf("list workers: %w", err)
		}
		w.Start = uint64(start)
		all = append(all, w)
	}
	return all, rows.Err()
}
