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
	if dir := os.Getenv(burning); dir != "" {
		burn(dir)
	}
	goleak.VerifyTestMain(m)
}

var _ Processes = (*leasetest.Processes)(nil)

// noon is where every line's clock starts.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// world is what surrounds a line: it writes down what the line asks for, and answers when the test says so.
// Nothing blocks, and no time passes by itself.
type world struct {
	*line
	t      *testing.T
	clock  time.Time
	count  int // Leases made so far
	allows int // by finish

	checks   []place
	reclaims []reclaim
	answers  map[*Lease][]decision
	grants   []*Lease // as they came
	resumes  []*Lease
	begins   []*Lease
	settled  map[*Lease]int
	watched  map[Worker]int
	gone     []Worker         // dismissed
	told     []*Lease         // that their limit was hit
	states   map[*Lease]State // as the Changes say, of those that are not over
	lent     map[*Lease]bool  // of these, who has been
}

type reclaim struct {
	place place
	lease *Lease
	grace time.Duration
}

var _ effects = (*world)(nil)

func newWorld(t *testing.T, devices int) *world { return newSharedWorld(t, devices, 1) }

func newSharedWorld(t *testing.T, devices, share int) *world {
	w := &world{t: t, clock: noon, answers: map[*Lease][]decision{}, settled: map[*Lease]int{}, watched: map[Worker]int{}, states: map[*Lease]State{}, lent: map[*Lease]bool{}}
	var all []gpu.Slot
	for _, d := range gputest.Devices(devices) {
		for range share {
			all = append(all, gpu.Slot{Index: len(all), Device: d})
		}
	}
	w.line = newLine(w, all, time.Minute)
	w.line.now = func() time.Time { return w.clock }
	return w
}

func (w *world) check(p place) { w.checks = append(w.checks, p) }
func (w *world) decide(l *Lease, d decision) {
	w.answers[l] = append(w.answers[l], d)
	if d.grant != nil {
		w.grants = append(w.grants, l)
	}
}
func (w *world) resume(l *Lease)  { w.resumes = append(w.resumes, l) }
func (w *world) begin(l *Lease)   { w.begins = append(w.begins, l) }
func (w *world) watch(o Worker)   { w.watched[o]++ }
func (w *world) dismiss(o Worker) { w.gone = append(w.gone, o) }
func (w *world) settle(l *Lease)  { w.settled[l]++ }
func (w *world) expired(l *Lease) { w.told = append(w.told, l) }
func (w *world) reclaim(p place, l *Lease, grace time.Duration) {
	w.reclaims = append(w.reclaims, reclaim{p, l, grace})
}

// steps are those that doc.go draws, and the ways of a Lease with a warm worker: back into the line (its Device was
// lost), back to granted (the worker had died), and from active to active (the client found it unfit).
var steps = map[State][]State{
	"":      {Waiting},
	Waiting: {Granted, TimedOut, Withdrawn},
	Granted: {Active, Released, Revoked, Unclaimed, Waiting},
	Active:  {Released, Expired, Revoked, Unclaimed, Granted, Active},
}

// changed asks that whoever reads the Changes can replay the states.
func (w *world) changed(l *Lease) {
	c := l.change(w.clock)
	if !slices.Contains(steps[w.states[l]], c.State) {
		w.t.Errorf("lease %s went from %q to %q", c.Lease, w.states[l], c.State)
	}
	w.states[l] = c.State
	if c.State == Granted {
		if c.Again != w.lent[l] {
			w.t.Errorf("lease %s is granted again: %v, want %v", c.Lease, c.Again, w.lent[l])
		}
		w.lent[l] = true
	}
	if c.IsFinal() {
		delete(w.lent, l)
		delete(w.states, l)
	}
}

// lease makes one of 10 s that nobody has heard of yet.
func (w *world) lease(alter ...func(*Request)) *Lease {
	w.count++
	r := Request{
		Space: "demo", Instance: "run-1", Event: fmt.Sprintf("event-%d", w.count), Task: "draw", Size: "large",
		Payer: identity.Identity{Kind: identity.User, Name: "ada"}, Declared: 10 * time.Second,
	}
	for _, a := range alter {
		a(&r)
	}
	l := newLease(r, w.clock)
	l.ID = fmt.Sprintf("lease-%05d", w.count)
	l.Held = r.Declared * time.Duration(l.factor())
	return l
}

