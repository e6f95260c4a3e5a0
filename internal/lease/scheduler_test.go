package lease

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func xlarge(r *Request) { r.Size = "xlarge" }

func TestGrantsInOrder(t *testing.T) {
	for _, slots := range []int{1, 2, 4} {
		h := newSchedulerHarness(t, slots)
		var all []*Lease
		for range 8 {
			all = append(all, h.schedule())
		}
		h.passChecks()
		for next := slots; next < len(all); next++ {
			first := all[next-slots]
			h.want(all[next], Waiting)
			if _, err := h.onRelease("demo", first.ID, false); err != nil {
				t.Fatalf("%d slots: release: %v", slots, err)
			}
			h.want(all[next], Waiting) // the Slot is still being reclaimed
			h.finishReclaims()
			h.want(all[next], Granted)
			if all[next].Slot != first.Slot {
				t.Errorf("%d slots: lease %d got slot %d, want the one that came free, %d", slots, next, all[next].Slot.Index, first.Slot.Index)
			}
		}
	}
}

func TestGrantNamesSlotAndDevice(t *testing.T) {
	h := newSchedulerHarness(t, 2)
	h.granted()
	l := h.granted()
	got := h.answers[l]
	if len(got) != 1 || *got[0].grant != (Grant{Lease: l.ID, Slot: 1, Device: "GPU-fake-1"}) {
		t.Errorf("got %+v, want one grant of slot 1", got)
	}
}

func TestChecksNoMoreSlotsThanWait(t *testing.T) {
	h := newSchedulerHarness(t, 4)
	h.schedule()
	h.schedule()
	if len(h.checks) != 2 {
		t.Errorf("got %d checks for two waiting leases, want 2", len(h.checks))
	}
}

func TestBusySlotIsRechecked(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.schedule()
	h.checks = nil
	h.onChecked(allocation{h.slots[0]}, errors.New("pid 4711 is on it"))
	h.wantPhase(0, busy)
	h.advance(recheckInterval - 1)
	if len(h.checks) != 0 || h.slotViews()[0].Reason != "pid 4711 is on it" {
		t.Errorf("got %d checks and %+v, want none yet and the reason", len(h.checks), h.slotViews()[0])
	}
	h.advance(1)
	h.passChecks()
	h.want(l, Granted)
	if reason := h.slotViews()[0].Reason; reason != "" {
		t.Errorf("a lent slot shows %q", reason)
	}
}

// TestBusySlotStaysBusyWithoutWaitingLease: the Device is still lost although no Lease waits any more. The Slot
// must not be shown as free.
func TestBusySlotStaysBusyWithoutWaitingLease(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.schedule()
	h.checks = nil
	h.onChecked(allocation{h.slots[0]}, errors.New("lost"))
	h.onHangUp(l)
	for range 3 {
		h.advance(recheckInterval)
		h.wantPhase(0, checking)
		h.checks = nil
		h.onChecked(allocation{h.slots[0]}, errors.New("lost"))
		h.wantPhase(0, busy)
	}
	h.advance(recheckInterval)
	h.passChecks()
	h.wantPhase(0, free)
}

func TestBusySlotDoesNotStopTheOthers(t *testing.T) {
	h := newSchedulerHarness(t, 2)
	l := h.schedule()
	h.checks = nil
	h.onChecked(allocation{h.slots[0]}, errors.New("busy"))
	h.passChecks()
	h.want(l, Granted)
	if l.Slot.Index != 1 {
		t.Errorf("got slot %d, want 1", l.Slot.Index)
	}
}

func TestNoWakeForBusySlotWithoutWaitingLease(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.releaseAndReclaim(h.active(), errors.New("memory has not come back"))
	if next := h.onTime(); !next.IsZero() {
		t.Errorf("woken at %s without a waiting lease", next)
	}
	l := h.schedule()
	h.advance(recheckInterval)
	h.passChecks()
	h.want(l, Granted)
}

