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
		w := newWorld(t, slots)
		var all []*Lease
		for range 8 {
			all = append(all, w.schedule())
		}
		w.clear()
		for next := slots; next < len(all); next++ {
			first := all[next-slots]
			w.want(all[next], Waiting)
			if _, err := w.onRelease("demo", first.ID, false); err != nil {
				t.Fatalf("%d slots: release: %v", slots, err)
			}
			w.want(all[next], Waiting) // the Slot is still being taken back
			w.reclaimed()
			w.want(all[next], Granted)
			if all[next].Slot != first.Slot {
				t.Errorf("%d slots: lease %d got slot %d, want the one that came free, %d", slots, next, all[next].Slot.Index, first.Slot.Index)
			}
		}
	}
}

func TestGrantNamesSlotAndDevice(t *testing.T) {
	w := newWorld(t, 2)
	w.granted()
	l := w.granted()
	got := w.answers[l]
	if len(got) != 1 || *got[0].grant != (Grant{Lease: l.ID, Slot: 1, Device: "GPU-fake-1"}) {
		t.Errorf("got %+v, want one grant of slot 1", got)
	}
}

func TestLooksAtNoMoreSlotsThanWait(t *testing.T) {
	w := newWorld(t, 4)
	w.schedule()
	w.schedule()
	if len(w.checks) != 2 {
		t.Errorf("got %d looks for two that wait, want 2", len(w.checks))
	}
}

func TestBusySlotIsLookedAtAgain(t *testing.T) {
	w := newWorld(t, 1)
	l := w.schedule()
	w.checks = nil
	w.onChecked(place{w.slots[0]}, errors.New("pid 4711 is on it"))
	w.wantPhase(0, busy)
	w.pass(recheck - 1)
	if len(w.checks) != 0 || w.slotViews()[0].Reason != "pid 4711 is on it" {
		t.Errorf("got %d looks and %+v, want none yet and the reason", len(w.checks), w.slotViews()[0])
	}
	w.pass(1)
	w.clear()
	w.want(l, Granted)
	if reason := w.slotViews()[0].Reason; reason != "" {
		t.Errorf("a lent slot shows %q", reason)
	}
}

// Nobody waits any more, and the Device is as lost as before: that is shown, and not that the Slot is free.
func TestBusySlotStaysBusyForNobody(t *testing.T) {
	w := newWorld(t, 1)
	l := w.schedule()
	w.checks = nil
	w.onChecked(place{w.slots[0]}, errors.New("lost"))
	w.onHangUp(l)
	for range 3 {
		w.pass(recheck)
		w.wantPhase(0, checking)
		w.checks = nil
		w.onChecked(place{w.slots[0]}, errors.New("lost"))
		w.wantPhase(0, busy)
	}
	w.pass(recheck)
	w.clear()
	w.wantPhase(0, free)
}

func TestBusySlotDoesNotStopTheOthers(t *testing.T) {
	w := newWorld(t, 2)
	l := w.schedule()
	w.checks = nil
	w.onChecked(place{w.slots[0]}, errors.New("busy"))
	w.clear()
	w.want(l, Granted)
	if l.Slot.Index != 1 {
		t.Errorf("got slot %d, want 1", l.Slot.Index)
	}
}

func TestNobodyIsWokenForABusySlotThatNobodyWants(t *testing.T) {
	w := newWorld(t, 1)
	w.onReclaimedOf(w.active(), errors.New("memory has not come back"))
	if next := w.onTime(); !next.IsZero() {
		t.Errorf("got woken at %s with nobody waiting", next)
	}
	l := w.schedule()
	w.pass(recheck)
	w.clear()
	w.want(l, Granted)
}

// onReclaimedOf releases l, and says how taking its Slot back went.
func (w *world) onReclaimedOf(l *Lease, err error) {
	w.t.Helper()
	if _, e := w.onRelease(l.Space, l.ID, false); e != nil {
		w.t.Fatalf("release: %v", e)
	}
	w.reclaims = nil
	w.onReclaimed(l.place, err)
}

func TestQueueTimeout(t *testing.T) {
	w := newWorld(t, 1)
	holder := w.active(func(r *Request) { r.Declared = 5 * time.Minute })
	l := w.schedule()
	w.pass(time.Minute - 1)
	w.want(l, Waiting)
	w.pass(1)
	w.wantEnd(l, TimedOut, "no GPU within 1m0s", 0)
	w.wantAnswer(l, ErrTimedOut)
	w.want(holder, Active)
}

