package host

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"spacehost/gradioapi"
	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/deviceapi"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/placement"
	"spacehost/internal/sandbox"
	"spacehost/internal/shelf"
	"spacehost/internal/spacelog"
	"spacehost/internal/web"
	"spacehost/queue"
	"spacehost/server"
	"spacehost/worker"
)

// spaceRun is one Space under a Host: its address, its environment, its process, its queue.
type spaceRun struct {
	host           *Host
	state          atomic.Pointer[spaceState]
	place          *worker.Local
	onNode         *nodeSide  // nil: this is the host that visitors reach
	onNodes        *nodePlace // nil: this host has no nodes
	supervisor     *worker.Supervisor
	queue          *queue.Queue
	api            *gradioapi.Handler
	shelf          *shelf.Shelf
	environment    atomic.Pointer[build.Environment]
	lastRequests   lastRequests
	reportedCauses onceSet // causes of a lost sign-in that the screen has shown
	startupReports startupReports
	failed         chan struct{} // closed at the first failed start, or pause, while the other Spaces continue
	disk           diskState
	reported       spaceNotices
	paused         pauseState
	location       location
	lastUse        lastUse
	room           roomState
	measured       atomic.Pointer[diskMeasure] // by diskUsage, the last time
	renewing       sync.Mutex                  // held by restartAnew and rebuildAnew
	runLog         *spacelog.Writer
	buildLog       *spacelog.Writer

	interpreterFolders []string // that a sandbox must contain; set before the first start
	networkMu          sync.Mutex
	networks           map[string]*insideNetwork // by start

	isFresh       atomic.Bool // its folder was read for the first try
	nextMu        sync.Mutex
	next          *spaceState // of a reload, from the next start on; nil: none
	cancelAttempt context.CancelCauseFunc
	stop          context.CancelCauseFunc // ends the Space; set by launchSpace
	leaving       atomic.Bool             // a reload has removed the Space
	gone          chan struct{}           // closed when a removed Space has ended
}

// publicName returns the value of the Hub's variable SPACE_HOST, without the scheme. Gradio makes the return address of OAuth from it
// (gradio/oauth.py, _generate_redirect_uri).
func (s *spaceRun) publicName() string {
	if public := s.settings().URL; public.IsSet() {
		return public.Host + public.Path
	}
	if s.settings().Host != "" {
		return s.settings().Host
	}
	return dialAddr(s.site())
}

func (s *spaceRun) wire() {
	h := s.host
	s.openLogs()
	s.place = worker.NewLocal(s.placeConfig())
	if h.cluster != nil {
		s.onNodes = &nodePlace{s: s}
		h.onClose(s.onNodes.close)
	}
	s.supervisor = worker.NewSupervisor(s.supervisorConfig())
	s.queue = queue.New(queue.Config{
		Runner: s.supervisor, Payments: earlyEnds{h.broker}, Sign: s.sign, Now: h.clock.Now,
		Logger: h.log.Named("queue").With(zap.String("space", s.space().Name)),
	})
	s.supervisor.SetQueue(s.queue)
}

// configureNextStart gives the next start the settings in force.
func (s *spaceRun) configureNextStart() {
	s.place.Configure(s.placeConfig())
	s.supervisor.Configure(s.supervisorConfig())
}

// isOnNode reports whether the Space runs on a node.
func (s *spaceRun) isOnNode() bool {
	node := s.node()
	return s.onNodes != nil && node != "" && node != placement.Host
}

// nextPlace is where the next start runs.
func (s *spaceRun) nextPlace() worker.Place {
	if s.isOnNode() {
		return s.onNodes
	}
	return s.place
}

// outlasts reports whether the processes of the Space can outlast this host.
func (s *spaceRun) outlasts() bool { return s.host.agent != nil || s.isOnNode() }

// spaceShelf implements gradioapi.Shelf: the files of the Space are where it runs.
type spaceShelf struct{ s *spaceRun }

var _ gradioapi.Shelf = spaceShelf{}

func (f spaceShelf) now() gradioapi.Shelf {
	if f.s.isOnNode() {
		return f.s.onNodes.shelf()
	}
	return f.s.shelf
}

func (f spaceShelf) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.now().ServeHTTP(w, r) }

func (f spaceShelf) Check(ctx context.Context, files *queue.Files, paths []string) ([]string, error) {
	return f.now().Check(ctx, files, paths)
}

func (f spaceShelf) NoteUses(text []byte, session func() queue.SessionHash) {
	f.now().NoteUses(text, session)
}

func (f spaceShelf) Uploads(ctx context.Context, stopped bool) ([]shelf.Upload, error) {
	return f.now().Uploads(ctx, stopped)
}

func (f spaceShelf) Remove(ctx context.Context, one shelf.Upload) (bool, error) {
	return f.now().Remove(ctx, one)
}

