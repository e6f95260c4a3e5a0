package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu/gputest"
	"spacehost/quota"
)

func kept(t *testing.T, test func(h *keptHarness)) {
	synctest.Test(t, func(t *testing.T) {
		h := newKeptHarness(t, 1)
		test(h)
		h.stop()
		if n := h.count(`SELECT count(*) FROM leases WHERE ended_at IS NULL`); n != 0 || h.agent.known() != 0 {
			t.Errorf("%d leases are open, the agent knows %d", n, h.agent.known())
		}
	})
}

// ends are the two ways in which a host leaves its Spaces with the agent.
var ends = map[string]func(*keptHarness){"crash": (*keptHarness).crash, "keep": (*keptHarness).leave}

// TestAdoption: the Lease goes on over two ends of its host, on its Slot, with its deadline. It is charged once, to its true end.
func TestAdoption(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			kept(t, func(h *keptHarness) {
				g := h.active(100)
				h.onDevice(100)
				before := h.List()[0]
				for range 2 {
					time.Sleep(7 * time.Second)
					end(h)
					time.Sleep(8 * time.Second)
					h.next()
					h.wantBalance(ada, 0, time.Minute)
					h.wantActive(g.Lease)
					if after := h.List()[0]; !after.Deadline.Equal(*before.Deadline) || !after.Active.Equal(*before.Active) || *after.Slot != *before.Slot || after.UsedSeconds != time.Since(*before.Active).Seconds() {
						h.t.Errorf("adopted as %+v, want %+v", after, before)
					}
				}
				if n := h.agent.count("arm", g.Lease); n != 3 || h.agent.count("disarm", g.Lease) != 0 {
					h.t.Errorf("armed %d times, want once by each host", n)
				}
				time.Sleep(5 * time.Second)
				h.onDevice()
				h.release(g)
				h.wantLast(Released, "released", 35*time.Second)
				h.wantBalance(ada, 35*time.Second, 0)
				if n := h.agent.count("disarm", g.Lease); n != 1 {
					h.t.Errorf("disarmed %d times, want once", n)
				}
				if g := h.grant(h.schedule()); !g.Idle {
					h.t.Errorf("got %+v, want the worker of the adopted lease", g)
				}
			})
		})
	}
}

// TestAdoptedLeaseExpires at the deadline that it had.
func TestAdoptedLeaseExpires(t *testing.T) {
	kept(t, func(h *keptHarness) {
		h.active(100)
		time.Sleep(40 * time.Second)
		h.crash()
		time.Sleep(15 * time.Second)
		h.next()
		time.Sleep(7*time.Second - time.Millisecond)
		h.wantState(Active)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		h.wantLast(Expired, "deadline", time.Minute)
		if h.processes.Alive(100) {
			h.t.Error("the worker runs")
		}
	})
}

// TestEndsOfAdoptedLeases: each end that a Lease can have charges what it would have charged without the end of the host.
func TestEndsOfAdoptedLeases(t *testing.T) {
	for reason, row := range map[string]struct {
		end   func(h *keptHarness, g Grant)
		state State
		want  time.Duration
	}{
		"failed":      {func(h *keptHarness, g Grant) { _ = h.Release(h.t.Context(), "demo", g.Lease, true) }, Released, 20 * time.Second},
		"worker died": {func(h *keptHarness, _ Grant) { h.processes.Exit(100) }, Released, 20 * time.Second},
		"cancelled":   {func(h *keptHarness, _ Grant) { h.Cancelled("event-1") }, Revoked, 20 * time.Second},
		"space died":  {func(h *keptHarness, _ Grant) { h.Gone("run-1") }, Revoked, 20 * time.Second},
		"restarted":   {func(h *keptHarness, _ Grant) { h.End("run-1", "restarted") }, Revoked, 0},
	} {
		t.Run(reason, func(t *testing.T) {
			kept(t, func(h *keptHarness) {
				g := h.active(100)
				time.Sleep(10 * time.Second)
				h.crash()
				time.Sleep(5 * time.Second)
				h.next()
				time.Sleep(5 * time.Second)
				row.end(h, g)
				time.Sleep(time.Second)
				synctest.Wait()
				h.wantLast(row.state, reason, row.want)
				h.wantBalance(ada, row.want, 0)
				h.wantSlots("GPU-fake-0 free")
				if h.processes.Alive(100) {
					h.t.Error("the worker runs")
				}
			})
		})
	}
}

