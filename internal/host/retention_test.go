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

// The first purge is a minute after the start, the others are hourly by the host's clock. The round after a clock jump is
// skipped.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var ahead atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		var rounds, audited []time.Duration // since the start; the age of purged audit entries
		began := time.Now()
		r := retention{
			keep: func() time.Duration { return 48 * time.Hour }, now: now, log: zap.NewNop(),
			purgeHistory: func(_ context.Context, before time.Time) (lease.Forgotten, error) {
				if got := now().Sub(before); got != 48*time.Hour {
					t.Errorf("purged history older than %v, want 48h", got)
				}
				rounds = append(rounds, time.Since(began))
				return lease.Forgotten{}, nil
			},
			purgeTokens: func(context.Context, time.Time) (int64, error) { return 0, nil },
			purgeAudit: func(_ context.Context, before time.Time) (int64, error) {
				audited = append(audited, now().Sub(before))
				return 0, nil
			},
		}
		ended := make(chan struct{})
		go func() { defer close(ended); r.run(ctx) }()
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		ahead.Store(int64(100 * 24 * time.Hour))
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if want := []time.Duration{time.Minute, 61 * time.Minute, 181 * time.Minute}; !slices.Equal(rounds, want) {
			t.Errorf("rounds at %v, want %v, without the round after the jump", rounds, want)
		}
		if want := []time.Duration{48 * time.Hour, 48 * time.Hour, 48 * time.Hour}; !slices.Equal(audited, want) {
			t.Errorf("purged audit entries older than %v, want %v", audited, want)
		}
		cancel()
		<-ended
	})
}
