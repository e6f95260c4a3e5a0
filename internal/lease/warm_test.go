package lease

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func newWarmSchedulerHarness(t *testing.T, devices int) *schedulerHarness {
	h := newSchedulerHarness(t, devices)
	h.warmFor = 5 * time.Minute
	return h
}

func (h *schedulerHarness) release(l *Lease) {
	h.t.Helper()
	if _, err := h.onRelease(l.Space, l.ID, false); err != nil {
		h.t.Fatalf("release of %s: %v", l.ID, err)
	}
	h.onTime()
}

// leaveIdleWorker runs a Lease to a successful end.
func (h *schedulerHarness) leaveIdleWorker(alter ...func(*Request)) *Lease {
	h.t.Helper()
	l := h.active(alter...)
	h.release(l)
	h.want(l, Released)
	h.wantPhase(l.Slot.Index, warm)
	return l
}

// resumed schedules a Lease that reuses an idle worker, and commits its activation.
func (h *schedulerHarness) resumed(alter ...func(*Request)) *Lease {
	h.t.Helper()
	l := h.schedule(alter...)
	h.want(l, Granted)
	if !slices.Equal(h.resumes, []*Lease{l}) || len(h.answers[l]) != 0 {
		h.t.Fatalf("resumes %v, answers %+v; want the activation of %s being committed and no answer yet", h.resumes, h.answers[l], l.ID)
	}
	h.resumes = nil
	h.onResumed(l, h.clock, nil)
	h.want(l, Active)
	return l
}

func task(name string) func(*Request)     { return func(r *Request) { r.Task = name } }
func instance(name string) func(*Request) { return func(r *Request) { r.Instance = name } }

func TestWarmWorkerIsReused(t *testing.T) {
	h := newWarmSchedulerHarness(t, 2)
	first := h.leaveIdleWorker()
	h.advance(time.Minute) // idle time is not charged
	second := h.resumed()
	if got := h.answers[second]; len(got) != 1 || *got[0].grant != (Grant{Lease: second.ID, Slot: 0, Device: "GPU-fake-0", Idle: true}) {
		t.Errorf("got %+v, want slot 0 with its idle worker", got)
	}
	if second.Worker != first.Worker || h.watched[first.Worker] != 1 || len(h.reclaims) != 0 {
		t.Errorf("worker %+v, watched %v, reclaims %v; want the worker of the first, watched once, and none ended", second.Worker, h.watched, h.reclaims)
	}
	h.advance(3 * time.Second)
	h.release(second)
	h.wantEnd(first, Released, "released", 0)
	h.wantEnd(second, Released, "released", 3*time.Second)
	h.wantPhase(0, warm)
}

func TestDeadlineOfWarmLease(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	h.leaveIdleWorker()
	l := h.resumed()
	h.advance(12 * time.Second)
	h.wantEnd(l, Expired, "deadline", 10*time.Second)
	if len(h.reclaims) != 1 || h.reclaims[0].lease != l {
		t.Errorf("got %+v, want its worker ended", h.reclaims)
	}
}

func TestFailedWorkerIsNotKept(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	l := h.active()
	if _, err := h.onRelease("demo", l.ID, true); err != nil {
		t.Fatal(err)
	}
	h.wantPhase(0, reclaiming)
}

// TestOtherTaskEvictsIdleWorker: another Task, or another start of the Space.
func TestOtherTaskEvictsIdleWorker(t *testing.T) {
	for name, alter := range map[string]func(*Request){"another task": task("speak"), "another start": instance("run-2")} {
		t.Run(name, func(t *testing.T) {
			h := newWarmSchedulerHarness(t, 1)
			first := h.leaveIdleWorker()
			l := h.schedule(alter)
			h.want(l, Waiting)
			if len(h.reclaims) != 1 || h.reclaims[0].lease != first || h.reclaims[0].grace != idleTermGrace || len(h.checks) != 0 {
				t.Fatalf("reclaims %+v, checks %v; want the idle worker ended before any check", h.reclaims, h.checks)
			}
			h.finishReclaims()
			h.want(l, Granted)
			if got := h.answers[l]; len(got) != 1 || got[0].grant.Idle {
				t.Errorf("got %+v, want a grant without a worker", got)
			}
		})
	}
}