// TestEndedByAgent: the agent has ended the worker while no host ran. A host that crashes before the settlement is written, or after,
// changes nothing.
func TestEndedByAgent(t *testing.T) {
	for _, crashes := range []int{0, 1, 2} {
		t.Run(fmt.Sprint(crashes), func(t *testing.T) {
			kept(t, func(h *keptHarness) {
				g := h.active(100)
				time.Sleep(10 * time.Second)
				h.crash()
				time.Sleep(5 * time.Minute)
				if h.processes.Alive(100) {
					h.t.Error("the worker runs after its deadline")
				}
				for n := range crashes {
					if n == 0 {
						h.refuseToSettle()
					}
					h.next()
					if n == 0 && h.agent.count("disarm", g.Lease) != 0 {
						h.t.Error("disarmed before the settlement was written")
					}
					h.crash()
					h.exec(`DROP TRIGGER IF EXISTS full`)
				}
				h.next()
				h.wantLast(Expired, "deadline", time.Minute)
				h.wantBalance(ada, time.Minute, 0)
				if n := h.count(`SELECT count(*) FROM ledger WHERE kind = 'settle'`); n != 1 || h.agent.known() != 0 {
					h.t.Errorf("settled %d times, the agent knows %d leases", n, h.agent.known())
				}
			})
		})
	}
}

// TestLeasesThatCannotGoOn lets the agent report something else than the open Lease of a kept instance.
func TestLeasesThatCannotGoOn(t *testing.T) {
	for name, row := range map[string]struct {
		alter  func(h *keptHarness, r *MachineReport)
		state  State
		reason string
		want   time.Duration
	}{
		"unknown to the agent": {func(_ *keptHarness, r *MachineReport) { *r = MachineReport{} }, Revoked, reasonNoRecord, 10 * time.Second},
		"another worker": {func(h *keptHarness, r *MachineReport) {
			r.Open[0].Worker = Worker{PID: 101, Start: h.processes.Start("demo", 101)}
		}, Revoked, reasonNoRecord, 10 * time.Second},
		"released there": {func(_ *keptHarness, r *MachineReport) {
			*r = MachineReport{Ended: []EndedLease{{r.Open[0].Lease, Released, "worker died", 11 * time.Second}}}
		}, Released, "worker died", 11 * time.Second},
		"time unknown": {func(_ *keptHarness, r *MachineReport) {
			*r = MachineReport{Ended: []EndedLease{{r.Open[0].Lease, Revoked, "agent restarted", -1}}}
		}, Revoked, "agent restarted", 10 * time.Second},
		"device gone": {func(h *keptHarness, _ *MachineReport) {
			h.inventory = gputest.NewFakeInventory(gputest.Devices(2)[1:]...)
		},
			Revoked, reasonDeviceGone, 10 * time.Second},
		"instance not kept": {func(h *keptHarness, _ *MachineReport) { h.kept = nil }, Revoked, "host crashed", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			kept(t, func(h *keptHarness) {
				h.active(100)
				time.Sleep(10*time.Second + time.Millisecond)
				h.crash()
				time.Sleep(5 * time.Second)
				report := h.agent.connect()
				row.alter(h, &report)
				h.nextWith(report)
				h.wantLast(row.state, row.reason, row.want)
				h.wantBalance(ada, row.want, 0)
				if h.processes.Alive(100) || h.processes.Alive(101) {
					h.t.Error("a worker runs")
				}
				if g := h.grant(h.schedule()); g.Idle {
					h.t.Errorf("got %+v, want a new worker", g)
				}
			})
		})
	}
}

// TestKeepWithdrawsTheOthers: only an active Lease goes on.
func TestKeepWithdrawsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newKeptHarness(t, 3)
		active := h.active(100, declared(30*time.Second))
		h.release(h.active(101, task("other"), declared(30*time.Second)))
		single := func(r *Request) { r.Payer, r.Tier.Concurrency = ben, 1 }
		granted := h.grant(h.schedule(single)) // no /allow yet
		waiting := h.schedule(single)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		start := time.Now()
		h.leave()
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		if _, err := waiting.Wait(t.Context()); !errors.Is(err, ErrGone) {
			t.Errorf("the waiting lease got %v, want ErrGone", err)
		}
		if n := h.count(`SELECT count(*) FROM leases WHERE ended_at IS NULL`); n != 1 || !h.processes.Alive(100) || h.processes.Alive(101) {
			t.Errorf("%d leases are open, want the active one with its worker, and no other worker", n)
		}
		if n := h.count(`SELECT count(*) FROM leases WHERE reason = 'host stopped'`); n != 2 {
			t.Errorf("%d leases ended with the host, want the granted and the waiting one", n)
		}
		if n := h.count(`SELECT beat_at - active_at FROM leases WHERE ended_at IS NULL`); n != 3000 {
			t.Errorf("the last beat is at %d ms, want that of the end", n)
		}
		h.next()
		h.wantActive(active.Lease)
		if err := h.Allow(t.Context(), "demo", granted.Lease, 103); !errors.Is(err, ErrUnknown) {
			t.Errorf("allow of a grant that was taken back: %v", err)
		}
		h.stop()
	})
}

