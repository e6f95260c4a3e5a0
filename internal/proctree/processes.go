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

// Processes keeps the process trees of all instances of Spaces on this machine. It finds the Space of a pid, and ends workers.
// It implements lease.Processes. Its methods are safe for concurrent use.
type Processes struct {
	Logger *zap.Logger // nil: no log

	cgroups   *Cgroups  // nil: this machine does not allow cgroups
	inherited []Process // children of this process from before Contain

	mu            sync.Mutex
	trees         map[string]spaceTree // by instance
	subtrees      map[Process]*subtree // workers without a cgroup, until their End
	frozen        map[Process]bool     // frozen workers, until Thaw or End
	workerCgroups map[Process]string   // cgroups of workers that were frozen once, until End

	warnOnce      sync.Once // the kernel does not report the owner of a connection
	externalProcs recentProcs
	spaceProcs    recentProcs
}

// Register adds the tree of an instance of a Space. Several instances of one Space may run. An instance that has ended stays
// registered until another one of its Space is added, so that a process that survives SIGKILL is still found by its marker.
func (p *Processes) Register(space, instance string, t Tree) {
	p.register(instance, spaceTree{space, t, false})
}

// RegisterStandby adds the tree of an instance that waits for its turn (worker, standby), until Register. Its processes belong to
// the Space; FromInside and Holders do not find them.
func (p *Processes) RegisterStandby(space, instance string, t Tree) {
	p.register(instance, spaceTree{space, t, true})
}

func (p *Processes) register(instance string, t spaceTree) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trees == nil {
		p.trees = map[string]spaceTree{}
	}
	maps.DeleteFunc(p.trees, func(_ string, old spaceTree) bool { return old.space == t.space && !old.Root.Alive() })
	p.trees[instance] = t
}

// spaceTree is the tree of one instance of a Space.
type spaceTree struct {
	space string
	Tree
	isStandby bool
}

// all lists the trees of all instances.
func (p *Processes) all() []spaceTree {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.trees))
}

// Tree returns the tree of an instance. The zero value of an unknown one has no processes.
func (p *Processes) Tree(instance string) Tree {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trees[instance].Tree
}

// FromInside returns the running process of that instance which calls itself pid, other than the runner. The pid in a
// request of a Space is such a pid: a sandbox has pids of its own. The start time (clock ticks since boot) identifies the
// process together with its pid on the host.
func (p *Processes) FromInside(instance string, pid int) (host int, start uint64, ok bool) {
	if pid <= 1 {
		return 0, 0, false
	}
	p.mu.Lock()
	t := p.trees[instance]
	p.mu.Unlock()
	if t.isStandby {
		return 0, 0, false
	}
	if t.HostPID != nil {
		var err error
		if pid, err = t.HostPID(pid); err != nil {
			return 0, 0, false
		}
	}
	found, ok := t.has(pid)
	return found.PID, found.Start, ok
}

// SpaceOf returns the Space of a running process and its start time; "" if it belongs to no Space. The runner counts
// as a process of its Space.
func (p *Processes) SpaceOf(pid int) (space string, start uint64) {
	s, ok := ReadStat(pid)
	if !ok {
		return "", 0
	}
	for _, t := range p.all() {
		if _, member := t.has(pid); member || t.isRunner(s.Process) {
			return t.space, s.Start
		}
	}
	return "", s.Start
}

// Wait blocks until the process has exited or ctx ends. It occupies no thread: an agent waits for the worker of each lease.
func (p *Processes) Wait(ctx context.Context, pid int, start uint64) {
	worker := Process{pid, start}
	if worker.awaitExit(ctx) {
		return
	}
	for ctx.Err() == nil && !worker.Await(500*time.Millisecond) {
	}
}

// End ends a worker and its subtree, and no other process. It sends SIGTERM first if grace is above 0, and SIGKILL
// after grace. It blocks until all have exited, and reports whether they have. If the pid has been reused by another
// process, that process is not signalled.
func (p *Processes) End(pid int, start uint64, grace time.Duration) bool {
	worker := Process{pid, start}
	members := p.subtreeOf(worker)
	if grace > 0 && worker.Alive() {
		members.terminate()
		_ = p.Thaw(pid, start) // it handles SIGTERM now; otherwise SIGKILL ends it after grace
		worker.Await(grace)
	}
	if dir := p.cgroups.ofWorker(worker); dir != "" {
		if err := endCgroup(dir, killTime); err != nil {
			p.logger().Warn("cannot remove cgroup of worker", zap.Int("worker", pid), zap.Error(err))
		}
	}
	err := members.kill() // includes processes that left the cgroup or never were in it
	if err != nil {
		p.logger().Error("cannot end worker", zap.Int("worker", pid), zap.Error(err))
		return false
	}
	p.forget(worker)
	return true
}

