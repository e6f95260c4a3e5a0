package lease

import (
	"context"
	"sync"
	"sync/atomic"
)

// freezer keeps an idle worker frozen, so that its code does not compute on the Slot without a charge. The scheduler
// requests a state, and effects bring it about concurrently. The last request wins, whatever the order of the effects.
type freezer struct {
	wanted atomic.Bool // frozen
	mu     sync.Mutex  // held during a freeze, and from the begin to the end of a Resume
}

// freeze freezes the worker, unless it is to continue meanwhile. It blocks for as long as the Machine does.
func (f *freezer) freeze(ctx context.Context, m Machine, w Worker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wanted.Load() {
		m.Freeze(ctx, w)
	}
}

// resume begins a Resume. If a freeze is under way, that is awaited first, in a goroutine.
func (f *freezer) resume(begin func() (wait func() error)) (wait func() error) {
	if !f.mu.TryLock() {
		return async(func() error {
			f.mu.Lock()
			defer f.mu.Unlock()
			return begin()()
		})
	}
	begun := begin()
	return func() error {
		defer f.mu.Unlock()
		return begun()
	}
}

// freeze requests that a worker that has become idle is frozen. A worker that has got a Lease meanwhile, or is being
// evicted, continues.
func (sc *scheduler) freeze(w *idleWorker) {
	if s := w.lease.allocation[0]; s.phase == warm && s.idle == w {
		sc.effects.freeze(w)
	}
}

func (m *machineEffects) freeze(w *idleWorker) {
	w.freezer.wanted.Store(true)
	machine := m.machine
	m.effectsRunning.Go(func() { w.freezer.freeze(m.work, machine, w.lease.Worker) })
}

// prepareResume is called by the scheduler when an idle worker gets a Lease. Another goroutine then calls begin and waits, before the client
// has an answer.
func (m *machineEffects) prepareResume(l *Lease) (begin func() (wait func() error)) {
	machine, a, f, beside := m.machine, l.allocation, &l.pendingWorker.freezer, m.scheduler.neighbours(l.allocation)
	r := Resumption{Lease: l.ID, Worker: l.Worker, Device: a[0].Device.UUID, Left: l.Declared}
	f.wanted.Store(false)
	l.armedAhead = m.now()
	once := func(beside []Worker) (wait func() error) {
		r.Beside = beside
		resume := func() (wait func() error) {
			return f.resume(func() func() error { return machine.Resume(m.work, r) })
		}
		if !machine.LendsNodes() {
			return resume()
		}
		return async(func() error {
			if err := m.showNodes(m.work, machine, l.Space); err != nil {
				return err
			}
			return resume()()
		})
	}
	return func() (wait func() error) {
		first := once(beside)
		return func() error {
			return m.recheck(a, beside, func(beside []Worker) error {
				if begun := first; begun != nil {
					first = nil
					return begun()
				}
				return once(beside)()
			})
		}
	}
}
