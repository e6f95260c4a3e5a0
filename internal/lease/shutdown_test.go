package lease

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu/gputest"
	"spacehost/internal/identity"
	"spacehost/internal/space"
)

func TestShutdownSettlesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		h.inventory = gputest.NewFakeInventory(gputest.Devices(2)...)
		h.Broker = h.newBroker()
		h.run().active(100)
		h.grant(h.schedule())
		waiting := h.schedule()
		h.inventory.SetHeld("GPU-fake-0", 40<<30) // its memory is freed later than a stopping host may wait
		time.Sleep(3 * time.Second)
		start := time.Now()
		h.stop()
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		if _, err := waiting.Wait(t.Context()); err != ErrGone {
			t.Errorf("the waiting lease got %v, want ErrGone", err)
		}
		h.wantBalance(ada, 0, 0) // the payer has not ended the call
		n := h.count(`SELECT count(*) FROM leases WHERE reason = 'host stopped' AND ended_at IS NOT NULL`)
		if n != 3 || h.processes.Alive(100) {
			t.Errorf("got %d of 3 leases ended as %q, worker runs: %v", n, "host stopped", h.processes.Alive(100))
		}
	})
}

// TestEndOfAStart checks that calls that the host ends are charged nothing and name the reason, while a Space that dies, or whose node
// leaves, charges what it has used.
func TestEndOfAStart(t *testing.T) {
	for reason, charged := range map[string]time.Duration{"restarted by ada": 0, "space died": 3 * time.Second, space.EndedByLeaving: 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			h := newBrokerHarness(t).run()
			h.active(100)
			time.Sleep(3 * time.Second)
			if !h.IsUsed("run-1") || h.IsUsed("run-2") {
				t.Error("IsUsed is wrong")
			}
			if reason != "space died" {
				h.End("run-1", reason)
			}
			h.Gone("run-1")
			synctest.Wait()
			h.wantBalance(ada, charged, 0)
			if n := h.count(`SELECT count(*) FROM ledger WHERE kind = 'settle' AND reason = '` + reason + `'`); n != 1 || h.IsUsed("run-1") {
				t.Errorf("%d lines with the reason %q, want 1", n, reason)
			}
		})
	}
}

func TestAfterShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.stop()
		h.Left("event-1")
		h.Cancelled("event-1")
		h.Gone("run-1")
		if _, err := h.Schedule(t.Context(), request()); !errors.Is(err, ErrGone) {
			t.Errorf("schedule: got %v, want ErrGone", err)
		}
		if err := h.Release(t.Context(), "demo", g.Lease, false); err != ErrUnknown {
			t.Errorf("release: got %v, want ErrUnknown", err)
		}
		h.wantBalance(ada, 0, 0)
		if h.List() != nil || h.Slots() != nil || h.Waiting() != 0 {
			t.Errorf("got %v, %v and %d waiting, want nothing", h.List(), h.Slots(), h.Waiting())
		}
	})
}

// TestShutdownUnderLoad is for the race detector: every method may be called at any time.
func TestShutdownUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		var calling sync.WaitGroup
		some := make(chan struct{}, 8*6)
		for i := range 8 {
			payer := identity.Identity{Kind: identity.User, Name: fmt.Sprint("user-", i)}
			calling.Go(func() {
				for n := range 6 {
					event := fmt.Sprint(i, "-", n)
					ticket, err := h.Schedule(t.Context(), request(declared(time.Second), func(r *Request) { r.Payer, r.Event = payer, event }))
					if err != nil {
						if !errors.Is(err, ErrGone) {
							t.Errorf("schedule: %v", err)
						}
						return
					}
					some <- struct{}{}
					h.Left(event)
					h.Cancelled(event)
					h.List()
					ticket.Leave()
				}
			})
		}
		for range 10 {
			<-some
		}
		h.stop()
		calling.Wait()
		if n := h.count(`SELECT count(*) FROM leases WHERE ended_at IS NULL`) + h.count(`SELECT coalesce(sum(held_ms), 0) FROM windows`); n != 0 {
			t.Errorf("got %d leases and milliseconds left open", n)
		}
	})
}

// TestShutdownWithoutDatabase ends in time. The next start writes what could not be written.
func TestShutdownWithoutDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100)
		time.Sleep(5 * time.Second) // the last beat is at 4 s
		synctest.Wait()
		accept := h.refuseToSettle()
		start := time.Now()
		h.stop()
		if took := time.Since(start); took > shutdownTimeout {
			t.Errorf("took %v, want at most %v", took, shutdownTimeout)
		}
		accept()
		h.wantBalance(ada, 0, time.Minute)
		if err := h.newBroker().Recover(t.Context(), Kept{}); err != nil {
			t.Fatal(err)
		}
		h.wantBalance(ada, 4*time.Second, 0)
	})
}
