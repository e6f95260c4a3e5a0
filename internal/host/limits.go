package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/internal/lease"
	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
	"spacehost/internal/spacelog"
	"spacehost/migrations"
	"spacehost/worker"
)

// limits returns the limits of each start of the Space.
func (s *spaceRun) limits() proctree.Limits {
	l := s.settings().Limits
	return proctree.Limits{Memory: l.Memory, Processes: int(s.maxProcesses()), CPU: l.CPU}
}

// countsProcesses reports whether the kernel limits the processes of the Space without a controller (RLIMIT_NPROC): in a user
// namespace, and not those of root.
func (s *spaceRun) countsProcesses() bool {
	return s.isSandboxed() && (os.Geteuid() != 0 || s.level() == config.IsolationUsers)
}

// limitNotes returns a sentence for each limit of the settings that the kernel does not enforce on this machine.
func (s *spaceRun) limitNotes(countsProcesses bool) (notes []string) {
	cgroups := s.host.processes.Cgroups()
	set, look := s.settings().Limits, worker.LookInterval(cgroups != nil)
	rest := cgroups.Unenforced(proctree.Limits{Memory: set.Memory, Processes: set.Processes, CPU: set.CPU})
	add := func(key, value, effect, controller string) {
		why := fmt.Sprintf("this machine's cgroups have no %s controller", controller)
		if cgroups == nil {
			why = "this machine does not allow cgroups"
		}
		notes = append(notes, fmt.Sprintf("%s=%s %s: %s (spacehost doctor).", key, value, effect, why))
	}
	if rest.Memory > 0 {
		add("memory", config.FormatSize(rest.Memory), fmt.Sprintf("is checked every %g s", look.Seconds()), "memory")
	}
	if rest.Processes > 0 && !countsProcesses {
		add("processes", strconv.Itoa(rest.Processes), fmt.Sprintf("is counted every %g s", look.Seconds()), "pids")
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

func (s *spaceRun) name() string { return s.space().Name }
func (s *spaceRun) isHere() bool { return !s.isOnNode() }

// diskLimit is 0 for a Space on a node, at both ends: nothing measures its folders against the limit.
func (s *spaceRun) diskLimit() int64 {
	if s.onNode != nil || s.isOnNode() {
		return 0
	}
	return s.settings().Limits.Disk
}

func (s *spaceRun) start() string {
	if s.onNode != nil {
		return s.onNode.instance()
	}
	return s.supervisor.Instance()
}

// diskUsage measures the folder of the Space, the folder of its current start and deleted files that it keeps open.
func (s *spaceRun) diskUsage(ctx context.Context) (int64, error) {
	added := s.room.added.Load()
	usage, err := s.measureDisk(ctx)
	s.room.used.Store(usage)
	s.room.added.Add(-added)
	if ctx.Err() == nil {
		s.measured.Store(&diskMeasure{usage, time.Now(), err})
	}
	return usage, err
}

// diskMeasure is one result of diskUsage.
type diskMeasure struct {
	bytes int64
	at    time.Time
	err   error
}

// watchedDisk implements sampledSpace. Without a limit, diskWatch measures the Space once at its start.
func (s *spaceRun) watchedDisk() (bytes int64, at time.Time, err error) {
	last := s.measured.Load()
	if last == nil || s.diskLimit() == 0 && s.host.settings().TotalLimits.Disk == 0 {
		return 0, time.Time{}, nil
	}
	return last.bytes, last.at, last.err
}

// measureDisk is diskUsage without its effects on the room for uploads and watchedDisk.
func (s *spaceRun) measureDisk(ctx context.Context) (int64, error) {
	root := s.storage().Root
	usage, err := usageOf(ctx, root)
	if start := s.start(); err == nil && start != "" {
		var run int64
		run, err = usageOf(ctx, s.host.state.path("run", start))
		usage += run + s.host.processes.Tree(start).DeletedBytes(deviceOf(root))
	}
	return usage, err
}

func (s *spaceRun) endForDisk(start string, why diskShortage) {
	s.disk.set(&why)
	ledger := "" // its own limit
	switch {
	case why.low:
		ledger = "ended for lack of disk"
	case why.total:
		ledger = endedForTotal
	}
	s.supervisor.EndStart(start, &worker.RefusedError{Reason: why.reason, Next: why.next, Cause: worker.CauseLimit}, ledger)
}

func (s *spaceRun) waitsForTotal() bool {
	why := s.disk.get()
	return why != nil && why.total
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
	watch := s.host.diskWatch()
	switch {
	case why.low:
		if free, err := lease.FreeAt(s.host.state.dir)(); err == nil && free < minDisk {
			return errors.New(why.reason + " It starts again once 1 GiB is free. " + why.next)
		}
	case why.total:
		if still := watch.stillOver(ctx, s, watch.overTotal); still != nil {
			return errors.New(still.reason + " " + still.next)
		}
	default:
		if still := watch.stillOver(ctx, s, overLimit); still != nil {
			return errors.New(still.reason + " " + still.next)
		}
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
	return &diskWatch{
		free: lease.FreeAt(h.state.dir), spaces: spaces, note: h.screen.note, nearlyFull: h.noticeDiskLow, log: h.log.Named("disk"),
		total:    func() int64 { return h.settings().TotalLimits.Disk },
		trimLogs: h.trimLogs,
	}
}

// trimLogs removes the oldest logs of Spaces above the total limit.
func (h *Host) trimLogs() {
	limit := h.settings().TotalLimits.LogSize
	if limit == 0 {
		return
	}
	for _, folder := range slices.Compact([]string{h.state.dir, h.kept}) {
		removed, err := spacelog.Trim(folder, limit)
		if removed > 0 || err != nil {
			h.log.Info("old logs removed", zap.Int64("bytes", removed), zap.Int64("limit", limit), zap.Error(err))
		}
	}
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