// schedule puts a Lease in line; clear answers what the line asks for it.
func (w *world) schedule(alter ...func(*Request)) *Lease {
	l := w.lease(alter...)
	w.onSchedule(l)
	w.onTime()
	return l
}

// clear lets every look at a Device find it clear.
func (w *world) clear() {
	for len(w.checks) > 0 {
		p := w.checks[0]
		w.checks = w.checks[1:]
		w.onChecked(p, nil)
		w.onTime()
	}
}

// reclaimed gives every Slot back that is being reclaimed.
func (w *world) reclaimed() {
	for len(w.reclaims) > 0 {
		r := w.reclaims[0]
		w.reclaims = w.reclaims[1:]
		w.onReclaimed(r.place, nil)
		w.onTime()
	}
	w.clear()
}

// list is what Broker.List tells.
func (w *world) list() []Snapshot {
	all := w.snapshot()
	expect(all, w.outlook().forecasts())
	return all
}

func (w *world) granted(alter ...func(*Request)) *Lease {
	w.t.Helper()
	l := w.schedule(alter...)
	w.clear()
	w.want(l, Granted)
	return l
}

// active also passes its pid, which is 100 and the number of the Lease.
func (w *world) active(alter ...func(*Request)) *Lease {
	w.t.Helper()
	l := w.granted(alter...)
	w.allow(l)
	w.want(l, Active)
	return l
}

func (w *world) allow(l *Lease) {
	w.t.Helper()
	w.claim(l)
	if !w.onAllow(l, w.clock) {
		w.t.Fatalf("allow of %s: refused in state %s", l.ID, l.State)
	}
	w.onTime()
}

func workerOf(count int) Worker { return Worker{PID: 100 + count, Start: 7} }

func (w *world) claim(l *Lease) {
	w.t.Helper()
	if _, _, err := w.onClaim(l.Space, l.ID, workerOf(w.count)); err != nil {
		w.t.Fatalf("claim of %s: %v", l.ID, err)
	}
}

// pass lets time go by as Run does: it wakes the line when the line has asked for it, and at the end.
func (w *world) pass(d time.Duration) {
	end := w.clock.Add(d)
	for next := w.onTime(); !next.IsZero() && !next.After(end); next = w.onTime() {
		if !next.After(w.clock) {
			w.t.Fatalf("at %s all that is due was done, and yet the line wants to be woken at %s", w.clock, next)
		}
		w.clock = next
	}
	w.clock = end
	w.onTime()
}

func (w *world) want(l *Lease, state State) {
	w.t.Helper()
	if l.State != state {
		w.t.Fatalf("lease %s: got %q (%s), want %q", l.ID, l.State, l.Reason, state)
	}
}

// wantEnd checks how a Lease has ended: state, reason and charge, settled once.
func (w *world) wantEnd(l *Lease, state State, reason string, charged time.Duration) {
	w.t.Helper()
	w.want(l, state)
	if l.Reason != reason || l.Charged != charged {
		w.t.Errorf("lease %s: ended with %q and %v, want %q and %v", l.ID, l.Reason, l.Charged, reason, charged)
	}
	if w.settled[l] != 1 || w.leases[l.ID] != nil || slices.Contains(w.waiting, l) {
		w.t.Errorf("lease %s: settled %d times, open %v; want it settled once and forgotten", l.ID, w.settled[l], w.leases[l.ID] != nil)
	}
}

// wantAnswer checks the one decision about a wait that has failed.
func (w *world) wantAnswer(l *Lease, err error) {
	w.t.Helper()
	if got := w.answers[l]; len(got) != 1 || got[0].grant != nil || got[0].err != err {
		w.t.Errorf("lease %s: answered %+v, want %v once", l.ID, got, err)
	}
}

func (w *world) wantPhase(slot int, want phase) {
	w.t.Helper()
	if got := w.slots[slot].phase; got != want {
		w.t.Errorf("slot %d: got %q (%s), want %q", slot, got, w.slots[slot].reason, want)
	}
}
