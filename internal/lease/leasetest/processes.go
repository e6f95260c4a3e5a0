// Package leasetest provides test doubles for package lease: Processes, with processes that start and exit on request
// of the test, and Journal, which records log output.
package leasetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Processes implements lease.Processes without real processes. It is safe for concurrent use.
type Processes struct {
	mu      sync.Mutex
	starts  uint64
	running map[int]*process
	ends    map[int][]time.Duration
}

type process struct {
	space    string
	instance string
	start    uint64
	stubborn bool
	frozen   bool
	icebound bool
	exited   chan struct{}
}

// NewProcesses returns Processes without any process.
func NewProcesses() *Processes {
	return &Processes{running: map[int]*process{}, ends: map[int][]time.Duration{}}
}

// Start starts a process of that Space under pid and replaces any other. Each process has its own start time. Its instance is
// "run-1" for the Space "demo", and the name of any other Space.
func (p *Processes) Start(space string, pid int) (start uint64) {
	if space == "demo" {
		return p.StartIn("run-1", space, pid)
	}
	return p.StartIn(space, space, pid)
}

// StartIn is Start with the instance of the process.
func (p *Processes) StartIn(instance, space string, pid int) (start uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(pid)
	p.starts++
	p.running[pid] = &process{space: space, instance: instance, start: p.starts, exited: make(chan struct{})}
	return p.starts
}

// Exit makes a process exit by itself.
func (p *Processes) Exit(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(pid)
}

// SetStubborn sets whether a running process survives SIGKILL, as a process does that is blocked in a faulty
// driver.
func (p *Processes) SetStubborn(pid int, stubborn bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[pid].stubborn = stubborn
}

// SetIcebound sets whether a running process can be frozen, but not thawed.
func (p *Processes) SetIcebound(pid int, icebound bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[pid].icebound = icebound
}

// Frozen reports whether the process under pid is frozen.
func (p *Processes) Frozen(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running[pid] != nil && p.running[pid].frozen
}

// Alive reports whether a process runs under pid.
func (p *Processes) Alive(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running[pid] != nil
}

// Ends returns the grace of every End that named exactly the process under pid.
func (p *Processes) Ends(pid int) []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ends[pid])
}

func (p *Processes) remove(pid int) {
	if old := p.running[pid]; old != nil {
		close(old.exited)
		delete(p.running, pid)
	}
}

// FromInside implements lease.Processes: these processes have no pids of their own.
func (p *Processes) FromInside(instance string, pid int) (host int, start uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.running[pid]
	if found == nil || found.instance != instance {
		return 0, 0, false
	}
	return pid, found.start, true
}

// Confine implements lease.Processes: no process here starts another.
func (p *Processes) Confine(string, int, uint64) {}

// Freeze implements lease.Processes.
func (p *Processes) Freeze(pid int, start uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.running[pid]
	if found == nil || found.start != start {
		return false
	}
	found.frozen = true
	return true
}

// Thaw implements lease.Processes.
func (p *Processes) Thaw(pid int, start uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.running[pid]
	if found == nil || found.start != start {
		return nil
	}
	if found.icebound {
		return errors.New("the process stays frozen")
	}
	found.frozen = false
	return nil
}

// Wait implements lease.Processes.
func (p *Processes) Wait(ctx context.Context, pid int, start uint64) {
	p.mu.Lock()
	found := p.running[pid]
	p.mu.Unlock()
	if found == nil || found.start != start {
		return
	}
	select {
	case <-found.exited:
	case <-ctx.Done():
	}
}

// End implements lease.Processes. Like the real one, it does not touch a process with another start time.
func (p *Processes) End(pid int, start uint64, grace time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.running[pid]
	if found == nil || found.start != start {
		return true
	}
	p.ends[pid] = append(p.ends[pid], grace)
	if found.stubborn {
		return false
	}
	p.remove(pid)
	return true
}

// SpaceOf implements lease.Processes.
func (p *Processes) SpaceOf(pid int) (space string, start uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.running[pid]; found != nil {
		return found.space, found.start
	}
	return "", 0
}

// Within implements lease.Processes: no process here starts another.
func (p *Processes) Within(pid, worker int, start uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.running[pid]
	return pid == worker && found != nil && found.start == start
}
