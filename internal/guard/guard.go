// Package guard ends workers that overstay their lease, also while the host of their machine is away.
//
// # Types and callers
//
// An agent has one Guard. It arms it with each active lease and the time that is left, and disarms it at the end. Package agent does
// so for a host on the same machine, and package machine for a node.
//
// # Failures
//
// The clock of a Guard is monotonic, so a changed system clock has no effect. A lease that ends while the host is away is kept in
// the report, until the host has settled it.
package guard

import (
	"context"
	"math"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/lease"
	"spacehost/quota"
)

// Processes is what a Guard needs of the processes of its machine. Package proctree implements it.
type Processes interface {
	// Wait blocks until that process has exited or ctx ends.
	Wait(ctx context.Context, pid int, start uint64)
	// End ends a worker and its descendants, with SIGTERM first if grace is above 0. It reports whether all of them are gone.
	End(pid int, start uint64, grace time.Duration) bool
}

// Guard ends workers that overstay. It implements lease.Guard. Its fields do not change once it is in use. Its methods do not block, and may be called
// concurrently.
type Guard struct {
	Processes Processes
	// Strict makes the Guard kill a worker KillGrace after its deadline, whether or not a host is connected. Otherwise it sends
	// SIGTERM at the deadline, and leaves a connected host HostGrace to do so.
	Strict bool
	Logger *zap.Logger // nil: no log

	mu    sync.Mutex
	armed map[string]*armed // by lease
	ended map[string]lease.EndedLease
	// exits cancel the waits for the exits of workers. A wait outlasts a lease, so that a warm call begins none.
	exits map[lease.Worker]context.CancelFunc
	alone bool // no host is connected
}

// armed is a lease that the Guard watches.
type armed struct {
	lease.OpenLease
	began  time.Time
	left   time.Duration // from began
	late   *time.Timer   // calls onLate
	waited bool          // the host has had HostGrace
}

var _ lease.Guard = (*Guard)(nil)

const (
	// KillGrace is the time between the deadline and SIGKILL of a worker that overstays.
	KillGrace = 2 * time.Second
	// HostGrace is how much later a Guard acts while a host is connected, which does the same at the deadline.
	HostGrace = 3 * time.Second
)

// Arm implements lease.Guard. It watches a lease until Disarm. A lease that is armed again keeps its beginning.
func (g *Guard) Arm(id string, w lease.Worker, left time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := &armed{OpenLease: lease.OpenLease{Lease: id, Worker: w}, began: time.Now(), left: left}
	if before := g.armed[id]; before != nil {
		before.late.Stop()
		one.left += time.Since(before.began)
		one.began = before.began
	}
	if g.armed == nil {
		g.armed, g.ended, g.exits = map[string]*armed{}, map[string]lease.EndedLease{}, map[lease.Worker]context.CancelFunc{}
	}
	g.armed[id] = one
	until := time.Until(one.began.Add(one.left))
	if g.Strict {
		until += KillGrace
	}
	one.late = time.AfterFunc(until, func() { g.onLate(one) })
	if g.exits[w] == nil {
		ctx, stop := context.WithCancel(context.Background())
		g.exits[w] = stop
		go g.awaitExit(ctx, w)
	}
}

// Disarm implements lease.Guard. It forgets a lease, also one that has ended.
func (g *Guard) Disarm(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if one := g.armed[id]; one != nil {
		one.late.Stop()
	}
	delete(g.armed, id)
	delete(g.ended, id)
}

// Close stops watching all leases, and leaves their workers.
func (g *Guard) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.armed {
		one.late.Stop()
	}
	for _, stop := range g.exits {
		stop()
	}
	g.armed = nil
}

// SetAlone tells whether a host is connected.
func (g *Guard) SetAlone(alone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.alone = alone
}

// awaitExit ends the leases of a worker that exits.
func (g *Guard) awaitExit(ctx context.Context, w lease.Worker) {
	g.Processes.Wait(ctx, w.PID, w.Start)
	g.mu.Lock()
	defer g.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	g.exits[w]()
	delete(g.exits, w)
	for _, one := range g.armed {
		if one.Worker == w {
			one.late.Stop()
			g.end(one, lease.Released, reasonWorkerDied, time.Since(one.began))
		}
	}
}

// onLate ends a worker that overstays.
func (g *Guard) onLate(one *armed) {
	g.mu.Lock()
	if g.armed[one.Lease] != one { // it was disarmed or armed again
		g.mu.Unlock()
		return
	}
	grace := KillGrace
	switch {
	case g.Strict:
		grace = 0
	case !g.alone && !one.waited:
		one.waited = true
		one.late.Reset(HostGrace)
		g.mu.Unlock()
		return
	}
	g.end(one, lease.Expired, quota.ReasonDeadline, WholeTime)
	g.mu.Unlock()
	if g.Logger != nil {
		g.Logger.Warn("worker overstays", zap.String("lease", one.Lease), zap.Int("worker", one.Worker.PID))
	}
	g.Processes.End(one.Worker.PID, one.Worker.Start, grace)
}

// end records the end of a lease.
func (g *Guard) end(one *armed, state lease.State, reason string, used time.Duration) {
	delete(g.armed, one.Lease)
	g.ended[one.Lease] = lease.EndedLease{Lease: one.Lease, State: state, Reason: reason, Used: used}
}

// WholeTime is the Used of a lease that ended at its deadline: it is charged up to there. The Guard itself has counted from Arm, some
// milliseconds before or after /allow.
const WholeTime = time.Duration(math.MaxInt64)

// reasonWorkerDied is the ledger's reason for a lease that ended with the exit of its worker (package lease).
const reasonWorkerDied = "worker died"

// Report lists what the Guard knows.
func (g *Guard) Report() (r lease.MachineReport) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.armed {
		r.Open = append(r.Open, one.OpenLease)
	}
	for _, one := range g.ended {
		r.Ended = append(r.Ended, one)
	}
	return r
}
