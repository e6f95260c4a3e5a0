package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/identity"
	"spacehost/quota"
)

func TestFromHoldToSettlement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		ticket := h.schedule()
		h.wantBalance(ada, 0, time.Minute)
		g := h.grant(ticket)
		if g.Slot != 0 || g.Device != "GPU-fake-0" || len(g.Lease) != 32 {
			t.Errorf("got %+v, want slot 0 and 128 bits of hex", g)
		}
		time.Sleep(5 * time.Second) // fork and imports
		h.processes.Start("demo", 100)
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err != nil {
			t.Fatalf("allow: %v", err)
		}
		time.Sleep(3*time.Second + time.Nanosecond)
		h.release(g)
		h.wantBalance(ada, 3001*time.Millisecond, 0)
		h.wantLast(Released, "released", 3001*time.Millisecond)
		h.wantLedger(g.Lease, 3001*time.Millisecond)
		synctest.Wait()
		if ends := h.processes.Ends(100); !slices.Equal(ends, []time.Duration{idleTermGrace}) {
			t.Errorf("got worker ended with %v, want once with %v", ends, idleTermGrace)
		}
	})
}

// wantLedger asks for the two lines of Ada's only Lease, which was for a minute.
func (h *brokerHarness) wantLedger(lease string, charged time.Duration) {
	h.t.Helper()
	entries, err := h.ledger.Entries(h.t.Context(), ada.Key(), 0)
	if err != nil || len(entries) != 2 {
		h.t.Fatalf("got %d lines (%v), want 2", len(entries), err)
	}
	settle, hold := entries[0], entries[1]
	if hold.Kind != quota.KindHold || hold.Held != time.Minute || hold.Lease != lease || hold.Space != "demo" || hold.Task != "draw" {
		h.t.Errorf("got %+v, want a hold of a minute for %s", hold, lease)
	}
	if settle.Kind != quota.KindSettle || settle.Charged != charged || settle.Returned != time.Minute-charged || settle.Lease != lease {
		h.t.Errorf("got %+v, want %v charged and the rest returned", settle, charged)
	}
}

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

func TestExpiryIsChargedToTheDeadlineAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []End
		h := newBrokerHarness(t, func(c *Config) { c.Expired = func(e End) { ends = append(ends, e) } }).run()
		g := h.active(100)
		time.Sleep(62*time.Second - 1)
		synctest.Wait()
		if !h.processes.Alive(100) {
			t.Error("the worker was ended within the grace")
		}
		time.Sleep(1 * time.Nanosecond)
		synctest.Wait()
		h.wantBalance(ada, time.Minute, 0)
		h.wantLast(Expired, "deadline", time.Minute)
		want := []End{{Space: "demo", Event: "event-1", Declared: time.Minute, Used: 62 * time.Second}}
		if h.processes.Alive(100) || !slices.Equal(ends, want) {
			t.Errorf("worker lives: %v; told %+v, want %+v", h.processes.Alive(100), ends, want)
		}
		if err := h.Release(t.Context(), "demo", g.Lease, true); err != ErrUnknown {
			t.Errorf("release after the kill: got %v, want ErrUnknown", err)
		}
	})
}

func TestUnclaimedIsReturnedWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.grant(h.schedule())
		time.Sleep(claimTimeout)
		synctest.Wait()
		h.wantBalance(ada, 0, 0)
		h.wantLast(Unclaimed, "never allowed", 0)
	})
}

func TestQueueTimeoutIsReturnedWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100, declared(100*time.Second))
		start := time.Now()
		_, err := h.schedule().Wait(t.Context())
		if err != ErrTimedOut || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v, want ErrTimedOut after a minute", err, time.Since(start))
		}
		synctest.Wait()
		h.wantBalance(ada, 0, 100*time.Second)
	})
}

func TestWorkerDeathEndsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100)
		time.Sleep(4 * time.Second)
		h.processes.Die(100)
		synctest.Wait()
		h.wantBalance(ada, 4*time.Second, 0)
		h.wantLast(Released, "worker died", 4*time.Second)
		h.active(101) // the Slot is lent again
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
			t.Error("a size that nobody knows was admitted")
		}
		if leases, lines := h.count(`SELECT count(*) FROM leases`), h.count(`SELECT count(*) FROM ledger`); leases != 1 || lines != 1 {
			t.Errorf("got %d leases and %d lines, want the one that was admitted", leases, lines)
		}
		if n := len(h.List()); n != 1 {
			t.Errorf("got %d open leases, want 1", n)
		}
	})
}

// TestRefusalSaysWhenHoldsEnd: an active Lease ends at its deadline, a waiting one at the latest when it was
// granted at the end of its wait.
func TestRefusalSaysWhenHoldsEnd(t *testing.T) {
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
		h.t.Errorf("asked for %v: got %v, want a wait of %v for holds alone", asked, err, want)
	}
}

func TestWaitOfAHoldThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t, func(c *Config) { c.QueueTimeout = 30 * time.Second }).run()
		h.active(100, func(r *Request) { r.Payer = ben })
		h.schedule(declared(120 * time.Second))
		time.Sleep(10 * time.Second)
		h.wantWait(120*time.Second, 140*time.Second)
	})
}

func TestFiftyAtOnceNeverHoldMoreThanTheQuota(t *testing.T) {
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

func TestRetryAfterABrokenStreamInheritsTheSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100, func(r *Request) { r.Payer = ben })
		short := declared(10 * time.Second)
		h.schedule(short, xlarge).Leave()
		time.Sleep(retrySizeTime)
		h.wantSize("xlarge", short)
		h.wantSize("xlarge", short) // two streams broke, two come back
		h.wantSize("large", short, func(r *Request) { r.Task = "another" })
		h.wantSize("large", short, func(r *Request) { r.Space = "another" })
		h.wantSize("large", short, func(r *Request) { r.Payer = ben })
		h.wantSize("large", short, func(r *Request) { r.Size = "large" })
		time.Sleep(1 * time.Nanosecond)
		h.wantSize("large", short)
	})
}

func (h *brokerHarness) wantSize(size string, alter ...func(*Request)) {
	h.t.Helper()
	ticket := h.schedule(alter...)
	held := 10 * time.Second * time.Duration(quota.Factor(size))
	if ticket.lease.Size != size || ticket.lease.Held != held {
		h.t.Errorf("got %s and %v held, want %s and %v", ticket.lease.Size, ticket.lease.Held, size, held)
	}
}

func TestLeaveReturnsTheHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100, func(r *Request) { r.Payer = ben })
		ticket := h.schedule()
		h.wantBalance(ada, 0, time.Minute)
		ticket.Leave()
		synctest.Wait()
		h.wantBalance(ada, 0, 0)
		h.wantLast(Withdrawn, "connection lost", 0)
		if _, err := ticket.Wait(t.Context()); err != ErrLeft {
			t.Errorf("wait after leaving: got %v, want ErrLeft", err)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		first := h.active(100)
		ticket := h.schedule()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := ticket.Wait(ctx); err != context.DeadlineExceeded || h.Waiting() != 1 {
			t.Errorf("got %v and %d waiting, want it to wait on", err, h.Waiting())
		}
		h.release(first)
		h.grant(ticket)
	})
}

func TestWordsOfTheQueueReachTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100)
		left := h.schedule(func(r *Request) { r.Event = "left" }, declared(time.Second))
		cancelled := h.schedule(func(r *Request) { r.Event = "cancelled" }, declared(time.Second))
		gone := h.schedule(func(r *Request) { r.Event, r.Instance = "gone", "run-2" }, declared(time.Second))
		h.Left("left")
		h.Left("event-1") // it runs, so it may finish
		h.Cancelled("cancelled")
		h.Gone("run-2")
		for name, row := range map[string]struct {
			ticket *Ticket
			want   error
		}{"left": {left, ErrLeft}, "cancelled": {cancelled, ErrLeft}, "gone": {gone, ErrGone}} {
			if _, err := row.ticket.Wait(t.Context()); err != row.want {
				t.Errorf("%s: got %v, want %v", name, err, row.want)
			}
		}
		time.Sleep(3 * time.Second)
		h.Cancelled("event-1")
		synctest.Wait()
		h.wantLast(Revoked, "cancelled", 3*time.Second)
		if ends := h.processes.Ends(100); !slices.Equal(ends, []time.Duration{0}) {
			t.Errorf("got worker ended with %v, want at once", ends)
		}
	})
}