func TestQueueTimeoutWhileASlotIsLookedAt(t *testing.T) {
	w := newWorld(t, 1)
	l := w.schedule()
	w.pass(time.Minute)
	w.wantEnd(l, TimedOut, "no GPU within 1m0s", 0)
	w.wantPhase(0, checking)
	w.clear()
	w.wantPhase(0, free)
	w.granted()
}

func TestUnclaimed(t *testing.T) {
	w := newWorld(t, 1)
	l := w.granted()
	w.pass(30*time.Second - 1)
	w.want(l, Granted)
	w.pass(1)
	w.wantEnd(l, Unclaimed, "never allowed", 0)
	if len(w.reclaims) != 1 || len(w.watched) != 0 {
		t.Errorf("got %d reclaims and %d watchers, want the slot taken back from nobody", len(w.reclaims), len(w.watched))
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
			w := newWorld(t, 1)
			w.pass(time.Second)
			l := w.granted(row.alter)
			w.pass(5 * time.Second) // fork and imports: not charged
			w.allow(l)
			w.pass(12*time.Second - 1)
			w.want(l, Active)
			w.pass(1)
			w.wantEnd(l, Expired, "deadline", row.want)
			if !slices.Equal(w.told, []*Lease{l}) || len(w.reclaims) != 1 || w.reclaims[0].grace != 0 {
				t.Errorf("got told %v and reclaims %+v, want one of each and no more grace", w.told, w.reclaims)
			}
		})
	}
}

func TestExpiryNoticedLateChargesNoMore(t *testing.T) {
	w := newWorld(t, 1)
	l := w.active()
	w.clock = w.clock.Add(time.Hour) // a host that was stopped for a while
	w.onTime()
	w.wantEnd(l, Expired, "deadline", 10*time.Second)
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
			w := newWorld(t, 1)
			alter := row.alter
			if alter == nil {
				alter = func(*Request) {}
			}
			l := w.active(alter)
			w.pass(row.after)
			got, err := w.onRelease("demo", l.ID, row.failed)
			if err != nil || got != l {
				t.Fatalf("release: got %v, %v", got, err)
			}
			w.wantEnd(l, Released, row.reason, row.want)
			if len(w.reclaims) != 1 || w.reclaims[0].lease != l || w.reclaims[0].grace != farewell {
				t.Errorf("got %+v, want its worker given %s to leave", w.reclaims, farewell)
			}
		})
	}
}

// TestChargeIsBoundTwice: by what was declared and by what is held, whatever the other says.
func TestChargeIsBoundTwice(t *testing.T) {
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
	w := newWorld(t, 1)
	l := w.granted()
	w.pass(7 * time.Second)
	if _, err := w.onRelease("demo", l.ID, true); err != nil {
		t.Fatalf("release: %v", err)
	}
	w.wantEnd(l, Released, "failed", 0)
}

func TestReleaseOfWhatIsNotTheirs(t *testing.T) {
	w := newWorld(t, 1)
	active := w.active()
	waiting := w.schedule()
	for name, row := range map[string]struct{ space, id string }{
		"a lease that waits":   {"demo", waiting.ID},
		"another Space's":      {"other", active.ID},
		"one that never was":   {"demo", "nonsense"},
		"the empty allowToken": {"demo", ""},
	} {
		if _, err := w.onRelease(row.space, row.id, false); err != ErrUnknown {
			t.Errorf("%s: got %v, want ErrUnknown", name, err)
		}
	}
	w.want(active, Active)
	w.want(waiting, Waiting)
}

func TestReleaseTwice(t *testing.T) {
	w := newWorld(t, 1)
	l := w.active()
	w.pass(3 * time.Second)
	if _, err := w.onRelease("demo", l.ID, false); err != nil {
		t.Fatalf("first release: %v", err)
	}
	w.pass(3 * time.Second)
	if _, err := w.onRelease("demo", l.ID, true); err != ErrUnknown {
		t.Errorf("second release: got %v, want ErrUnknown", err)
	}
	w.wantEnd(l, Released, "released", 3*time.Second)
}

func TestReleaseAfterExpiry(t *testing.T) {
	w := newWorld(t, 1)
	l := w.active()
	w.pass(12 * time.Second)
	if _, err := w.onRelease("demo", l.ID, true); err != ErrUnknown { // as the client does after a kill
		t.Errorf("got %v, want ErrUnknown", err)
	}
	w.wantEnd(l, Expired, "deadline", 10*time.Second)
}