// supervisorConfig returns the part of the configuration of the next start that does not depend on this machine.
func (s *spaceRun) supervisorConfig() worker.SupervisorConfig {
	h := s.host
	return worker.SupervisorConfig{
		Place: s.nextPlace(), Outlasts: s.outlasts(), Space: s.space().Name, AppFile: s.space().AppFile, PublicURL: s.appURL(), LocalURL: s.localURL(), Secrets: s.settings().Secrets,
		StartupTimeout: s.space().StartupTimeout, Simulated: h.simulated(), Strict: h.settings().Strict, Storage: (s.isSandboxed() || s.isOnNode()) && s.settings().Data.Keep, Attached: s.checkStartupReport, Started: s.processStarted, Ended: s.processEnded, Staged: s.staged, Note: s.note,
		Unknown: s.warnUnknownGradio, Account: s.Account, Output: s.printed, OutputRate: s.settings().Limits.Output,
		Limits: s.limits(), MayStart: s.mayStart, Failed: s.warnAuthor, ShowFailure: s.showFailure, AwaitChange: h.settings().WatchSource, Standby: s.mayStandBy(), Drain: func() time.Duration { return h.settings().Drain }, Hurry: h.hurry, Observe: h.observe.ofWorker(),
		Liveness: s.liveness, Hung: s.hung,
		Ending: func(instance, reason string) { h.broker.End(instance, reason) }, InUse: func(instance string) bool { return h.broker.IsUsed(instance) },
		Logger: s.workerLog(),
	}
}

func (s *spaceRun) workerLog() *zap.Logger {
	return s.host.log.Named("worker").With(zap.String("space", s.space().Name))
}

// placeConfig returns the part of the configuration of the next start that belongs to this machine.
func (s *spaceRun) placeConfig() worker.LocalConfig {
	h := s.host
	c := worker.LocalConfig{
		Dir: s.space().Dir, RunDir: h.state.path("run"), OpenDoor: s.openDoor, CloseDoor: s.closeDoor, Processes: h.processes,
		IsHostPort: h.server.IsListening, Closed: s.placeClosed, Shield: s.onNode != nil, Logger: s.workerLog(),
	}
	if h.agent != nil {
		c.Keeper, c.Settings, c.Reopen, c.Left = h.agent, s.startText, s.reopen, s.closeNetwork
	}
	switch s.level() {
	case config.IsolationNamespaces, config.IsolationUsers:
		c.Confine = s.confineInSandbox
	case config.IsolationFiles:
		c.Confine = s.confineFiles
	}
	return c
}

// register mounts the routes of the Space's address.
func (s *spaceRun) register() {
	e := s.site().Echo
	server.GateBy(e, s.hostNames)
	e.Pre(s.atPublicAddress)
	e.Pre(s.membersOnly)
	server.AddHeaders(e, func() http.Header { return responseHeaders(s.space()) }) // after membersOnly: its 404 must not differ
	e.Pre(s.noteUse)
	e.Pre(s.setVisitorCookie)
	e.Pre(openFolder)
	s.host.signIn.RegisterSpace(e.Group("/__spacehost"), server.SameOrigin(web.ReceivedHost), signInSpace{s})
	s.shelf = shelf.New(shelf.Config{
		Space: s.space().Name, Storage: s.storage(), ReserveUpload: s.reserveUpload, IsPresent: s.queue.IsPresent, Logger: s.host.log.Named("shelf"),
	})
	s.api = gradioapi.New(gradioapi.Config{
		Space: s.space().Name, Queue: s.queue, Upstream: s.supervisor,
		Identify: s.caller, SessionOwner: s.sessionOwner, IssueVisitorCookie: s.issueVisitorCookie, Insert: s.insertion, Credential: s.credential, Allowed: s.allows, SignToken: s.sign, AdmitBySpace: s.host.settings().AdmitBySpace, Shelf: spaceShelf{s}, Logger: s.host.log.Named("gradioapi"),
	})
	s.api.Register(e)
	s.host.onClose(s.api.Close)
}

// storage returns the folders of the Space's files. Its home contains Gradio's folder (environ.go, GRADIO_TEMP_DIR).
func (s *spaceRun) storage() shelf.Storage {
	return shelf.Storage{
		Root: s.host.state.path("spaces", s.space().Name), Uploads: filepath.Join(s.home(), "gradio"), Staging: s.layer("uploading"),
		Served: s.served(s.home()), Marks: s.layer("uploaded"), MaxUpload: s.settings().Limits.UploadSize,
	}
}

// home returns the home folder of the Space, which outlasts its starts.
func (s *spaceRun) home() string { return s.layer("home") }

// makeFolders creates the Space's folders and removes the unfinished uploads of a crashed host.
func (s *spaceRun) makeFolders() error {
	storage := s.storage()
	if err := os.RemoveAll(storage.Staging); err != nil {
		return fmt.Errorf("remove unfinished uploads: %w", err)
	}
	for _, dir := range []string{storage.Uploads, storage.Staging} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the Space's folders: %w", err)
		}
	}
	return nil
}