func TestFreeSlotsBeforeIdleWorkers(t *testing.T) {
	h := newWarmSchedulerHarness(t, 2)
	h.leaveIdleWorker()
	l := h.granted(task("speak"))
	if l.Slot.Index != 1 || len(h.reclaims) != 0 {
		t.Errorf("got slot %d and reclaims %v, want the free one", l.Slot.Index, h.reclaims)
	}
}

func TestLongestIdleIsEvictedFirst(t *testing.T) {
	h := newWarmSchedulerHarness(t, 2)
	a, b := h.active(), h.active(task("speak"))
	h.release(b)
	h.advance(time.Second)
	h.release(a)
	h.schedule(task("paint"))
	if len(h.reclaims) != 1 || h.reclaims[0].lease != b {
		t.Errorf("got %+v, want only the worker of %s ended", h.reclaims, b.ID)
	}
}

// TestWarmLeaseDoesNotOvertake: the Lease admitted first gets the only Slot, although the idle worker fits another
// one.
func TestWarmLeaseDoesNotOvertake(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	holder := h.active()
	other := h.schedule(task("speak"))
	same := h.schedule()
	h.release(holder)
	h.want(same, Waiting)
	h.finishReclaims()
	h.want(other, Granted)
}

// TestFreeSlotBeforeReclaimingSlot: an evicted worker may take long to exit.
func TestFreeSlotBeforeReclaimingSlot(t *testing.T) {
	h := newWarmSchedulerHarness(t, 2)
	idle, b := h.leaveIdleWorker(), h.active(task("speak"))
	first := h.schedule(task("paint"))
	second := h.schedule(task("sing"))
	slow := h.reclaims
	if len(slow) != 1 || slow[0].lease != idle {
		t.Fatalf("reclaims %+v, want the slot of the idle worker", slow)
	}
	h.reclaims = nil
	if _, err := h.onRelease("demo", b.ID, true); err != nil {
		t.Fatal(err)
	}
	h.finishReclaims()
	h.want(first, Granted)
	h.want(second, Waiting)
	h.reclaims = slow
	h.finishReclaims()
	h.want(second, Granted)
}

func TestIdleWorkerExpires(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	l := h.leaveIdleWorker()
	h.advance(5*time.Minute - 1)
	h.wantPhase(0, warm)
	h.advance(1)
	if len(h.reclaims) != 1 || h.reclaims[0].lease != l || h.reclaims[0].grace != idleTermGrace {
		t.Errorf("got %+v, want it ended", h.reclaims)
	}
	h.finishReclaims()
	h.wantPhase(0, free)
}

func TestIdleWorkerExits(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	l := h.leaveIdleWorker()
	h.onExit(l.Worker)
	h.wantPhase(0, reclaiming) // its descendants may still run, and its memory may not be free
	h.finishReclaims()
	h.granted()
}

func TestIdleWorkersEndWithTheirSpace(t *testing.T) {
	h := newWarmSchedulerHarness(t, 2)
	a, _ := h.active(), h.active(instance("run-2"))
	h.release(a)
	h.onInstanceGone("run-1")
	h.wantPhase(0, reclaiming)
	h.wantPhase(1, held)
}

// TestWarmWorkerExitsBeforeItsCall: the client forks another worker, which is allowed as on a cold start. The
// descendants of the first are ended.
func TestWarmWorkerExitsBeforeItsCall(t *testing.T) {
	for name, when := range map[string]func(h *schedulerHarness) *Lease{
		"before the commit": func(h *schedulerHarness) *Lease {
			l := h.schedule()
			h.onExit(l.Worker)
			h.onResumed(l, h.clock, nil)
			return l
		},
		"just after the commit": func(h *schedulerHarness) *Lease {
			l := h.resumed()
			h.advance(workerLossGrace - 1)
			h.onExit(l.Worker)
			return l
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newWarmSchedulerHarness(t, 1)
			dead := h.leaveIdleWorker().Worker
			l := when(h)
			h.want(l, Granted)
			if !slices.Equal(h.dismissed, []Worker{dead}) {
				t.Errorf("dismissed %v, want %v", h.dismissed, dead)
			}
			if got := h.answers[l]; len(got) != 1 || got[0].grant == nil {
				t.Fatalf("answers %+v, want a grant", got)
			}
			h.advance(4 * time.Second)
			h.allow(l)
			h.advance(2 * time.Second)
			h.release(l)
			h.wantEnd(l, Released, "released", 2*time.Second)
		})
	}
}