// TestIdleWorkersOfAnEarlierHost are ended, and so are those that the host was about to end: the next call gets a new worker.
func TestIdleWorkersOfAnEarlierHost(t *testing.T) {
	for name, failed := range map[string]bool{"idle": false, "being ended": true} {
		t.Run(name, func(t *testing.T) {
			kept(t, func(h *keptHarness) {
				g := h.active(100)
				if failed { // the host crashes before it can end the worker
					h.machine.crashed.Store(true)
				}
				if err := h.Release(h.t.Context(), "demo", g.Lease, failed); err != nil {
					h.t.Fatal(err)
				}
				h.agent.Disarm(g.Lease)
				h.crash()
				if !h.processes.Alive(100) {
					h.t.Fatal("the worker has exited before the next host starts")
				}
				h.next()
				if h.processes.Alive(100) || !slices.Equal(h.processes.Ends(100), []time.Duration{0}) {
					h.t.Errorf("the idle worker runs: %v, ended with %v", h.processes.Alive(100), h.processes.Ends(100))
				}
				if g := h.grant(h.schedule()); g.Idle {
					h.t.Errorf("got %+v, want a new worker", g)
				}
			})
		})
	}
}

// TestRunnersOfKeptInstances stay, and their takeover writes them again.
func TestRunnersOfKeptInstances(t *testing.T) {
	kept(t, func(h *keptHarness) {
		for n := range 2 {
			r := Runner{Instance: fmt.Sprint("run-", n+1), Space: "demo", Marker: fmt.Sprint("/run/", n+1), PID: 50 + n, Start: 7}
			if err := h.Started(r); err != nil {
				h.t.Fatal(err)
			}
		}
		h.crash()
		markers, err := Orphans(h.t.Context(), h.db, h.kept)
		if err != nil || !slices.Equal(markers, []string{"/run/2"}) {
			h.t.Errorf("orphans %q, %v; want that of the instance that is not kept", markers, err)
		}
		h.next()
		if n := h.count(`SELECT count(*) FROM runners WHERE instance = 'run-1'`); n != 1 || h.count(`SELECT count(*) FROM runners`) != 1 {
			h.t.Errorf("%d rows of the kept instance, want one and no other", n)
		}
		if err := h.Started(Runner{Instance: "run-1", Space: "demo", Marker: "/run/1", PID: 50, Start: 7}); err != nil {
			h.t.Errorf("takeover of a kept instance: %v", err)
		}
		h.Gone("run-1")
		if n := h.count(`SELECT count(*) FROM runners`); n != 0 {
			h.t.Errorf("%d rows after the end", n)
		}
	})
}

// TestWaitingLeasesOfKeptInstances are settled as after any crash.
func TestWaitingLeasesOfKeptInstances(t *testing.T) {
	kept(t, func(h *keptHarness) {
		h.grant(h.schedule())
		h.schedule()
		h.crash()
		h.next()
		h.wantLast(Withdrawn, "host crashed", 0)
		h.wantBalance(ada, 0, 0)
		if n := h.count(`SELECT count(*) FROM leases WHERE reason = 'host crashed'`); n != 2 {
			h.t.Errorf("%d leases settled, want 2", n)
		}
	})
}

// TestReplacedWorkerIsArmed: the client has found its idle worker unfit, and its new worker has made an /allow.
func TestReplacedWorkerIsArmed(t *testing.T) {
	kept(t, func(h *keptHarness) {
		h.release(h.active(100))
		g := h.grant(h.schedule())
		if !g.Idle {
			h.t.Fatalf("got %+v, want the idle worker", g)
		}
		h.processes.Start("demo", 101)
		if err := h.Allow(h.t.Context(), "demo", g.Lease, 101); err != nil {
			h.t.Fatal(err)
		}
		report := h.agent.connect()
		if len(report.Open) != 1 || report.Open[0].Worker.PID != 101 {
			h.t.Errorf("armed %+v, want the second worker", report.Open)
		}
		h.crash()
		h.next()
		h.wantActive(g.Lease)
		h.release(g)
	})
}

