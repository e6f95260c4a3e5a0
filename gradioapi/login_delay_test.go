package gradioapi

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestFailedLoginTimeIsQuantized: the response is sent at the next multiple of the step, whatever time the app has
// taken.
func TestFailedLoginTimeIsQuantized(t *testing.T) {
	const ms = time.Millisecond
	for checked, want := range map[time.Duration]time.Duration{
		0: 100 * ms, 1: 100 * ms, 50 * ms: 100 * ms, 99 * ms: 100 * ms, 100 * ms: 200 * ms, 250 * ms: 300 * ms,
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			time.Sleep(checked)
			delayToMultiple(t.Context(), began, loginDelayStep)
			if took := time.Since(began); took != want {
				t.Errorf("checked in %v: answered after %v, want %v", checked, took, want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, leave := context.WithTimeout(t.Context(), 7*ms)
		defer leave()
		if delayToMultiple(ctx, began, loginDelayStep); time.Since(began) != 7*ms {
			t.Errorf("returned %v after the start, want 7ms", time.Since(began))
		}
	})
}
