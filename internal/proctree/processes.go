package proctree

import (
	"context"
	"maps"
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

	cgroups *Cgroups // nil: this machine lets us make none

	mu       sync.Mutex
	trees    map[string]Tree      // by Space
	subtrees map[Process]*subtree // of workers without a cgroup, until their End

	blind         sync.Once // the kernel does not tell whose a connection is
	externalProcs externalProcs
}

func (p *Processes) Register(space string, t Tree) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trees == nil {
		p.trees = map[string]Tree{}
	}
	p.trees[space] = t
}

func (p *Processes) get(space string) Tree {
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
	return found.Start, ok
}

// SpaceOf returns whose a living process is, its runner included, and its start time; "" if it is no Space's.
func (p *Processes) SpaceOf(pid int) (space string, start uint64) {
	s, ok := ReadStat(pid)
	if !ok {
		return "", 0
	}
	p.mu.Lock()
	trees := maps.Clone(p.trees)
	p.mu.Unlock()
	for space, t := range trees {
		if _, member := t.has(pid); member || s.Process == t.Root {
			return space, s.Start
		}
	}
	return "", s.Start
}

// Wait blocks until that process has died or ctx ends.
func (p *Processes) Wait(ctx context.Context, pid int, start uint64) {
	for ctx.Err() == nil && !(Process{pid, start}).Await(500*time.Millisecond) {
	}
}

// End ends a worker and what it started, and only that: SIGTERM to its family if grace is above 0, SIGKILL
// after it. It blocks until they are gone and reports whether they are. A pid that has come to mean another
// process is not touched.
func (p *Processes) End(pid int, start uint64, grace time.Duration) bool {
	worker := Process{pid, start}
	members := p.subtreeOf(worker)
	if grace > 0 && worker.Alive() {
		members.terminate()
		worker.Await(grace)
	}
	if dir := p.cgroups.ofWorker(worker); dir != "" {
		if err := endCgroup(dir, killTime); err != nil {
			p.logger().Warn("cgroup of a worker stays", zap.Int("worker", pid), zap.Error(err))
		}
	}
	err := members.kill() // also who has left the cgroup, or never was in it
	if err != nil {
		p.logger().Error("worker stays", zap.Int("worker", pid), zap.Error(err))
		return false
	}
	p.forget(worker)
	return true
}

// Within reports whether pid is that worker, a descendant of it, or shares its group.
func (p *Processes) Within(pid, worker int, start uint64) bool {
	if pid == worker {
		return (Process{worker, start}).Alive()
	}
	if dir := p.cgroups.ofWorker(Process{worker, start}); dir != "" && cgroupHolds(dir, pid) {
		return true
	}
	members, _ := p.subtreeOf(Process{worker, start}).find() // who cannot be told to be of it is not
	return slices.ContainsFunc(members, func(m Process) bool { return m.PID == pid })
}

// family is a worker, its descendants, and who shares its group. Members that were seen once stay in it, since
// the death of a parent or a leader hides whose they were.
type subtree struct {
	worker Process
	ours   func(pid int) bool // whether it bears the marker of a Space

	mu   sync.Mutex
	seen []Process
}

func newSubtree(worker Process, ours func(pid int) bool) *subtree {
	return &subtree{worker: worker, ours: ours, seen: []Process{worker}}
}

// find returns the living members, and remembers them.
func (f *subtree) find() ([]Process, error) {
	all, err := allStats()
	return f.among(all), err
}

// among is find with what allStats has found.
func (f *subtree) among(all []Stat) []Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	grouped := f.grouped()
	for _, s := range all {
		if s.Group == f.worker.PID && s.Start >= f.worker.Start && grouped(s.PID) {
			f.see(s.Process)
		}
	}
	for _, known := range slices.Clone(f.seen) {
		if known.among(all) {
			for _, p := range below(known.PID, all) {
				f.see(p)
			}
		}
	}
	f.seen = slices.DeleteFunc(f.seen, func(p Process) bool { return p != f.worker && !p.Alive() })
	return slices.DeleteFunc(slices.Clone(f.seen), func(p Process) bool { return !p.Alive() })
}

// stormTime bounds how long the worker's life is spared for the sake of those that leave their parents.
const stormTime = 600 * time.Millisecond

// kill ends the members, the worker last: stopped, it goes on being the subreaper to which its orphans come, so that
// none gets away while the others die. So is its group, at one stroke, against those that fork faster than we look; who is
// left of it then goes at one stroke, too.
func (f *subtree) kill() error {
	_ = f.worker.signal(unix.SIGSTOP) // ESRCH: it is gone, and so is its group's name; EAGAIN: it is killed as it runs
	_ = f.worker.signalGroup(unix.SIGSTOP)
	others := func() ([]Process, error) {
		members, err := f.find()
		return slices.DeleteFunc(members, func(p Process) bool { return p == f.worker }), err
	}
	_ = killAll(others, stormTime) // it is tried again below
	_ = f.worker.signalGroup(unix.SIGKILL)
	return killAll(f.find, killTime)
}

func (f *subtree) see(p Process) {
	if !slices.Contains(f.seen, p) {
		f.seen = append(f.seen, p)
	}
}

// grouped says who in the group of the worker's number is a member. A group keeps its number, and keeps that
// number from being a pid again, as long as it has members. So:
//  1. the worker is there, if only as a zombie: all;
//  2. nobody has its PID: another may have had it, and left such a group, in between: only who is a Space's;
//  3. its pid is another's: its group died before.
func (f *subtree) grouped() func(pid int) bool {
	s, _ := ReadStat(f.worker.PID)
	switch s.Process {
	case f.worker: // 1
		return func(int) bool { return true }
	case Process{}: // 2
		return f.ours
	}
	return func(int) bool { return false } // 3
}

func (p *Processes) bearMarker(pid int) bool {
	p.mu.Lock()
	trees := slices.Collect(maps.Values(p.trees))
	p.mu.Unlock()
	return slices.ContainsFunc(trees, func(t Tree) bool { return hasMarker(pid, t.Marker) })
}

// terminate is a courtesy: an idle worker leaves, a busy one of `spaces` ignores it (spaces/zero/wrappers.py).
func (f *subtree) terminate() {
	members, _ := f.find() // whoever is missing gets SIGKILL later
	for _, p := range members {
		_ = p.signal(unix.SIGTERM)
	}
}

// EndOrphans kills every process that bears the marker of an earlier start, or stands in its cgroup, and returns when
// they are gone. For recovery after a crash of the host; the runner is among them.
func (p *Processes) EndOrphans(marker string) {
	orphans := Tree{Marker: marker}
	if p.cgroups != nil && marker != "" {
		orphans.Cgroup = p.cgroups.of(instanceOf(marker))
	}
	orphans.Kill(p.logger())
}