func TestWarmWorkerExitsWithoutReplacement(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	dead := h.leaveIdleWorker().Worker
	l := h.resumed()
	h.onExit(l.Worker)
	h.advance(claimTimeout)
	h.wantEnd(l, Unclaimed, "never allowed", 0)
	if !slices.Equal(h.dismissed, []Worker{dead}) {
		t.Errorf("dismissed %v, want %v", h.dismissed, dead)
	}
}

func TestWarmWorkerExitsDuringItsCall(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	h.leaveIdleWorker()
	l := h.resumed()
	h.advance(workerLossGrace)
	h.onExit(l.Worker)
	h.wantEnd(l, Released, "worker died", workerLossGrace)
}

// TestWorkerReplacesWarmWorker: the client found the warm worker unfit. The clock goes on; otherwise a Space that
// names one worker after the other would never be charged, nor reach its deadline. A third worker is refused.
func TestWorkerReplacesWarmWorker(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	old := h.leaveIdleWorker().Worker
	l := h.resumed()
	h.advance(2 * time.Second)
	h.allow(l)
	if !slices.Equal(h.dismissed, []Worker{old}) || l.Worker == old || h.watched[l.Worker] != 1 {
		t.Errorf("dismissed %v, worker %+v, watched %v; want the old one ended", h.dismissed, l.Worker, h.watched)
	}
	if _, _, err := h.onClaim("demo", l.ID, Worker{PID: 999}); err != ErrUnknown {
		t.Errorf("a third worker: got %v, want ErrUnknown", err)
	}
	h.onExit(old)
	h.advance(time.Second)
	h.release(l)
	h.wantEnd(l, Released, "released", 3*time.Second)
}

// TestUndeliveredResume: a grant that is not delivered or cannot be written is not charged, and its worker is
// ended.
func TestUndeliveredResume(t *testing.T) {
	for name, row := range map[string]struct {
		event  func(h *schedulerHarness, l *Lease)
		state  State
		reason string
		answer error
	}{
		"hung up after the grant": {func(h *schedulerHarness, l *Lease) {
			h.onResumed(l, h.clock, nil)
			h.advance(time.Second)
			h.onHangUp(l)
		}, Unclaimed, "connection lost", nil},
		"hung up before the grant":   {func(h *schedulerHarness, l *Lease) { h.onHangUp(l); h.onResumed(l, h.clock, nil) }, Unclaimed, "connection lost", ErrGone},
		"cancelled before the grant": {func(h *schedulerHarness, l *Lease) { h.onCancelled(l.Event); h.onResumed(l, h.clock, nil) }, Revoked, "cancelled", ErrGone},
		"refused by the disk":        {func(h *schedulerHarness, l *Lease) { h.onResumed(l, h.clock, errors.New("disk full")) }, Unclaimed, "not written down", ErrGone},
		"its Space has ended":        {func(h *schedulerHarness, l *Lease) { h.onInstanceGone(l.Instance); h.onUnfit(l) }, Revoked, "space died", ErrGone},
		"the commit never returns":   {func(h *schedulerHarness, l *Lease) { h.advance(claimTimeout) }, Unclaimed, "never allowed", ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			h := newWarmSchedulerHarness(t, 1)
			h.leaveIdleWorker()
			l := h.schedule()
			row.event(h, l)
			h.wantEnd(l, row.state, row.reason, 0)
			if got := h.answers[l]; len(got) != 1 || got[0].err != row.answer {
				t.Errorf("answered %+v, want %v once", got, row.answer)
			}
			if len(h.reclaims) != 1 || h.reclaims[0].lease.Worker.PID == 0 {
				t.Errorf("reclaims %+v, want the worker ended", h.reclaims)
			}
		})
	}
}

