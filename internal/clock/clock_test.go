package clock

import (
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var none *Clock
		c, start := &Clock{}, time.Now()
		if !none.Now().Equal(start) || !c.Now().Equal(start) {
			t.Errorf("got %v from nil and %v from the zero Clock, want %v", none.Now(), c.Now(), start)
		}
		for _, by := range []time.Duration{24 * time.Hour, time.Second} {
			if err := c.Advance(by); err != nil {
				t.Fatal(err)
			}
		}
		for _, by := range []time.Duration{0, -time.Second, math.MinInt64, Farthest - 24*time.Hour, math.MaxInt64} {
			var refused *AdvanceError
			if err := c.Advance(by); !errors.As(err, &refused) {
				t.Errorf("Advance(%v): %v, want an *AdvanceError", by, err)
			}
		}
		time.Sleep(time.Minute)
		if got := c.Now().Sub(start); got != 24*time.Hour+time.Second+time.Minute {
			t.Errorf("after the advances and a minute: got %v", got)
		}
	})
}
