package host

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/lease"
)

// TestRetention: a minute after the start and then hourly, by the host's clock; not at once after a leap of it.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var ahead atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		var rounds []time.Duration // since the start
		began := time.Now()
		r := retention{
			keep: 48 * time.Hour, now: now, log: zap.NewNop(),
			history: func(_ context.Context, before time.Time) (lease.Forgotten, error) {
				if got := now().Sub(before); got != 48*time.Hour {
					t.Errorf("what is older than %v is forgotten", got)
				}
				rounds = append(rounds, time.Since(began))
				return lease.Forgotten{}, nil
			},
			tokens: func(context.Context, time.Time) (int64, error) { return 0, nil },
		}
		ended := make(chan struct{})
		go func() { defer close(ended); r.run(ctx) }()
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		ahead.Store(int64(100 * 24 * time.Hour))
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if want := []time.Duration{time.Minute, 61 * time.Minute, 181 * time.Minute}; !slices.Equal(rounds, want) {
			t.Errorf("rounds at %v, want %v: the one after the leap is left out", rounds, want)
		}
		cancel()
		<-ended
	})
}
