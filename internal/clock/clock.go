// Package clock is the wall clock of a host, which an operator can move ahead where GPUs are simulated.
package clock

import (
	"fmt"
	"sync"
	"time"
)

// Clock is the real one, plus what it was advanced by. The zero Clock and nil are the real one. It may be used by
// many goroutines.
type Clock struct {
	mu      sync.Mutex
	advance time.Duration
}

// Farthest is how far a Clock can be advanced in all.
const Farthest = 366 * 24 * time.Hour

// AdvanceError refuses an advance; nothing has moved.
type AdvanceError struct{ By, Before time.Duration }

func (e *AdvanceError) Error() string {
	if e.By <= 0 {
		return fmt.Sprintf("the clock cannot go by %v: it only goes ahead; to have the true time again, restart the host", e.By)
	}
	return fmt.Sprintf("the clock cannot go ahead by %v: %v is the farthest in all, and it went %v before; restart the host for the true time", e.By, Farthest, e.Before)
}

// Now is the time to tell by whoever asks for deadlines, windows and ages.
func (c *Clock) Now() time.Time { return time.Now().Add(c.Advanced()) }

// Advanced is how far ahead of the real clock this one is.
func (c *Clock) Advanced() time.Duration {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.advance
}

// Advance moves the clock ahead. Who waits for a moment must be told to look again. The error is an *AdvanceError.
func (c *Clock) Advance(by time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if by <= 0 || by > Farthest-c.advance {
		return &AdvanceError{By: by, Before: c.advance}
	}
	c.advance += by
	return nil
}

// InSeconds formats a duration in whole seconds, rounded up: a start that is announced is never announced too early.
func InSeconds(d time.Duration) string {
	return (max(0, d) + time.Second - 1).Truncate(time.Second).String()
}
