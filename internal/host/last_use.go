package host

import (
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
)

// lastUse is when visitors last used a Space. The zero value: none has. It may be used concurrently.
type lastUse struct {
	open atomic.Int64 // requests under way
	at   atomic.Int64 // end of the last one, in nanoseconds since the epoch; 0: none has ended
}

// noteUse counts a request to the Space's address.
func (s *spaceRun) noteUse(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		s.lastUse.open.Add(1)
		defer func() {
			s.lastUse.at.Store(s.host.clock.Now().UnixNano())
			s.lastUse.open.Add(-1)
		}()
		return next(c)
	}
}

// usedAt returns when a visitor last used the Space: now, if a request is under way or a Session is open, or a call waits; the
// zero time, if none has.
func (s *spaceRun) usedAt(now time.Time) time.Time {
	at := s.lastUse.at.Load()
	switch {
	case s.lastUse.open.Load() > 0 || s.queue.Visitors() > 0 || s.queue.Size() > 0:
		return now
	case at == 0:
		return time.Time{}
	}
	return time.Unix(0, at)
}