func TestWorkerExit(t *testing.T) {
	w := newWorld(t, 1)
	l := w.active()
	w.pass(4 * time.Second)
	w.onExit(l.Worker)
	w.wantEnd(l, Released, "worker died", 4*time.Second)
	w.onExit(l.Worker) // a second word about it
	w.wantEnd(l, Released, "worker died", 4*time.Second)
}

func TestWorkerExitAfterTheEnd(t *testing.T) {
	w := newWorld(t, 1)
	l := w.active()
	w.onReclaimedOf(l, nil)
	next := w.active()
	w.pass(time.Second)
	w.onExit(l.Worker) // the worker that the release has ended
	w.wantEnd(l, Released, "released", 0)
	w.want(next, Active)
}

// TestEarlyEnds walks through whatever may end a Lease before its time, and the three states that it may find.
func TestEarlyEnds(t *testing.T) {
	deeds := map[string]func(*world, *Lease){
		"left":      func(w *world, l *Lease) { w.onLeft(l.Event) },
		"cancelled": func(w *world, l *Lease) { w.onCancelled(l.Event) },
		"gone":      func(w *world, l *Lease) { w.onInstanceGone(l.Instance) },
		"hung up":   func(w *world, l *Lease) { w.onHangUp(l) },
	}
	for _, row := range []struct {
		deed   string
		at     State
		want   State // the same: it goes on
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
		t.Run(row.deed+" while "+string(row.at), func(t *testing.T) {
			w := newWorld(t, 1)
			l := w.at(row.at)
			w.pass(2 * time.Second)
			deeds[row.deed](w, l)
			w.wantEarlyEnd(l, row.at, row.want, row.reason, row.answer)
		})
	}
}

func (w *world) at(state State) *Lease {
	switch state {
	case Granted:
		return w.granted()
	case Active:
		return w.active()
	}
	return w.schedule() // its Slot is being looked at, and stays so
}

func (w *world) wantEarlyEnd(l *Lease, at, want State, reason string, answer error) {
	w.t.Helper()
	if at == want {
		w.want(l, at)
		return
	}
	charged := time.Duration(0)
	if at == Active {
		charged = 2 * time.Second
	}
	w.wantEnd(l, want, reason, charged)
	if at == Waiting {
		w.wantAnswer(l, answer)
	} else if len(w.answers[l]) != 1 || len(w.reclaims) != 1 || w.reclaims[0].grace != 0 {
		w.t.Errorf("got answers %+v and reclaims %+v, want the grant alone and the slot taken back at once", w.answers[l], w.reclaims)
	}
}

func TestAnEndTouchesNobodyElse(t *testing.T) {
	other := func(r *Request) { r.Event, r.Instance = "other", "run-2" }
	w := newWorld(t, 1)
	holder := w.active(other)
	first, second := w.schedule(other), w.schedule()
	w.onLeft(second.Event)
	w.onCancelled("nobody's")
	w.onInstanceGone("run-1")
	w.want(second, Withdrawn)
	w.want(holder, Active)
	w.want(first, Waiting)
	w.onCancelled("other")
	w.wantEnd(holder, Revoked, "cancelled", 0)
	w.wantEnd(first, Withdrawn, "cancelled", 0)
}

func TestWithdrawalKeepsTheOrder(t *testing.T) {
	w := newWorld(t, 1)
	holder := w.active()
	a, b, c := w.schedule(), w.schedule(), w.schedule()
	w.onLeft(b.Event)
	w.onReclaimedOf(holder, nil)
	w.clear()
	w.want(a, Granted)
	w.want(c, Waiting)
	w.onReclaimedOf(a, nil)
	w.clear()
	w.want(c, Granted)
}

func TestSlotIsNotLentWhileReclaiming(t *testing.T) {
	w := newWorld(t, 1)
	l := w.active()
	next := w.schedule()
	w.onCancelled(l.Event)
	w.pass(30 * time.Second)
	w.clear()
	w.want(next, Waiting)
	w.wantPhase(0, reclaiming)
	w.reclaimed()
	w.want(next, Granted)
}

func TestStubbornWorkerIsEndedAgain(t *testing.T) {
	w := newWorld(t, 1)
	l := w.active()
	w.onReclaimedOf(l, errNotReclaimed)
	w.wantPhase(0, busy)
	next := w.schedule()
	w.pass(recheck)
	if len(w.checks) != 0 || len(w.reclaims) != 1 || w.reclaims[0].lease != l {
		t.Fatalf("got looks %v and reclaims %+v, want its worker ended before anybody looks", w.checks, w.reclaims)
	}
	w.want(next, Waiting)
	w.reclaimed()
	w.want(next, Granted)
}

