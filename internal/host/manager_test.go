package host

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// TestManager checks the messages to the service manager over the life of a host, and that a host that does not answer
// gives no sign of life.
func TestManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told recorder
		var status atomic.Value
		var alive atomic.Pointer[func(context.Context) error]
		answer := func(f func(context.Context) error) { alive.Store(&f) }
		answer(func(context.Context) error { return nil })
		status.Store("0 of 1")
		m := manager{
			notify:   told.tell,
			watchdog: 30 * time.Second,
			alive:    func(ctx context.Context) error { return (*alive.Load())(ctx) },
			status:   func() string { return status.Load().(string) }, log: zap.NewNop(),
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.run(ctx); close(ended) }()
		want := func(when string, after time.Duration, want ...string) { t.Helper(); told.want(t, when, after, want...) }
		want("at the start", 0, "READY=1\nSTATUS=0 of 1")
		status.Store("1 of 1")
		want("with a new status", 11*time.Second, "STATUS=1 of 1", "WATCHDOG=1")
		want("later", 20*time.Second, "WATCHDOG=1", "WATCHDOG=1")
		answer(func(context.Context) error { return errors.New("500") })
		want("with an error", 10*time.Second)
		answer(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		want("without an answer", 35*time.Second)
		answer(func(context.Context) error { return nil })
		want("again", 10*time.Second, "WATCHDOG=1")
		cancel()
		<-ended
		want("at the end", 0, "STOPPING=1")
	})
}

// recorder records messages that a goroutine in a bubble of testing/synctest sends.
type recorder struct {
	mu   sync.Mutex
	told []string
}

func (r *recorder) tell(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, text)
}

// want waits, and checks the messages since the last call.
func (r *recorder) want(t *testing.T, when string, after time.Duration, want ...string) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.told, want) {
		t.Errorf("%s: told %q, want %q", when, r.told, want)
	}
	r.told = nil
}
