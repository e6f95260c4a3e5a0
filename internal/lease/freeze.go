package lease

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// freezer keeps an idle worker frozen, so that its code does not compute on the Slot without a charge. The scheduler
// requests a state, and effects bring it about concurrently. The last request wins, whatever the order of the effects.
type freezer struct {
	wanted atomic.Bool // frozen

	mu     sync.Mutex
	frozen bool
}

// settle brings about the state that was requested last. It blocks for as long as the Machine does. Its error, of a thaw,
// leaves the worker frozen.
func (f *freezer) settle(ctx context.Context, m Machine, w Worker) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	wanted := f.wanted.Load()
	if wanted == f.frozen {
		return nil
	}
	if wanted {
		f.frozen = m.Freeze(ctx, w)
		return nil
	}
	if err := m.Thaw(ctx, w); err != nil {
		return fmt.Errorf("continue with an idle worker: %w", err)
	}
	f.frozen = false
	return nil
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
	m.effectsRunning.Go(func() { _ = w.freezer.settle(m.work, machine, w.lease.Worker) }) // the caller of a thaw gets its error
}

// thaw requests that a worker continues. The caller runs the returned function outside of the scheduler's goroutine, and
// waits for it before the client has an answer.
func (m *machineEffects) thaw(w *idleWorker) func() error {
	w.freezer.wanted.Store(false)
	machine := m.machine
	return func() error { return w.freezer.settle(m.work, machine, w.lease.Worker) }
}
