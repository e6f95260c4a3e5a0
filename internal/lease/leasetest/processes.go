// Package leasetest has what tests of other rooms need of lease: Processes that live and die as the test says, and a Journal.
package leasetest

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Processes is a lease.Processes without processes. Safe for concurrent use.
type Processes struct {
	mu     sync.Mutex
	starts uint64
	living map[int]*process
	ends   map[int][]time.Duration
}

type process struct {
	space    string
	start    uint64
	stubborn bool
	died     chan struct{}
}

// NewProcesses is a machine on which nothing runs.
func NewProcesses() *Processes {
	return &Processes{living: map[int]*process{}, ends: map[int][]time.Duration{}}
}

// Start lets a process of that Space live under pid, in the place of any other. No two have the same start time.
func (p *Processes) Start(space string, pid int) (start uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bury(pid)
	p.starts++
	p.living[pid] = &process{space: space, start: p.starts, died: make(chan struct{})}
	return p.starts
}

// Die ends a process by itself.
func (p *Processes) Die(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bury(pid)
}

// SetStubborn says whether a living process outlives SIGKILL, as one does in the hands of a wedged driver.
func (p *Processes) SetStubborn(pid int, stubborn bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.living[pid].stubborn = stubborn
}

// Alive reports whether a process lives under pid.
func (p *Processes) Alive(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.living[pid] != nil
}

// Ends returns the grace of every End that met the very process which it named under pid.
func (p *Processes) Ends(pid int) []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ends[pid])
}

func (p *Processes) bury(pid int) {
	if old := p.living[pid]; old != nil {
		close(old.died)
		delete(p.living, pid)
	}
}

// Owns is part of lease.Processes.
func (p *Processes) Owns(space string, pid int) (start uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.living[pid]
	if found == nil || found.space != space {
		return 0, false
	}
	return found.start, true
}

// Confine is part of lease.Processes: nobody here starts another.
func (p *Processes) Confine(string, int, uint64) {}

// Wait is part of lease.Processes.
func (p *Processes) Wait(ctx context.Context, pid int, start uint64) {
	p.mu.Lock()
	found := p.living[pid]
	p.mu.Unlock()
	if found == nil || found.start != start {
		return
	}
	select {
	case <-found.died:
	case <-ctx.Done():
	}
}

// End is part of lease.Processes. Like the real one it touches no process that has another start time.
func (p *Processes) End(pid int, start uint64, grace time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.living[pid]
	if found == nil || found.start != start {
		return true
	}
	p.ends[pid] = append(p.ends[pid], grace)
	if found.stubborn {
		return false
	}
	p.bury(pid)
	return true
}

// SpaceOf is part of lease.Processes.
func (p *Processes) SpaceOf(pid int) (space string, start uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.living[pid]; found != nil {
		return found.space, found.start
	}
	return "", 0
}

// Within is part of lease.Processes: nobody here starts another.
func (p *Processes) Within(pid, worker int, start uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.living[pid]
	return pid == worker && found != nil && found.start == start
}
