package lease

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"spacehost/gpu"
)

// effects is what the line asks of the world. No method blocks; what comes of it comes back as a call of the line.
type effects interface {
	// check looks whether the place is clear: onChecked.
	check(p place)
	// decide answers a waiting Lease, once.
	decide(l *Lease, d decision)
	// resume looks whether the place has nobody but its warm worker (else: onUnfit), and writes down that the Lease is
	// active with it: onResumed.
	resume(l *Lease)
	// begin does the same for a Lease that has no hold yet, which it takes in the same transaction: onBegun.
	begin(l *Lease)
	// watch tells when a worker has died: onExit.
	watch(w Worker)
	// dismiss ends a worker in whose place another has come.
	dismiss(w Worker)
	// settle writes the end of a Lease to the database, then closes l.settled.
	settle(l *Lease)
	// reclaim ends the worker of a Lease that is over, waits for its settlement and for its place to be clear: onReclaimed.
	reclaim(p place, l *Lease, grace time.Duration)
	// expired tells the visitor which limit was hit.
	expired(l *Lease)
	// changed says that a Lease has come into another State, before anything comes of that.
	changed(l *Lease)
}

// Times of the device API (docs/design/0005-lease-clock.md; spaces/zero/client.py).
const (
	deadlineGrace = 2 * time.Second        // between the deadline and the kill; never charged
	claimTime     = 30 * time.Second       // between the grant and /allow
	farewell      = 500 * time.Millisecond // for an idle worker between SIGTERM and SIGKILL
	recheck       = time.Second            // between two looks at a Device that is not clear
)

// line decides. It is touched by one goroutine, or by a test.
type line struct {
	do           effects
	now          func() time.Time
	queueTimeout time.Duration
	order        order
	perSpace     func(space string) int // how many places a Space may have at once, 0: any number; nil: all may
	warmFor      time.Duration          // how long an idle worker stays; 0: not at all
	slots        []*slot
	devices      []place           // all Slots of each Device
	waiting      []*Lease          // by turn
	leases       map[string]*Lease // the open ones
	reserved     reservation
	drains       map[gpu.DeviceUUID]Drain
}

type phase string

const (
	free       phase = "free"
	checking   phase = "checking"   // for the first that waits
	held       phase = "held"       // by a granted or active Lease
	warm       phase = "warm"       // by nobody; an idle worker sits there
	reclaiming phase = "reclaiming" // from a Lease that is over
	drained    phase = "drained"    // nobody gets it until it is returned
	busy       phase = "busy"       // somebody else sits there, or nobody can tell
)

type slot struct {
	gpu.Slot
	phase  phase
	holder *Lease    // who holds it; while reclaiming, and busy after that failed, whose worker is in the way
	idle   *idle     // while warm
	place  place     // while checking: what is being looked at together
	reason string    // why it is busy, or was when it was looked at last
	look   time.Time // when to look again
	since  time.Time // while checking or reclaiming for the first time: since when
}

func newLine(do effects, slots []gpu.Slot, queueTimeout time.Duration) *line {
	l := &line{do: do, now: time.Now, queueTimeout: queueTimeout, order: newOrder(queueTimeout, nil), leases: map[string]*Lease{}}
	for _, s := range slots {
		one := &slot{Slot: s, phase: free}
		l.slots = append(l.slots, one)
		if last := len(l.devices) - 1; last >= 0 && l.devices[last][0].Device.UUID == s.Device.UUID {
			l.devices[last] = append(l.devices[last], one)
		} else {
			l.devices = append(l.devices, place{one})
		}
	}
	return l
}

// onSchedule takes a Lease whose hold is committed.
func (l *line) onSchedule(lease *Lease) {
	l.leases[lease.ID] = lease
	l.enqueue(lease)
	l.do.changed(lease)
	l.fill()
}

// fill finds a place for each that waits: the warm one of its own worker, else a free one, which is looked at
// (the answer decides), else one whose idle worker goes.
func (l *line) fill() {
	l.limit()
	l.reserve()
	looked, leaving := l.coming()
	for rank := 0; rank < len(l.waiting); {
		lease := l.waiting[rank]
		if lease.limit != "" {
			rank++
			continue
		}
		if w := l.warmPlace(rank); w != nil {
			l.resume(w, lease)
			continue // the next has come to this rank
		}
		if whole := l.isWhole(lease); looked[whole] > 0 {
			looked[whole]--
		} else if p := l.find(rank); p != nil {
			p.look()
			p.startedAt(l.now())
			l.do.check(p)
		} else if leaving[whole] > 0 {
			leaving[whole]--
		} else {
			l.makeRoom(rank)
		}
		rank++
	}
}

