package lease

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/quota"
)

// Config is what a Broker needs. Logger may be nil; Expired may be nil.
type Config struct {
	DB    *sql.DB
	Reads *sql.DB // as migrations.OpenReads makes it, for questions that nobody waits for with a Slot; nil: DB
	// Sync makes the disk keep what was committed with synchronous=NORMAL, as migrations.Syncer does. Nil: each commit does.
	Sync func() error
	// Free is how many bytes the disk of DB has left, as FreeAt says; with too few nobody is admitted. Nil: it has enough.
	Free         func() (uint64, error)
	Ledger       *quota.Ledger
	Pool         *gpu.Pool
	Processes    Processes
	QueueTimeout time.Duration // how long a Lease waits for a Slot; 0: 60 s, as on ZeroGPU
	WarmFor      time.Duration // how long an idle worker stays on its Slot; 0: not at all
	// Priorities are those of the host's tiers; what else comes the line learns.
	Priorities []int
	// PerSpace is how many Leases of a Space may have a place at once, 0 for any number. It must not block; nil: any.
	PerSpace func(space string) int
	// Now is the wall clock; nil is the real one. After a leap of it, call LookAgain.
	Now func() time.Time
	// Expired is told when a worker is about to be killed at its deadline.
	Expired func(End)
	// Unleased is told once of each process that uses a Device outside any Lease; nil: nobody is. EndUnleased ends
	// those of a Space, foreign ones never.
	Unleased    func(Unleased)
	EndUnleased bool
	// Reported is told of each error that the driver reports of a Device, by one goroutine. Nil: nobody is.
	Reported func(gpu.DeviceUUID, gpu.Xid)
	// Changed is told of every Change, in their order, and must not block. Nil: nobody is.
	Changed func(Change)
	Logger  *zap.Logger
}

// End says which limit a Lease has hit.
type End struct {
	Space, Event   string
	Declared, Used time.Duration
}

// Broker lends Slots. All methods may be called from any goroutine while Run runs.
type Broker struct {
	config         Config
	store          *store
	now            func() time.Time
	scheduler      *scheduler
	log            *zap.Logger
	calls          chan func(*scheduler)
	postSignal     chan struct{} // notes has something
	done           chan struct{}
	work           context.Context // ends after Run has ended and its effects have: cancels what still waits
	stop           context.CancelFunc
	effectsRunning sync.WaitGroup // effects under way; only Run's goroutine and effects add to it
	watching       sync.WaitGroup // of workers; they end with work at the latest

	watchers  map[chan Change]bool // touched by the line's goroutine alone
	forecasts forecastCache

	mu            sync.Mutex
	posted        []func(*scheduler) // left for the line by those who do not wait
	brokenStreams map[string]brokenStreamRetry

	unleased []Unleased // as they were seen last
}

// New returns a Broker. Call Recover, then Run.
func New(config Config) (*Broker, error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.QueueTimeout == 0 {
		config.QueueTimeout = 60 * time.Second
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	work, stop := context.WithCancel(context.Background())
	b := &Broker{
		config: config, now: config.Now, log: config.Logger,
		calls: make(chan func(*scheduler)), postSignal: make(chan struct{}, 1), done: make(chan struct{}),
		store: newStore(config.DB, config.Ledger, boot, config.Logger),
		work:  work, stop: stop, watchers: map[chan Change]bool{}, brokenStreams: map[string]brokenStreamRetry{},
	}
	if config.Reads != nil {
		b.store.reads = config.Reads
	}
	b.store.writer.sync = config.Sync
	b.store.diskGuard.free = config.Free
	b.scheduler = newScheduler(b, config.Pool.Slots(), config.QueueTimeout)
	b.scheduler.warmFor = config.WarmFor
	b.scheduler.priority = newPriority(config.QueueTimeout, config.Priorities)
	b.scheduler.perSpace = config.PerSpace
	b.scheduler.now = config.Now
	return b, nil
}

// beatEvery is how often the host proves that it lives; what a crash can cost a payer is charged to its last beat.
const beatInterval = 2 * time.Second

// Run owns the line until ctx ends: everything that happens comes as a call or as time. It returns when
// every open Lease is settled and every worker of theirs is gone.
func (b *Broker) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	beats, endBeats := context.WithCancel(ctx)
	var beating sync.WaitGroup
	beating.Go(func() { b.heartbeats(beats) })
	beating.Go(func() { b.inspectDevices(beats) })
	beating.Go(func() { b.watchHealth(beats) })
	defer beating.Wait()
	defer endBeats()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case call := <-b.calls:
			b.runPosted() // they were there before
			call(b.scheduler)
		case <-b.postSignal:
			b.runPosted()
		case <-timer.C:
		}
		if next := b.scheduler.onTime(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(next.Sub(b.now()))
		}
	}
	b.shutdown()
	return context.Cause(ctx)
}

