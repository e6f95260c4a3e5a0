package host

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/internal/lease"
	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
	"spacehost/migrations"
	"spacehost/worker"
)

// limits returns the limits of each start of the Space.
func (s *spaceRun) limits() proctree.Limits {
	l := s.settings().Limits
	return proctree.Limits{Memory: l.Memory, Processes: l.Processes, CPU: l.CPU}
}

// limitNotes returns a sentence for each limit that the kernel does not enforce on this machine. countsProcesses tells that
// the Space has a user namespace, in which the kernel counts processes (RLIMIT_NPROC).
func (s *spaceRun) limitNotes(countsProcesses bool) (notes []string) {
	cgroups := s.host.processes.Cgroups()
	rest := cgroups.Unenforced(s.limits())
	add := func(key, value, effect, controller string) {
		why := fmt.Sprintf("this machine's cgroups have no %s controller", controller)
		if cgroups == nil {
			why = "this machine does not allow cgroups"
		}
		notes = append(notes, fmt.Sprintf("%s=%s %s: %s (spacehost doctor).", key, value, effect, why))
	}
	if rest.Memory > 0 {
		add("memory", config.FormatSize(rest.Memory), fmt.Sprintf("is checked every %g s", proctree.OOMInterval.Seconds()), "memory")
	}
	if rest.Processes > 0 && !countsProcesses {
		add("processes", strconv.Itoa(rest.Processes), "is not enforced", "pids")
	}
	if rest.CPU > 0 {
		add("cpu", strconv.FormatFloat(rest.CPU, 'g', -1, 64), fmt.Sprintf("only lowers the priority of the Space to nice %d", proctree.Nice), "cpu")
	}
	if disk := s.settings().Limits.Disk; disk > 0 {
		notes = append(notes, fmt.Sprintf("disk=%s is checked every %g s.", config.FormatSize(disk), usageInterval.Seconds()))
	}
	return notes
}

// diskState is why a Space was ended for its use of disk. The zero value: it was not.
type diskState struct {
	mu  sync.Mutex
	why *diskShortage // until a start is permitted
}

func (d *diskState) set(why *diskShortage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.why = why
}

func (d *diskState) get() *diskShortage {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why
}

var _ diskSpace = (*spaceRun)(nil)

func (s *spaceRun) name() string     { return s.space().Name }
func (s *spaceRun) diskLimit() int64 { return s.settings().Limits.Disk }
func (s *spaceRun) start() string    { return s.supervisor.Instance() }

// diskUsage measures the folder of the Space, the folder of its current start and deleted files that it keeps open.
func (s *spaceRun) diskUsage(ctx context.Context) (int64, error) {
	root := s.storage().Root
	usage, err := usageOf(ctx, root)
	if start := s.start(); err == nil && start != "" {
		var run int64
		run, err = usageOf(ctx, s.host.state.path("run", start))
		usage += run + s.supervisor.DeletedBytes(deviceOf(root))
	}
	return usage, err
}

func (s *spaceRun) endForDisk(start string, why diskShortage) {
	s.disk.set(&why)
	s.supervisor.EndStart(start, &worker.RefusedError{Reason: why.reason, Next: why.next})
}

// emptyTmp removes the temporary files of a Space that was ended for its use of disk. Other Spaces get a fresh folder at
// their next start.
func (s *spaceRun) emptyTmp() {
	if s.disk.get() == nil {
		return
	}
	for slot := range 2 {
		if err := sandbox.RemoveLayer(s.layer(tmpLayer(slot))); err != nil {
			s.host.log.Warn("remove temporary files", zap.String("space", s.space().Name), zap.Error(err))
		}
	}
}

// measureTimeout bounds the measurement before a start.
const measureTimeout = time.Minute

// mayStart refuses the start of a Space that was ended for its use of disk, for as long as the cause lasts.
func (s *spaceRun) mayStart() error {
	why := s.disk.get()
	if why == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), measureTimeout)
	defer cancel()
	if why.low {
		if free, err := lease.FreeAt(s.host.state.dir)(); err == nil && free < minDisk {
			return errors.New(why.reason + " It starts again once 1 GiB is free. " + why.next)
		}
	} else if still := overLimit(ctx, s); still != nil {
		return errors.New(still.reason + " " + still.next)
	}
	s.disk.set(nil)
	return nil
}

func (h *Host) diskWatch() *diskWatch {
	spaces := func() (all []diskSpace) {
		for _, s := range h.all() {
			all = append(all, s)
		}
		return all
	}
	return &diskWatch{free: lease.FreeAt(h.state.dir), spaces: spaces, note: h.screen.note, log: h.log.Named("disk")}
}

// reserveInterval is the interval at which the reserve of the database is renewed: the database grows into it.
const reserveInterval = time.Minute

// keepReserve keeps disk space for the database until ctx ends, so that running calls are settled on a full disk.
func (h *Host) keepReserve(ctx context.Context) {
	again := time.NewTicker(reserveInterval)
	defer again.Stop()
	for reported := false; ; {
		err := migrations.Reserve(h.state.path("spacehost.db"))
		if err != nil && !reported {
			h.log.Warn("disk space of the database not reserved", zap.Error(err))
		}
		reported = err != nil
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}
