package lease

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func newWarmWorld(t *testing.T, devices int) *world {
	w := newWorld(t, devices)
	w.warmFor = 5 * time.Minute
	return w
}

func (w *world) release(l *Lease) {
	w.t.Helper()
	if _, err := w.onRelease(l.Space, l.ID, false); err != nil {
		w.t.Fatalf("release of %s: %v", l.ID, err)
	}
	w.onTime()
}

// warmed has run a Lease to a good end.
func (w *world) warmed(alter ...func(*Request)) *Lease {
	w.t.Helper()
	l := w.active(alter...)
	w.release(l)
	w.want(l, Released)
	w.wantPhase(l.Slot.Index, warm)
	return l
}

// resumed schedules one that goes to a warm worker, and commits that.
func (w *world) resumed(alter ...func(*Request)) *Lease {
	w.t.Helper()
	l := w.schedule(alter...)
	w.want(l, Granted)
	if !slices.Equal(w.resumes, []*Lease{l}) || len(w.answers[l]) != 0 {
		w.t.Fatalf("resumes %v, answers %+v; want %s being written down and nobody told yet", w.resumes, w.answers[l], l.ID)
	}
	w.resumes = nil
	w.onResumed(l, w.clock, nil)
	w.want(l, Active)
	return l
}

func task(name string) func(*Request)     { return func(r *Request) { r.Task = name } }
func instance(name string) func(*Request) { return func(r *Request) { r.Instance = name } }

func TestWarmWorkerIsUsedAgain(t *testing.T) {
	w := newWarmWorld(t, 2)
	first := w.warmed()
	w.pass(time.Minute) // idling costs nobody anything
	second := w.resumed()
	if got := w.answers[second]; len(got) != 1 || *got[0].grant != (Grant{Lease: second.ID, Slot: 0, Device: "GPU-fake-0", Idle: true}) {
		t.Errorf("got %+v, want slot 0 with its idle worker", got)
	}
	if second.Worker != first.Worker || w.watched[first.Worker] != 1 || len(w.reclaims) != 0 {
		t.Errorf("worker %+v, watched %v, reclaims %v; want the first one's, watched once, and nothing ended", second.Worker, w.watched, w.reclaims)
	}
	w.pass(3 * time.Second)
	w.release(second)
	w.wantEnd(first, Released, "released", 0)
	w.wantEnd(second, Released, "released", 3*time.Second)
	w.wantPhase(0, warm)
}

func TestDeadlineOfAWarmLease(t *testing.T) {
	w := newWarmWorld(t, 1)
	w.warmed()
	l := w.resumed()
	w.pass(12 * time.Second)
	w.wantEnd(l, Expired, "deadline", 10*time.Second)
	if len(w.reclaims) != 1 || w.reclaims[0].lease != l {
		t.Errorf("got %+v, want its worker ended", w.reclaims)
	}
}

func TestAWorkerThatFailedDoesNotStay(t *testing.T) {
	w := newWarmWorld(t, 1)
	l := w.active()
	if _, err := w.onRelease("demo", l.ID, true); err != nil {
		t.Fatal(err)
	}
	w.wantPhase(0, reclaiming)
}

// TestWhoElseComesFindsAnEmptySlot: another task, another start of the Space.
func TestWhoElseComesFindsAnEmptySlot(t *testing.T) {
	for name, alter := range map[string]func(*Request){"another task": task("speak"), "another start": instance("run-2")} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, 1)
			first := w.warmed()
			l := w.schedule(alter)
			w.want(l, Waiting)
			if len(w.reclaims) != 1 || w.reclaims[0].lease != first || w.reclaims[0].grace != farewell || len(w.checks) != 0 {
				t.Fatalf("reclaims %+v, checks %v; want the idle worker ended before anybody looks", w.reclaims, w.checks)
			}
			w.reclaimed()
			w.want(l, Granted)
			if got := w.answers[l]; len(got) != 1 || got[0].grant.Idle {
				t.Errorf("got %+v, want a grant without a worker", got)
			}
		})
	}
}

