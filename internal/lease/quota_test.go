package lease

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/quota"
)

func TestWindowOpensAtAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.grant(h.schedule())
		if b, err := h.Account(t.Context(), ada, freeTier); err != nil || b.Opened != nil {
			t.Errorf("after the grant: window opened at %v (%v), want not yet", b.Opened, err)
		}
		h.release(g)
		h.active(100)
		if b, err := h.Account(t.Context(), ada, freeTier); err != nil || b.Opened == nil || !b.Opened.Equal(time.Now()) {
			t.Errorf("after /allow: window opened at %v (%v), want now", b.Opened, err)
		}
	})
}

func TestXLargeCostsDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100, xlarge)
		h.wantBalance(ada, 0, 2*time.Minute)
		time.Sleep(7 * time.Second)
		h.release(g)
		h.wantBalance(ada, 14*time.Second, 0)
	})
}

func TestRefusalsLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		_, err := h.Schedule(t.Context(), request(declared(106*time.Second), xlarge))
		var illegal *quota.IllegalDurationError
		if !errors.As(err, &illegal) || illegal.Longest != 210*time.Second {
			t.Errorf("above the quota: got %v, want IllegalDurationError with 210 s", err)
		}
		h.schedule(declared(200 * time.Second))
		_, err = h.Schedule(t.Context(), request(declared(11*time.Second)))
		var exceeded *quota.ExceededError
		if !errors.As(err, &exceeded) || exceeded.Left != 10*time.Second {
			t.Errorf("above what is left: got %v, want ExceededError with 10 s", err)
		}
		_, err = h.Schedule(t.Context(), request(func(r *Request) { r.Size = "huge" }))
		if err == nil {
			t.Error("an unknown size was admitted")
		}
		if leases, lines := h.count(`SELECT count(*) FROM leases`), h.count(`SELECT count(*) FROM ledger`); leases != 1 || lines != 1 {
			t.Errorf("got %d leases and %d ledger entries, want those of the admitted lease", leases, lines)
		}
		if n := len(h.List()); n != 1 {
			t.Errorf("got %d open leases, want 1", n)
		}
	})
}

// TestRefusalReportsWhenHoldsEnd: an active Lease ends at its deadline. A waiting one ends at the latest as if it
// were granted at the end of its wait.
func TestRefusalReportsWhenHoldsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100, declared(120*time.Second))
		time.Sleep(10 * time.Second)
		h.wantWait(120*time.Second, 110*time.Second)
		h.schedule(declared(50 * time.Second)) // waits for the only Slot
		h.wantWait(120*time.Second, 110*time.Second)
		h.wantWait(50*time.Second, 110*time.Second)
		time.Sleep(time.Second)
		h.wantWait(200*time.Second, 109*time.Second)
	})
}

func (h *brokerHarness) wantWait(asked, want time.Duration) {
	h.t.Helper()
	_, err := h.Schedule(h.t.Context(), request(declared(asked)))
	var exceeded *quota.ExceededError
	if !errors.As(err, &exceeded) || exceeded.Wait != want || !exceeded.OnlyHolds {
		h.t.Errorf("asked for %v: got %v, want a wait of %v for holds only", asked, err, want)
	}
}

func TestRefusalReportsWaitingHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t, func(c *Config) { c.QueueTimeout = 30 * time.Second }).run()
		h.active(100, func(r *Request) { r.Payer = ben })
		h.schedule(declared(120 * time.Second))
		time.Sleep(10 * time.Second)
		h.wantWait(120*time.Second, 140*time.Second)
	})
}

func TestConcurrentHoldsNeverExceedQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		var admitted, refused atomic.Int32
		var asking sync.WaitGroup
		for i := range 50 {
			asking.Go(func() {
				_, err := h.Schedule(t.Context(), request(declared(25*time.Second), func(r *Request) { r.Event = fmt.Sprint(i) }))
				var exceeded *quota.ExceededError
				switch {
				case err == nil:
					admitted.Add(1)
				case errors.As(err, &exceeded) && exceeded.Left == 10*time.Second:
					refused.Add(1)
				default:
					t.Errorf("got %v", err)
				}
			})
		}
		asking.Wait()
		if admitted.Load() != 8 || refused.Load() != 42 {
			t.Errorf("got %d admitted and %d refused, want 8 and 42", admitted.Load(), refused.Load())
		}
		h.wantBalance(ada, 0, 200*time.Second)
	})
}
