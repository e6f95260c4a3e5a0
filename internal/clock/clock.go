// Package clock provides the wall clock of a host, which an operator can advance on a host with simulated GPUs, and detects
// changes of the machine's clock.
package clock

import (
	"fmt"
	"sync"
	"time"
)

// Clock is the real clock plus an advance. The zero Clock and nil are the real clock. It may be used by many goroutines.
type Clock struct {
	mu      sync.Mutex
	advance time.Duration
}

// Farthest is the maximum total advance of a Clock.
const Farthest = 366 * 24 * time.Hour

// AdvanceError refuses an advance. The Clock was not changed.
type AdvanceError struct{ By, Before time.Duration }

func (e *AdvanceError) Error() string {
	if e.By <= 0 {
		return fmt.Sprintf("cannot advance the clock by %v: the advance must be positive; restart the host to return to the true time", e.By)
	}
	return fmt.Sprintf("cannot advance the clock by %v: it is already %v ahead and the maximum is %v; restart the host to return to the true time", e.By, e.Before, Farthest)
}

// Now returns the time that deadlines, windows and ages are computed from.
func (c *Clock) Now() time.Time { return time.Now().Add(c.Advanced()) }

// Advanced returns how far this Clock is ahead of the real one.
func (c *Clock) Advanced() time.Duration {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.advance
}

// Advance moves the clock ahead. The caller must notify code that waits for a time. The error is an *AdvanceError.
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