func TestFreeSlotsBeforeIdleWorkers(t *testing.T) {
	w := newWarmWorld(t, 2)
	w.warmed()
	l := w.granted(task("speak"))
	if l.Slot.Index != 1 || len(w.reclaims) != 0 {
		t.Errorf("got slot %d and reclaims %v, want the free one", l.Slot.Index, w.reclaims)
	}
}

func TestTheLongestIdleGoesFirst(t *testing.T) {
	w := newWarmWorld(t, 2)
	a, b := w.active(), w.active(task("speak"))
	w.release(b)
	w.pass(time.Second)
	w.release(a)
	w.schedule(task("paint"))
	if len(w.reclaims) != 1 || w.reclaims[0].lease != b {
		t.Errorf("got %+v, want %s to go alone", w.reclaims, b.ID)
	}
}

// TestWarmIsNoReasonToOvertake: who came first gets the only Slot, though its worker is another's.
func TestWarmIsNoReasonToOvertake(t *testing.T) {
	w := newWarmWorld(t, 1)
	holder := w.active()
	other := w.schedule(task("speak"))
	same := w.schedule()
	w.release(holder)
	w.want(same, Waiting)
	w.reclaimed()
	w.want(other, Granted)
}

// TestAFreeSlotBeforeOneThatIsComing: an idle worker may take its time to go.
func TestAFreeSlotBeforeOneThatIsComing(t *testing.T) {
	w := newWarmWorld(t, 2)
	idle, b := w.warmed(), w.active(task("speak"))
	first := w.schedule(task("paint"))
	second := w.schedule(task("sing"))
	slow := w.reclaims
	if len(slow) != 1 || slow[0].lease != idle {
		t.Fatalf("reclaims %+v, want the idle worker's place", slow)
	}
	w.reclaims = nil
	if _, err := w.onRelease("demo", b.ID, true); err != nil {
		t.Fatal(err)
	}
	w.reclaimed()
	w.want(first, Granted)
	w.want(second, Waiting)
	w.reclaims = slow
	w.reclaimed()
	w.want(second, Granted)
}

func TestIdleWorkersGoAfterAWhile(t *testing.T) {
	w := newWarmWorld(t, 1)
	l := w.warmed()
	w.pass(5*time.Minute - 1)
	w.wantPhase(0, warm)
	w.pass(1)
	if len(w.reclaims) != 1 || w.reclaims[0].lease != l || w.reclaims[0].grace != farewell {
		t.Errorf("got %+v, want it ended", w.reclaims)
	}
	w.reclaimed()
	w.wantPhase(0, free)
}

func TestIdleWorkerThatDies(t *testing.T) {
	w := newWarmWorld(t, 1)
	l := w.warmed()
	w.onExit(l.Worker)
	w.wantPhase(0, reclaiming) // what it started may live, its memory may not be back
	w.reclaimed()
	w.granted()
}

func TestIdleWorkersGoWithTheirSpace(t *testing.T) {
	w := newWarmWorld(t, 2)
	a, _ := w.active(), w.active(instance("run-2"))
	w.release(a)
	w.onInstanceGone("run-1")
	w.wantPhase(0, reclaiming)
	w.wantPhase(1, held)
}

