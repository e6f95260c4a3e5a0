package proctree

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// disable names what is not to be used though this machine has it, to try the ways around it: cgroup.
const disable = "SPACEHOST_DISABLE"

// Contain makes ready what keeps together whatever a Space starts. Call it once, before the first Space starts; Run
// does the rest. It says in words what is in force:
//
//  1. cgroups, where this machine lets us make them;
//  2. else each GPU worker is the subreaper of what it starts: whoever leaves its parent comes to the worker, and is
//     found below it. Run looks who is there, since those that outlive the worker come to us.
//
// In both cases we are the subreaper of all, so that nobody's zombies stay.
func (p *Processes) Contain() (words string) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		p.logger().Warn("orphans go to init", zap.Error(err))
	}
	made, err := OpenCgroups()
	if slices.Contains(strings.Split(os.Getenv(disable), ","), "cgroup") {
		made, err = nil, fmt.Errorf("%s forbids it", disable)
	}
	if err != nil {
		return fmt.Sprintf("what a GPU worker starts is found by its process tree, with the worker as child subreaper (no cgroup: %v)", err)
	}
	p.cgroups = made
	return fmt.Sprintf("what a Space and its GPU workers start is kept in cgroups below %s and ended by cgroup.kill", made.Base)
}

// Cgroups returns where this host makes cgroups, as Contain has found; nil: this machine lets us make none.
func (p *Processes) Cgroups() *Cgroups { return p.cgroups }

// Confine says that a process of the Space is a GPU worker now: from here on End finds whatever it starts. It does not
// block. Where it fails, End finds what stays in the worker's tree or group.
func (p *Processes) Confine(space string, pid int, start uint64) {
	worker := Process{pid, start}
	if dir := p.get(space).Cgroup; dir != "" {
		err := confine(dir, worker)
		if err == nil {
			return
		}
		p.logger().Warn("worker gets no cgroup", zap.Int("worker", pid), zap.Error(err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.subtrees == nil {
		p.subtrees = map[Process]*subtree{}
	}
	if p.subtrees[worker] == nil {
		p.subtrees[worker] = newSubtree(worker, p.bearMarker)
	}
}

// subtreeOf is the one that is being watched, or a new one.
func (p *Processes) subtreeOf(worker Process) *subtree {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.subtrees[worker]; known != nil {
		return known
	}
	return newSubtree(worker, p.bearMarker)
}

func (p *Processes) forget(worker Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.subtrees, worker)
}

// The pace of Run.
const (
	scanInterval = time.Second
	scansPerReap = 5 // times that
)

// Run looks at the subtrees of workers that have no cgroup, and reaps the zombies that have come to us, until ctx ends.
func (p *Processes) Run(ctx context.Context) error {
	again := time.NewTicker(scanInterval)
	defer again.Stop()
	var before []Process
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-again.C:
		}
		p.mu.Lock()
		watched := slices.Collect(maps.Values(p.subtrees))
		p.mu.Unlock()
		if len(watched) > 0 {
			all, _ := allStats() // another time
			for _, f := range watched {
				f.among(all) // it remembers them
			}
		}
		if n%scansPerReap == 0 {
			before = reap(before)
		}
	}
}

// reap takes away those of our zombies that were zombies before, too. Whoever starts a process of its own waits for
// it and takes it at once; what is left has come to us from a parent that has died.
func reap(before []Process) (zombies []Process) {
	entries, _ := os.ReadDir("/proc") // another time
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		s, living := ReadStat(pid)
		switch {
		case living || s.PID == 0 || s.Parent != os.Getpid():
		case slices.Contains(before, s.Process):
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		default:
			zombies = append(zombies, s.Process)
		}
	}
	return zombies
}

func (p *Processes) logger() *zap.Logger {
	if p.Logger == nil {
		return zap.NewNop()
	}
	return p.Logger
}
