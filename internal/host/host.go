package host

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/agent"
	"spacehost/internal/audit"
	"spacehost/internal/clock"
	"spacehost/internal/config"
	"spacehost/internal/console"
	"spacehost/internal/dashboard"
	"spacehost/internal/deviceapi"
	"spacehost/internal/egress"
	"spacehost/internal/lease"
	"spacehost/internal/metrics"
	"spacehost/internal/nodes"
	"spacehost/internal/notify"
	"spacehost/internal/payer"
	"spacehost/internal/people"
	"spacehost/internal/placement"
	"spacehost/internal/proctree"
	"spacehost/internal/space"
	"spacehost/internal/stages"
	"spacehost/internal/token"
	"spacehost/internal/version"
	"spacehost/migrations"
	"spacehost/quota"
	"spacehost/server"
)

// Host is one running `spacehost run` or `spacehost serve`. New opens its resources, Run serves, Close releases them.
type Host struct {
	current    atomic.Pointer[config.Settings]
	screen     *screen
	log        *zap.Logger
	spaces     atomic.Pointer[[]*spaceRun]
	state      State
	kept       string    // folder of environments and of the logs of builds: the state folder, or its parent
	opened     time.Time // wall clock
	observe    *Observe
	clock      clock.Clock
	db         *sql.DB
	readDB     *sql.DB // read-only connections to the same database
	tiers      atomic.Pointer[quota.Tiers]
	ledger     *quota.Ledger
	refusals   quota.Refusals
	signer     *token.Signer
	people     *people.Store
	audit      *audit.Log
	changes    *dashboard.Changes // of the console's pages; nil until wire
	denyList   *people.DelegationDenyList
	stages     *stages.Store
	sampler    *sampler
	signIn     *console.SignIn
	payer      *payer.Rule
	pool       atomic.Pointer[gpu.Pool]
	rescanning sync.Mutex    // one rescan at a time
	gpuSpec    string        // what was opened last, such as auto or mock:2xH200; after wire guarded by rescanning
	visibleGPU *gpu.Hardware // the GPU that a Space sees outside its GPU functions; nil: no ZeroGPU
	agent      *agent.Client // nil: the Spaces' processes are children of this program
	nodeStore  *nodes.Store
	cluster    *cluster // nil: the host is no front
	pools      poolSet
	ran        atomic.Bool // Run has begun
	leaving    atomic.Bool // Run has ended, and the agent keeps the Spaces
	processes  *proctree.Processes
	broker     *lease.Broker
	device     *deviceapi.API
	metrics    *metrics.Metrics
	notices    *notify.Sender
	quotaWatch *quotaWatch
	server     *server.Server
	console    server.Site
	devices    server.Site                       // loopback only, behind secret paths
	hubSite    *echo.Echo                        // what a Space reaches at the console's address from its own network
	levels     levels                            // of isolation that this machine offers
	uids       atomic.Pointer[map[string]uint32] // by Space, of those at level users
	shared     atomic.Pointer[sharedAddress]     // of the Spaces that have none of their own; nil: there is none
	nodes      *leasedNodes                      // nil: no Space has `gpu_nodes: lease`
	proxy      *egress.Proxy
	runsNote   sync.Once // the line of RunsOver

	nodeChanges nodeChanges
	startUses   startUses
	// joinedNodes returns the nodes that have joined; nil: none can. It is set before Run, with the Places that start Spaces there.
	joinedNodes func() []placement.Node

	hurry     chan struct{} // closed by Hurry
	hurryOnce sync.Once
	reloading sync.Mutex    // held by a reload
	pruning   sync.Mutex    // held by Prune, taken before reloading
	examining turn          // taken by Doctor and StateSizes
	started   chan struct{} // closed when reloads may change Spaces
	running   spaceRuntime  // set before started is closed

	uploadRoom sync.Mutex // held while an upload reserves its bytes

	closersMu sync.Mutex
	closers   []func()
}

// New opens everything that can fail without a Space's process: folders, state, addresses, database, GPUs. On an error it
// releases what it has opened.
func New(s config.Settings, stdout, stderr io.Writer) (*Host, error) {
	return open(s, newScreen(s.ReadyJSON, stdout, stderr), nil)
}

// open is New for a host with another screen, or one whose start is observed.
func open(s config.Settings, screen *screen, observe *Observe) (*Host, error) {
	h := newHost(s, screen, observe)
	for _, step := range []func() error{
		h.openSpaces, h.openState, h.openLog, h.openTiers, h.logStart, h.openAgent, h.listen, h.listenForNodes, h.openDatabase, h.selectContainment, h.endOrphans, h.removeBuildFolders, h.reserveUIDs, h.selectIsolation, h.openEgress, h.openGPUs, h.wire, h.openCluster,
		h.declarePeople, h.noteConfiguration,
	} {
		if err := step(); err != nil {
			h.Close()
			return nil, err
		}
	}
	return h, nil
}

// newHost returns a host with nothing open.
func newHost(s config.Settings, screen *screen, observe *Observe) *Host {
	h := &Host{screen: screen, observe: observe, opened: time.Now(), started: make(chan struct{}), hurry: make(chan struct{}), examining: make(turn, 1)}
	h.current.Store(&s)
	h.spaces.Store(new([]*spaceRun))
	h.uids.Store(&map[string]uint32{})
	return h
}

// Close releases everything that New opened. It may be called twice, and after any error of New.
func (h *Host) Close() {
	h.closersMu.Lock()
	closers := h.closers
	h.closers = nil
	h.closersMu.Unlock()
	for i := len(closers) - 1; i >= 0; i-- {
		closers[i]()
	}
}

