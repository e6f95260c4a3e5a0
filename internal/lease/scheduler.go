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
	check(a allocation)
	// decide answers a waiting Lease, once.
	decide(l *Lease, d decision)
	// resume looks whether the place has nobody but its warm worker (else: onUnfit), and writes down that the Lease is
	// active with it: onResumed.
	resume(l *Lease)
	// begin does the same for a Lease that has no hold yet, which it takes in the same transaction: onBegun.
	warmStart(l *Lease)
	// watch tells when a worker has died: onExit.
	watch(w Worker)
	// dismiss ends a worker in whose place another has come.
	dismiss(w Worker)
	// settle writes the end of a Lease to the database, then closes l.settled.
	settle(l *Lease)
	// reclaim ends the worker of a Lease that is over, waits for its settlement and for its place to be clear: onReclaimed.
	reclaim(a allocation, l *Lease, grace time.Duration)
	// expired tells the visitor which limit was hit.
	expired(l *Lease)
	// changed says that a Lease has come into another State, before anything comes of that.
	changed(l *Lease)
}

// Times of the device API (design.md 5; spaces/zero/client.py).
const (
	deadlineGrace   = 2 * time.Second        // between the deadline and the kill; never charged
	claimTimeout    = 30 * time.Second       // between the grant and /allow
	idleTermGrace   = 500 * time.Millisecond // for an idle worker between SIGTERM and SIGKILL
	recheckInterval = time.Second            // between two looks at a Device that is not clear
)

// line decides. It is touched by one goroutine, or by a test.
type scheduler struct {
	do           effects
	now          func() time.Time
	queueTimeout time.Duration
	priority     priority
	perSpace     func(space string) int // how many places a Space may have at once, 0: any number; nil: all may
	warmFor      time.Duration          // how long an idle worker stays; 0: not at all
	slots        []*slot
	devices      []allocation      // all Slots of each Device
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
	phase     phase
	holder    *Lease      // who holds it; while reclaiming, and busy after that failed, whose worker is in the way
	idle      *idleWorker // while warm
	checking  allocation  // while checking: what is being looked at together
	reason    string      // why it is busy, or was when it was looked at last
	recheckAt time.Time   // when to look again
	since     time.Time   // while checking or reclaiming for the first time: since when
}

func newScheduler(do effects, slots []gpu.Slot, queueTimeout time.Duration) *scheduler {
	sc := &scheduler{do: do, now: time.Now, queueTimeout: queueTimeout, priority: newPriority(queueTimeout, nil), leases: map[string]*Lease{}}
	for _, s := range slots {
		one := &slot{Slot: s, phase: free}
		sc.slots = append(sc.slots, one)
		if last := len(sc.devices) - 1; last >= 0 && sc.devices[last][0].Device.UUID == s.Device.UUID {
			sc.devices[last] = append(sc.devices[last], one)
		} else {
			sc.devices = append(sc.devices, allocation{one})
		}
	}
	return sc
}

// onSchedule takes a Lease whose hold is committed.
func (sc *scheduler) onSchedule(lease *Lease) {
	sc.leases[lease.ID] = lease
	sc.enqueue(lease)
	sc.do.changed(lease)
	sc.fill()
}

// fill finds a place for each that waits: the warm one of its own worker, else a free one, which is looked at
// (the answer decides), else one whose idle worker goes.
func (sc *scheduler) fill() {
	sc.applyLimits()
	sc.reserve()
	beingChecked, leaving := sc.pendingAllocations()
	for rank := 0; rank < len(sc.waiting); {
		lease := sc.waiting[rank]
		if lease.limit != "" {
			rank++
			continue
		}
		if w := sc.idleWorkerFor(rank); w != nil {
			sc.resume(w, lease)
			continue // the next has come to this rank
		}
		if whole := sc.needsWholeDevice(lease); beingChecked[whole] > 0 {
			beingChecked[whole]--
		} else if a := sc.findFree(rank); a != nil {
			a.startCheck()
			a.setSince(sc.now())
			sc.do.check(a)
		} else if leaving[whole] > 0 {
			leaving[whole]--
		} else {
			sc.evictFor(rank)
		}
		rank++
	}
}

