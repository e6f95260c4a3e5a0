package nvml

import (
	"context"
	"sync/atomic"
	"time"

	"spacehost/gpu"
)

// guard lets one call at a time into the library for one Device, and stops waiting for it at its limit.
//
// A call cannot be taken back from a wedged driver (open-gpu-kernel-modules#1333: NVML hangs in state D), so its goroutine stays until the
// driver answers, perhaps for ever: the one goroutine here that no Close waits for. It keeps the turn meanwhile, so there is never a second.
type guard struct {
	uuid   gpu.DeviceUUID
	limit  time.Duration
	turn   chan struct{}             // full while a call is inside
	since  atomic.Pointer[time.Time] // when the call inside began; nil: none
	closed atomic.Bool
}

func newGuard(uuid gpu.DeviceUUID, limit time.Duration) *guard {
	return &guard{uuid: uuid, limit: limit, turn: make(chan struct{}, 1)}
}

type answer[T any] struct {
	value T
	err   error
}

// ask makes the call when the turn comes. Waiting for it and for the answer ends with ctx or at the limit.
func ask[T any](ctx context.Context, g *guard, call func() (T, error)) (T, error) {
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
	if err := g.take(ctx); err != nil {
		return err
	}
	if g.closed.Load() { // while we waited
		g.leave()
		return gpu.ErrClosed
	}
	now := time.Now()
	g.since.Store(&now)
	return nil
}

// take does not wait behind a call that is past the limit already: whoever reads eight Devices need not wait for each that hangs.
func (g *guard) take(ctx context.Context) error {
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

// close lets nobody in any more; it returns nil once nobody is inside.
func (g *guard) close() error {
	g.closed.Store(true)
	ctx, cancel := context.WithTimeoutCause(context.Background(), g.limit, g.hung())
	defer cancel()
	if err := g.take(ctx); err != nil {
		return err
	}
	g.leave()
	return nil
}

func (g *guard) hung() error { return &gpu.HungError{UUID: g.uuid, After: g.limit} }
