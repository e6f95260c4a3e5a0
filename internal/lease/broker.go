package lease

import (
	"context"
	"database/sql"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/space"
	"spacehost/quota"
)

// Config configures a Broker. Logger and Expired may be nil.
type Config struct {
	DB    *sql.DB
	Reads *sql.DB // from migrations.OpenReads, for queries that no Slot waits for; nil: DB
	// Sync flushes to disk the commits made with synchronous=NORMAL, as migrations.Syncer does. Nil: each commit
	// flushes.
	Sync func() error
	// Free returns the bytes left on the disk of DB, as FreeAt does. Below a minimum, no lease is admitted. Nil:
	// no check.
	Free         func() (uint64, error)
	Ledger       *quota.Ledger
	Machine      Machine       // the host's own machine; others join later
	QueueTimeout time.Duration // how long a Lease waits for a Slot; 0: 60 s, as on ZeroGPU
	WarmFor      time.Duration // how long an idle worker stays on its Slot; 0: not at all
	// Priorities are those of the host's tiers. The scheduler adds others as they occur.
	Priorities []int
	// PerSpace is the maximum number of Leases of a Space that hold Slots at once, 0 for any number. It must not
	// block. Nil: no limit.
	PerSpace func(space string) int
	// Now is the wall clock; nil is the real one. After it is set, call LookAgain.
	Now func() time.Time
	// Expired is called when a worker is about to be killed at its deadline.
	Expired func(End)
	// Unleased is called once for each process that uses a Device outside any Lease; it may be nil. EndUnleased
	// ends those of a Space. Processes of no Space are never ended.
	Unleased    func(Unleased)
	EndUnleased bool
	// Reported is called, from one goroutine, for each error that the driver reports for a Device. It may be nil.
	Reported func(gpu.DeviceUUID, gpu.Xid)
	// Drained is called when a Device is no longer lent, by command or because of a hardware error. It must not block,
	// and may be called concurrently. It may be nil.
	Drained func(gpu.DeviceUUID, Drain)
	// Unreadable is called when two inspections in a row could not read a Device because it is lost or hangs, once until
	// it can be read again. It must not block. It may be nil.
	Unreadable func(gpu.DeviceUUID, error)
	// Changed is called for every Change, in order, and must not block. It may be nil.
	Changed func(Change)
	Logger  *zap.Logger
}

// End describes a Lease that ran into its deadline.
type End struct {
	Space, Event   string
	Declared, Used time.Duration
}

// Broker lends the Slots of all machines. All methods may be called from any goroutine while Run runs.
type Broker struct {
	config         Config
	store          *store
	now            func() time.Time
	schedulers     *schedulers
	log            *zap.Logger
	calls          chan func(*schedulers)
	postSignal     chan struct{} // signals that posted has entries
	done           chan struct{}
	work           context.Context // canceled after Run and its effects have ended, to stop what still waits
	stop           context.CancelFunc
	effectsRunning sync.WaitGroup // running effects; only Run's goroutine and effects add to it
	watching       sync.WaitGroup // watches of workers; they end with work at the latest

	watchers  map[chan Change]bool // used only on the scheduler's goroutine
	forecasts forecastCache
	sampler   *gpu.Sampler

	keeps         atomic.Bool // by Keep
	mu            sync.Mutex
	posted        []func(*schedulers) // calls for the schedulers that no sender waits for
	brokenStreams map[string]brokenStreamRetry
	joined        []joinedMachine // replaced, never changed

	unleased     []Unleased // the result of the last inspection
	driverErrors map[gpu.DeviceUUID][]DriverError
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
		calls: make(chan func(*schedulers)), postSignal: make(chan struct{}, 1), done: make(chan struct{}),
		store: newStore(config.DB, config.Ledger, boot, config.Logger), schedulers: newSchedulers(),
		work: work, stop: stop, watchers: map[chan Change]bool{}, brokenStreams: map[string]brokenStreamRetry{},
	}
	b.sampler = gpu.NewSampler(b.deviceStatus)
	if config.Reads != nil {
		b.store.reads = config.Reads
	}
	b.store.writer.sync = config.Sync
	b.store.diskGuard.free = config.Free
	b.add(config.Machine) // first, so that it is known before Run
	return b, nil
}

// beatInterval is the interval of beats. After a crash of the host, a payer is charged up to the
// last beat.
const beatInterval = 2 * time.Second

// Run owns the scheduler until ctx ends; every event arrives as a call or as a timer. It returns when every open
// Lease is settled and all their workers are gone, except for those that Keep keeps.
func (b *Broker) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	beats, endBeats := context.WithCancel(ctx)
	var beating sync.WaitGroup
	beating.Go(func() { b.beats(beats) })
	beating.Go(func() { b.inspectDevices(beats) })
	defer beating.Wait()
	defer endBeats()
	for _, sc := range b.schedulers.list {
		effectsOf(sc).startWatch()
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case call := <-b.calls:
			b.runPosted() // they were posted before the call
			call(b.schedulers)
		case <-b.postSignal:
			b.runPosted()
		case <-timer.C:
		}
		if next := b.schedulers.onTime(b.now()); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(next.Sub(b.now()))
		}
	}
	b.shutdown()
	return context.Cause(ctx)
}

// shutdownTimeout bounds the end of Run if the database refuses the last settlements. Recovery at the next start
// then makes them.
const shutdownTimeout = 15 * time.Second

