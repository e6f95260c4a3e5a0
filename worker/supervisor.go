package worker

import (
	"cmp"
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

	repeats repeats      // used by Run
	again   chan Restart // the operator requested a restart, or the code has changed
	refused sync.WaitGroup

	standby  *standby      // used by Run; nil: none
	launched chan struct{} // a start has become RUNNING
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
	// Failed is called when the runner has recognized a failure: before the message that completes its Events. ShowFailure is
	// called at the end of the output about it. nil: no call.
	Failed, ShowFailure func(f Failure)
	// AwaitChange means that a start that fails is not retried before Restart: its author is about to change the code.
	AwaitChange bool
	// Standby means that a second process executes the first imports of the app in advance, for the next start.
	Standby bool
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
	// Drain returns the time for running calls to end before the host ends a start; nil: none. Hurry ends a drain early.
	Drain func() time.Duration
	Hurry <-chan struct{}
	// Ending is called before the host ends a start, with the reason for the ledger. InUse reports whether a start still has
	// GPU leases. Both may be nil.
	Ending func(instance, reason string)
	InUse  func(instance string) bool
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

var _ queue.Runner = (*Supervisor)(nil)

// NewSupervisor returns a Supervisor. Call SetQueue first; Run starts the Space. The stage is BUILDING until
// Prepare.
func NewSupervisor(config SupervisorConfig) *Supervisor {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	return &Supervisor{config: config, stage: space.Building, ready: make(chan struct{}), again: make(chan Restart, 1), launched: make(chan struct{}, 1)}
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

// Configure replaces the configuration, for the starts of the next Run. Call it while Run is not running.
func (s *Supervisor) Configure(config SupervisorConfig) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	s.config = config
}

// NotRunning sets the stage of a Space without a process: its environment is being built, or the build failed.
func (s *Supervisor) NotRunning(stage space.Stage, reason string) { s.down(stage, reason) }

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

// StopCause is the cause of a context with which Run ends the Space, for another reason than the end of the host.
type StopCause struct {
	Reason string // for visitors
	Ledger string // for the ledger
	Again  bool   // the Space starts again, with other settings
}

func (c *StopCause) Error() string { return c.Reason }

// Run keeps the Space running until ctx ends, then ends it. The cause of ctx may be a *StopCause. If the Space exits before it was ever RUNNING, Run
// returns a *StartError. Later exits lead to a restart after a growing pause.
func (s *Supervisor) Run(ctx context.Context) error {
	defer s.refused.Wait()
	defer s.discardStandby()
	for pause := firstBackoff; ctx.Err() == nil; pause = min(2*pause, lastBackoff) {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			break
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
		s.config.Logger.Warn("space exited", zap.Error(err), zap.Duration("took", time.Since(began)))
		if time.Since(began) > longRun {
			pause = firstBackoff
		}
		retry, next := time.After(pause), "It is started again."
		start := (*StartError)(nil)
		if errors.As(err, &start) && start.Times > 0 { // it has not run
			if next = fmt.Sprintf("The next try is in %s.", pause); s.config.AwaitChange {
				retry, next = nil, "It starts again when its code changes."
				s.prepareStandby()
			}
		}
		if start != nil {
			s.config.Note(start.note(next))
		}
		select {
		case <-retry:
		case <-s.again:
			s.ShowAgain()
		case <-ctx.Done():
		}
	}
	return nil
}

// errRestart ends a start at the operator's request.
var errRestart = errors.New("restarted by the operator")

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
			return s.endFor(p, stopCauseOf(ctx), hasFailed(ctx))
		case r := <-s.again:
			if !s.config.AwaitChange { // the change that caused it is on the screen
				s.config.Note("Restarting it at the operator's request.")
			}
			cause := &StopCause{Reason: "The operator restarted the Space.", Ledger: "restarted by " + cmp.Or(r.By, "the operator"), Again: true}
			_ = s.endFor(p, cause, r.Now)
			return errRestart
		case <-timeout.C:
			if s.Status().Stage == space.Running {
				continue
			}
			s.awaitStack(p)
			p.End(context.Background(), endGrace)
			return s.ended(p, space.RuntimeFailed, fmt.Sprintf(
				"The Space did not launch within %s: raise startup_duration_timeout in README.md if it needs longer.", s.config.StartupTimeout), "")
		}
	}
}

// failed records that there is no process.
func (s *Supervisor) failed(err error) error {
	s.down(space.RuntimeFailed, err.Error())
	return &StartError{Stage: space.RuntimeFailed, Reason: err.Error()}
}

// ended cleans up after an exited process.
func (s *Supervisor) ended(p *Process, stage space.Stage, reason, next string) error {
	times := 0
	if s.hasRun() || stage != space.RuntimeFailed {
		p.config.comparison.release()
		s.repeats.forget()
	} else {
		times = s.repeats.failed(p.config.comparison, reason)
	}
	s.down(stage, reason)
	s.queue.Lost(reason)
	s.config.Ended(p.Instance)
	return &StartError{Stage: stage, Reason: reason, Next: next, Tail: p.Tail(), Shown: !p.output.dropped(), Times: times}
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
		return "End app.py with launch(): an app that exits without an error never called it. A606 (bucket A); more: spacehost explain-rule A606"
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
	if h := s.session; h != nil {
		defer h.comparison.release() // without the lock: the screen may not accept lines
	}
	defer s.mu.Unlock()
	if s.stage != space.Running && s.session != nil {
		s.config.Logger.Info("space running", zap.String("instance", s.session.instance), zap.Duration("took", time.Since(s.session.began)))
	}
	s.stage, s.reason, s.port = space.Running, "", m.Port
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

// hasRun reports whether the current start was RUNNING.
func (s *Supervisor) hasRun() bool { return s.Status().Stage == space.Running }

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
