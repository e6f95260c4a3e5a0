package lease

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/identity"
	"spacehost/internal/lease/leasetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashHostEnv); dir != "" {
		runCrashHost(dir)
	}
	goleak.VerifyTestMain(m)
}

var _ Processes = (*leasetest.Processes)(nil)

// noon is where every scheduler's clock starts.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// schedulerHarness implements the scheduler's effects. It records the requested effects, and answers them when the
// test calls for it. Nothing blocks, and time advances only by advance.
type schedulerHarness struct {
	*scheduler
	t           *testing.T
	clock       time.Time
	leaseCount  int // Leases made so far
	finishCount int // by runToDeclaredEnd

	checks        []allocation
	reclaims      []reclaimCall
	answers       map[*Lease][]decision
	grants        []*Lease // in order
	resumes       []*Lease
	warmStarts    []*Lease
	begun         map[*Lease]bool // by resume and warmStart: the grant may come later
	frozen        []*Lease        // the last Leases of the workers, by freeze
	settled       map[*Lease]int
	watched       map[Worker]int
	dismissed     []Worker         // by dismiss
	expiredLeases []*Lease         // those that reached their deadline
	states        map[*Lease]State // by the Changes, of open Leases
	late          []EndedLease     // by reportedLate
	hasParted     bool             // by left
	windows       []string         // by drainBegan and drainEnded
	everGranted   map[*Lease]bool  // of these, the Leases that were granted before
	guarded       map[string]guarded
}

func (h *schedulerHarness) drain(uuid gpu.DeviceUUID, d Drain) {
	h.shared.startDrain(uuid, d, d.hasBegun(h.now()))
}

type reclaimCall struct {
	allocation allocation
	lease      *Lease
	grace      time.Duration
}

var _ effects = (*schedulerHarness)(nil)
var _ Guard = (*schedulerHarness)(nil)

// guarded is a Lease that is armed.
type guarded struct {
	worker Worker
	until  time.Time
}

// Arm implements Guard.
func (h *schedulerHarness) Arm(lease string, w Worker, left time.Duration) {
	h.guarded[lease] = guarded{w, h.clock.Add(left)}
}

// Disarm implements Guard. A second one is an error here.
func (h *schedulerHarness) Disarm(lease string) {
	if _, armed := h.guarded[lease]; !armed {
		h.t.Errorf("lease %s is disarmed, but was not armed", lease)
	}
	delete(h.guarded, lease)
}

func newSchedulerHarness(t *testing.T, devices int) *schedulerHarness {
	return newSharedSchedulerHarness(t, devices, 1)
}

func newSharedSchedulerHarness(t *testing.T, devices, share int) *schedulerHarness {
	h := &schedulerHarness{t: t, clock: noon, answers: map[*Lease][]decision{}, settled: map[*Lease]int{}, begun: map[*Lease]bool{}, watched: map[Worker]int{}, states: map[*Lease]State{}, everGranted: map[*Lease]bool{}, guarded: map[string]guarded{}}
	var all []gpu.Slot
	for _, d := range gputest.Devices(devices) {
		for range share {
			all = append(all, gpu.Slot{Index: len(all), Device: d})
		}
	}
	h.scheduler = newScheduler(h, all, time.Minute)
	h.scheduler.now = func() time.Time { return h.clock }
	return h
}

func (h *schedulerHarness) check(a allocation) { h.checks = append(h.checks, a) }
func (h *schedulerHarness) decide(l *Lease, d decision) {
	h.answers[l] = append(h.answers[l], d)
	if d.grant != nil {
		h.grants = append(h.grants, l)
	}
}
func (h *schedulerHarness) resume(l *Lease) {
	h.resumes = append(h.resumes, l)
	h.begun[l] = true
}
func (h *schedulerHarness) warmStart(l *Lease) {
	h.warmStarts = append(h.warmStarts, l)
	h.begun[l] = true
}
func (h *schedulerHarness) freeze(w *idleWorker) { h.frozen = append(h.frozen, w.lease) }
func (h *schedulerHarness) watch(o Worker)       { h.watched[o]++ }
func (h *schedulerHarness) dismiss(o Worker)     { h.dismissed = append(h.dismissed, o) }
func (h *schedulerHarness) drainBegan(uuid gpu.DeviceUUID, d Drain) {
	h.windows = append(h.windows, "began "+string(uuid))
}
func (h *schedulerHarness) drainEnded(uuid gpu.DeviceUUID, d Drain) {
	h.windows = append(h.windows, "ended "+string(uuid))
}
func (h *schedulerHarness) reportedLate(e EndedLease) { h.late = append(h.late, e) }
func (h *schedulerHarness) left()                     { h.hasParted = true }
func (h *schedulerHarness) settle(l *Lease)           { h.settled[l]++ }
func (h *schedulerHarness) expired(l *Lease)          { h.expiredLeases = append(h.expiredLeases, l) }
func (h *schedulerHarness) reclaim(a allocation, l *Lease, grace time.Duration) {
	h.reclaims = append(h.reclaims, reclaimCall{a, l, grace})
}

// legalSteps are the edges of the package comment between states that a Change publishes.
var legalSteps = map[State][]State{
	"":      {Waiting},
	Waiting: {Granted, TimedOut, Withdrawn},
	Granted: {Active, Released, Revoked, Unclaimed, Waiting},
	Active:  {Released, Expired, Revoked, Unclaimed, Granted, Active, Unreachable},

	Unreachable: {Active, Released, Expired, Revoked},
}

