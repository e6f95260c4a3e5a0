package clock

import (
	"context"
	"time"
)

const (
	watchEvery = 5 * time.Second
	leastLeap  = time.Second // what is less is NTP at work
)

// Watch says by how much the machine's clock was set, whenever it was, until ctx ends. wall is that clock, without a
// monotonic reading. A machine that slept has its clock set ahead.
func Watch(ctx context.Context, wall func() time.Time, leapt func(by time.Duration)) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	since, was := time.Now(), wall()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, is := time.Now(), wall()
		if by := is.Sub(was) - now.Sub(since); by.Abs() >= leastLeap {
			leapt(by)
		}
		since, was = now, is
	}
}
