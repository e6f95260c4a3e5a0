package worker

import (
	"fmt"

	"go.uber.org/zap"

	"spacehost/internal/proctree"
)

// applyLimits bounds the resources of a start before its app's first line runs. A limit that no cgroup enforces is left
// to the host: checkMemory reads the memory, and the CPU has a lower priority.
func (p *Process) applyLimits() {
	rest := p.config.Limits
	if p.tree.Cgroup != "" {
		var err error
		if rest, err = p.config.cgroups.Limit(p.tree.Cgroup, rest); err != nil {
			p.config.Logger.Warn("limit of space not set on its cgroup", zap.Error(err))
		}
	}
	p.memoryLimit = rest.Memory
	if rest.CPU > 0 {
		if err := p.tree.Root.SetNice(proctree.Nice); err != nil {
			p.config.Logger.Warn("priority of space not lowered", zap.Error(err))
		}
	}
}

// checkMemory ends a Space that uses more memory than its limit.
func (p *Process) checkMemory() {
	if p.memoryLimit == 0 {
		return
	}
	if used, above := p.tree.MemoryAbove(p.memoryLimit); above {
		p.config.Logger.Warn("space above its memory limit", zap.Int64("used", used), zap.Int64("limit", p.memoryLimit))
		p.fail(&RefusedError{
			Reason: fmt.Sprintf("The Space used %s of memory, more than its limit of %s.", proctree.FormatBytes(used), proctree.FormatBytes(p.memoryLimit)),
			Next:   "Load less, use smaller data types, or raise limits.memory (--limit memory=SIZE).",
		})
	}
}

// EndStart ends a start of the Space for a reason of the host, if that start still runs. It returns at once. The Space is
// started again after a pause.
func (s *Supervisor) EndStart(instance string, reason *RefusedError) {
	if p, _ := s.process(); p != nil && p.Instance == instance {
		p.fail(reason)
	}
}

// Instance returns the current start, "" if there is none.
func (s *Supervisor) Instance() string {
	if p, _ := s.process(); p != nil {
		return p.Instance
	}
	return ""
}

// DeletedBytes returns the bytes of deleted files on a disk that processes of the current start keep open
// (proctree.Tree.DeletedBytes).
func (s *Supervisor) DeletedBytes(device uint64) int64 {
	if p, _ := s.process(); p != nil {
		return p.tree.DeletedBytes(device)
	}
	return 0
}

// permit asks whether a start may begin.
func (s *Supervisor) permit() error {
	if s.config.MayStart == nil {
		return nil
	}
	return s.config.MayStart()
}
