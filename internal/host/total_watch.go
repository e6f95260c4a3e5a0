package host

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/internal/proctree"
	"spacehost/worker"
)

// totalSpace is a Space as totalWatch sees it. The methods may be called from any goroutine; those that measure may take
// milliseconds.
type totalSpace interface {
	name() string
	// start returns the name of its current start; "" if it does not run.
	start() string
	// memory returns the bytes that it uses; without exact, shared pages count for each process (proctree.Tree.Memory).
	memory(exact bool) int64
	// threads returns its processes and threads, 0 if the machine has fewer than least in all.
	threads(least int) int
	// endForTotal ends that start, and returns at once.
	endForTotal(start string, why *worker.RefusedError)
}

// totalWatch ends the Space that uses most while all Spaces together exceed a limit that no cgroup enforces.
type totalWatch struct {
	limits func() config.Limits
	spaces func() []totalSpace
	log    *zap.Logger

	quiet time.Time // until then no further Space is ended
}

// run watches until ctx ends.
func (w *totalWatch) run(ctx context.Context) {
	again := time.NewTicker(proctree.OOMInterval)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			w.look()
		}
	}
}

func (w *totalWatch) look() {
	limits := w.limits()
	if time.Now().Before(w.quiet) {
		return
	}
	if limit := limits.Memory; limit > 0 {
		if total, _ := w.sum(func(s totalSpace) int64 { return s.memory(false) }); total > limit {
			w.check(limit, func(s totalSpace) int64 { return s.memory(true) }, func(total, most int64) *worker.RefusedError {
				return &worker.RefusedError{
					Reason: fmt.Sprintf("All Spaces together used %s of memory, more than their limit of %s, and the Space used most of it (%s).",
						proctree.FormatBytes(total), proctree.FormatBytes(limit), proctree.FormatBytes(most)),
					Next: "Give the Space a limit of its own (limits.memory), or raise total_limits.memory.", Cause: worker.CauseMemory,
				}
			})
		}
	}
	if limit := limits.Processes; limit > 0 {
		w.check(int64(limit), func(s totalSpace) int64 { return int64(s.threads(limit)) }, func(total, most int64) *worker.RefusedError {
			return &worker.RefusedError{
				Reason: fmt.Sprintf("All Spaces together had %d processes and threads, more than their limit of %d, and the Space had most of them (%d).", total, limit, most),
				Next:   "Give the Space a limit of its own (limits.processes), or raise total_limits.processes.", Cause: worker.CauseLimit,
			}
		})
	}
}

// sum measures all Spaces that run, and returns the one that uses most.
func (w *totalWatch) sum(measure func(totalSpace) int64) (total int64, most totalSpace) {
	var highest int64
	for _, s := range w.spaces() {
		if s.start() == "" {
			continue
		}
		used := measure(s)
		total += used
		if used > highest {
			highest, most = used, s
		}
	}
	return total, most
}

// check ends the Space that uses most if the sum of all exceeds limit. The others get time to continue before the next look.
func (w *totalWatch) check(limit int64, measure func(totalSpace) int64, why func(total, most int64) *worker.RefusedError) {
	var highest int64
	total, worst := w.sum(func(s totalSpace) int64 {
		used := measure(s)
		highest = max(highest, used)
		return used
	})
	if total <= limit || worst == nil {
		return
	}
	start, reason := worst.start(), why(total, highest)
	w.quiet = time.Now().Add(settleTime)
	w.log.Warn("space ended for the limit of all Spaces", zap.String("space", worst.name()), zap.String("reason", reason.Reason))
	worst.endForTotal(start, reason)
}

// endedForTotal is the reason in the ledger for calls that are cut off by a limit of all Spaces.
const endedForTotal = "ended for total_limits"

var _ totalSpace = (*spaceRun)(nil)

// useOf reads a value of the processes of the current start. Without one it is 0.
func useOf[T int | int64 | time.Duration](s *spaceRun, read func(proctree.Tree) T) T {
	start := s.start()
	if start == "" {
		return 0
	}
	return read(s.host.processes.Tree(start))
}

func (s *spaceRun) memory(exact bool) int64 {
	return useOf(s, func(t proctree.Tree) int64 { return t.Memory(exact) })
}

func (s *spaceRun) threads(least int) int {
	return useOf(s, func(t proctree.Tree) int { return t.Threads(least) })
}

func (s *spaceRun) endForTotal(start string, why *worker.RefusedError) {
	s.supervisor.EndStart(start, why, endedForTotal)
}

func (h *Host) totalWatch() *totalWatch {
	return &totalWatch{
		// Where a cgroup enforces a limit, the kernel acts before this look. The look is a second line for both.
		limits: func() config.Limits { return h.settings().TotalLimits }, log: h.log.Named("total"),
		spaces: func() (all []totalSpace) {
			for _, s := range h.all() {
				all = append(all, s)
			}
			return all
		},
	}
}

// limitTotal puts the limits of all Spaces together in force, and notes those that the kernel does not enforce.
func (h *Host) limitTotal() {
	set := h.settings().TotalLimits
	limit := h.processes.Cgroups().LimitTotal
	if h.agent != nil { // the starts are in its cgroup
		limit = h.agent.LimitTotal
	}
	rest, err := limit(proctree.Limits{Memory: set.Memory, Processes: set.Processes, CPU: set.CPU})
	if err != nil {
		h.log.Warn("limit of all spaces not set on their cgroup", zap.Error(err))
	}
	if rest.Memory > 0 {
		h.screen.note(fmt.Sprintf("total_limits.memory=%s is checked every %g s (spacehost doctor).", config.FormatSize(rest.Memory), proctree.OOMInterval.Seconds()))
	}
	if rest.Processes > 0 {
		h.screen.note(fmt.Sprintf("total_limits.processes=%d is checked every %g s (spacehost doctor).", rest.Processes, proctree.OOMInterval.Seconds()))
	}
	if rest.CPU > 0 {
		h.screen.note(fmt.Sprintf("total_limits.cpu=%g is not enforced: it needs the cpu controller of cgroup version 2 (spacehost doctor).", rest.CPU))
	}
}
