package lease

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/quota"
)

func TestHoldToSettlement(t *testing.T) {
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

// wantLedger checks the two ledger entries of ada's only Lease, which was for a minute.
func (h *brokerHarness) wantLedger(lease string, charged time.Duration) {
	h.t.Helper()
	entries, err := h.ledger.Matching(h.t.Context(), ada.Key(), quota.EntryFilter{}, 1000)
	if err != nil || len(entries) != 2 {
		h.t.Fatalf("got %d ledger entries (%v), want 2", len(entries), err)
	}
	settle, hold := entries[0], entries[1]
	if hold.Kind != quota.KindHold || hold.Held != time.Minute || hold.Lease != lease || hold.Space != "demo" || hold.Task != "draw" {
		h.t.Errorf("got %+v, want a hold of a minute for %s", hold, lease)
	}
	if settle.Kind != quota.KindSettle || settle.Charged != charged || settle.Returned != time.Minute-charged || settle.Lease != lease {
		h.t.Errorf("got %+v, want %v charged and the rest returned", settle, charged)
	}
}

func TestExpiryIsChargedToDeadlineAndReported(t *testing.T) {
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
			t.Errorf("worker runs: %v; reported %+v, want %+v", h.processes.Alive(100), ends, want)
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

func TestWorkerExitEndsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100)
		time.Sleep(4 * time.Second)
		h.processes.Exit(100)
		synctest.Wait()
		h.wantBalance(ada, 4*time.Second, 0)
		h.wantLast(Released, "worker died", 4*time.Second)
		h.active(101) // the Slot is lent again
	})
}

func TestRetryAfterBrokenStreamInheritsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		h.active(100, func(r *Request) { r.Payer = ben })
		short := declared(10 * time.Second)
		h.schedule(short, xlarge).Leave()
		time.Sleep(retrySizeTime)
		h.wantSize("xlarge", short)
		h.wantSize("xlarge", short) // two streams broke, two retry
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
			t.Errorf("got %v and %d waiting, want it to keep waiting", err, h.Waiting())
		}
		h.release(first)
		h.grant(ticket)
	})
}

func TestQueueReportsReachLeases(t *testing.T) {
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

// TestPostedCallsRunInOrder: a call sees the effects of everything that was posted before it. Both are ready when
// the scheduler finishes its current call.
func TestPostedCallsRunInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		var calling sync.WaitGroup
		for range 50 {
			value := 0
			h.do(func(*schedulers) {
				h.post(func(*schedulers) { value = 1 })
				h.post(func(*schedulers) { value *= 2 })
				calling.Go(func() {
					h.do(func(*schedulers) {
						if value != 2 {
							t.Errorf("got %d, want both posted calls run in order (2)", value)
						}
					})
				})
				synctest.Wait()
			})
			calling.Wait()
		}
	})
}

func TestBeatsWhileLeaseIsActive(t *testing.T) {
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

// TestSettlementIsRetried: a disk may be full for a long time. The charge is that of the release, the seconds stay
// held, and the Slot is not lent, because the database could not record that either.
func TestSettlementIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		accept := h.refuseToSettle()
		time.Sleep(3 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.Release(ctx, "demo", g.Lease, false); err != context.DeadlineExceeded {
			t.Errorf("release: got %v, want the error of its context", err)
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

// TestSettlementWithoutHold: a Lease without its hold can never be settled. That must not cost the Slot.
func TestSettlementWithoutHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		h.exec(`DROP TRIGGER ledger_no_delete`)
		h.exec(`DELETE FROM ledger`)
		h.release(g)
		h.active(101)
	})
}

func TestStartedAndGoneRecordTheRunner(t *testing.T) {
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

// TestLogHasEveryStateAndNoCredential: the ID of a Lease is its allowToken.
func TestLogHasEveryStateAndNoCredential(t *testing.T) {
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
			t.Error("the log contains the whole ID")
		}
	})
}
