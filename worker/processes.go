package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Processes knows the trees of all Spaces of this host: whose a pid is, and how it ends. It implements what
// internal/lease asks of processes; its methods may be called from any goroutine.
type Processes struct {
	Logger *zap.Logger

	mu    sync.Mutex
	trees map[string]tree // by Space
}

func (p *Processes) set(space string, t tree) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trees == nil {
		p.trees = map[string]tree{}
	}
	p.trees[space] = t
}

func (p *Processes) get(space string) tree {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trees[space]
}

// Owns reports whether pid is a living process of that Space's tree, the runner itself excepted, and the
// start time (clock ticks since boot) that makes the pid unmistakable.
func (p *Processes) Owns(space string, pid int) (start uint64, ok bool) {
	if pid <= 1 {
		return 0, false
	}
	found, ok := p.get(space).has(pid)
	return found.start, ok
}

// Wait blocks until that process has died or ctx ends.
func (p *Processes) Wait(ctx context.Context, pid int, start uint64) {
	for ctx.Err() == nil && !(proc{pid, start}).await(500*time.Millisecond) {
	}
}

// End ends a worker and what it started, and only that: SIGTERM to its group if grace is above 0, SIGKILL
// after it. It blocks until they are gone and reports whether they are. A pid that has come to mean another
// process is not touched.
func (p *Processes) End(pid int, start uint64, grace time.Duration) bool {
	worker := proc{pid, start}
	family := newFamily(worker)
	if grace > 0 && worker.alive() {
		family.terminate()
		worker.await(grace)
	}
	left := killAll(family.find, killTime)
	if len(left) > 0 && p.Logger != nil {
		p.Logger.Error("worker outlives SIGKILL", zap.Int("worker", pid), zap.Any("pids", pids(left)))
	}
	return len(left) == 0
}

// family is a worker, its descendants, and who shares its group. Descendants that were seen once stay in it,
// since their parent's death hides whose they were.
type family struct {
	worker proc
	leads  bool // the worker led a group of its own when it was seen alive; a group with members keeps its number
	seen   []proc
}

func newFamily(worker proc) *family {
	s, ok := readStat(worker.pid)
	return &family{worker: worker, leads: ok && s.proc == worker && s.group == worker.pid}
}

// find returns the living members, and remembers them.
func (f *family) find() []proc {
	all := allStats()
	for _, s := range all {
		member := s.proc == f.worker || f.leads && s.group == f.worker.pid && s.start >= f.worker.start
		if member && !slices.Contains(f.seen, s.proc) {
			f.seen = append(f.seen, s.proc)
		}
	}
	for _, known := range slices.Clone(f.seen) {
		for _, p := range below(known.pid, all) {
			if known.alive() && !slices.Contains(f.seen, p) {
				f.seen = append(f.seen, p)
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(f.seen), func(p proc) bool { return !p.alive() })
}

// terminate is a courtesy: an idle worker leaves, a busy one of `spaces` ignores it (spaces/zero/wrappers.py).
func (f *family) terminate() {
	for _, p := range f.find() {
		_ = p.signal(unix.SIGTERM)
	}
}

// EndOrphans kills every process that bears the marker of an earlier start, and returns when they are gone.
// For recovery after a crash of the host; the runner is among them.
func EndOrphans(marker string, log *zap.Logger) {
	tree{marker: marker}.kill(log)
}

// StartTime returns the start time of a living process, false if there is none.
func StartTime(pid int) (uint64, bool) {
	s, ok := readStat(pid)
	return s.start, ok
}