// holdWriter lets each further commit of the host wait until release.
func (h *keptHarness) holdWriter() (release func()) {
	held, released := make(chan struct{}), make(chan struct{})
	go h.store.writer.write(h.t.Context(), "slow", func(quota.Tx) error { close(held); <-released; return nil })
	<-held
	return func() { close(released) }
}

// TestResumedWorkerIsArmedOnce: the machine arms the Lease of an idle worker with the Resume, and a Lease that does not become active is
// disarmed. A commit that takes long moves the deadline.
func TestResumedWorkerIsArmedOnce(t *testing.T) {
	kept(t, func(h *keptHarness) {
		until := func(g Grant) time.Duration {
			h.agent.mu.Lock()
			defer h.agent.mu.Unlock()
			return time.Until(h.agent.armed[g.Lease].until)
		}
		h.release(h.active(100))
		g := h.grant(h.schedule())
		if n := h.agent.count("arm", g.Lease); !g.Idle || n != 1 || until(g) != time.Minute {
			h.t.Errorf("got %+v, armed %d times, %v before its deadline", g, n, until(g))
		}
		h.release(g)
		if h.agent.known() != 0 || h.agent.count("disarm", g.Lease) != 1 {
			h.t.Errorf("disarmed %d times, want once", h.agent.count("disarm", g.Lease))
		}
		if _, err := h.Schedule(h.t.Context(), request(declared(300*time.Second))); err == nil {
			h.t.Error("a call above the quota was admitted")
		}
		if synctest.Wait(); h.agent.known() != 0 {
			h.t.Error("a refused call stays armed")
		}

		release := h.holdWriter()
		time.AfterFunc(3*time.Second, release)
		g = h.grant(h.schedule())
		if n := h.agent.count("arm", g.Lease); !g.Idle || n != 2 || until(g) != time.Minute {
			h.t.Errorf("after a slow commit got %+v, armed %d times, %v before its deadline", g, n, until(g))
		}
		h.agent.mu.Lock()
		if counted := time.Since(h.agent.armed[g.Lease].since); counted != 0 {
			h.t.Errorf("the agent counts the %v of the commit", counted)
		}
		h.agent.mu.Unlock()
		h.release(g)

		synctest.Wait()
		h.processes.SetIcebound(100, true)
		if g := h.grant(h.schedule()); g.Idle || h.agent.known() != 0 {
			h.t.Errorf("got %+v, and %d leases are armed; the worker stays frozen", g, h.agent.known())
		}
	})
}

// TestAllowIsArmedDuringItsCommit: the machine knows the deadline before the worker has an answer, and forgets it if the commit fails.
func TestAllowIsArmedDuringItsCommit(t *testing.T) {
	kept(t, func(h *keptHarness) {
		g := h.grant(h.schedule())
		h.processes.Start("demo", 100)
		release := h.holdWriter()
		allow := func(ctx context.Context, pid int) <-chan error {
			answer := make(chan error, 1)
			go func() { answer <- h.Allow(ctx, "demo", g.Lease, pid) }()
			synctest.Wait()
			if n := h.agent.count("arm", g.Lease); n != 1 || h.agent.known() != 1 {
				h.t.Errorf("armed %d times during the commit, want once", n)
			}
			return answer
		}
		ctx, leave := context.WithCancel(h.t.Context())
		answer := allow(ctx, 100)
		leave()
		if err := <-answer; !errors.Is(err, context.Canceled) || h.agent.known() != 0 {
			h.t.Errorf("error %v, and %d leases are armed after it", err, h.agent.known())
		}
		release()
		synctest.Wait()

		time.Sleep(time.Minute) // the Lease ends unclaimed, with its worker
		g = h.grant(h.schedule())
		h.processes.Start("demo", 101)
		answer = allow(h.t.Context(), 101)
		if err := <-answer; err != nil {
			h.t.Error(err)
		}
		if n := h.agent.count("arm", g.Lease); n != 1 {
			h.t.Errorf("armed %d times, want once", n)
		}
		h.release(g)
	})
}
