package lease

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
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
	Pool         *gpu.Pool
	Processes    Processes
	Nodes        Nodes         // nil: every Space can open every Device at any time
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
	// Changed is called for every Change, in order, and must not block. It may be nil.
	Changed func(Change)
	Logger  *zap.Logger
}

// End describes a Lease that ran into its deadline.
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
	postSignal     chan struct{} // signals that posted has entries
	done           chan struct{}
	work           context.Context // canceled after Run and its effects have ended, to stop what still waits
	stop           context.CancelFunc
	effectsRunning sync.WaitGroup // running effects; only Run's goroutine and effects add to it
	watching       sync.WaitGroup // watches of workers; they end with work at the latest

	watchers  map[chan Change]bool // used only on the scheduler's goroutine
	forecasts forecastCache

	mu            sync.Mutex
	posted        []func(*scheduler) // calls for the scheduler that no sender waits for
	brokenStreams map[string]brokenStreamRetry
	shown         shownNodes

	unleased []Unleased // the result of the last inspection
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

// beatInterval is the interval of beats. After a crash of the host, a payer is charged up to the
// last beat.
const beatInterval = 2 * time.Second

// Run owns the scheduler until ctx ends; every event arrives as a call or as a timer. It returns when every open
// Lease is settled and all their workers are gone.
func (b *Broker) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	beats, endBeats := context.WithCancel(ctx)
	var beating sync.WaitGroup
	beating.Go(func() { b.beats(beats) })
	beating.Go(func() { b.inspectDevices(beats) })
	beating.Go(func() { b.watchHealth(beats) })
	defer beating.Wait()
	defer endBeats()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case call := <-b.calls:
			b.runPosted() // they were posted before the call
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

// shutdownTimeout bounds the end of Run if the database refuses the last settlements. Recovery at the next start
// then makes them.
const shutdownTimeout = 15 * time.Second

func (b *Broker) shutdown() {
	close(b.done) // later callers are refused, and reports of effects are dropped
	defer time.AfterFunc(shutdownTimeout, b.stop).Stop()
	b.runPosted()
	for _, w := range append(b.scheduler.idleWorkers(), b.scheduler.committingWorkers()...) {
		b.scheduler.evict(w, 0)
	}
	for _, lease := range b.scheduler.openLeases(func(*Lease) bool { return true }) {
		lease.hostEnded = true
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

func (b *Broker) beats(ctx context.Context) {
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
				b.log.Warn("beat not written", zap.Error(err))
			}
		}
	}
}

// do runs call on the scheduler's goroutine and waits for it. It returns false if the Broker has stopped.
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

// Left reports that the visitor of an Event has disconnected. It does not block.
func (b *Broker) Left(event string) { b.post(func(sc *scheduler) { sc.onLeft(event) }) }

// Cancelled reports that the visitor of an Event has cancelled it. It does not block.
func (b *Broker) Cancelled(event string) { b.post(func(sc *scheduler) { sc.onCancelled(event) }) }

// Closing is Cancelled for an Event whose generator is being closed. Its worker then runs the generator's `finally` and
// stays warm. Leases that are still open after closeGrace are revoked. It does not block.
func (b *Broker) Closing(event string) { b.post(func(sc *scheduler) { sc.onClosing(event) }) }

// LookAgain handles at once what became due when the clock was set. It does not block.
func (b *Broker) LookAgain() { b.post(func(*scheduler) {}) } // Run calls onTime after each posted call

// post queues a call for the scheduler without waiting. Posted calls run in order, and before any call of do that
// is made later: a Cancelled must not be overtaken.
func (b *Broker) post(call func(*scheduler)) {
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
		call(b.scheduler)
	}
}

// Started records a start of a Space, before the Space's code runs.
func (b *Broker) Started(r Runner) error {
	return b.store.addRunner(context.Background(), r, b.now())
}

// End ends the Leases of a start of a Space that the host is about to end. Their payers are charged nothing, and reason is in
// the ledger. It returns when they are decided; their workers end afterwards.
func (b *Broker) End(instance, reason string) {
	b.do(func(sc *scheduler) { sc.endInstance(instance, reason, true) })
}

// IsUsed reports whether a start of a Space has a Lease that has not ended.
func (b *Broker) IsUsed(instance string) (used bool) {
	b.do(func(sc *scheduler) {
		used = len(sc.openLeases(func(o *Lease) bool { return o.Instance == instance })) > 0
	})
	return used
}

// Gone reports that a start of a Space and all its processes have ended.
func (b *Broker) Gone(instance string) {
	b.do(func(sc *scheduler) { sc.onInstanceGone(instance) })
	if err := b.store.removeRunner(context.Background(), instance); err != nil {
		b.log.Warn("runner not removed from the database", zap.Error(err))
	}
}