// stopTime bounds the end of Run if the database refuses the last settlements; recovery at the next start
// then makes them.
const shutdownTimeout = 15 * time.Second

func (b *Broker) shutdown() {
	close(b.done) // late callers are turned away; effects that report find nobody
	defer time.AfterFunc(shutdownTimeout, b.stop).Stop()
	b.runPosted()
	for _, w := range append(b.scheduler.idleWorkers(), b.scheduler.committingWorkers()...) {
		b.scheduler.evict(w, 0)
	}
	for _, lease := range b.scheduler.openLeases(func(*Lease) bool { return true }) {
		if lease.State == Waiting {
			b.scheduler.withdraw(lease, Withdrawn, "host stopped", ErrGone)
		} else {
			b.scheduler.end(lease, Revoked, "host stopped", 0)
		}
	}
	b.effectsRunning.Wait()
	b.stop()
	b.watching.Wait()
	b.store.writer.close()
	for watcher := range b.watchers {
		b.removeWatcher(watcher)
	}
}

func (b *Broker) heartbeats(ctx context.Context) {
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			var active map[string]time.Duration
			b.do(func(sc *scheduler) { active = sc.active() })
			if err := b.store.beat(ctx, active); err != nil && ctx.Err() == nil {
				b.log.Warn("beat failed", zap.Error(err))
			}
		}
	}
}

// do runs call on the line; false: the Broker has stopped.
func (b *Broker) do(call func(*scheduler)) bool {
	ran := make(chan struct{})
	select {
	case b.calls <- func(sc *scheduler) { defer close(ran); call(sc) }:
		<-ran
		return true
	case <-b.done:
		return false
	}
}

// Schedule takes the hold and puts the Lease in line. Errors: *quota.ExceededError and
// *quota.IllegalDurationError, or the database's; then nothing is held.
func (b *Broker) Schedule(ctx context.Context, r Request) (*Ticket, error) {
	r.Size = b.sizeOf(r)
	l, err := b.tryWarmStart(r)
	if err != nil {
		return nil, err
	} else if l != nil {
		return &Ticket{broker: b, lease: l}, nil
	}
	l = newLease(r, b.now())
	if err := b.store.admit(ctx, l, b.config.QueueTimeout); err != nil {
		return nil, err
	}
	if !b.do(func(sc *scheduler) { sc.onSchedule(l) }) {
		l.State, l.Reason, l.Ended = Withdrawn, "host stopped", b.now()
		return nil, errors.Join(ErrGone, b.store.settle(context.WithoutCancel(ctx), l))
	}
	return &Ticket{broker: b, lease: l}, nil
}

// Ask is what Schedule would say to that request now: nil, or its refusals. Nothing is held, and nobody waits.
func (b *Broker) Ask(ctx context.Context, r Request) error {
	r.Size = b.sizeOf(r)
	return b.store.ask(ctx, newLease(r, b.now()), b.config.QueueTimeout)
}