// TestUnfitWarmSlot: its Device was lost meanwhile. The Lease returns to its rank and takes another Slot.
func TestUnfitWarmSlot(t *testing.T) {
	h := newWarmSchedulerHarness(t, 2)
	first := h.leaveIdleWorker()
	other := h.active(task("speak"))
	l, behind := h.schedule(), h.schedule(task("paint"))
	h.onUnfit(l)
	h.want(l, Waiting)
	if !slices.Equal(h.waiting, []*Lease{l, behind}) || len(h.reclaims) != 1 || h.reclaims[0].lease != first {
		t.Fatalf("waiting %v, reclaims %+v; want %s first and the old worker ended", h.waiting, h.reclaims, l.ID)
	}
	r := h.reclaims[0]
	h.reclaims = nil
	h.onReclaimed(r.allocation, errors.New("lost"))
	h.wantPhase(0, busy)
	h.release(other)
	h.finishReclaims()
	h.want(l, Granted)
	h.want(behind, Waiting)
}

func TestXlargeEvictsIdleWorkers(t *testing.T) {
	h := newSharedSchedulerHarness(t, 1, 2)
	h.warmFor = time.Minute
	a, b := h.active(), h.active(task("speak"))
	h.release(a)
	whole := h.schedule(xlarge)
	if len(h.reclaims) != 0 {
		t.Errorf("got %+v while the other slot is held, want no eviction without use", h.reclaims)
	}
	h.release(b)
	if len(h.reclaims) != 2 {
		t.Fatalf("got %+v, want both slots reclaimed", h.reclaims)
	}
	h.finishReclaims()
	h.wantSlots(whole, 0, 1)
}

// warmStarting begins a warm start, which is not committed yet.
func (h *schedulerHarness) warmStarting(alter ...func(*Request)) *Lease {
	h.t.Helper()
	l := h.newLease(alter...)
	if !h.tryWarmStart(l) || !slices.Equal(h.warmStarts, []*Lease{l}) || h.leases[l.ID] != nil || len(h.waiting) != 0 {
		h.t.Fatalf("begins %v, waiting %v; want the warm start of %s under way, and the lease not open yet", h.warmStarts, h.waiting, l.ID)
	}
	h.warmStarts = nil
	h.onTime()
	return l
}

func TestWarmStart(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	first := h.leaveIdleWorker()
	l := h.warmStarting()
	other := h.schedule(task("speak"))
	h.want(other, Waiting)
	if len(h.checks)+len(h.reclaims) != 0 {
		t.Errorf("checks %v, reclaims %+v of a slot that is taken", h.checks, h.reclaims)
	}
	h.onWarmStarted(l, h.clock, nil)
	h.want(l, Active)
	if got := h.answers[l]; len(got) != 1 || *got[0].grant != (Grant{Lease: l.ID, Slot: 0, Device: "GPU-fake-0", Idle: true}) || l.Worker != first.Worker {
		t.Errorf("got %+v for %+v, want slot 0 with its idle worker", got, l.Worker)
	}
	h.advance(3 * time.Second)
	h.release(l)
	h.wantEnd(l, Released, "released", 3*time.Second)
}

// TestRefusedWarmStart keeps its worker for the next Lease, unless the worker has exited or its Slot is unfit.
func TestRefusedWarmStart(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(h *schedulerHarness)
		err       error
		want      phase
	}{
		"by the quota":  {func(*schedulerHarness) {}, errors.New("quota exceeded"), warm},
		"unfit":         {func(*schedulerHarness) {}, errUnfit, reclaiming},
		"worker exited": {func(h *schedulerHarness) { h.onExit(h.slots[0].holder.Worker) }, errors.New("quota exceeded"), reclaiming},
	} {
		t.Run(name, func(t *testing.T) {
			h := newWarmSchedulerHarness(t, 1)
			h.leaveIdleWorker()
			l := h.warmStarting()
			row.meanwhile(h)
			h.onWarmStarted(l, h.clock, row.err)
			h.wantPhase(0, row.want)
			if h.want(l, Waiting); len(h.answers[l]) != 0 || h.settled[l] != 0 || len(h.leases) != 0 {
				t.Errorf("answered %+v, settled %d times, open %v; want no trace of it", h.answers[l], h.settled[l], h.leases)
			}
			if row.want == warm {
				h.resumed()
			} else {
				h.finishReclaims()
				h.wantPhase(0, free)
			}
		})
	}
}

