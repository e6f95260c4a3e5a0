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
	"spacehost/internal/sandbox"
	"spacehost/internal/space"
	"spacehost/internal/spacelog"
	"spacehost/queue"
	"spacehost/server"
	"spacehost/worker"
)

// spaceRun is one Space under a Host: its address, its environment, its process, its queue.
type spaceRun struct {
	host           *Host
	state          atomic.Pointer[spaceState]
	supervisor     *worker.Supervisor
	queue          *queue.Queue
	api            *gradioapi.Handler
	environment    atomic.Pointer[build.Environment]
	lastRequests   lastRequests
	reportedCauses onceSet // causes of a lost sign-in that the screen has shown
	startupReports startupReports
	failed         chan struct{} // closed at the first failed start while the other Spaces continue
	disk           diskState
	rebuilt        atomic.Bool // the environment was built anew after a change of files
	renewing       sync.Mutex  // held by restartAnew
	runLog         *spacelog.Writer
	buildLog       *spacelog.Writer

	interpreterFolders []string // that a sandbox must contain; set before the first start
	networkMu          sync.Mutex
	networks           map[string]*insideNetwork // by start

	nextMu        sync.Mutex
	next          *spaceState // of a reload, from the next start on; nil: none
	cancelAttempt context.CancelCauseFunc
	stop          context.CancelCauseFunc // ends the Space; set by launchSpace
	leaving       atomic.Bool             // a reload has removed the Space
	gone          chan struct{}           // closed when a removed Space has ended
}

// url returns the address at which visitors reach the Space. A reverse proxy may have another one.
func (s *spaceRun) url() string {
	if s.settings().Addr.Value != "" {
		return "http://" + dialAddr(s.site())
	}
	if port := s.site().Addr.Port; port != 80 {
		return fmt.Sprintf("http://%s:%d", s.settings().Host, port)
	}
	return "http://" + s.settings().Host
}

// publicName returns the value of the Hub's variable SPACE_HOST.
func (s *spaceRun) publicName() string {
	if s.settings().Host != "" {
		return s.settings().Host
	}
	return dialAddr(s.site())
}

func (s *spaceRun) wire() {
	h := s.host
	s.openLogs()
	s.supervisor = worker.NewSupervisor(s.supervisorConfig())
	s.queue = queue.New(queue.Config{
		Runner: s.supervisor, Payments: earlyEnds{h.broker}, Sign: s.sign, Now: h.clock.Now,
		Logger: h.log.Named("queue").With(zap.String("space", s.space().Name)),
	})
	s.supervisor.SetQueue(s.queue)
}

// supervisorConfig returns the configuration of the next start.
func (s *spaceRun) supervisorConfig() worker.SupervisorConfig {
	h := s.host
	c := worker.SupervisorConfig{
		Space: s.space().Name, Dir: s.space().Dir, AppFile: s.space().AppFile, PublicURL: s.url(),
		RunDir: h.state.path("run"), Secrets: s.settings().Secrets, Processes: h.processes,
		StartupTimeout: s.space().StartupTimeout, Device: s.openDoor, Simulated: h.simulated(), Strict: h.settings().Strict, Storage: s.isSandboxed() && s.settings().Data.Keep, Attached: s.checkStartupReport, Started: s.processStarted, Ended: s.processEnded, Note: s.note,
		Unknown: s.warnUnknownGradio, IsHostPort: h.server.IsListening, Account: s.Account, Output: s.printed, OutputRate: s.settings().Limits.Output,
		Limits: s.limits(), MayStart: s.mayStart, Failed: s.warnAuthor, ShowFailure: s.showFailure, AwaitChange: h.settings().WatchSource, Standby: s.mayStandBy(), Drain: func() time.Duration { return h.settings().Drain }, Hurry: h.hurry, Observe: h.observe.ofWorker(),
		Ending: func(instance, reason string) { h.broker.End(instance, reason) }, InUse: func(instance string) bool { return h.broker.IsUsed(instance) },
		Logger: h.log.Named("worker").With(zap.String("space", s.space().Name)),
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
	server.GateBy(e, func() server.Names { return s.host.settings().HostNames(*s.settings()) })
	e.Pre(s.belowSubPath)
	e.Pre(s.membersOnly)
	server.AddHeaders(e, func() http.Header { return responseHeaders(s.space()) }) // after membersOnly: its 404 must not differ
	e.Pre(s.setVisitorCookie)
	e.Pre(openFolder)
	s.host.signIn.RegisterSpace(e.Group("/__spacehost"), server.SameOrigin, signInSpace{s})
	s.api = gradioapi.New(gradioapi.Config{
		Space: s.space().Name, Queue: s.queue, Upstream: s.supervisor,
		Identify: s.caller, SessionOwner: s.sessionOwner, IssueVisitorCookie: s.issueVisitorCookie, Credential: s.credential, Allowed: s.allows, SignToken: s.sign, AdmitBySpace: s.host.settings().AdmitBySpace, Storage: s.storage(), Logger: s.host.log.Named("gradioapi"),
	})
	s.api.Register(e)
	s.host.onClose(s.api.Close)
}

// storage returns the folders of the Space's files. Its home contains Gradio's folder (environ.go, GRADIO_TEMP_DIR).
func (s *spaceRun) storage() gradioapi.Storage {
	return gradioapi.Storage{
		Root: s.host.state.path("spaces", s.space().Name), Uploads: filepath.Join(s.home(), "gradio"), Staging: s.layer("uploading"),
		Served: s.served(s.home()),
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
	if s.supervisor.Status().Stage != space.Running {
		tier = "unlimited"
	}
	return identity.Identity{Kind: identity.Space, Name: s.space().Name, Tier: tier}
}

// openDoor opens the secret path of the device API for one Instance. processEnded closes it.
func (s *spaceRun) openDoor(instance string) (url string, port int) {
	port = s.host.devices.Addr.Port
	path := s.host.device.Open(deviceapi.Door{Space: s, Instance: instance, Inside: s.isSandboxed()})
	return fmt.Sprintf("http://127.0.0.1:%d%s", port, path), port
}

func (s *spaceRun) processStarted(p worker.StartedProcess) error {
	s.host.metrics.SpaceStarted(s.space().Name)
	return s.host.broker.Started(lease.Runner{
		Instance: p.Instance, Space: s.space().Name, Marker: p.Marker, PID: p.PID, Start: p.Start,
	})
}

func (s *spaceRun) processEnded(instance string) {
	s.host.device.Close(instance)
	s.closeNetwork(instance)
	s.startupReports.forget(instance)
	s.host.broker.Gone(instance)
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

// printed shows a line of the Space and writes it to the log of its runs.
func (s *spaceRun) printed(stream, line string) {
	s.host.screen.space(s.space().Name, line)
	s.runLog.Print(stream, line)
}

// openLogs creates the writers of the Space's logs. The first line of each opens its file.
func (s *spaceRun) openLogs() {
	s.runLog = spacelog.NewWriter(s.host.state.dir, s.space().Name, spacelog.Run, nil)
	s.buildLog = spacelog.NewWriter(s.host.kept, s.space().Name, spacelog.Build, nil)
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
