package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/identity"
	"spacehost/internal/printable"
	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
	"spacehost/internal/space"
	"spacehost/queue"
)

// Supervisor keeps one Space running: it starts its process, sends it Jobs, and restarts it after an exit.
type Supervisor struct {
	config SupervisorConfig

	queue     *queue.Queue
	python    string
	runnerDir string
	env       []string

	mu      sync.Mutex
	current *Process
	key     string
	port    int
	stage   space.Stage
	reason  string
	ready   chan struct{} // closed at the first RUNNING
	session *session      // of the current start
	slot    int           // of the current start
	reached bool          // the current start, or the one that ended last, has been RUNNING

	again    chan struct{} // the operator requested a restart
	replace  chan struct{} // Replace was called
	standby  *standby      // used by Run's goroutine only; nil: none
	launched chan struct{} // a start has become RUNNING
	refused  sync.WaitGroup
}

// SupervisorConfig is the configuration that all starts of the Space share.
type SupervisorConfig struct {
	Space     string
	Dir       string
	AppFile   string
	RunDir    string // parent of the run folders of all starts
	Secrets   map[string]string
	PublicURL string
	// Device opens the path at which `spaces` of this start finds the device API. Ended closes it.
	Device         func(instance string) (url string, port int)
	Simulated      bool     // there is no GPU
	Strict         bool     // what ZeroGPU refuses fails in the Space, instead of printing a warning
	Storage        bool     // the Space has a folder of its own at /data
	Observe        *Observe // nil: starts are not observed
	Processes      *proctree.Processes
	StartupTimeout time.Duration
	Output         func(stream, line string) // receives each line that the Space printed, below the rate limit
	OutputRate     int64                     // bytes per second that Output may receive; 0: the default
	// Started is called when the process has been started; its error ends the start. Ended is called once per
	// Device.
	Started func(StartedProcess) error
	Ended   func(instance string)
	// Attached is called once per start, when its app is about to receive visitors. Its error, a *RefusedError, ends the start.
	// nil: no call.
	Attached func(instance string, m queue.Manifest) error
	// Note shows a sentence to the operator: why visitors wait, or why part of the Space is not reachable.
	Note func(text string)
	// Unknown is called for each attached app with a Gradio that the runner does not know; nil: no call.
	Unknown func(gradio, reason string)
	// Confine returns how a start is confined. Its error ends the start. nil: no start is.
	Confine func(StartInfo) (Confinement, error)
	// IsHostPort reports a loopback port at which this host listens: no Space may name it as its own. nil: none.
	IsHostPort func(port int) bool
	// Limits bound each start. MayStart is called before each start; its error, in words, ends the start. nil: no call.
	Limits   proctree.Limits
	MayStart func() error
	// Watched means that the author edits the Space while it runs. A start that ends before RUNNING is not retried: Run waits
	// for Restart. Standby means that a second process executes the first imports of the app in advance.
	Watched, Standby bool
	// Account returns the account that pays for calls without a visitor.
	Account func() identity.Identity
	Logger  *zap.Logger
}

// StartedProcess contains what recovery needs to find the processes of a start after a crash of the host.
type StartedProcess struct {
	Instance, Marker string
	PID              int
	Start            uint64
}

// Confinement is how one start is confined. At most one of Sandbox and Files is set.
type Confinement struct {
	// Sandbox is what the start sees of the machine; nil: everything. Start completes it with the command.
	Sandbox *sandbox.Spec
	// Opened receives the sockets of the Sandbox, in its order, before the app's first line runs. It closes them.
	Opened func(sockets []*os.File)
	// Files are the rules of level files; nil: none.
	Files *sandbox.FilesSpec
}

// StartInfo is what a sandbox must contain for one start.
type StartInfo struct {
	Instance string
	RunDir   string // of this start
	Runner   string // folder of the runner's modules
	Python   string
	Port     int // of the Space's own server
	Device   int // port of the device API
	// Slot is 0 or 1. Two starts that exist at a time, the current one and its standby, have different ones.
	Slot int
}

// StartError reports that a Space failed before it was first RUNNING. Its author has to fix it.
type StartError struct {
	Stage  space.Stage
	Reason string
	Next   string   // the next step, if Reason does not contain it
	Tail   []string // the last lines that it printed
}

func (e *StartError) Error() string { return e.Reason }

// RefusedError reports that the host ends a start: ZeroGPU would end it, or it exceeds a limit.
type RefusedError struct{ Reason, Next string }

func (e *RefusedError) Error() string { return e.Reason }

var _ queue.Runner = (*Supervisor)(nil)

// NewSupervisor returns a Supervisor. Call SetQueue first; Run starts the Space. The stage is BUILDING until
// Prepare.
func NewSupervisor(config SupervisorConfig) *Supervisor {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	return &Supervisor{config: config, stage: space.Building, ready: make(chan struct{}), again: make(chan struct{}, 1), replace: make(chan struct{}, 1), launched: make(chan struct{}, 1)}
}

