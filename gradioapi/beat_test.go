package gradioapi

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestWrongPasswordsTakeAsLong: whatever the app has taken to look at one, its answer comes with the next beat.
func TestWrongPasswordsTakeAsLong(t *testing.T) {
	const ms = time.Millisecond
	for looked, want := range map[time.Duration]time.Duration{
		0: 100 * ms, 1: 100 * ms, 50 * ms: 100 * ms, 99 * ms: 100 * ms, 100 * ms: 200 * ms, 250 * ms: 300 * ms,
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			time.Sleep(looked)
			delayToMultiple(t.Context(), began, loginDelayStep)
			if took := time.Since(began); took != want {
				t.Errorf("looked at for %v: answered after %v, want %v", looked, took, want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, leave := context.WithTimeout(t.Context(), 7*ms)
		defer leave()
		if delayToMultiple(ctx, began, loginDelayStep); time.Since(began) != 7*ms {
			t.Errorf("who has left was waited for until %v", time.Since(began))
		}
	})
}
