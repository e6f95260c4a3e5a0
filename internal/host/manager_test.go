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

// TestVitalsOfAgent: an agent whose locks are taken gives no sign of life.
func TestVitalsOfAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told recorder
		lock := make(chan struct{}, 1)
		a := agentVitals{running: func() (processes, leases int) {
			lock <- struct{}{}
			defer func() { <-lock }()
			return 3, 1
		}}
		m := manager{notify: told.tell, watchdog: 30 * time.Second, alive: a.alive, status: a.statusLine, log: zap.NewNop()}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.run(ctx); close(ended) }()
		told.want(t, "at the start", 0, "READY=1\nSTATUS=Processes of Spaces: 0; GPU calls: 0")
		told.want(t, "with a first answer", 11*time.Second, "STATUS=Processes of Spaces: 3; GPU calls: 1", "WATCHDOG=1")
		told.want(t, "with the same", 10*time.Second, "WATCHDOG=1")
		lock <- struct{}{}
		told.want(t, "while the agent hangs", time.Minute)
		<-lock
		told.want(t, "again", 11*time.Second, "WATCHDOG=1", "WATCHDOG=1")
		cancel()
		<-ended
		told.want(t, "at the end", 0, "STOPPING=1")
	})
}