// changed checks that a reader of the Changes can replay the states.
func (h *schedulerHarness) changed(l *Lease) {
	c := l.change(h.clock)
	if !slices.Contains(legalSteps[h.states[l]], c.State) {
		h.t.Errorf("lease %s went from %q to %q", c.Lease, h.states[l], c.State)
	}
	h.states[l] = c.State
	l.updateGuard(h, h.clock)
	if c.State == Granted {
		if c.Again != h.everGranted[l] {
			h.t.Errorf("lease %s is granted again: %v, want %v", c.Lease, c.Again, h.everGranted[l])
		}
		h.everGranted[l] = true
	}
	if c.IsFinal() {
		delete(h.everGranted, l)
		delete(h.states, l)
	}
}

// newLease makes a Lease of 10 s, which is not scheduled yet.
func (h *schedulerHarness) newLease(alter ...func(*Request)) *Lease {
	h.leaseCount++
	r := Request{
		Space: "demo", Instance: "run-1", Event: fmt.Sprintf("event-%d", h.leaseCount), Task: "draw", Size: "large",
		Payer: identity.Identity{Kind: identity.User, Name: "ada"}, Declared: 10 * time.Second,
	}
	for _, a := range alter {
		a(&r)
	}
	l := newLease(r, h.clock)
	l.ID = fmt.Sprintf("lease-%05d", h.leaseCount)
	l.Held = r.Declared * time.Duration(l.factor())
	return l
}

// schedule queues a Lease; passChecks answers the checks that the scheduler makes for it.
func (h *schedulerHarness) schedule(alter ...func(*Request)) *Lease {
	l := h.newLease(alter...)
	h.onSchedule(l)
	h.onTime()
	return l
}

// passChecks lets every check of a Device succeed.
func (h *schedulerHarness) passChecks() {
	for len(h.checks) > 0 {
		a := h.checks[0]
		h.checks = h.checks[1:]
		h.onChecked(a, nil)
		h.onTime()
	}
}

// finishReclaims completes all running reclaims.
func (h *schedulerHarness) finishReclaims() {
	for len(h.reclaims) > 0 {
		r := h.reclaims[0]
		h.reclaims = h.reclaims[1:]
		h.onReclaimed(r.allocation, nil)
		h.onTime()
	}
	h.passChecks()
}

// list returns what Broker.List returns.
func (h *schedulerHarness) list() []Snapshot {
	all := h.snapshot()
	addForecasts(all, h.simulation().forecasts())
	return all
}

func (h *schedulerHarness) granted(alter ...func(*Request)) *Lease {
	h.t.Helper()
	l := h.schedule(alter...)
	h.passChecks()
	h.want(l, Granted)
	return l
}

// active also allows its worker; the pid is 100 plus the number of the Lease.
func (h *schedulerHarness) active(alter ...func(*Request)) *Lease {
	h.t.Helper()
	l := h.granted(alter...)
	h.allow(l)
	h.want(l, Active)
	return l
}

func (h *schedulerHarness) allow(l *Lease) {
	h.t.Helper()
	h.claim(l)
	if !h.onAllow(l, h.clock) {
		h.t.Fatalf("allow of %s: refused in state %s", l.ID, l.State)
	}
	h.onTime()
}

func workerOf(count int) Worker { return Worker{PID: 100 + count, Start: 7} }

func (h *schedulerHarness) claim(l *Lease) {
	h.t.Helper()
	if _, _, err := h.onClaim(l.Space, l.ID, workerOf(h.leaseCount)); err != nil {
		h.t.Fatalf("claim of %s: %v", l.ID, err)
	}
}

// advance moves the clock as Run does: it wakes the scheduler at the requested times, and at the end.
func (h *schedulerHarness) advance(d time.Duration) {
	end := h.clock.Add(d)
	for next := h.onTime(); !next.IsZero() && !next.After(end); next = h.onTime() {
		if !next.After(h.clock) {
			h.t.Fatalf("at %s nothing is due any more, but the scheduler asks to be woken at %s", h.clock, next)
		}
		h.clock = next
	}
	h.clock = end
	h.onTime()
}

func (h *schedulerHarness) want(l *Lease, state State) {
	h.t.Helper()
	if l.State != state {
		h.t.Fatalf("lease %s: got %q (%s), want %q", l.ID, l.State, l.Reason, state)
	}
}

// wantEnd checks state, reason and charge of an ended Lease, and that it was settled once.
func (h *schedulerHarness) wantEnd(l *Lease, state State, reason string, charged time.Duration) {
	h.t.Helper()
	h.want(l, state)
	if l.Reason != reason || l.Charged != charged {
		h.t.Errorf("lease %s: ended with %q and %v, want %q and %v", l.ID, l.Reason, l.Charged, reason, charged)
	}
	if h.settled[l] != 1 || h.leases[l.ID] != nil || slices.Contains(h.waiting, l) {
		h.t.Errorf("lease %s: settled %d times, open %v; want it settled once and removed", l.ID, h.settled[l], h.leases[l.ID] != nil)
	}
}

// wantAnswer checks the one decision about a failed wait.
func (h *schedulerHarness) wantAnswer(l *Lease, err error) {
	h.t.Helper()
	if got := h.answers[l]; len(got) != 1 || got[0].grant != nil || got[0].err != err {
		h.t.Errorf("lease %s: answered %+v, want %v once", l.ID, got, err)
	}
}

func (h *schedulerHarness) wantPhase(slot int, want phase) {
	h.t.Helper()
	if got := h.slots[slot].phase; got != want {
		h.t.Errorf("slot %d: got %q (%s), want %q", slot, got, h.slots[slot].reason, want)
	}
}
