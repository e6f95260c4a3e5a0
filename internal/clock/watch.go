package clock

import (
	"context"
	"time"
)

const (
	watchEvery = 5 * time.Second
	minStep    = time.Second // smaller steps are adjustments by NTP
)

// Watch calls stepped with the difference whenever the machine's clock was set, until ctx ends. wall returns that clock
// without a monotonic reading. A machine that was suspended has its clock set ahead.
func Watch(ctx context.Context, wall func() time.Time, stepped func(by time.Duration)) {
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
		if by := is.Sub(was) - now.Sub(since); by.Abs() >= minStep {
			stepped(by)
		}
		since, was = now, is
	}
}