func (b *Broker) shutdown() {
	close(b.done) // later callers are refused, and reports of effects are dropped
	defer time.AfterFunc(shutdownTimeout, b.stop).Stop()
	b.runPosted()
	for _, sc := range b.schedulers.list {
		effectsOf(sc).stopWatch()
		sc.shutdown(b.keeps.Load())
	}
	b.lastBeat()
	b.effectsRunning.Wait()
	b.stop()
	b.watching.Wait()
	b.store.writer.close()
	for watcher := range b.watchers {
		b.removeWatcher(watcher)
	}
}

// Keep makes the end of Run leave the active Leases open, with their workers: agents keep the processes of the Spaces, and the next host
// adopts the Leases (Recover, and Join of a node). Grants without an /allow are taken back, waiting Leases are withdrawn, and idle workers are ended, as at every end of Run. Call it before the context of Run ends. After that, /release
// fails as for an unknown Lease, so the caller has ended the server of the device API before.
func (b *Broker) Keep() { b.keeps.Store(true) }

// lastBeat writes the elapsed time of the Leases that Keep keeps. It limits their charge if the machine loses its power before
// another host adopts them.
func (b *Broker) lastBeat() {
	active := map[string]time.Duration{}
	for _, sc := range b.schedulers.list {
		maps.Copy(active, sc.active())
	}
	if err := b.store.beat(b.work, active); err != nil {
		b.log.Warn("beat not written", zap.Error(err))
	}
}

// shutdown ends all idle workers and all open Leases. With keep, the active ones go on.
func (sc *scheduler) shutdown(keep bool) {
	for _, w := range append(sc.idleWorkers(), sc.committingWorkers()...) {
		sc.evict(w, 0)
	}
	for _, lease := range sc.openLeases(func(o *Lease) bool { return !keep || o.State != Active && o.State != Unreachable }) {
		lease.hostEnded = true
		if lease.State == Waiting {
			sc.withdraw(lease, Withdrawn, space.EndedByHost, ErrGone)
		} else {
			sc.end(lease, Revoked, space.EndedByHost, 0)
		}
	}
}

func (b *Broker) beats(ctx context.Context) {
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			active := map[string]time.Duration{}
			b.do(func(all *schedulers) {
				for _, sc := range all.list {
					maps.Copy(active, sc.active())
				}
			})
			if err := b.store.beat(ctx, active); err != nil && ctx.Err() == nil {
				b.log.Warn("beat not written", zap.Error(err))
			}
		}
	}
}

// do runs call on the schedulers' goroutine and waits for it. It returns false if the Broker has stopped.
func (b *Broker) do(call func(*schedulers)) bool {
	ran := make(chan struct{})
	select {
	case b.calls <- func(all *schedulers) { defer close(ran); call(all) }:
		<-ran
		return true
	case <-b.done:
		return false
	}
}

// Left reports that the visitor of an Event has disconnected. It does not block.
func (b *Broker) Left(event string) { b.postEach(func(sc *scheduler) { sc.onLeft(event) }) }

// Cancelled reports that the visitor of an Event has cancelled it. It does not block.
func (b *Broker) Cancelled(event string) { b.postEach(func(sc *scheduler) { sc.onCancelled(event) }) }

// Closing is Cancelled for an Event whose generator is being closed. Its worker then runs the generator's `finally` and
// stays warm. Leases that are still open after closeGrace are revoked. It does not block.
func (b *Broker) Closing(event string) { b.postEach(func(sc *scheduler) { sc.onClosing(event) }) }

// LookAgain handles at once what became due when the clock was set. It does not block.
func (b *Broker) LookAgain() { b.post((*schedulers).touch) } // Run calls onTime after each posted call

func (b *Broker) postEach(change func(*scheduler)) {
	b.post(func(all *schedulers) { all.each(change) })
}

// post queues a call for the scheduler without waiting. Posted calls run in order, and before any call of do that
// is made later: a Cancelled must not be overtaken.
func (b *Broker) post(call func(*schedulers)) {
	b.mu.Lock()
	b.posted = append(b.posted, call)
	b.mu.Unlock()
	select {
	case b.postSignal <- struct{}{}:
	default: // Run is signalled already
	}
}

func (b *Broker) runPosted() {
	b.mu.Lock()
	notes := b.posted
	b.posted = nil
	b.mu.Unlock()
	for _, call := range notes {
		call(b.schedulers)
	}
}

// Started records a start of a Space, before the Space's code runs.
func (b *Broker) Started(r Runner) error {
	return b.store.addRunner(context.Background(), r, b.now())
}

// End ends the Leases of a start of a Space that the host is about to end, and reason is in the ledger. Their payers are charged nothing,
// except on a machine that is given back (space.EndedByLeaving): that end was not the host's decision, and the calls had the time of its
// drain. It returns when they are decided; their workers end afterwards.
func (b *Broker) End(instance, reason string) {
	byHost := reason != space.EndedByLeaving
	b.do(func(all *schedulers) { all.each(func(sc *scheduler) { sc.endInstance(instance, reason, byHost) }) })
}

// IsUsed reports whether a start of a Space has a Lease that has not ended.
func (b *Broker) IsUsed(instance string) (used bool) {
	b.do(func(all *schedulers) {
		used = len(all.openLeases(func(o *Lease) bool { return o.Instance == instance })) > 0
	})
	return used
}

// Gone reports that a start of a Space and all its processes have ended.
func (b *Broker) Gone(instance string) {
	b.do(func(all *schedulers) { all.each(func(sc *scheduler) { sc.onInstanceGone(instance) }) })
	if err := b.store.removeRunner(context.Background(), instance); err != nil {
		b.log.Warn("runner not removed from the database", zap.Error(err))
	}
}