func (sc *scheduler) onChecked(a allocation, err error) {
	if err != nil {
		sc.markBusy(a, err)
		sc.fill()
		return
	}
	sc.applyLimits()
	if i := sc.firstEligible(a); i >= 0 {
		sc.grant(a, sc.waiting[i])
	} else {
		sc.vacate(a)
	}
	sc.fill()
}

// shut keeps a place from being lent until a later look finds it clear.
func (sc *scheduler) markBusy(a allocation, err error) {
	for _, s := range a {
		s.phase, s.idle, s.reason, s.recheckAt = busy, nil, err.Error(), sc.now().Add(recheckInterval)
	}
}

func (sc *scheduler) vacate(a allocation) {
	for _, s := range a {
		s.phase, s.holder, s.idle, s.reason = free, nil, nil, ""
		if d, ok := sc.drains[s.Device.UUID]; ok {
			s.phase, s.reason = drained, d.Reason
		}
	}
}

func (sc *scheduler) grant(a allocation, lease *Lease) {
	sc.attach(a, lease)
	sc.do.decide(lease, decision{grant: &Grant{Lease: lease.ID, Slot: a[0].Index, Device: a[0].Device.UUID}})
}

// give takes a Lease out of the line and onto its place.
func (sc *scheduler) attach(a allocation, lease *Lease) {
	sc.waiting = slices.DeleteFunc(sc.waiting, func(o *Lease) bool { return o == lease })
	for _, s := range a {
		s.phase, s.holder, s.idle, s.reason = held, lease, nil, ""
	}
	lease.State, lease.allocation, lease.Slot, lease.Granted = Granted, a, &a[0].Slot, sc.now()
	if !lease.committing {
		sc.do.changed(lease)
	}
}

// onClaim checks an /allow before it is committed, and takes note of the worker: whatever ends the Lease
// meanwhile ends that worker too, and a second one is refused. (A warm worker makes no /allow. If one comes all
// the same, the client has found the worker unfit and forked another: the clock runs since the grant, and goes on.)
func (sc *scheduler) onClaim(space, id string, worker Worker) (lease *Lease, since time.Time, err error) {
	lease = sc.leases[id]
	if lease == nil || lease.Space != space || !lease.claimable() {
		return nil, time.Time{}, ErrUnknown
	}
	since = lease.Active
	if lease.State != Active {
		since = sc.now()
	}
	if lease.warmWorker && lease.Worker != worker {
		sc.do.dismiss(lease.Worker)
	}
	lease.Worker, lease.warmWorker, lease.watched = worker, false, false
	return lease, since, nil
}

func (l *Lease) claimable() bool {
	return l.State == Granted && l.Worker.PID == 0 || l.State == Active && l.warmWorker
}

// onAllow starts the clock, if it does not run yet. False: the Lease ended while its /allow was being committed.
func (sc *scheduler) onAllow(lease *Lease, at time.Time) bool {
	if lease.State != Granted && lease.State != Active {
		return false
	}
	if lease.State != Active {
		lease.State, lease.Active = Active, at
	}
	lease.watched = true
	sc.do.changed(lease)
	sc.do.watch(lease.Worker)
	return true
}

func (sc *scheduler) onRelease(space, id string, failed bool) (*Lease, error) {
	lease := sc.leases[id]
	if lease == nil || lease.Space != space || lease.State == Waiting {
		return nil, ErrUnknown
	}
	switch {
	case failed:
		sc.end(lease, Released, "failed", idleTermGrace)
	case lease.State == Active && lease.watched && sc.warmFor > 0 && !sc.isDrained(lease.allocation):
		sc.keepWarm(lease)
	default:
		sc.end(lease, Released, "released", idleTermGrace)
	}
	return lease, nil
}