// arrive returns the Lease if it has begun on its warm worker already; nil: it has to be admitted and wait its turn.
func (b *Broker) tryWarmStart(r Request) (*Lease, error) {
	l, warm := newLease(r, b.now()), false
	b.do(func(sc *scheduler) { warm = sc.tryWarmStart(l) })
	if !warm {
		return nil, nil
	}
	err := <-l.warmStarted
	if errors.Is(err, errUnfit) {
		return nil, nil
	}
	return l, err
}

// Ticket is a place in the line.
type Ticket struct {
	broker *Broker
	lease  *Lease
}

// Wait blocks until the Lease is granted, ended, or ctx ends. ErrTimedOut, ErrLeft, ErrGone: it is over,
// nothing is charged. After ctx's error the Lease still waits: call Wait again, or Leave.
func (t *Ticket) Wait(ctx context.Context) (Grant, error) {
	select {
	case d := <-t.lease.decided:
		if d.err != nil {
			return Grant{}, d.err
		}
		return *d.grant, nil
	case <-ctx.Done():
		return Grant{}, ctx.Err()
	}
}

// Forecast says what the Lease may expect, as of a second ago at most; false: it waits no more.
func (t *Ticket) Forecast() (Forecast, bool) { return t.broker.forecast(t.lease) }

// Reason says why the Lease waits now. Of one that waits no more it is the last.
func (t *Ticket) Reason() (reason Reason) {
	reason = Node
	t.broker.do(func(*scheduler) { reason = t.lease.limit.reason() })
	return reason
}

// Leave gives up: a Lease that waits is withdrawn, one that was granted to nobody's ear is taken back. The
// client asks once more after a broken stream, and then without a size (spaces/zero/client.py, schedule).
func (t *Ticket) Leave() {
	t.broker.rememberBroken(t.lease.Request)
	t.broker.do(func(sc *scheduler) { sc.onHangUp(t.lease) })
}

// Allow says that pid is the worker of a granted Lease: its clock starts. Errors: ErrUnknown, *NotOwnedError,
// or the database's; then the clock has not started, and the worker goes with the Lease.
func (b *Broker) Allow(ctx context.Context, space, id string, pid int) error {
	start, ok := b.config.Processes.Owns(space, pid)
	if !ok {
		return &NotOwnedError{pid}
	}
	worker := Worker{PID: pid, Start: start}
	var l *Lease
	var since time.Time
	err := ErrUnknown
	b.do(func(sc *scheduler) { l, since, err = sc.onClaim(space, id, worker) })
	if err != nil {
		return err
	}
	b.config.Processes.Confine(space, pid, start)
	if err := b.store.activate(ctx, l, worker, since, b.now()); err != nil {
		return err
	}
	b.occupy(l, pid)
	allowed := false
	b.do(func(sc *scheduler) {
		// From here, not from before the commit: what the database takes is not the payer's.
		allowed = sc.onAllow(l, b.now())
	})
	if !allowed {
		return ErrUnknown
	}
	return nil
}

// occupy tells a simulated machine who sits on it; a real driver knows.
func (b *Broker) occupy(l *Lease, pid int) {
	simulator, ok := b.config.Pool.Inventory().(gpu.Simulator)
	if !ok {
		return
	}
	if err := simulator.Occupy(l.Slot.Device.UUID, pid); err != nil {
		b.log.Warn("occupy simulated device", zap.String("lease", l.Short()), zap.Error(err)) // the rest is the line's
	}
}

