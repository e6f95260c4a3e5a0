package nvml

import (
	"context"
	"sync/atomic"
	"time"

	"spacehost/gpu"
)

// guard admits one call at a time into the library for one Device, and stops waiting for the call at its limit.
//
// A call into a wedged driver cannot be cancelled (open-gpu-kernel-modules#1333: NVML hangs in state D). Its
// goroutine stays until the driver answers, perhaps forever; it is the only goroutine here that no Close waits for.
// It keeps the turn meanwhile, so there is never a second one.
type guard struct {
	uuid   gpu.DeviceUUID
	limit  time.Duration
	turn   chan struct{}             // full while a call runs
	since  atomic.Pointer[time.Time] // start of the running call; nil: none
	closed atomic.Bool
}

func newGuard(uuid gpu.DeviceUUID, limit time.Duration) *guard {
	return &guard{uuid: uuid, limit: limit, turn: make(chan struct{}, 1)}
}

type answer[T any] struct {
	value T
	err   error
}

// do runs the call when its turn comes. Waiting for the turn and for the answer ends with ctx or at the limit.
func do[T any](ctx context.Context, g *guard, call func() (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, g.limit, g.hung())
	defer cancel()
	var none T
	if err := g.enter(ctx); err != nil {
		return none, err
	}
	answered := make(chan answer[T], 1)
	go func() {
		defer g.leave()
		value, err := call()
		answered <- answer[T]{value, err}
	}()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

func (g *guard) enter(ctx context.Context) error {
	if g.closed.Load() {
		return gpu.ErrClosed
	}
	if err := g.waitTurn(ctx); err != nil {
		return err
	}
	if g.closed.Load() { // during the wait
		g.leave()
		return gpu.ErrClosed
	}
	now := time.Now()
	g.since.Store(&now)
	return nil
}

// waitTurn fails at once behind a call that has exceeded the limit, so that reading eight Devices does not wait for
// each that hangs.
func (g *guard) waitTurn(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if since := g.since.Load(); since != nil && time.Since(*since) >= g.limit {
		return g.hung()
	}
	select {
	case g.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *guard) leave() {
	g.since.Store(nil)
	<-g.turn
}

// close rejects new calls, and returns nil once no call runs.
func (g *guard) close() error {
	g.closed.Store(true)
	ctx, cancel := context.WithTimeoutCause(context.Background(), g.limit, g.hung())
	defer cancel()
	if err := g.waitTurn(ctx); err != nil {
		return err
	}
	g.leave()
	return nil
}

func (g *guard) hung() error { return &gpu.HungError{UUID: g.uuid, After: g.limit} }