// releaseAndReclaim releases l, and completes the reclaim with err.
func (h *schedulerHarness) releaseAndReclaim(l *Lease, err error) {
	h.t.Helper()
	if _, e := h.onRelease(l.Space, l.ID, false); e != nil {
		h.t.Fatalf("release: %v", e)
	}
	h.reclaims = nil
	h.onReclaimed(l.allocation, err)
}

func TestQueueTimeout(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	holder := h.active(func(r *Request) { r.Declared = 5 * time.Minute })
	l := h.schedule()
	h.advance(time.Minute - 1)
	h.want(l, Waiting)
	h.advance(1)
	h.wantEnd(l, TimedOut, "no GPU within 1m0s", 0)
	h.wantAnswer(l, ErrTimedOut)
	h.want(holder, Active)
}

func TestQueueTimeoutDuringCheck(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.schedule()
	h.advance(time.Minute)
	h.wantEnd(l, TimedOut, "no GPU within 1m0s", 0)
	h.wantPhase(0, checking)
	h.passChecks()
	h.wantPhase(0, free)
	h.granted()
}

func TestUnclaimed(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.granted()
	h.advance(30*time.Second - 1)
	h.want(l, Granted)
	h.advance(1)
	h.wantEnd(l, Unclaimed, "never allowed", 0)
	if len(h.reclaims) != 1 || len(h.watched) != 0 {
		t.Errorf("got %d reclaims and %d watchers, want the slot reclaimed without a worker", len(h.reclaims), len(h.watched))
	}
}

func TestExpiry(t *testing.T) {
	for name, row := range map[string]struct {
		alter func(*Request)
		want  time.Duration
	}{
		"large":  {func(*Request) {}, 10 * time.Second},
		"xlarge": {xlarge, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			h := newSchedulerHarness(t, 1)
			h.advance(time.Second)
			l := h.granted(row.alter)
			h.advance(5 * time.Second) // fork and imports: not charged
			h.allow(l)
			h.advance(12*time.Second - 1)
			h.want(l, Active)
			h.advance(1)
			h.wantEnd(l, Expired, "deadline", row.want)
			if !slices.Equal(h.expiredLeases, []*Lease{l}) || len(h.reclaims) != 1 || h.reclaims[0].grace != 0 {
				t.Errorf("got expired leases %v and reclaims %+v, want one of each and no more grace", h.expiredLeases, h.reclaims)
			}
		})
	}
}

func TestExpiryNoticedLateChargesNoMore(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.active()
	h.clock = h.clock.Add(time.Hour) // a host that was suspended for a while
	h.onTime()
	h.wantEnd(l, Expired, "deadline", 10*time.Second)
}

func TestRelease(t *testing.T) {
	for name, row := range map[string]struct {
		after  time.Duration // from /allow
		failed bool
		alter  func(*Request)
		reason string
		want   time.Duration
	}{
		"at once":                       {0, false, nil, "released", 0},
		"rounded up to the millisecond": {3*time.Second + time.Nanosecond, false, nil, "released", 3001 * time.Millisecond},
		"rounded once, after doubling":  {1500*time.Millisecond + 400*time.Microsecond, false, xlarge, "released", 3001 * time.Millisecond},
		"failed":                        {time.Second, true, nil, "failed", time.Second},
		"just before the deadline":      {10*time.Second - 1, false, nil, "released", 10 * time.Second},
		"within the grace":              {11 * time.Second, false, nil, "released", 10 * time.Second},
		"within the grace, xlarge":      {12*time.Second - 1, true, xlarge, "failed", 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			h := newSchedulerHarness(t, 1)
			alter := row.alter
			if alter == nil {
				alter = func(*Request) {}
			}
			l := h.active(alter)
			h.advance(row.after)
			got, err := h.onRelease("demo", l.ID, row.failed)
			if err != nil || got != l {
				t.Fatalf("release: got %v, %v", got, err)
			}
			h.wantEnd(l, Released, row.reason, row.want)
			if len(h.reclaims) != 1 || h.reclaims[0].lease != l || h.reclaims[0].grace != idleTermGrace {
				t.Errorf("got %+v, want its worker given %s to exit", h.reclaims, idleTermGrace)
			}
		})
	}
}