// SetQueue connects the Queue, which starts Jobs here and receives their results.
func (s *Supervisor) SetQueue(q *queue.Queue) { s.queue = q }

// Prepare sets the interpreter, the folder from InstallRunner, and the whole environment. Call it before Run.
func (s *Supervisor) Prepare(python, runnerDir string, env []string) {
	s.python, s.runnerDir, s.env = python, runnerDir, env
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage = space.AppStarting
}

// NotRunning sets the stage of a Space without a process: its environment is being built, or the build failed.
func (s *Supervisor) NotRunning(stage space.Stage, reason string) { s.down(stage, reason) }

// Restart requests an immediate restart and returns at once. While Run is not running, Restarts delivers the request
// to its caller.
func (s *Supervisor) Restart() {
	select {
	case s.again <- struct{}{}:
	default: // a request is already pending
	}
}

// Replace ends the current start, and with it Run, which then returns ErrReplaced. It returns at once.
func (s *Supervisor) Replace() {
	select {
	case s.replace <- struct{}{}:
	default: // a request is already pending
	}
}

// AwaitRestart waits for a Restart or Replace, while Run is not running. Its error is that of ctx.
func (s *Supervisor) AwaitRestart(ctx context.Context) error {
	select {
	case <-s.again:
	case <-s.replace:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// ForgetReplace drops a Replace that Run has not handled. Its caller is about to do what Replace requests.
func (s *Supervisor) ForgetReplace() {
	select {
	case <-s.replace:
	default:
	}
}

// Restarts delivers each Restart that no process has handled.
func (s *Supervisor) Restarts() <-chan struct{} { return s.again }

// Ready is closed when the Space is RUNNING for the first time.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Status is the stage of a Space, the reason and the pid of its runner.
type Status struct {
	Stage  space.Stage `json:"stage"`
	Reason string      `json:"reason,omitempty"`
	PID    int         `json:"pid,omitempty"`
}

// Status is safe for concurrent use.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := Status{Stage: s.stage, Reason: s.reason}
	if s.current != nil {
		status.PID = s.current.runnerPID()
	}
	return status
}

// Stage returns the Hub's name of the stage, and the reason.
func (s *Supervisor) Stage() (stage, reason string) {
	status := s.Status()
	return string(status.Stage), status.Reason
}

// Upstream returns the port of the Space's own server and the key that it requires; false while the server is down.
func (s *Supervisor) Upstream() (port int, key string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port, s.key, s.stage == space.Running && s.port != 0
}

// Pauses before restarts. The first restart is quick. A run of a minute resets the pause.
const (
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 30 * time.Second
	longRun      = time.Minute
)

// Run keeps the Space running until ctx ends, then ends it. If the Space exits before it was ever RUNNING, Run
// returns a *StartError. Later exits lead to a restart after a growing pause.
//
// With Watched, a start that fails later waits for Restart. After Replace, Run returns ErrReplaced.
func (s *Supervisor) Run(ctx context.Context) error {
	defer s.refused.Wait()
	defer s.discardStandby()
	for pause := firstBackoff; ctx.Err() == nil; pause = min(2*pause, lastBackoff) {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, ErrReplaced) {
			return err
		}
		if errors.Is(err, errRestart) {
			pause = firstBackoff
			continue
		}
		select {
		case <-s.ready:
		default:
			return err
		}
		if s.config.Watched && !s.wasRunning() {
			if err := s.awaitChange(ctx, err); err != nil {
				return err
			}
			pause = firstBackoff
			continue
		}
		s.config.Logger.Warn("space exited", zap.Error(err), zap.Duration("took", time.Since(began)))
		if start := (*StartError)(nil); errors.As(err, &start) {
			s.config.Note(fmt.Sprintf("%s: %s It is started again. %s", start.Stage, start.Reason, start.Next))
		}
		if time.Since(began) > longRun {
			pause = firstBackoff
		}
		select {
		case <-time.After(pause):
		case <-s.again:
		case <-ctx.Done():
		}
	}
	return nil
}

// errRestart ends a start at the operator's request.
var errRestart = errors.New("restarted by the operator")

// ErrReplaced is the result of Run after Replace: the caller prepares another interpreter and calls Run again.
var ErrReplaced = errors.New("replaced by the operator")

// endGrace is the time between SIGTERM and SIGKILL.
const endGrace = 2 * time.Second

