package host

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Changes that come while one is handled are handled together, after it.
func TestNodeChangesAreHandledTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c nodeChanges
		var calls atomic.Int32
		hold := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			c.handle(func() {
				if calls.Add(1) == 1 {
					<-hold
				}
			})
		})
		synctest.Wait()
		for range 100 {
			all.Go(func() {
				<-c.handle(func() { t.Error("two calls at the same time") })
				if n := calls.Load(); n != 2 {
					t.Errorf("handled after %d calls, want 2", n)
				}
			})
		}
		synctest.Wait()
		close(hold)
		all.Wait()
		if n := calls.Load(); n != 2 {
			t.Errorf("%d calls, want one for the first change and one for all others", n)
		}
		c.handle(func() { calls.Add(1) })
		if n := calls.Load(); n != 3 {
			t.Errorf("%d calls, want one for a later change", n)
		}
	})
}