// TestChargeIsBoundedTwice: the declaration and the hold bound the charge independently.
func TestChargeIsBoundedTwice(t *testing.T) {
	for _, row := range []struct{ held, declared, used, want time.Duration }{
		{10 * time.Second, 10 * time.Second, time.Minute, 10 * time.Second},
		{30 * time.Second, 10 * time.Second, time.Minute, 10 * time.Second},
		{5 * time.Second, 10 * time.Second, time.Minute, 5 * time.Second},
		{10 * time.Second, 10 * time.Second, -time.Second, 0},
	} {
		l := &Lease{Request: Request{Declared: row.declared, Size: "large"}, Held: row.held, Active: noon}
		if got := l.charge(noon.Add(row.used)); got != row.want {
			t.Errorf("%+v: got %v", row, got)
		}
	}
}

func TestReleaseWhileGranted(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.granted()
	h.advance(7 * time.Second)
	if _, err := h.onRelease("demo", l.ID, true); err != nil {
		t.Fatalf("release: %v", err)
	}
	h.wantEnd(l, Released, "failed", 0)
}

func TestReleaseOfForeignLease(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	active := h.active()
	waiting := h.schedule()
	for name, row := range map[string]struct{ space, id string }{
		"a lease that waits":   {"demo", waiting.ID},
		"another Space's":      {"other", active.ID},
		"an unknown lease":     {"demo", "nonsense"},
		"the empty allowToken": {"demo", ""},
	} {
		if _, err := h.onRelease(row.space, row.id, false); err != ErrUnknown {
			t.Errorf("%s: got %v, want ErrUnknown", name, err)
		}
	}
	h.want(active, Active)
	h.want(waiting, Waiting)
}

func TestReleaseTwice(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.active()
	h.advance(3 * time.Second)
	if _, err := h.onRelease("demo", l.ID, false); err != nil {
		t.Fatalf("first release: %v", err)
	}
	h.advance(3 * time.Second)
	if _, err := h.onRelease("demo", l.ID, true); err != ErrUnknown {
		t.Errorf("second release: got %v, want ErrUnknown", err)
	}
	h.wantEnd(l, Released, "released", 3*time.Second)
}

func TestReleaseAfterExpiry(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.active()
	h.advance(12 * time.Second)
	if _, err := h.onRelease("demo", l.ID, true); err != ErrUnknown { // as the client does after a kill
		t.Errorf("got %v, want ErrUnknown", err)
	}
	h.wantEnd(l, Expired, "deadline", 10*time.Second)
}

func TestWorkerExit(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.active()
	h.advance(4 * time.Second)
	h.onExit(l.Worker)
	h.wantEnd(l, Released, "worker died", 4*time.Second)
	h.onExit(l.Worker) // reported a second time
	h.wantEnd(l, Released, "worker died", 4*time.Second)
}

func TestWorkerExitAfterTheEnd(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	l := h.active()
	h.releaseAndReclaim(l, nil)
	next := h.active()
	h.advance(time.Second)
	h.onExit(l.Worker) // the worker that the release has ended
	h.wantEnd(l, Released, "released", 0)
	h.want(next, Active)
}