// onClose adds a step of Close, which runs before the steps that were added earlier.
func (h *Host) onClose(f func()) {
	h.closersMu.Lock()
	defer h.closersMu.Unlock()
	h.closers = append(h.closers, f)
}

// settings returns the settings in force. Nothing changes them: a reload stores others.
func (h *Host) settings() *config.Settings { return h.current.Load() }

// all returns the Spaces, those included that a reload has removed and that still end.
func (h *Host) all() []*spaceRun { return *h.spaces.Load() }

// openSpaces reads the Spaces. With `serve`, one that cannot be read does not end the host: it is tried again like one that does not
// start.
func (h *Host) openSpaces() (err error) {
	var opened []*space.Space
	var read []bool
	if h.settings().IsServe() {
		opened, read = h.settings().OpenOrUnread()
	} else {
		opened, err = h.settings().OpenSpaces()
	}
	var spaces []*spaceRun
	for i, one := range opened {
		s := newSpaceRun(h, h.settings().Spaces[i], one)
		s.isFresh.Store(read != nil && read[i])
		spaces = append(spaces, s)
		for _, warning := range one.Warnings {
			h.screen.note(one.Name + ": warning: " + warning)
		}
	}
	h.spaces.Store(&spaces)
	return err
}

func (h *Host) openState() (err error) {
	h.kept = h.settings().State
	if h.observe != nil {
		return h.openScratch()
	}
	if h.state, err = OpenState(h.settings().State); err == nil {
		h.onClose(h.state.Close)
	}
	return err
}

func (h *Host) openLog() error {
	log, closeLog, err := openLog(h.state.path("logs", "spacehost.log"), cmp.Or(h.settings().Log, config.DefaultLog))
	if h.log = log; err == nil {
		h.onClose(closeLog)
		h.onClose(func() {
			for _, s := range h.all() {
				s.closeLogs()
			}
		})
	}
	return err
}

func (h *Host) openTiers() error {
	tiers, err := tiersOf(h.settings())
	h.tiers.Store(&tiers)
	return err
}

// logStart records what starts: a log that was sent in with a report tells which version ran on which configuration.
func (h *Host) logStart() error {
	build, s := version.Current(migrations.SQLiteVersion()), h.settings()
	h.log.Info("host starts", zap.String("version", build.Version), zap.String("commit", build.Commit), zap.String("configuration", s.File),
		zap.String("digest", config.Digest(*s, *h.tiers.Load())), zap.String("state", h.state.dir), zap.Int("pid", os.Getpid()), zap.String("actor", UserName(uint32(os.Geteuid()))))
	return nil
}

// tiersOf returns the tiers of settings. They contain the tier of local callers.
func tiersOf(s *config.Settings) (quota.Tiers, error) {
	tiers, err := s.Tiers()
	if err != nil {
		return tiers, fmt.Errorf("%s: %w", s.Preset.Source, err)
	}
	if _, err = tiers.Get(s.LocalTier.Value); err != nil {
		err = fmt.Errorf("%s: %w", s.LocalTier.Source, err)
	}
	return tiers, err
}

func (h *Host) openDatabase() (err error) {
	if h.db, err = migrations.Open(context.Background(), h.state.path("spacehost.db")); err != nil {
		return err
	}
	h.onClose(func() { _ = h.db.Close() }) // every write is committed by now
	if h.readDB, err = migrations.OpenReads(h.state.path("spacehost.db")); err != nil {
		return err
	}
	h.onClose(func() { _ = h.readDB.Close() })
	h.ledger = quota.New(h.db, quota.Config{Now: h.clock.Now, Reads: h.readDB})
	h.people = people.NewStore(h.db)
	h.people.Now, h.people.Reads, h.people.Ended = h.clock.Now, h.readDB, h.endRefused
	h.onClose(h.people.Close)
	h.stages = stages.NewStore(h.db, h.readDB, h.clock.Now, h.log.Named("stages"))
	h.onClose(h.stages.Close)
	h.nodeStore = nodes.NewStore(h.db, h.readDB, h.clock.Now)
	h.audit = audit.New(h.db, h.readDB)
	h.onClose(h.audit.Close)
	if h.denyList, err = people.OpenDelegationDenyList(context.Background(), h.db); err != nil {
		return err
	}
	h.denyList.Now = h.clock.Now
	if h.signer, err = token.OpenSigner(h.state.dir); err == nil {
		h.signer.Now = h.clock.Now
	}
	return err
}

// declarePeople stores the people of the configuration file. It is the last step: a start that fails earlier has revoked no
// token. `run` declares no people and keeps those of earlier starts.
func (h *Host) declarePeople() error {
	if !h.settings().IsServe() {
		return nil
	}
	if err := h.people.Declare(context.Background(), h.settings().People); err != nil {
		return fmt.Errorf("%s: %w", h.settings().File, err)
	}
	return nil
}

// selectContainment selects the mechanism that finds the processes of Spaces and workers. It precedes endOrphans, which
// uses that mechanism.
func (h *Host) selectContainment() error {
	h.processes = &proctree.Processes{Logger: h.log.Named("worker")}
	h.log.Info("containment", zap.String("by", h.processes.Contain()))
	h.server.LimitOwners(h.processes.SpaceAt, h.connectionLimits())
	return nil
}

// endOrphans ends the processes that a crashed host left running. It precedes openGPUs, which reads the memory in use on
// each Device.
func (h *Host) endOrphans() error {
	h.registerKept()
	markers, err := lease.Orphans(context.Background(), h.db, h.keptInstances())
	for _, marker := range markers {
		h.processes.EndOrphans(marker)
	}
	return err
}

// find returns the Space of that name, nil if there is none.
func (h *Host) find(name string) *spaceRun {
	for _, s := range h.all() {
		if s.space().Name == name {
			return s
		}
	}
	return nil
}