// TestInheritedWorkerDiesBeforeItsWork: the client forks another, which is allowed as if there had been none. What the dead one
// has started is ended.
func TestInheritedWorkerDiesBeforeItsWork(t *testing.T) {
	for name, when := range map[string]func(w *world) *Lease{
		"before it is written down": func(w *world) *Lease {
			l := w.schedule()
			w.onExit(l.Worker)
			w.onResumed(l, w.clock, nil)
			return l
		},
		"just after": func(w *world) *Lease {
			l := w.resumed()
			w.pass(missed - 1)
			w.onExit(l.Worker)
			return l
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, 1)
			dead := w.warmed().Worker
			l := when(w)
			w.want(l, Granted)
			if !slices.Equal(w.gone, []Worker{dead}) {
				t.Errorf("dismissed %v, want %v", w.gone, dead)
			}
			if got := w.answers[l]; len(got) != 1 || got[0].grant == nil {
				t.Fatalf("answers %+v, want a grant", got)
			}
			w.pass(4 * time.Second)
			w.allow(l)
			w.pass(2 * time.Second)
			w.release(l)
			w.wantEnd(l, Released, "released", 2*time.Second)
		})
	}
}

func TestInheritedWorkerDiesAndNobodyComes(t *testing.T) {
	w := newWarmWorld(t, 1)
	dead := w.warmed().Worker
	l := w.resumed()
	w.onExit(l.Worker)
	w.pass(claimTime)
	w.wantEnd(l, Unclaimed, "never allowed", 0)
	if !slices.Equal(w.gone, []Worker{dead}) {
		t.Errorf("dismissed %v, want %v", w.gone, dead)
	}
}

func TestInheritedWorkerDiesAtWork(t *testing.T) {
	w := newWarmWorld(t, 1)
	w.warmed()
	l := w.resumed()
	w.pass(missed)
	w.onExit(l.Worker)
	w.wantEnd(l, Released, "worker died", missed)
}

// TestAnotherWorkerReplacesTheWarmOne: the client found it unfit. The clock goes on, or a Space that names one worker after
// the other would never pay, nor come to its deadline; a third is refused.
func TestAnotherWorkerReplacesTheWarmOne(t *testing.T) {
	w := newWarmWorld(t, 1)
	old := w.warmed().Worker
	l := w.resumed()
	w.pass(2 * time.Second)
	w.allow(l)
	if !slices.Equal(w.gone, []Worker{old}) || l.Worker == old || w.watched[l.Worker] != 1 {
		t.Errorf("dismissed %v, worker %+v, watched %v; want the old one to go", w.gone, l.Worker, w.watched)
	}
	if _, _, err := w.onClaim("demo", l.ID, Worker{PID: 999}); err != ErrUnknown {
		t.Errorf("a third worker: got %v, want ErrUnknown", err)
	}
	w.onExit(old)
	w.pass(time.Second)
	w.release(l)
	w.wantEnd(l, Released, "released", 3*time.Second)
}

// TestResumeThatIsNotHeard and that cannot be written down cost nothing, and the worker goes.
func TestResumeThatIsNotHeard(t *testing.T) {
	for name, row := range map[string]struct {
		deed   func(w *world, l *Lease)
		state  State
		reason string
		told   error
	}{
		"hung up after the grant": {func(w *world, l *Lease) {
			w.onResumed(l, w.clock, nil)
			w.pass(time.Second)
			w.onHangUp(l)
		}, Unclaimed, "connection lost", nil},
		"hung up before":       {func(w *world, l *Lease) { w.onHangUp(l); w.onResumed(l, w.clock, nil) }, Unclaimed, "connection lost", ErrGone},
		"cancelled before":     {func(w *world, l *Lease) { w.onCancelled(l.Event); w.onResumed(l, w.clock, nil) }, Revoked, "cancelled", ErrGone},
		"refused by the disk":  {func(w *world, l *Lease) { w.onResumed(l, w.clock, errors.New("disk full")) }, Unclaimed, "not written down", ErrGone},
		"its Space has died":   {func(w *world, l *Lease) { w.onInstanceGone(l.Instance); w.onUnfit(l) }, Revoked, "space died", ErrGone},
		"nobody wrote it down": {func(w *world, l *Lease) { w.pass(claimTime) }, Unclaimed, "never allowed", ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, 1)
			w.warmed()
			l := w.schedule()
			row.deed(w, l)
			w.wantEnd(l, row.state, row.reason, 0)
			if got := w.answers[l]; len(got) != 1 || got[0].err != row.told {
				t.Errorf("answered %+v, want %v once", got, row.told)
			}
			if len(w.reclaims) != 1 || w.reclaims[0].lease.Worker.PID == 0 {
				t.Errorf("reclaims %+v, want the worker ended", w.reclaims)
			}
		})
	}
}

