package worker

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/printable"
	"spacehost/internal/proctree"
)

// applyLimits bounds the resources of a start before its app's first line runs. A limit that no cgroup enforces is left
// to the host: checkMemory reads the memory, watchProcesses counts processes, and the CPU has a lower priority.
func (p *Process) applyLimits() {
	rest := p.config.Limits
	if p.tree.Cgroup != "" {
		var err error
		if rest, err = p.config.Cgroups.Limit(p.tree.Cgroup, rest); err != nil {
			p.config.Logger.Warn("limit of space not set on its cgroup", zap.Error(err))
		}
	}
	p.memoryLimit, p.processLimit = rest.Memory, rest.Processes
	if err := p.tree.Root.SetOOMScore(spaceOOMScore); err != nil {
		p.config.Logger.Warn("space not preferred to the host when memory runs out", zap.Error(err))
	}
	p.lowersCPU = rest.CPU > 0
	p.lowerPriority(p.tree.Root)
}

// lowerPriority lowers the priority of a session of a Space with a CPU limit that no cgroup enforces.
func (p *Process) lowerPriority(leader proctree.Process) {
	if !p.lowersCPU {
		return
	}
	if err := leader.SetNice(proctree.Nice); err != nil {
		p.config.Logger.Warn("priority of space not lowered", zap.Error(err))
	}
}

func (p *Process) checkMemory() {
	if used, above := p.tree.MemoryAbove(p.memoryLimit); above {
		p.config.Logger.Warn("space above its memory limit", zap.Int64("used", used), zap.Int64("limit", p.memoryLimit))
		p.Fail(&RefusedError{
			Reason: fmt.Sprintf("The Space used %s of memory, more than its limit of %s.", proctree.FormatBytes(used), proctree.FormatBytes(p.memoryLimit)),
			Next:   "Load less, use smaller data types, or raise limits.memory (--limit memory=SIZE).", Cause: CauseMemory,
		})
	}
}

// countInterval is the interval at which a Space with a cgroup is measured: its cgroup lists its processes and threads.
const countInterval = 100 * time.Millisecond

// LookInterval returns the interval at which the host measures memory and processes of a start. Without a cgroup, all processes of
// the machine are scanned.
func LookInterval(hasCgroup bool) time.Duration {
	if hasCgroup {
		return countInterval
	}
	return proctree.OOMInterval
}

// watchMemory ends a Space that uses more memory than its limit, unless a cgroup enforces it.
func (p *Process) watchMemory() {
	if p.memoryLimit == 0 {
		return
	}
	again := time.NewTicker(LookInterval(p.tree.Cgroup != ""))
	defer again.Stop()
	for {
		select {
		case <-p.exited:
			return
		case <-again.C:
			p.checkMemory()
		}
	}
}

// watchProcesses ends a Space that has more processes and threads than its limit. Where the kernel enforces the limit, a fork of
// the Space fails instead; the operator then reads so, once.
func (p *Process) watchProcesses() {
	limit := p.config.Limits.Processes
	if limit == 0 {
		return
	}
	again := time.NewTicker(LookInterval(p.tree.Cgroup != ""))
	defer again.Stop()
	for reported := false; ; {
		select {
		case <-p.exited:
			return
		case <-again.C:
		}
		n := p.tree.Threads(limit)
		if n > limit && p.processLimit > 0 {
			p.config.Logger.Warn("space above its limit of processes", zap.Int("processes", n), zap.Int("limit", limit))
			p.Fail(&RefusedError{
				Reason: fmt.Sprintf("The Space had %d processes and threads, more than its limit of %d.", n, limit),
				Next:   "Start fewer, end those that are done, or raise limits.processes (--limit processes=N).", Cause: CauseLimit,
			})
			return
		}
		if refused, failed := p.tree.ForksRefused() > 0, p.forkFailed.Load(); !reported && (n >= limit-limit/10 || refused || failed) {
			reported = true
			p.config.Logger.Warn("space at its limit of processes", zap.Int("processes", n), zap.Int("limit", limit), zap.Bool("refused", refused))
			state := fmt.Sprintf("has %d processes and threads, close to its limit of %d", n, limit)
			if failed {
				state = fmt.Sprintf("could not start a process or thread; its limit of %d counts both", limit)
			}
			if refused {
				state = fmt.Sprintf("has reached its limit of %d processes and threads", limit)
			}
			p.config.Reporter.Note(fmt.Sprintf("The Space %s. Above it nothing more starts (\"can't start new thread\", \"Resource temporarily unavailable\"). "+
				"Start fewer, or raise limits.processes (--limit processes=N).", state))
		}
	}
}

// EndStart ends a start of the Space for a reason of the host, if that start still runs. It does not wait for the end. The Space is
// started again after a pause. Calls that are cut off are not charged if ledger is not empty: it is the reason in the ledger
// for a cause that is not the Space's alone. Otherwise they are charged, as for a process that ends by itself.
func (s *Supervisor) EndStart(instance string, reason *RefusedError, ledger string) {
	p, _ := s.process()
	if p == nil || p.Facts().Instance != instance {
		return
	}
	if ledger != "" && s.config.Ending != nil {
		s.config.Ending(instance, ledger)
		s.queue.Lost(printable.Reason(reason.Reason)) // as in endFor
	}
	p.Fail(reason)
}

// Instance returns the current start, "" if there is none.
func (s *Supervisor) Instance() string {
	if p, _ := s.process(); p != nil {
		return p.Facts().Instance
	}
	return ""
}

// permit asks whether a start may begin.
func (s *Supervisor) permit() error {
	if s.config.MayStart == nil {
		return nil
	}
	return s.config.MayStart()
}
