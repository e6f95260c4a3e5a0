package clock

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchReportsSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64
		var steps []time.Duration
		ctx, stop := context.WithCancel(t.Context())
		go Watch(ctx, func() time.Time { return time.Now().Round(0).Add(time.Duration(set.Load())) }, func(by time.Duration) { steps = append(steps, by) })
		for _, by := range []time.Duration{0, 300 * time.Millisecond, 2 * time.Hour, -24 * time.Hour, 0} {
			synctest.Wait() // Watch has read the clock
			set.Add(int64(by))
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		stop()
		synctest.Wait()
		if want := []time.Duration{2 * time.Hour, -24 * time.Hour}; !slices.Equal(steps, want) {
			t.Errorf("steps: got %v, want %v", steps, want)
		}
	})
}