// earlyEnds implements queue.Payments: it passes on to the broker the Events whose leases must end early.
type earlyEnds struct{ broker *lease.Broker }

func (e earlyEnds) Left(event queue.EventID)      { e.broker.Left(string(event)) }
func (e earlyEnds) Cancelled(event queue.EventID) { e.broker.Cancelled(string(event)) }
func (e earlyEnds) Closing(event queue.EventID)   { e.broker.Closing(string(event)) }

// sign returns the X-IP-Token of an Event of this Space.
func (s *spaceRun) sign(event queue.Event) string { return s.host.payer.Sign(s.space().Name, event) }

// Account implements payer.Space: the Space's own account, for calls on no visitor's behalf. Before the Space is RUNNING such
// a call is start-up caching, which has no limits.
func (s *spaceRun) Account() identity.Identity {
	tier := "free"
	if !s.supervisor.Status().Stage.IsUp() {
		tier = "unlimited"
	}
	return identity.Identity{Kind: identity.Space, Name: s.space().Name, Tier: tier}
}

// openDoor opens the secret path of the device API for one Instance. closeDoor closes it.
func (s *spaceRun) openDoor(instance string) (url string, port int) {
	if s.onNode != nil { // the front has opened it
		order := s.onNode.launch(instance)
		return fmt.Sprintf("http://127.0.0.1:%d%s", order.Device, order.Door), order.Device
	}
	port = s.host.devices.Addr.Port
	path := s.host.device.Open(deviceapi.Door{Space: s, Instance: instance, Inside: s.isSandboxed()})
	return fmt.Sprintf("http://127.0.0.1:%d%s", port, path), port
}

func (s *spaceRun) closeDoor(instance string) {
	if s.onNode == nil {
		s.host.device.Close(instance)
	}
}

func (s *spaceRun) processStarted(p worker.Facts) error {
	s.host.metrics.SpaceStarted(s.space().Name, worker.RestartCauses())
	machine := ""
	if s.isOnNode() {
		machine = s.node()
	}
	return s.host.broker.Started(lease.Runner{
		Machine: machine, Instance: p.Instance, Space: s.space().Name, Marker: p.Marker, PID: p.PID, Start: p.Start,
	})
}

// processEnded implements worker.SupervisorConfig.Ended.
func (s *spaceRun) processEnded(instance string) {
	s.startupReports.forget(instance)
	s.host.broker.Gone(instance)
}

// placeClosed implements worker.LocalConfig.Closed.
func (s *spaceRun) placeClosed(instance string) {
	s.closeNetwork(instance)
	s.emptyTmp()
	if err := sandbox.RemoveLayer(s.host.state.path("run", instance)); err != nil {
		s.host.log.Warn("remove run folder", zap.Error(err))
	}
}

// note shows the operator a sentence about this Space.
func (s *spaceRun) note(text string) {
	s.host.screen.note(s.space().Name + ": " + text)
	s.runLog.Print(spacelog.Host, text)
}

func (s *spaceRun) liveness() worker.Liveness { return worker.Liveness(s.settings().Liveness) }

// hung counts and reports a Space that has become UNRESPONSIVE, and writes the stacks of its threads to the log of its runs.
func (s *spaceRun) hung(h worker.Hang) {
	s.host.metrics.SpaceUnresponsive(s.space().Name, string(h.Cause))
	s.reportUnresponsive(h.Text)
	if h.Stacks != "" {
		s.runLog.Print(spacelog.Host, "Stacks of all threads:\n"+h.Stacks)
	}
}

// printed shows a line of the Space and writes it to the log of its runs.
func (s *spaceRun) printed(stream, line string) {
	s.host.screen.space(s.space().Name, line)
	s.runLog.Print(stream, line)
}

// openLogs creates the writers of the Space's logs. The first line of each opens its file.
func (s *spaceRun) openLogs() {
	s.runLog = spacelog.NewWriter(s.host.state.dir, s.space().Name, spacelog.Run, nil)
	s.buildLog = spacelog.NewWriter(s.host.kept, s.space().Name, spacelog.Build, nil)
	s.boundLogs()
}

// boundLogs applies the limit of the settings in force.
func (s *spaceRun) boundLogs() {
	size := s.settings().Limits.LogSize
	s.runLog.SetSize(size)
	s.buildLog.SetSize(size)
}

func (s *spaceRun) closeLogs() {
	s.runLog.Close()
	s.buildLog.Close()
}

// warnUnknownGradio warns the operator that Gradio's own queue serves this Space, because the runner does not know the
// internals of this Gradio version.
func (s *spaceRun) warnUnknownGradio(gradio, reason string) {
	s.note(fmt.Sprintf("WARNING: spacehost does not know the internals of gradio %s (%s). Gradio's own queue serves the Space: "+
		"calls are passed through and start in Gradio's order, not the host's. Identity, GPU leases and quota still apply.", gradio, reason))
}