// TestUnfitWarmPlace: its Device was lost meanwhile. The Lease goes back to its rank and takes another.
func TestUnfitWarmPlace(t *testing.T) {
	w := newWarmWorld(t, 2)
	first := w.warmed()
	other := w.active(task("speak"))
	l, behind := w.schedule(), w.schedule(task("paint"))
	w.onUnfit(l)
	w.want(l, Waiting)
	if !slices.Equal(w.waiting, []*Lease{l, behind}) || len(w.reclaims) != 1 || w.reclaims[0].lease != first {
		t.Fatalf("waiting %v, reclaims %+v; want %s first again and the old worker ended", w.waiting, w.reclaims, l.ID)
	}
	r := w.reclaims[0]
	w.reclaims = nil
	w.onReclaimed(r.place, errors.New("lost"))
	w.wantPhase(0, busy)
	w.release(other)
	w.reclaimed()
	w.want(l, Granted)
	w.want(behind, Waiting)
}

func TestXlargeSendsIdleHalvesAway(t *testing.T) {
	w := newSharedWorld(t, 1, 2)
	w.warmFor = time.Minute
	a, b := w.active(), w.active(task("speak"))
	w.release(a)
	whole := w.schedule(xlarge)
	if len(w.reclaims) != 0 {
		t.Errorf("got %+v while the other half is held, want none: there is nothing to be had by it", w.reclaims)
	}
	w.release(b)
	if len(w.reclaims) != 2 {
		t.Fatalf("got %+v, want both halves emptied", w.reclaims)
	}
	w.reclaimed()
	w.wantSlots(whole, 0, 1)
}

// arrived lets one come that goes to a warm worker before it is admitted.
func (w *world) arrived(alter ...func(*Request)) *Lease {
	w.t.Helper()
	l := w.lease(alter...)
	if !w.onArrival(l) || !slices.Equal(w.begins, []*Lease{l}) || w.leases[l.ID] != nil || len(w.waiting) != 0 {
		w.t.Fatalf("begins %v, waiting %v; want %s on its way, and none of the open ones yet", w.begins, w.waiting, l.ID)
	}
	w.begins = nil
	w.onTime()
	return l
}

func TestAnArrivalBeginsOnItsWarmWorker(t *testing.T) {
	w := newWarmWorld(t, 1)
	first := w.warmed()
	l := w.arrived()
	other := w.schedule(task("speak"))
	w.want(other, Waiting)
	if len(w.checks)+len(w.reclaims) != 0 {
		t.Errorf("checks %v, reclaims %+v of a place that is taken", w.checks, w.reclaims)
	}
	w.onBegun(l, w.clock, nil)
	w.want(l, Active)
	if got := w.answers[l]; len(got) != 1 || *got[0].grant != (Grant{Lease: l.ID, Slot: 0, Device: "GPU-fake-0", Idle: true}) || l.Worker != first.Worker {
		t.Errorf("got %+v for %+v, want slot 0 with its idle worker", got, l.Worker)
	}
	w.pass(3 * time.Second)
	w.release(l)
	w.wantEnd(l, Released, "released", 3*time.Second)
}