// TestWordsAreReadInOrder: what was said before a call is known when it is answered. Both are ready when the
// line has done what it is at.
func TestWordsAreReadInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		var calling sync.WaitGroup
		for range 50 {
			heard := 0
			h.do(func(*scheduler) {
				h.post(func(*scheduler) { heard = 1 })
				h.post(func(*scheduler) { heard *= 2 })
				calling.Go(func() {
					h.do(func(*scheduler) {
						if heard != 2 {
							t.Errorf("got %d words read, in whatever order, want 2", heard)
						}
					})
				})
				synctest.Wait()
			})
			calling.Wait()
		}
	})
}

func TestAllowIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.grant(h.schedule())
		h.processes.Start("demo", 100)
		h.processes.Start("other", 200)
		for name, row := range map[string]struct {
			space, lease string
			pid          int
			foreign      bool
		}{
			"a foreign pid":              {"demo", g.Lease, 200, true},
			"a pid of nobody":            {"demo", g.Lease, 300, true},
			"another Space":              {"other", g.Lease, 200, false},
			"a lease that does not live": {"demo", "nonsense", 100, false},
		} {
			err := h.Allow(t.Context(), row.space, row.lease, row.pid)
			var notOwned *NotOwnedError
			if errors.As(err, &notOwned) != row.foreign || !row.foreign && err != ErrUnknown {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err != nil {
			t.Errorf("its own worker afterwards: %v", err)
		}
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err != ErrUnknown {
			t.Errorf("a second allow: got %v, want ErrUnknown", err)
		}
	})
}

func TestAllowThatTheDatabaseRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.grant(h.schedule())
		h.processes.Start("demo", 100)
		h.exec(`CREATE TRIGGER full BEFORE UPDATE ON leases BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err == nil || errors.Is(err, ErrUnknown) {
			t.Errorf("got %v, want the database's error", err)
		}
		h.exec(`DROP TRIGGER full`)
		time.Sleep(claimTimeout)
		synctest.Wait()
		h.wantLast(Unclaimed, "never allowed", 0)
		if h.processes.Alive(100) {
			t.Error("the worker that was not allowed stays behind")
		}
	})
}

// simulator does something between the commit of an /allow and its taking effect.
type simulator struct {
	*gputest.FakeInventory
	occupy func(uuid gpu.DeviceUUID, pid int) error
}

func (s *simulator) Occupy(uuid gpu.DeviceUUID, pid int) error { return s.occupy(uuid, pid) }

func TestCancelledWhileAllowIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		machine := &simulator{FakeInventory: h.inventory}
		h.Broker = h.newBroker(func(c *Config) { c.Pool = h.pool(machine) })
		machine.occupy = func(gpu.DeviceUUID, int) error {
			h.Cancelled("event-1")
			if open := h.List(); len(open) != 0 {
				t.Errorf("got %+v, want it revoked", open)
			}
			return nil
		}
		h.run()
		g := h.grant(h.schedule())
		h.processes.Start("demo", 100)
		time.Sleep(time.Second)
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err != ErrUnknown {
			t.Errorf("got %v, want ErrUnknown", err)
		}
		synctest.Wait()
		h.wantLast(Revoked, "cancelled", 0)
		h.wantBalance(ada, 0, 0)
		if h.processes.Alive(100) {
			t.Error("the worker stays behind, without a lease")
		}
	})
}

func TestSimulatedMachineIsToldWhoSitsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		var told []int
		machine := &simulator{FakeInventory: h.inventory, occupy: func(uuid gpu.DeviceUUID, pid int) error {
			told = append(told, pid)
			return &gpu.UnknownDeviceError{UUID: uuid} // only logged
		}}
		h.Broker = h.newBroker(func(c *Config) { c.Pool = h.pool(machine) })
		h.run().active(100)
		if !slices.Equal(told, []int{100}) {
			t.Errorf("got %v, want pid 100 once", told)
		}
	})
}

func TestSlotComesBackWithItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.inventory.SetHeld("GPU-fake-0", 40<<30)
		h.release(g)
		next := h.schedule()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := h.Slots()[0]; s.Phase != "reclaiming" || h.Waiting() != 1 {
			t.Errorf("with its memory in use: got %+v and %d waiting", s, h.Waiting())
		}
		h.inventory.SetHeld("GPU-fake-0", gputest.IdleMemory)
		h.grant(next)
	})
}

func TestSlotWhoseMemoryStaysIsShutAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.inventory.SetHeld("GPU-fake-0", 40<<30)
		h.release(g)
		time.Sleep(reclaimTimeout + time.Second)
		synctest.Wait()
		if s := h.Slots()[0]; s.Phase != "busy" || s.Reason == "" {
			t.Errorf("got %+v, want it busy for a reason", s)
		}
		next := h.schedule()
		time.Sleep(10 * time.Second)
		h.inventory.SetHeld("GPU-fake-0", gputest.IdleMemory)
		start := time.Now()
		if h.grant(next); time.Since(start) > recheckInterval {
			t.Errorf("got the grant %v after the memory came back, want at most %v", time.Since(start), recheckInterval)
		}
	})
}

func TestForeignProcessKeepsTheSlotShut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.inventory.SetProcesses("GPU-fake-0", gpu.Process{PID: 4711})
		ticket := h.schedule()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if h.Waiting() != 1 || len(h.processes.Ends(4711)) != 0 {
			t.Errorf("got %d waiting, pid 4711 ended %v", h.Waiting(), h.processes.Ends(4711))
		}
		h.inventory.SetProcesses("GPU-fake-0")
		h.grant(ticket)
	})
}

func TestStubbornWorkerKeepsItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.processes.SetStubborn(100, true)
		h.release(g) // answered all the same
		h.wantBalance(ada, 0, 0)
		next := h.schedule()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := h.Slots()[0]; h.Waiting() != 1 || s.Reason == "" {
			t.Errorf("got %d waiting and %+v, want the slot shut for a reason", h.Waiting(), s)
		}
		h.processes.SetStubborn(100, false)
		h.grant(next)
		if h.processes.Alive(100) {
			t.Error("the slot is lent with the last worker alive")
		}
	})
}

func TestBeatGoesOnWhileALeaseIsActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100)
		h.schedule()
		time.Sleep(7 * time.Second)
		synctest.Wait()
		late := h.count(`SELECT ? - beat_at FROM leases WHERE active_at IS NOT NULL`, time.Now().UnixMilli())
		if late < 0 || late > int(beatInterval.Milliseconds()) {
			t.Errorf("the last beat is %d ms old, want at most %v", late, beatInterval)
		}
		if n := h.count(`SELECT count(beat_at) FROM leases`); n != 1 {
			t.Errorf("got %d leases with a beat, want the active one", n)
		}
	})
}

// TestSettlementIsDoneLater: a disk may be full for long. The charge is that of the release, the seconds stay
// held, and the Slot is not lent, since nothing could be written about that either.
func TestSettlementIsDoneLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		accept := h.refuseToSettle()
		time.Sleep(3 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.Release(ctx, "demo", g.Lease, false); err != context.DeadlineExceeded {
			t.Errorf("release: got %v, want its context's end", err)
		}
		h.wantBalance(ada, 0, time.Minute)
		if s := h.Slots()[0]; s.Phase != "reclaiming" {
			t.Errorf("got %+v, want it not lent yet", s)
		}
		accept()
		time.Sleep(settleRetryDelay)
		synctest.Wait()
		h.wantBalance(ada, 3*time.Second, 0)
		h.wantLast(Released, "released", 3*time.Second)
		h.active(101)
	})
}

// TestSettlementThatCannotBe: without its hold a Lease can never be settled, which must not cost the Slot.
func TestSettlementThatCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.exec(`DROP TRIGGER ledger_no_delete`)
		h.exec(`DELETE FROM ledger`)
		h.release(g)
		h.active(101)
	})
}

func TestShutdownSettlesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		h.inventory = gputest.NewFakeInventory(gputest.Devices(2)...)
		h.Broker = h.newBroker()
		h.run().active(100)
		h.grant(h.schedule())
		waiting := h.schedule()
		h.inventory.SetHeld("GPU-fake-0", 40<<30) // its memory takes longer than a host that stops may
		time.Sleep(3 * time.Second)
		start := time.Now()
		h.stop()
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		if _, err := waiting.Wait(t.Context()); err != ErrGone {
			t.Errorf("who waited got %v, want ErrGone", err)
		}
		h.wantBalance(ada, 3*time.Second, 0)
		n := h.count(`SELECT count(*) FROM leases WHERE reason = 'host stopped' AND ended_at IS NOT NULL`)
		if n != 3 || h.processes.Alive(100) {
			t.Errorf("got %d of 3 leases ended as %q, worker lives: %v", n, "host stopped", h.processes.Alive(100))
		}
	})
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

// TestShutdownUnderLoad is for the race detector: all may be called at any time.
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

// TestShutdownWithoutDatabase ends in time; what could not be written is left to the next start.
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
		if err := h.newBroker().Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.wantBalance(ada, 4*time.Second, 0)
	})
}

func TestStartedAndGoneKeepTheRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		if err := h.Started(Runner{Instance: "run-1", Space: "demo", Marker: "/run/1", PID: 50, Start: 7}); err != nil {
			t.Fatal(err)
		}
		if n := h.count(`SELECT count(*) FROM runners WHERE pid = 50 AND marker = '/run/1' AND boot_id <> ''`); n != 1 {
			t.Errorf("got %d runners, want 1", n)
		}
		h.Gone("run-1")
		if n := h.count(`SELECT count(*) FROM runners`); n != 0 {
			t.Errorf("got %d runners after its end, want none", n)
		}
	})
}

func TestPastIsNewestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		for i := range 3 {
			g := h.active(100 + i)
			time.Sleep(time.Duration(i+1) * time.Second)
			h.release(g)
		}
		all, err := h.Past(t.Context(), 2)
		if err != nil || len(all) != 2 || all[0].ChargedSeconds != 3 || all[1].ChargedSeconds != 2 {
			t.Fatalf("got %+v (%v), want the last two, newest first", all, err)
		}
		if p := all[0]; p.Space != "demo" || p.Identity != "user:ada" || p.DeclaredSeconds != 60 || len(p.Lease) != 8 || !p.Ended.After(p.Admitted) {
			t.Errorf("got %+v", p)
		}
	})
}

// TestLogTellsEveryStateAndNoCredential: a Lease's ID is its allowToken.
func TestLogTellsEveryStateAndNoCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.release(g)
		synctest.Wait()
		lease := `"lease":{"id":"` + g.Lease[:8] + `","space":"demo","identity":"user:ada","state":"`
		want := []string{
			`{"level":"info","message":"lease waits",` + lease + `waiting"}`,
			`{"level":"info","message":"lease granted",` + lease + `granted","slot":0}`,
			`{"level":"info","message":"lease active",` + lease + `active","slot":0}`,
			`{"level":"info","message":"lease ended",` + lease + `released","slot":0}`,
			`{"level":"info","message":"slot returned",` + lease + `released","slot":0}`,
		}
		lines := strings.Split(strings.TrimSpace(h.journal.String()), "\n")
		if !slices.EqualFunc(lines, want, func(line, want string) bool { return strings.HasPrefix(line, strings.TrimSuffix(want, "}")) }) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
		if strings.Contains(h.journal.String(), g.Lease) {
			t.Error("the log has the whole ID")
		}
	})
}