// once runs the Space until it exits or ctx ends, and returns the reason.
func (s *Supervisor) once(ctx context.Context) error {
	select {
	case <-s.again: // this start fulfils the request
	default:
	}
	s.drainLaunched()
	p, err := s.start()
	if err != nil {
		return err
	}
	timeout := time.NewTimer(s.config.StartupTimeout)
	defer timeout.Stop()
	for {
		select {
		case <-s.launched:
			s.prepareStandby()
		case <-p.Done():
			if p.isStale() {
				_ = s.ended(p, space.AppStarting, "The Space starts again.", "")
				return errRestart
			}
			if refused := (*RefusedError)(nil); errors.As(p.Err(), &refused) {
				return s.ended(p, space.RuntimeFailed, printable.Reason(refused.Reason), printable.Line(refused.Next))
			}
			return s.ended(p, space.RuntimeFailed, fmt.Sprintf("The Space's process ended: %s.", p.Err()), s.explainExit(p))
		case <-ctx.Done():
			p.End(context.Background(), endGrace)
			return s.ended(p, space.Stopped, "The host stopped the Space.", "")
		case <-s.replace:
			p.End(context.Background(), endGrace)
			_ = s.ended(p, space.AppStarting, "The Space starts with its new environment.", "")
			return ErrReplaced
		case <-s.again:
			if !s.config.Watched { // the change that caused it is on the screen
				s.config.Note("Restarting it at the operator's request.")
			}
			p.End(context.Background(), endGrace)
			_ = s.ended(p, space.AppStarting, "The operator restarted the Space.", "")
			return errRestart
		case <-timeout.C:
			if s.Status().Stage == space.Running {
				continue
			}
			p.End(context.Background(), endGrace)
			return s.ended(p, space.RuntimeFailed, fmt.Sprintf(
				"The Space did not launch within %s: raise startup_duration_timeout in README.md if it needs longer.", s.config.StartupTimeout), "")
		}
	}
}

func (s *Supervisor) observeOrder() *observeOrder {
	if s.config.Observe == nil {
		return nil
	}
	return &observeOrder{Limit: s.config.StartupTimeout.Seconds(), Calls: s.config.Observe.Calls}
}

// failed records that there is no process.
func (s *Supervisor) failed(err error) error {
	s.down(space.RuntimeFailed, err.Error())
	return &StartError{Stage: space.RuntimeFailed, Reason: err.Error()}
}

// ended cleans up after an exited process.
func (s *Supervisor) ended(p *Process, stage space.Stage, reason, next string) error {
	s.down(stage, reason)
	s.queue.Lost(reason)
	s.config.Ended(p.Instance)
	return &StartError{Stage: stage, Reason: reason, Next: next, Tail: p.Tail()}
}

// nextStep returns the advice to the author for a Process that ended by itself.
func nextStep(p *Process) string {
	var killed *proctree.KilledError
	switch {
	case errors.As(p.Err(), &killed) && killed.Memory:
		return "Load less, use smaller data types, or give the Space more memory."
	case errors.As(p.Err(), &killed):
		return "Check the kernel log (`dmesg`): it names each process that the out-of-memory killer ended."
	case p.exit == sandbox.Exit{}:
		return "End app.py with launch(): an app that exits without an error never called it."
	case p.exit.Signal == 0:
		return "Fix the error shown above."
	}
	return ""
}

func (s *Supervisor) down(stage space.Stage, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage, s.reason, s.current, s.session, s.port, s.key = stage, reason, nil, nil, 0, ""
}

func (s *Supervisor) running(m queue.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage != space.Running && s.session != nil {
		s.config.Logger.Info("space running", zap.String("instance", s.session.instance), zap.Duration("took", time.Since(s.session.began)))
	}
	s.stage, s.reason, s.port, s.reached = space.Running, "", m.Port, true
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
	select {
	case s.launched <- struct{}{}:
	default:
	}
}

// closed records that the app has shut down its server while its process runs.
func (s *Supervisor) closed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason, s.port = "The app closed its server and has not launched again.", 0
}

// Methods of queue.Runner

func (s *Supervisor) process() (*Process, *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.session
}

// Start implements queue.Runner. A Job for a process that has just exited needs no answer: Queue.Lost follows.
func (s *Supervisor) Start(job queue.Job) {
	f := startFrame(job)
	if err := f.check(); err != nil {
		s.refused.Go(func() { // the queue's own goroutine must not call Done
			for _, e := range job.Events {
				s.queue.Done(e.ID, "the call is too large", nil)
			}
		})
		return
	}
	if p, h := s.process(); p != nil {
		h.open(job)
		p.Send(f)
	}
}

// Cancel implements queue.Runner.
func (s *Supervisor) Cancel(app int, event queue.EventID) {
	if p, _ := s.process(); p != nil {
		p.Send(newFrame(cancelOrder{"cancel", app, event}, nil))
	}
}

// Gone implements queue.Runner.
func (s *Supervisor) Gone(app int, events []queue.EventID) {
	if p, _ := s.process(); p != nil {
		p.Send(newFrame(goneOrder{"gone", app, events}, nil))
	}
}

func random(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return b
}

// freePort returns a port that is free now. The app's server binds it a moment later.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