// Within reports whether pid is the worker, a descendant of it, or a member of its process group.
func (p *Processes) Within(pid, worker int, start uint64) bool {
	if pid == worker {
		return (Process{worker, start}).Alive()
	}
	if dir := p.cgroups.ofWorker(Process{worker, start}); dir != "" && isMember(dir, pid) {
		return true
	}
	members, _ := p.subtreeOf(Process{worker, start}).find() // an unreadable process is not a member
	return slices.ContainsFunc(members, func(m Process) bool { return m.PID == pid })
}

// subtree is a worker, its descendants, and the members of its process group. A member that was seen once stays in
// it, because the exit of a parent or of a group leader hides the relation.
type subtree struct {
	worker Process
	ours   func(pid int) bool // whether the process has the marker of a Space

	mu   sync.Mutex
	seen []Process
}

func newSubtree(worker Process, ours func(pid int) bool) *subtree {
	return &subtree{worker: worker, ours: ours, seen: []Process{worker}}
}

// find returns the running members and records them.
func (s *subtree) find() ([]Process, error) {
	all, err := allStats()
	return s.among(all), err
}

// among is find for a given result of allStats.
func (s *subtree) among(all []Stat) []Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	grouped := s.grouped()
	for _, one := range all {
		if one.Group == s.worker.PID && one.Start >= s.worker.Start && grouped(one.PID) {
			s.see(one.Process)
		}
	}
	for _, known := range slices.Clone(s.seen) {
		if known.among(all) {
			for _, p := range below(known.PID, all) {
				s.see(p)
			}
		}
	}
	s.seen = slices.DeleteFunc(s.seen, func(p Process) bool { return p != s.worker && !p.Alive() })
	return slices.DeleteFunc(slices.Clone(s.seen), func(p Process) bool { return !p.Alive() })
}

// stormTime bounds how long kill keeps the stopped worker to receive orphans.
const stormTime = 600 * time.Millisecond

// kill ends the members, the worker last. The stopped worker remains the subreaper of its orphans, so that none
// escapes while the others are killed. Its process group is stopped with one signal, because members could fork
// faster than they are found. The rest of the group is then killed with one signal too.
func (s *subtree) kill() error {
	_ = s.worker.signal(unix.SIGSTOP) // ESRCH: it has exited, and its group has no leader; EAGAIN: it is killed without a stop
	_ = s.worker.signalGroup(unix.SIGSTOP)
	others := func() ([]Process, error) {
		members, err := s.find()
		return slices.DeleteFunc(members, func(p Process) bool { return p == s.worker }), err
	}
	_ = killAll(others, stormTime) // retried below
	_ = s.worker.signalGroup(unix.SIGKILL)
	return killAll(s.find, killTime)
}

func (s *subtree) see(p Process) {
	if !slices.Contains(s.seen, p) {
		s.seen = append(s.seen, p)
	}
}

// grouped returns a filter for the processes in the group with the worker's pid as its number. A group keeps its
// number, and the kernel does not reuse that number as a pid, while the group has members. The cases:
//  1. The worker exists, at least as a zombie: all are members.
//  2. No process has the worker's pid. Another process may have had it meanwhile and have left such a group: only
//     processes of a Space are members.
//  3. Another process has the pid: the worker's group is gone, so none is a member.
func (s *subtree) grouped() func(pid int) bool {
	now, _ := ReadStat(s.worker.PID)
	switch now.Process {
	case s.worker: // 1
		return func(int) bool { return true }
	case Process{}: // 2
		return s.ours
	}
	return func(int) bool { return false } // 3
}

// hasAnyMarker reports whether a process has the marker of a Space of this host.
func (p *Processes) hasAnyMarker(pid int) bool {
	return slices.ContainsFunc(p.all(), func(t spaceTree) bool { return hasMarker(pid, t.Marker) })
}

// terminate sends SIGTERM. An idle worker exits; a busy worker of `spaces` ignores it (spaces/zero/wrappers.py).
func (s *subtree) terminate() {
	members, _ := s.find() // members not found yet get SIGKILL later
	for _, p := range members {
		_ = p.signalMainThread(unix.SIGTERM)
	}
}

// EndOrphans kills every process that has the marker of an earlier start or is in its cgroup, the runner included.
// It returns when they have exited. It serves recovery after a crash of the host.
func (p *Processes) EndOrphans(marker string) {
	orphans := Tree{Marker: marker}
	if p.cgroups != nil && marker != "" {
		orphans.Cgroup = p.cgroups.of(instanceOf(marker))
	}
	orphans.Kill(p.logger())
}