// TestWarmStartEndsDuringCommit: an event during the commit, when the Lease is not open yet, ends it as soon as it
// is committed.
func TestWarmStartEndsDuringCommit(t *testing.T) {
	for reason, meanwhile := range map[string]func(*schedulerHarness, *Lease){
		"cancelled":  func(h *schedulerHarness, l *Lease) { h.onCancelled(l.Event) },
		"space died": func(h *schedulerHarness, l *Lease) { h.onExit(l.Worker); h.onInstanceGone(l.Instance) },
	} {
		for name, err := range map[string]error{"committed": nil, "refused": errors.New("quota exceeded")} {
			t.Run(reason+", "+name, func(t *testing.T) {
				h := newWarmSchedulerHarness(t, 1)
				h.leaveIdleWorker()
				l := h.warmStarting()
				meanwhile(h, l)
				h.onWarmStarted(l, h.clock, err)
				if err == nil {
					h.wantEnd(l, Revoked, reason, 0)
					h.wantAnswer(l, ErrGone)
				} else if h.want(l, Waiting); len(h.answers[l]) != 0 {
					t.Errorf("answered %+v, want no answer", h.answers[l])
				}
				h.finishReclaims()
				h.wantPhase(0, free)
			})
		}
	}
}

// TestWarmStartOnFailedDevice is not charged, like any other Lease on that Device.
func TestWarmStartOnFailedDevice(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	h.leaveIdleWorker()
	l := h.warmStarting()
	h.drain(l.Slot.Device.UUID, Drain{Reason: "xid 79"})
	h.onWarmStarted(l, h.clock, nil)
	h.advance(3 * time.Second)
	h.release(l)
	h.wantEnd(l, Released, "released", 0)
}

func TestWaitingLeaseGetsSlotOfRefusedWarmStart(t *testing.T) {
	h := newWarmSchedulerHarness(t, 1)
	h.leaveIdleWorker()
	l, other := h.warmStarting(), h.schedule(task("speak"))
	h.onWarmStarted(l, h.clock, errors.New("quota exceeded"))
	h.finishReclaims()
	h.want(other, Granted)
}

func TestRequestsWithoutWarmStart(t *testing.T) {
	for name, row := range map[string]struct {
		before func(h *schedulerHarness)
		alter  func(*Request)
	}{
		"no worker":           {func(h *schedulerHarness) { h.active() }, task("draw")},
		"of another task":     {func(h *schedulerHarness) { h.leaveIdleWorker() }, task("speak")},
		"of another start":    {func(h *schedulerHarness) { h.leaveIdleWorker() }, instance("run-2")},
		"another lease waits": {func(h *schedulerHarness) { h.leaveIdleWorker(); h.schedule(task("speak")) }, task("draw")},
	} {
		t.Run(name, func(t *testing.T) {
			h := newWarmSchedulerHarness(t, 1)
			row.before(h)
			waited, checks, reclaims := len(h.waiting), len(h.checks), len(h.reclaims)
			if l := h.newLease(row.alter); h.tryWarmStart(l) || len(h.waiting) != waited || len(h.warmStarts) != 0 {
				t.Errorf("waiting %v, warm starts %v; want it to be admitted first", h.waiting, h.warmStarts)
			}
			if len(h.checks) != checks || len(h.reclaims) != reclaims {
				t.Errorf("checks %v, reclaims %+v for a lease that is not admitted", h.checks, h.reclaims)
			}
		})
	}
}