func (l *line) onChecked(p place, err error) {
	if err != nil {
		l.shut(p, err)
		l.fill()
		return
	}
	l.limit()
	if i := l.taker(p); i >= 0 {
		l.grant(p, l.waiting[i])
	} else {
		l.vacate(p)
	}
	l.fill()
}

// shut keeps a place from being lent until a later look finds it clear.
func (l *line) shut(p place, err error) {
	for _, s := range p {
		s.phase, s.idle, s.reason, s.look = busy, nil, err.Error(), l.now().Add(recheck)
	}
}

func (l *line) vacate(p place) {
	for _, s := range p {
		s.phase, s.holder, s.idle, s.reason = free, nil, nil, ""
		if d, ok := l.drains[s.Device.UUID]; ok {
			s.phase, s.reason = drained, d.Reason
		}
	}
}

func (l *line) grant(p place, lease *Lease) {
	l.give(p, lease)
	l.do.decide(lease, decision{grant: &Grant{Lease: lease.ID, Slot: p[0].Index, Device: p[0].Device.UUID}})
}

// give takes a Lease out of the line and onto its place.
func (l *line) give(p place, lease *Lease) {
	l.waiting = slices.DeleteFunc(l.waiting, func(o *Lease) bool { return o == lease })
	for _, s := range p {
		s.phase, s.holder, s.idle, s.reason = held, lease, nil, ""
	}
	lease.State, lease.place, lease.Slot, lease.Granted = Granted, p, &p[0].Slot, l.now()
	if !lease.arriving {
		l.do.changed(lease)
	}
}

// onClaim checks an /allow before it is committed, and takes note of the worker: whatever ends the Lease
// meanwhile ends that worker too, and a second one is refused. (A warm worker makes no /allow. If one comes all
// the same, the client has found the worker unfit and forked another: the clock runs since the grant, and goes on.)
func (l *line) onClaim(space, id string, worker Worker) (lease *Lease, since time.Time, err error) {
	lease = l.leases[id]
	if lease == nil || lease.Space != space || !lease.claimable() {
		return nil, time.Time{}, ErrUnknown
	}
	since = lease.Active
	if lease.State != Active {
		since = l.now()
	}
	if lease.inherited && lease.Worker != worker {
		l.do.dismiss(lease.Worker)
	}
	lease.Worker, lease.inherited, lease.watched = worker, false, false
	return lease, since, nil
}

func (l *Lease) claimable() bool {
	return l.State == Granted && l.Worker.PID == 0 || l.State == Active && l.inherited
}

// onAllow starts the clock, if it does not run yet. False: the Lease ended while its /allow was being committed.
func (l *line) onAllow(lease *Lease, at time.Time) bool {
	if lease.State != Granted && lease.State != Active {
		return false
	}
	if lease.State != Active {
		lease.State, lease.Active = Active, at
	}
	lease.watched = true
	l.do.changed(lease)
	l.do.watch(lease.Worker)
	return true
}

func (l *line) onRelease(space, id string, failed bool) (*Lease, error) {
	lease := l.leases[id]
	if lease == nil || lease.Space != space || lease.State == Waiting {
		return nil, ErrUnknown
	}
	switch {
	case failed:
		l.end(lease, Released, "failed", farewell)
	case lease.State == Active && lease.watched && l.warmFor > 0 && !l.isDrained(lease.place):
		l.keepWarm(lease)
	default:
		l.end(lease, Released, "released", farewell)
	}
	return lease, nil
}

// onExit: a worker has died, of an active Lease or while it was idle.
func (l *line) onExit(worker Worker) {
	for _, s := range l.slots {
		switch {
		case s.phase == held && s.holder.Worker == worker:
			l.onHolderExit(s.holder)
			return
		case s.phase == warm && s.idle.lease.Worker == worker:
			l.evict(s.idle, 0)
			return
		}
	}
}

// onLeft: a running function finishes, as on ZeroGPU; only a wait is given up.
func (l *line) onLeft(event string) {
	for _, lease := range l.of(func(o *Lease) bool { return o.Event == event && o.State == Waiting }) {
		l.withdraw(lease, Withdrawn, "visitor left", ErrLeft)
	}
}