// onExit: a worker has died, of an active Lease or while it was idle.
func (sc *scheduler) onExit(worker Worker) {
	for _, s := range sc.slots {
		switch {
		case s.phase == held && s.holder.Worker == worker:
			sc.onHolderExit(s.holder)
			return
		case s.phase == warm && s.idle.lease.Worker == worker:
			sc.evict(s.idle, 0)
			return
		}
	}
}

// onLeft: a running function finishes, as on ZeroGPU; only a wait is given up.
func (sc *scheduler) onLeft(event string) {
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.Event == event && o.State == Waiting }) {
		sc.withdraw(lease, Withdrawn, "visitor left", ErrLeft)
	}
}

func (sc *scheduler) onCancelled(event string) {
	for _, lease := range sc.committing() {
		if lease.Event == event {
			lease.endAfterCommit = "cancelled"
		}
	}
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.Event == event }) {
		if lease.State == Waiting {
			sc.withdraw(lease, Withdrawn, "cancelled", ErrLeft)
		} else {
			sc.end(lease, Revoked, "cancelled", 0)
		}
	}
}

func (sc *scheduler) onInstanceGone(instance string) {
	for _, w := range sc.idleWorkers() {
		if w.lease.Instance == instance {
			sc.evict(w, 0)
		}
	}
	for _, lease := range sc.committing() {
		if lease.Instance == instance {
			lease.endAfterCommit = "space died"
		}
	}
	for _, lease := range sc.openLeases(func(o *Lease) bool { return o.Instance == instance }) {
		if lease.State == Waiting {
			sc.withdraw(lease, Withdrawn, "space died", ErrGone)
		} else {
			sc.end(lease, Revoked, "space died", 0)
		}
	}
}

// onHangUp: whoever waited has gone without a word. A grant that nobody heard is taken back.
func (sc *scheduler) onHangUp(lease *Lease) {
	switch lease.State {
	case Waiting:
		sc.withdraw(lease, Withdrawn, "connection lost", ErrLeft)
	case Granted:
		sc.end(lease, Unclaimed, "connection lost", 0)
	case Active:
		if lease.warmWorker { // nobody was told, so its worker got no work
			lease.Active = time.Time{}
			sc.end(lease, Unclaimed, "connection lost", 0)
		}
	}
}

// onReclaimed lends the place again. A worker that outlived SIGKILL is ended anew after a while: a Device may
// look clear with it still there, if it had not come to use it.
func (sc *scheduler) onReclaimed(a allocation, err error) {
	if err == nil {
		sc.vacate(a)
	} else {
		sc.markBusy(a, err)
	}
	if !errors.Is(err, errNotReclaimed) {
		for _, s := range a {
			s.holder = nil
		}
	}
	sc.fill()
}

// onTime does what is due, and says when to come again (zero: nothing is under way).
func (sc *scheduler) onTime() (next time.Time) {
	now := sc.now()
	for _, lease := range sc.openLeases(func(o *Lease) bool { return !sc.due(o).After(now) }) {
		switch lease.State {
		case Waiting:
			sc.withdraw(lease, TimedOut, fmt.Sprintf("no GPU within %s", sc.queueTimeout), ErrTimedOut)
		case Granted:
			sc.end(lease, Unclaimed, "never allowed", 0)
		case Active:
			sc.do.expired(lease)
			sc.end(lease, Expired, "deadline", 0)
		}
	}
	for _, s := range sc.slots {
		if s.phase == busy && !s.recheckAt.After(now) {
			sc.recheckSlot(s)
		}
	}
	for _, w := range sc.idleWorkers() {
		if !w.since.Add(sc.warmFor).After(now) {
			sc.evict(w, idleTermGrace)
		}
	}
	sc.fill()
	return sc.nextWake()
}

// lookAgain also looks for nobody: what is wrong with a Slot is shown until it is found right.
func (sc *scheduler) recheckSlot(s *slot) {
	if s.holder == nil {
		a := allocation{s}
		a.startCheck()
		sc.do.check(a)
		return
	}
	s.holder.allocation.set(reclaiming)
	sc.do.reclaim(s.holder.allocation, s.holder, 0)
}

