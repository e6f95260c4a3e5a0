package proctree

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/internal/feature"
)

// Contain selects the containment of the processes that Spaces start. Call it once, before the first Space starts.
// Run does the periodic part. The returned words describe the mode in force:
//
//  1. Cgroups, if this machine allows them.
//  2. Otherwise each GPU worker is the subreaper of its descendants. An orphan becomes a child of the worker and
//     is found below it. Run scans the subtrees, because processes that outlive the worker become children of this
//     process.
//
// In both modes this process is a subreaper, so that no zombie remains and Untrusted finds orphans.
func (p *Processes) Contain() (words string) {
	p.inherited = children()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		p.logger().Warn("cannot become child subreaper, orphans go to init", zap.Error(err))
	}
	made, err := OpenCgroups()
	if feature.Disabled(feature.Cgroup) {
		made, err = nil, fmt.Errorf("disabled by %s", feature.Variable)
	}
	if err != nil {
		return fmt.Sprintf("descendants of a GPU worker are found in its process tree, with the worker as child subreaper (no cgroup: %v)", err)
	}
	if err := made.delegate(limitControllers); err != nil {
		p.logger().Info("controllers not delegated", zap.Error(err))
	}
	if len(made.controllers) > 0 {
		if err := made.nest(); err != nil {
			p.logger().Info("no common cgroup of all starts", zap.Error(err))
		}
	}
	p.cgroups = made
	return fmt.Sprintf("descendants of a Space and its GPU workers are contained in cgroups below %s and ended by cgroup.kill", made.Base)
}

// Cgroups returns the cgroups that Contain has opened; nil if this machine does not allow them.
func (p *Processes) Cgroups() *Cgroups { return p.cgroups }

// Confine marks a process of the instance as a GPU worker. From then on End finds every process that the worker starts.
// Confine does not block. If it fails, End finds the processes that stay in the worker's tree or process group.
func (p *Processes) Confine(instance string, pid int, start uint64) {
	worker := Process{pid, start}
	if dir := p.Tree(instance).Cgroup; dir != "" {
		err := confine(dir, worker)
		if err == nil {
			return
		}
		p.logger().Warn("cannot move worker to a cgroup", zap.Int("worker", pid), zap.Error(err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.subtrees == nil {
		p.subtrees = map[Process]*subtree{}
	}
	if p.subtrees[worker] == nil {
		p.subtrees[worker] = newSubtree(worker, p.hasAnyMarker)
	}
}

// subtreeOf returns the watched subtree of a worker, or a new one.
func (p *Processes) subtreeOf(worker Process) *subtree {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.subtrees[worker]; known != nil {
		return known
	}
	return newSubtree(worker, p.hasAnyMarker)
}

func (p *Processes) forget(worker Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.subtrees, worker)
	delete(p.frozen, worker)
	delete(p.workerCgroups, worker)
}

// Intervals of Run.
const (
	scanInterval = time.Second
	scansPerReap = 5 // in scans
)

// Run scans the subtrees of workers without a cgroup, ends frozen workers that were asked to exit, and reaps orphaned
// zombies, until ctx ends.
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
			all, _ := allStats() // after an error the next scan retries
			for _, f := range watched {
				f.among(all) // records the members
			}
		}
		p.endAsked()
		if n%scansPerReap == 0 {
			before = reap(before)
		}
	}
}

// reap reaps the zombie children of this process that were zombies at the previous call too. A child that this
// process started itself is reaped at once by the goroutine that waits for it. A zombie that remains is an orphan of
// an exited parent.
func reap(before []Process) (zombies []Process) {
	entries, _ := os.ReadDir("/proc") // after an error the next scan retries
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		s, running := ReadStat(pid)
		switch {
		case running || s.PID == 0 || s.Parent != os.Getpid():
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