func (l *line) onCancelled(event string) {
	for _, lease := range l.arrivals() {
		if lease.Event == event {
			lease.doomed = "cancelled"
		}
	}
	for _, lease := range l.of(func(o *Lease) bool { return o.Event == event }) {
		if lease.State == Waiting {
			l.withdraw(lease, Withdrawn, "cancelled", ErrLeft)
		} else {
			l.end(lease, Revoked, "cancelled", 0)
		}
	}
}

func (l *line) onInstanceGone(instance string) {
	for _, w := range l.idles() {
		if w.lease.Instance == instance {
			l.evict(w, 0)
		}
	}
	for _, lease := range l.arrivals() {
		if lease.Instance == instance {
			lease.doomed = "space died"
		}
	}
	for _, lease := range l.of(func(o *Lease) bool { return o.Instance == instance }) {
		if lease.State == Waiting {
			l.withdraw(lease, Withdrawn, "space died", ErrGone)
		} else {
			l.end(lease, Revoked, "space died", 0)
		}
	}
}

// onHangUp: whoever waited has gone without a word. A grant that nobody heard is taken back.
func (l *line) onHangUp(lease *Lease) {
	switch lease.State {
	case Waiting:
		l.withdraw(lease, Withdrawn, "connection lost", ErrLeft)
	case Granted:
		l.end(lease, Unclaimed, "connection lost", 0)
	case Active:
		if lease.inherited { // nobody was told, so its worker got no work
			lease.Active = time.Time{}
			l.end(lease, Unclaimed, "connection lost", 0)
		}
	}
}

// onReclaimed lends the place again. A worker that outlived SIGKILL is ended anew after a while: a Device may
// look clear with it still there, if it had not come to use it.
func (l *line) onReclaimed(p place, err error) {
	if err == nil {
		l.vacate(p)
	} else {
		l.shut(p, err)
	}
	if !errors.Is(err, errNotReclaimed) {
		for _, s := range p {
			s.holder = nil
		}
	}
	l.fill()
}

// onTime does what is due, and says when to come again (zero: nothing is under way).
func (l *line) onTime() (next time.Time) {
	now := l.now()
	for _, lease := range l.of(func(o *Lease) bool { return !l.due(o).After(now) }) {
		switch lease.State {
		case Waiting:
			l.withdraw(lease, TimedOut, fmt.Sprintf("no GPU within %s", l.queueTimeout), ErrTimedOut)
		case Granted:
			l.end(lease, Unclaimed, "never allowed", 0)
		case Active:
			l.do.expired(lease)
			l.end(lease, Expired, "deadline", 0)
		}
	}
	for _, s := range l.slots {
		if s.phase == busy && !s.look.After(now) {
			l.lookAgain(s)
		}
	}
	for _, w := range l.idles() {
		if !w.since.Add(l.warmFor).After(now) {
			l.evict(w, farewell)
		}
	}
	l.fill()
	return l.next()
}

// lookAgain also looks for nobody: what is wrong with a Slot is shown until it is found right.
func (l *line) lookAgain(s *slot) {
	if s.holder == nil {
		p := place{s}
		p.look()
		l.do.check(p)
		return
	}
	s.holder.place.set(reclaiming)
	l.do.reclaim(s.holder.place, s.holder, 0)
}

// due is when a Lease must be looked at next.
func (l *line) due(lease *Lease) time.Time {
	switch lease.State {
	case Waiting:
		return lease.Admitted.Add(l.queueTimeout)
	case Granted:
		return lease.Granted.Add(claimTime)
	default:
		return lease.deadline().Add(deadlineGrace)
	}
}

func (l *line) next() (next time.Time) {
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, lease := range l.leases {
		sooner(l.due(lease))
	}
	for _, w := range l.idles() {
		sooner(w.since.Add(l.warmFor))
	}
	for _, s := range l.slots {
		if s.phase == busy && (len(l.waiting) > 0 || s.holder != nil) {
			sooner(s.look)
		}
	}
	return next
}

// withdraw ends a Lease that waits; its hold is returned whole.
func (l *line) withdraw(lease *Lease, state State, reason string, err error) {
	l.waiting = slices.DeleteFunc(l.waiting, func(o *Lease) bool { return o == lease })
	l.close(lease, state, reason)
	l.do.decide(lease, decision{err: err})
	l.do.settle(lease)
}