// Release ends a Lease at its Space's word and returns once that is settled. ErrUnknown: it is over already.
func (b *Broker) Release(ctx context.Context, space, id string, failed bool) error {
	var l *Lease
	err := ErrUnknown
	b.do(func(sc *scheduler) { l, err = sc.onRelease(space, id, failed) })
	if err != nil {
		return err
	}
	select {
	case <-l.settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Left says that the visitor of an Event has gone. It does not block.
func (b *Broker) Left(event string) { b.post(func(sc *scheduler) { sc.onLeft(event) }) }

// Cancelled says that the visitor of an Event wants its end. It does not block.
func (b *Broker) Cancelled(event string) { b.post(func(sc *scheduler) { sc.onCancelled(event) }) }

// LookAgain does at once what is due by a clock that has leapt. It does not block.
func (b *Broker) LookAgain() { b.post(func(*scheduler) {}) } // Run looks at the time after each note

// later leaves call for the line. Notes are read in the order of their making, and before any call that is
// made after them: a Cancelled must not be overtaken.
func (b *Broker) post(call func(*scheduler)) {
	b.mu.Lock()
	b.posted = append(b.posted, call)
	b.mu.Unlock()
	select {
	case b.postSignal <- struct{}{}:
	default: // Run knows already
	}
}

func (b *Broker) runPosted() {
	b.mu.Lock()
	notes := b.posted
	b.posted = nil
	b.mu.Unlock()
	for _, call := range notes {
		call(b.scheduler)
	}
}

// Started writes down a start of a Space, before its code runs.
func (b *Broker) Started(r Runner) error {
	return b.store.addRunner(context.Background(), r, b.now())
}

// Gone says that a start of a Space and all its processes have ended.
func (b *Broker) Gone(instance string) {
	b.do(func(sc *scheduler) { sc.onInstanceGone(instance) })
	if err := b.store.removeRunner(context.Background(), instance); err != nil {
		b.log.Warn("runner stays in the database", zap.Error(err))
	}
}

// Waiting returns how many Leases wait.
func (b *Broker) Waiting() (n int) {
	b.do(func(sc *scheduler) { n = len(sc.waiting) })
	return n
}

// List returns the open Leases, oldest first.
func (b *Broker) List() (all []Snapshot) {
	var sim *simulation
	if b.do(func(sc *scheduler) { all, sim = sc.snapshot(), sc.simulation() }) {
		addForecasts(all, sim.forecasts())
	}
	return all
}

// expect says of each that waits what is forecast.
func addForecasts(all []Snapshot, forecasts map[*Lease]Forecast) {
	for i, s := range all {
		if f, waits := forecasts[s.lease]; waits {
			all[i].Forecast = &f
		}
	}
}

// foresight is the last look ahead. All who wait ask every few seconds.
type forecastCache struct {
	mu        sync.Mutex
	at        time.Time
	forecasts map[*Lease]Forecast
}

// foresees is how old a forecast may be.
const forecastMaxAge = time.Second

func (b *Broker) forecast(lease *Lease) (f Forecast, waits bool) {
	b.forecasts.mu.Lock()
	defer b.forecasts.mu.Unlock()
	f, waits = b.forecasts.forecasts[lease]
	if !waits || time.Since(b.forecasts.at) >= forecastMaxAge {
		var sim *simulation
		if !b.do(func(sc *scheduler) { sim = sc.simulation() }) {
			return Forecast{}, false
		}
		b.forecasts.forecasts, b.forecasts.at = sim.forecasts(), time.Now()
		f, waits = b.forecasts.forecasts[lease]
	}
	return f, waits
}

// Slots returns every Slot and what it is doing.
func (b *Broker) Slots() (all []SlotView) {
	b.do(func(sc *scheduler) { all = sc.slotViews() })
	return all
}

// Past returns the Leases that ended last, newest first.
func (b *Broker) Past(ctx context.Context, limit int) ([]Past, error) {
	return b.store.past(ctx, limit)
}

// The line's effects, called by it. Each runs beside the line and reports back through do.

func (b *Broker) check(a allocation) {
	beside := b.scheduler.neighbours(a)
	b.effectsRunning.Go(func() {
		err := b.checkClear(a, Worker{}, beside)
		b.do(func(sc *scheduler) { sc.onChecked(a, err) })
	})
}

// clear looks whether nobody but self, if any, sits on a place, and beside it nobody but those; and once more if meanwhile
// somebody came to sit there: that is no stranger.
func (b *Broker) checkClear(a allocation, self Worker, beside []Worker) error {
	for {
		own := beside
		if self.PID != 0 {
			own = append(slices.Clone(beside), self)
		}
		err := b.config.Pool.Clear(b.work, a[0].Device.UUID, gpu.Neighbours{Slots: len(own), Own: func(pid int) bool {
			return slices.ContainsFunc(own, func(w Worker) bool { return b.config.Processes.Within(pid, w.PID, w.Start) })
		}})
		if err == nil {
			return nil
		}
		now := b.currentNeighbours(a)
		if slices.Equal(beside, now) {
			return err
		}
		beside = now
	}
}

// neighbours asks the line, which itself need not ask.
func (b *Broker) currentNeighbours(a allocation) (all []Worker) {
	b.do(func(sc *scheduler) { all = sc.neighbours(a) })
	return all
}

func (b *Broker) decide(l *Lease, d decision) { l.decided <- d }

// begin tells l.begun, once: nil, errUnfit, or why it is not written down. The place is looked at meanwhile: what is
// written down on one that is not clear is taken back before anybody is told. A window that would open with the Lease cannot
// be shut again, so then the look comes first.
func (b *Broker) warmStart(l *Lease) {
	worker, a, at := l.Worker, l.allocation, b.now()
	beside := b.scheduler.neighbours(a)
	b.effectsRunning.Go(func() {
		looked := make(chan error, 1)
		go func() { looked <- b.checkClear(a, worker, beside) }()
		err := b.store.warmStart(b.work, l, worker, at, b.config.QueueTimeout, false)
		busy := <-looked
		switch {
		case busy != nil:
			b.log.Warn("warm worker cannot go on", zap.Int("slot", a[0].Index), zap.Error(busy))
			if err == nil {
				b.withdrawWarmStart(l)
			}
			err = errUnfit
		case errors.Is(err, errWindowClosed):
			err = b.store.warmStart(b.work, l, worker, at, b.config.QueueTimeout, true)
		}
		if !b.do(func(sc *scheduler) { sc.onWarmStarted(l, b.now(), err) }) && err == nil {
			l.State, l.Reason, l.Ended = Withdrawn, "host stopped", b.now()
			err = errors.Join(ErrGone, b.store.settle(b.work, l))
		}
		l.warmStarted <- err
	})
}

// takeBack returns the hold of an arrival that nobody has heard of. It is tried again later, and not waited for, if the
// database refuses now.
func (b *Broker) withdrawWarmStart(l *Lease) {
	over := &Lease{Request: l.Request, ID: l.ID, State: Withdrawn, Reason: "warm worker cannot go on", Ended: b.now(), settled: make(chan struct{})}
	if err := b.store.settle(b.work, over); err != nil {
		b.log.Error("settle lease", zap.Object("lease", over), zap.Error(err))
		b.settle(over) // begin's own effect is under way, so that Run still waits for this one
	}
}

func (b *Broker) resume(l *Lease) {
	worker, a := l.Worker, l.allocation
	beside := b.scheduler.neighbours(a)
	b.effectsRunning.Go(func() {
		if err := b.checkClear(a, worker, beside); err != nil {
			b.log.Warn("warm worker cannot go on", zap.Int("slot", a[0].Index), zap.Error(err))
			b.do(func(sc *scheduler) { sc.onUnfit(l) })
			return
		}
		at := b.now()
		err := b.store.activate(b.work, l, worker, at, at)
		if err != nil {
			b.log.Error("resume lease", zap.Object("lease", l), zap.Error(err))
		}
		b.do(func(sc *scheduler) { sc.onResumed(l, b.now(), err) })
	})
}

func (b *Broker) watch(w Worker) {
	b.watching.Go(func() {
		b.config.Processes.Wait(b.work, w.PID, w.Start)
		b.do(func(sc *scheduler) { sc.onExit(w) })
	})
}

func (b *Broker) dismiss(w Worker) {
	b.effectsRunning.Go(func() {
		if !b.config.Processes.End(w.PID, w.Start, 0) {
			b.log.Warn("dismissed worker stays", zap.Int("worker", w.PID))
		}
	})
}

func (b *Broker) expired(l *Lease) {
	end := End{Space: l.Space, Event: l.Event, Declared: l.Declared, Used: b.now().Sub(l.Active)}
	if b.config.Expired != nil {
		b.effectsRunning.Go(func() { b.config.Expired(end) })
	}
}

// settleAgain is the pause after a settlement that the database refused. The seconds stay held meanwhile.
const settleRetryDelay = time.Second

// settle goes on for as long as the host runs: a disk may be full for an hour, and the payer gets the rest back.
func (b *Broker) settle(l *Lease) {
	b.effectsRunning.Go(func() {
		defer close(l.settled)
		for {
			err := b.store.settle(b.work, l)
			if err == nil {
				return
			}
			b.log.Error("settle lease", zap.Object("lease", l), zap.Error(err))
			if isFinal(err) || !pause(b.work.Done(), settleRetryDelay) {
				return
			}
		}
	})
}

// isFinal tells a refusal of the ledger, which stays one, from trouble of the database, which passes.
func isFinal(err error) bool {
	var unknown *quota.UnknownHoldError
	var charge *quota.ChargeError
	return errors.As(err, &unknown) || errors.As(err, &charge)
}

// pause returns false if end came first.
func pause(end <-chan struct{}, d time.Duration) bool {
	select {
	case <-end:
		return false
	case <-time.After(d):
		return true
	}
}

// reclaimTime bounds the wait for memory to come back after the worker has gone.
const reclaimTimeout = 10 * time.Second

func (b *Broker) reclaim(a allocation, l *Lease, grace time.Duration) {
	worker := l.Worker
	b.effectsRunning.Go(func() {
		err := b.endAndClear(a, worker, grace)
		if err != nil {
			b.log.Warn("slot stays shut", zap.Int("slot", a[0].Index), zap.Error(err))
		}
		<-l.settled
		if err == nil {
			b.log.Info("slot returned", zap.Object("lease", l), zap.Int("worker", worker.PID))
		}
		b.do(func(sc *scheduler) { sc.onReclaimed(a, err) })
	})
}

// empty ends the worker and waits until the Device is clear; once the host stops, nobody needs to know that.
func (b *Broker) endAndClear(a allocation, worker Worker, grace time.Duration) error {
	if worker.PID != 0 && !b.config.Processes.End(worker.PID, worker.Start, grace) {
		return errNotReclaimed
	}
	for deadline, wait := time.Now().Add(reclaimTimeout), 5*time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		err := b.checkClear(a, Worker{}, b.currentNeighbours(a))
		if err == nil || time.Now().After(deadline) || !pause(b.done, wait) {
			return err
		}
	}
}

// inheritTime is how long a retry after a broken stream takes over the size that the client leaves out.
const retrySizeTime = 10 * time.Second

type brokenStreamRetry struct {
	size string
	at   time.Time
}

func retryKey(r Request) string { return r.Space + "\x00" + r.Task + "\x00" + r.Payer.Key() }

func (b *Broker) rememberBroken(r Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, old := range b.brokenStreams {
		if time.Since(old.at) > retrySizeTime {
			delete(b.brokenStreams, key)
		}
	}
	b.brokenStreams[retryKey(r)] = brokenStreamRetry{r.Size, time.Now()}
}

// sizeOf leaves what it finds: when a network breaks, several streams of one payer come back.
func (b *Broker) sizeOf(r Request) string {
	if r.Size != "" {
		return r.Size
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.brokenStreams[retryKey(r)]; ok && time.Since(old.at) <= retrySizeTime {
		return old.size
	}
	return "large"
}