// TestAnArrivalThatIsRefused leaves its worker to the next, unless that has died or its place is unfit.
func TestAnArrivalThatIsRefused(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(w *world)
		err       error
		want      phase
	}{
		"by the quota": {func(*world) {}, errors.New("quota exceeded"), warm},
		"unfit":        {func(*world) {}, errUnfit, reclaiming},
		"worker died":  {func(w *world) { w.onExit(w.slots[0].holder.Worker) }, errors.New("quota exceeded"), reclaiming},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, 1)
			w.warmed()
			l := w.arrived()
			row.meanwhile(w)
			w.onBegun(l, w.clock, row.err)
			w.wantPhase(0, row.want)
			if w.want(l, Waiting); len(w.answers[l]) != 0 || w.settled[l] != 0 || len(w.leases) != 0 {
				t.Errorf("answered %+v, settled %d times, open %v; it never was", w.answers[l], w.settled[l], w.leases)
			}
			if row.want == warm {
				w.resumed()
			} else {
				w.reclaimed()
				w.wantPhase(0, free)
			}
		})
	}
}

// TestAnArrivalThatEndsMeanwhile ends as soon as it has begun: what has happened to it while it was being committed, when
// it was none of the open ones, is not forgotten.
func TestAnArrivalThatEndsMeanwhile(t *testing.T) {
	for reason, meanwhile := range map[string]func(*world, *Lease){
		"cancelled":  func(w *world, l *Lease) { w.onCancelled(l.Event) },
		"space died": func(w *world, l *Lease) { w.onExit(l.Worker); w.onInstanceGone(l.Instance) },
	} {
		for name, err := range map[string]error{"begun": nil, "refused": errors.New("quota exceeded")} {
			t.Run(reason+", "+name, func(t *testing.T) {
				w := newWarmWorld(t, 1)
				w.warmed()
				l := w.arrived()
				meanwhile(w, l)
				w.onBegun(l, w.clock, err)
				if err == nil {
					w.wantEnd(l, Revoked, reason, 0)
					w.wantAnswer(l, ErrGone)
				} else if w.want(l, Waiting); len(w.answers[l]) != 0 {
					t.Errorf("answered %+v; it never was", w.answers[l])
				}
				w.reclaimed()
				w.wantPhase(0, free)
			})
		}
	}
}

// TestAnArrivalOnADeviceThatFails costs nothing, as whoever was there before it.
func TestAnArrivalOnADeviceThatFails(t *testing.T) {
	w := newWarmWorld(t, 1)
	w.warmed()
	l := w.arrived()
	w.onDrain(l.Slot.Device.UUID, Drain{Reason: "xid 79"})
	w.onBegun(l, w.clock, nil)
	w.pass(3 * time.Second)
	w.release(l)
	w.wantEnd(l, Released, "released", 0)
}

func TestWhoWaitsMeanwhileGetsThePlaceOfARefusedArrival(t *testing.T) {
	w := newWarmWorld(t, 1)
	w.warmed()
	l, other := w.arrived(), w.schedule(task("speak"))
	w.onBegun(l, w.clock, errors.New("quota exceeded"))
	w.reclaimed()
	w.want(other, Granted)
}

func TestArrivalsThatHaveToWait(t *testing.T) {
	for name, row := range map[string]struct {
		before func(w *world)
		alter  func(*Request)
	}{
		"no worker":         {func(w *world) { w.active() }, task("draw")},
		"of another task":   {func(w *world) { w.warmed() }, task("speak")},
		"of another start":  {func(w *world) { w.warmed() }, instance("run-2")},
		"somebody is first": {func(w *world) { w.warmed(); w.schedule(task("speak")) }, task("draw")},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t, 1)
			row.before(w)
			waited, checks, reclaims := len(w.waiting), len(w.checks), len(w.reclaims)
			if l := w.lease(row.alter); w.onArrival(l) || len(w.waiting) != waited || len(w.begins) != 0 {
				t.Errorf("waiting %v, begins %v; want it to be admitted first", w.waiting, w.begins)
			}
			if len(w.checks) != checks || len(w.reclaims) != reclaims {
				t.Errorf("checks %v, reclaims %+v for one that nobody has admitted", w.checks, w.reclaims)
			}
		})
	}
}