// end ends a Lease that holds a Slot, and takes the Slot back.
func (l *line) end(lease *Lease, state State, reason string, grace time.Duration) {
	l.close(lease, state, reason)
	if lease.from != nil {
		lease.from = nil
		l.do.decide(lease, decision{err: ErrGone})
	}
	l.do.settle(lease)
	lease.place.set(reclaiming)
	lease.place.startedAt(l.now())
	l.do.reclaim(lease.place, lease, grace)
}

func (l *line) close(lease *Lease, state State, reason string) {
	delete(l.leases, lease.ID)
	lease.State, lease.Reason, lease.Ended = state, reason, l.now()
	lease.Charged = lease.charge(lease.Ended)
	l.do.changed(lease)
}

// of returns the open Leases that match, oldest first.
func (l *line) of(match func(*Lease) bool) []*Lease {
	var found []*Lease
	for _, lease := range l.leases {
		if match(lease) {
			found = append(found, lease)
		}
	}
	slices.SortFunc(found, (*Lease).cameBefore)
	return found
}

// active are the Leases whose clock runs, as their clients know, with what it shows. The database may call more so: an
// arrival whose Device is still being looked at, one whose warm worker had died, one that is over and could not be settled yet.
func (l *line) active() map[string]time.Duration {
	used := map[string]time.Duration{}
	for id, lease := range l.leases {
		if lease.State == Active {
			used[id] = l.now().Sub(lease.Active)
		}
	}
	return used
}

var errNotReclaimed = errors.New("its last worker could not be ended")

// Snapshot is one open Lease as the operator sees it.
type Snapshot struct {
	Lease           string         `json:"lease"` // its first digits; the whole is a credential
	State           State          `json:"state"`
	Space           string         `json:"space"`
	Identity        string         `json:"identity"`
	Tier            string         `json:"tier"`
	Event           string         `json:"event,omitempty"`
	Function        string         `json:"function,omitempty"`
	Via             string         `json:"via,omitempty"` // the Space that spends it through Space
	Size            string         `json:"size"`
	DeclaredSeconds float64        `json:"declaredSeconds"`
	UsedSeconds     float64        `json:"usedSeconds"`
	*Forecast                      // while it waits
	Slot            *int           `json:"slot,omitempty"`
	Device          gpu.DeviceUUID `json:"device,omitempty"`
	Worker          int            `json:"worker,omitempty"`
	Admitted        time.Time      `json:"admitted"`
	Deadline        *time.Time     `json:"deadline,omitempty"`

	lease *Lease
}

func (l *line) snapshot() []Snapshot {
	all := make([]Snapshot, 0, len(l.leases))
	for _, lease := range l.of(func(*Lease) bool { return true }) {
		all = append(all, l.view(lease))
	}
	return all
}

func (l *line) view(o *Lease) Snapshot {
	s := Snapshot{
		Lease: o.Short(), State: o.State, Space: o.Space, Identity: o.Payer.Key(), Tier: o.Tier.Name, Event: o.Event, Function: o.Function, Via: o.Payer.Via,
		Size: o.Size, DeclaredSeconds: o.Declared.Seconds(), Worker: o.Worker.PID, Admitted: o.Admitted.UTC(), lease: o,
	}
	if o.Slot != nil {
		s.Slot, s.Device = &o.Slot.Index, o.Slot.Device.UUID
	}
	if !o.Active.IsZero() {
		deadline := o.deadline().UTC()
		s.Deadline, s.UsedSeconds = &deadline, l.now().Sub(o.Active).Seconds()
	}
	return s
}

// SlotView is one Slot as the operator sees it.
type SlotView struct {
	Slot   int            `json:"slot"`
	Device gpu.DeviceUUID `json:"device"`
	Phase  string         `json:"phase"`
	Reason string         `json:"reason,omitempty"`
	Space  string         `json:"space,omitempty"`
	Lease  string         `json:"lease,omitempty"`
	Worker int            `json:"worker,omitempty"` // while warm
}

func (l *line) slotViews() []SlotView {
	views := make([]SlotView, 0, len(l.slots))
	for _, s := range l.slots {
		v := SlotView{Slot: s.Index, Device: s.Device.UUID, Phase: string(s.phase), Reason: s.reason}
		if s.holder != nil && s.phase == held {
			v.Space, v.Lease = s.holder.Space, s.holder.Short()
		}
		if s.phase == warm {
			v.Space, v.Worker = s.idle.lease.Space, s.idle.lease.Worker.PID
		}
		views = append(views, v)
	}
	return views
}