// due is when a Lease must be looked at next.
func (sc *scheduler) due(lease *Lease) time.Time {
	switch lease.State {
	case Waiting:
		return lease.Admitted.Add(sc.queueTimeout)
	case Granted:
		return lease.Granted.Add(claimTimeout)
	default:
		return lease.deadline().Add(deadlineGrace)
	}
}

func (sc *scheduler) nextWake() (next time.Time) {
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, lease := range sc.leases {
		sooner(sc.due(lease))
	}
	for _, w := range sc.idleWorkers() {
		sooner(w.since.Add(sc.warmFor))
	}
	for _, s := range sc.slots {
		if s.phase == busy && (len(sc.waiting) > 0 || s.holder != nil) {
			sooner(s.recheckAt)
		}
	}
	return next
}

// withdraw ends a Lease that waits; its hold is returned whole.
func (sc *scheduler) withdraw(lease *Lease, state State, reason string, err error) {
	sc.waiting = slices.DeleteFunc(sc.waiting, func(o *Lease) bool { return o == lease })
	sc.finish(lease, state, reason)
	sc.do.decide(lease, decision{err: err})
	sc.do.settle(lease)
}

// end ends a Lease that holds a Slot, and takes the Slot back.
func (sc *scheduler) end(lease *Lease, state State, reason string, grace time.Duration) {
	sc.finish(lease, state, reason)
	if lease.pendingWorker != nil {
		lease.pendingWorker = nil
		sc.do.decide(lease, decision{err: ErrGone})
	}
	sc.do.settle(lease)
	lease.allocation.set(reclaiming)
	lease.allocation.setSince(sc.now())
	sc.do.reclaim(lease.allocation, lease, grace)
}

func (sc *scheduler) finish(lease *Lease, state State, reason string) {
	delete(sc.leases, lease.ID)
	lease.State, lease.Reason, lease.Ended = state, reason, sc.now()
	lease.Charged = lease.charge(lease.Ended)
	sc.do.changed(lease)
}

// of returns the open Leases that match, oldest first.
func (sc *scheduler) openLeases(match func(*Lease) bool) []*Lease {
	var found []*Lease
	for _, lease := range sc.leases {
		if match(lease) {
			found = append(found, lease)
		}
	}
	slices.SortFunc(found, (*Lease).compareAdmitted)
	return found
}

// active are the Leases whose clock runs, as their clients know, with what it shows. The database may call more so: an
// arrival whose Device is still being looked at, one whose warm worker had died, one that is over and could not be settled yet.
func (sc *scheduler) active() map[string]time.Duration {
	used := map[string]time.Duration{}
	for id, lease := range sc.leases {
		if lease.State == Active {
			used[id] = sc.now().Sub(lease.Active)
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

func (sc *scheduler) snapshot() []Snapshot {
	all := make([]Snapshot, 0, len(sc.leases))
	for _, lease := range sc.openLeases(func(*Lease) bool { return true }) {
		all = append(all, sc.leaseView(lease))
	}
	return all
}

func (sc *scheduler) leaseView(o *Lease) Snapshot {
	s := Snapshot{
		Lease: o.Short(), State: o.State, Space: o.Space, Identity: o.Payer.Key(), Tier: o.Tier.Name, Event: o.Event, Function: o.Function, Via: o.Payer.Via,
		Size: o.Size, DeclaredSeconds: o.Declared.Seconds(), Worker: o.Worker.PID, Admitted: o.Admitted.UTC(), lease: o,
	}
	if o.Slot != nil {
		s.Slot, s.Device = &o.Slot.Index, o.Slot.Device.UUID
	}
	if !o.Active.IsZero() {
		deadline := o.deadline().UTC()
		s.Deadline, s.UsedSeconds = &deadline, sc.now().Sub(o.Active).Seconds()
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

func (sc *scheduler) slotViews() []SlotView {
	views := make([]SlotView, 0, len(sc.slots))
	for _, s := range sc.slots {
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