func TestStubbornWorkerIsEndedAgainWithNobodyWaiting(t *testing.T) {
	w := newWorld(t, 1)
	w.onReclaimedOf(w.active(), errNotReclaimed)
	if next := w.onTime(); !next.Equal(w.clock.Add(recheck)) {
		t.Errorf("got woken at %s, want %v from %s", next, recheck, w.clock)
	}
	w.pass(recheck)
	if len(w.reclaims) != 1 {
		t.Errorf("got %d reclaims, want another", len(w.reclaims))
	}
}

func TestClaim(t *testing.T) {
	w := newWorld(t, 1)
	l := w.granted()
	waiting := w.schedule()
	for name, row := range map[string]struct{ space, id string }{
		"a lease that waits": {"demo", waiting.ID},
		"another Space's":    {"other", l.ID},
		"one that never was": {"demo", "nonsense"},
	} {
		if _, _, err := w.onClaim(row.space, row.id, Worker{PID: 1}); err != ErrUnknown {
			t.Errorf("%s: got %v, want ErrUnknown", name, err)
		}
	}
	w.allow(l)
	if _, _, err := w.onClaim("demo", l.ID, Worker{PID: 2}); err != ErrUnknown {
		t.Errorf("an active lease: got %v, want ErrUnknown", err)
	}
}

func TestSecondClaimIsRefused(t *testing.T) {
	w := newWorld(t, 1)
	l := w.granted()
	w.claim(l)
	first := l.Worker
	if _, _, err := w.onClaim("demo", l.ID, Worker{PID: 2}); err != ErrUnknown || l.Worker != first {
		t.Errorf("got %v and worker %+v, want ErrUnknown and %+v", err, l.Worker, first)
	}
}

// TestEndWhileAllowIsCommitted: the worker is not watched yet, and must not stay behind.
func TestEndWhileAllowIsCommitted(t *testing.T) {
	for name, deed := range map[string]func(*world, *Lease){
		"cancelled":     func(w *world, l *Lease) { w.onCancelled(l.Event) },
		"never allowed": func(w *world, _ *Lease) { w.pass(claimTime) },
		"released":      func(w *world, l *Lease) { _, _ = w.onRelease("demo", l.ID, true) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			l := w.granted()
			w.claim(l)
			deed(w, l)
			if w.onAllow(l, w.clock) || len(w.watched) != 0 || l.Charged != 0 {
				t.Errorf("got allowed in state %s, charged %v", l.State, l.Charged)
			}
			if len(w.reclaims) != 1 || w.reclaims[0].lease.Worker.PID == 0 {
				t.Errorf("got %+v, want the claimant ended", w.reclaims)
			}
		})
	}
}

func TestSnapshot(t *testing.T) {
	w := newWorld(t, 1)
	l := w.active(func(r *Request) { r.Tier.Name = "free" })
	w.pass(time.Second)
	w.schedule()
	w.schedule()
	w.pass(2500 * time.Millisecond)
	all := w.list()
	if len(all) != 3 || all[0].State != Active || all[1].Forecast == nil || all[1].Rank != 0 || all[2].Rank != 1 {
		t.Fatalf("got %+v, want one active, then two that wait with their ranks", all)
	}
	got := all[0]
	if got.Forecast != nil || got.UsedSeconds != 3.5 || got.DeclaredSeconds != 10 || *got.Slot != 0 || got.Worker != l.Worker.PID ||
		!got.Deadline.Equal(noon.Add(10*time.Second)) || got.Lease != l.ID[:8] || got.Tier != "free" || got.Identity != "user:ada" {
		t.Errorf("got %+v", got)
	}
}

func TestSlotViews(t *testing.T) {
	w := newWorld(t, 2)
	l := w.active()
	got := w.slotViews()
	want := []SlotView{
		{Slot: 0, Device: "GPU-fake-0", Phase: "held", Space: "demo", Lease: l.Short()},
		{Slot: 1, Device: "GPU-fake-1", Phase: "free"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.onCancelled(l.Event)
	if got := w.slotViews()[0]; got.Phase != "reclaiming" || got.Lease != "" {
		t.Errorf("got %+v, want it reclaiming and nobody's", got)
	}
}