// TestEarlyEnds applies every event that may end a Lease early to all three open states.
func TestEarlyEnds(t *testing.T) {
	events := map[string]func(*schedulerHarness, *Lease){
		"left":      func(h *schedulerHarness, l *Lease) { h.onLeft(l.Event) },
		"cancelled": func(h *schedulerHarness, l *Lease) { h.onCancelled(l.Event) },
		"gone":      func(h *schedulerHarness, l *Lease) { h.onInstanceGone(l.Instance) },
		"hung up":   func(h *schedulerHarness, l *Lease) { h.onHangUp(l) },
	}
	for _, row := range []struct {
		event  string
		at     State
		want   State // equal to at: the Lease goes on
		reason string
		answer error
	}{
		{"left", Waiting, Withdrawn, "visitor left", ErrLeft},
		{"left", Granted, Granted, "", nil},
		{"left", Active, Active, "", nil},
		{"cancelled", Waiting, Withdrawn, "cancelled", ErrLeft},
		{"cancelled", Granted, Revoked, "cancelled", nil},
		{"cancelled", Active, Revoked, "cancelled", nil},
		{"gone", Waiting, Withdrawn, "space died", ErrGone},
		{"gone", Granted, Revoked, "space died", nil},
		{"gone", Active, Revoked, "space died", nil},
		{"hung up", Waiting, Withdrawn, "connection lost", ErrLeft},
		{"hung up", Granted, Unclaimed, "connection lost", nil},
		{"hung up", Active, Active, "", nil},
	} {
		t.Run(row.event+" while "+string(row.at), func(t *testing.T) {
			h := newSchedulerHarness(t, 1)
			l := h.leaseIn(row.at)
			h.advance(2 * time.Second)
			events[row.event](h, l)
			h.wantEarlyEnd(l, row.at, row.want, row.reason, row.answer)
		})
	}
}

func (h *schedulerHarness) leaseIn(state State) *Lease {
	switch state {
	case Granted:
		return h.granted()
	case Active:
		return h.active()
	}
	return h.schedule() // the check of its Slot stays pending
}

func (h *schedulerHarness) wantEarlyEnd(l *Lease, at, want State, reason string, answer error) {
	h.t.Helper()
	if at == want {
		h.want(l, at)
		return
	}
	charged := time.Duration(0)
	if at == Active {
		charged = 2 * time.Second
	}
	h.wantEnd(l, want, reason, charged)
	if at == Waiting {
		h.wantAnswer(l, answer)
	} else if len(h.answers[l]) != 1 || len(h.reclaims) != 1 || h.reclaims[0].grace != 0 {
		h.t.Errorf("got answers %+v and reclaims %+v, want only the grant, and the slot reclaimed at once", h.answers[l], h.reclaims)
	}
}

// The lease of a cancelled generator ends by its worker's release, which keeps the worker warm. It is revoked if the
// generator does not close in time, and never later than without the cancellation.
func TestAClosingGeneratorHasAGrace(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.warmFor = time.Minute
	l := h.active()
	h.onClosing(l.Event)
	h.advance(closeGrace - time.Millisecond)
	h.want(l, Active)
	h.onClosing(l.Event) // a second click does not prolong it
	h.advance(time.Millisecond)
	h.wantEnd(l, Revoked, "cancelled", closeGrace)

	h = newSchedulerHarness(t, 1)
	granted := h.leaseIn(Granted)
	waiting := h.schedule(func(r *Request) { r.Event = "waits" })
	h.onClosing(waiting.Event)
	h.wantEnd(waiting, Withdrawn, "cancelled", 0)
	h.onClosing(granted.Event)
	h.want(granted, Granted)
	h.advance(closeGrace)
	h.wantEnd(granted, Revoked, "cancelled", 0)
}

func TestEndLeavesOtherLeasesAlone(t *testing.T) {
	other := func(r *Request) { r.Event, r.Instance = "other", "run-2" }
	h := newSchedulerHarness(t, 1)
	holder := h.active(other)
	first, second := h.schedule(other), h.schedule()
	h.onLeft(second.Event)
	h.onCancelled("unknown")
	h.onInstanceGone("run-1")
	h.want(second, Withdrawn)
	h.want(holder, Active)
	h.want(first, Waiting)
	h.onCancelled("other")
	h.wantEnd(holder, Revoked, "cancelled", 0)
	h.wantEnd(first, Withdrawn, "cancelled", 0)
}

func TestWithdrawalKeepsTheOrder(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	holder := h.active()
	a, b, c := h.schedule(), h.schedule(), h.schedule()
	h.onLeft(b.Event)
	h.releaseAndReclaim(holder, nil)
	h.passChecks()
	h.want(a, Granted)
	h.want(c, Waiting)
	h.releaseAndReclaim(a, nil)
	h.passChecks()
	h.want(c, Granted)
}
