package worker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	variables map[string]string // of the environment; used by Run

	mu      sync.Mutex
	current Start
	key     string
	port    int
	stage   space.Stage
	reason  string
	hint    string        // for the operator, in place of the reason
	ready   chan struct{} // closed at the first RUNNING
	session *session      // of the current start

	repeats repeats      // used by Run
	again   chan Restart // the operator requested a restart, or the code has changed
	refused sync.WaitGroup

	standby  *standby      // used by Run; nil: none
	launched chan struct{} // a start has become RUNNING
}

// SupervisorConfig is the configuration that all starts of the Space share.
type SupervisorConfig struct {
	Place          Place  // where the processes run
	Space          string // the fields up to Storage are those of each Spec
	AppFile        string
	Secrets        map[string]string
	PublicURL      string
	LocalURL       string
	Simulated      bool
	Strict         bool
	Storage        bool
	Observe        *Observe // nil: starts are not observed
	StartupTimeout time.Duration
	Output         func(stream, line string) // receives each line that the Space printed, below the rate limit; one call at a time
	OutputRate     int64                     // bytes per second that Output may receive; 0: the default
	// Started is called when the process has been started; its error ends the start. Ended is called once for each instance,
	// also for one that the Place has not started, before Start.Close.
	Started func(Facts) error
	Ended   func(instance string)
	// Attached is called once per start, when its app is about to receive visitors. Its error, a *RefusedError, ends the start.
	// nil: no call.
	Attached func(instance string, m queue.Manifest) error
	// Failed is called when the runner has recognized a failure: before the message that completes its Events. ShowFailure is
	// called at the end of the output about it. nil: no call.
	Failed, ShowFailure func(f Failure)
	// Staged is called when the stage has changed. It must not block. nil: no call.
	Staged func(StageChange)
	// Outlasts means that the Place keeps a start that the host leaves (StopCause.Leave). Otherwise the start ends.
	Outlasts bool
	// AwaitChange means that a start that fails is not retried before Restart: its author is about to change the code.
	AwaitChange bool
	// Standby means that a second process executes the first imports of the app in advance, for the next start.
	Standby bool
	// Note shows a sentence to the operator: why visitors wait, or why part of the Space is not reachable.
	Note func(text string)
	// Unknown is called for each attached app with a Gradio that the runner does not know; nil: no call.
	Unknown func(gradio, reason string)
	// Limits bound each start. MayStart is called before each start; its error, in words, ends the start. nil: no call.
	Limits   proctree.Limits
	MayStart func() error
	// Drain returns the time for running calls to end before the host ends a start; nil: none. Hurry ends a drain early.
	Drain func() time.Duration
	Hurry <-chan struct{}
	// Ending is called before the host ends a start for a cause other than the Space, with the reason for the ledger. InUse reports whether a start still has
	// GPU leases. Both may be nil.
	Ending func(instance, reason string)
	InUse  func(instance string) bool
	// Liveness returns when the Space counts as UNRESPONSIVE; nil: it is not probed. Hung is called when it does, after Note, and
	// when its app has closed its channel. nil: no call.
	Liveness func() Liveness
	Hung     func(h Hang)
	// Account returns the account that pays for calls without a visitor.
	Account func() identity.Identity
	Logger  *zap.Logger
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

// Prepare sets the Variables of the starts of the next Run (Spec.Variables). Call it before Run.
func (s *Supervisor) Prepare(variables map[string]string) {
	s.variables = variables
	s.starting()
}

// starting sets the stage of a Space whose process is about to start.
func (s *Supervisor) starting() {
	s.mu.Lock()
	before, staged := s.stage, s.config.Staged
	s.stage = space.AppStarting
	s.mu.Unlock()
	if staged != nil && before != space.AppStarting {
		staged(StageChange{Stage: space.AppStarting})
	}
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

// NotRunning sets the stage of a Space without a process: its environment is being built, the build failed, or the Space is paused. A
// stage that the Space has already is not reported again.
func (s *Supervisor) NotRunning(to StageChange) {
	if s.Status().Stage == to.Stage {
		to.Cause = ""
	}
	s.down(to)
}

// Ready is closed when the Space is RUNNING for the first time.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Status is the stage of a Space, the reason and the pid of its runner.
type Status struct {
	Stage  space.Stage `json:"stage"`
	Reason string      `json:"reason,omitempty"`
	Hint   string      `json:"-"` // what only the operator reads, in place of Reason; may be empty
	PID    int         `json:"pid,omitempty"`
}

// Status is safe for concurrent use.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := Status{Stage: s.stage, Reason: s.reason, Hint: s.hint}
	if s.current != nil {
		status.PID = s.current.Facts().Runner
	}
	return status
}

// Stage returns the Hub's name of the stage, and the reason.
func (s *Supervisor) Stage() (stage, reason string) {
	status := s.Status()
	return string(status.Stage), status.Reason
}

// Pauses before restarts. The first restart is quick. A run of a minute resets the pause.
const (
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 30 * time.Second
	longRun      = time.Minute
)

// StopCause is the cause of a context with which Run ends the Space, for another reason than the end of the host.
type StopCause struct {
	Reason string      // for visitors
	Ledger string      // for the ledger
	Again  bool        // the Space starts again, with other settings
	Now    bool        // running calls end at once, without a drain
	Leave  bool        // the process goes on without this host (Start.Leave)
	Stage  space.Stage // afterwards; "": STOPPED, or APP_STARTING with Again
	Cause  Cause       // for the history; "": CauseHost
	By     string      // the operator; "": none
	// Drain replaces SupervisorConfig.Drain; 0: it does not.
	Drain time.Duration
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
				s.prepareStandby(ctx)
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
	s.starting()
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	timeout := time.NewTimer(s.config.StartupTimeout)
	defer timeout.Stop()
	hung, stopWatch := s.beginWatch(p)
	defer stopWatch()
	for {
		select {
		case <-s.launched:
			s.prepareStandby(ctx)
		case <-p.Done():
			if errors.Is(p.Err(), ErrUnreachable) && s.config.Outlasts {
				return s.lost(ctx, p)
			}
			if s.isStale(p) {
				_ = s.ended(p, StageChange{Stage: space.AppStarting, Reason: "The Space starts again."}, "")
				return errRestart
			}
			if p.Exit().Stacks != "" {
				s.closedDescriptors(p)
			}
			if refused := (*RefusedError)(nil); errors.As(p.Err(), &refused) {
				return s.ended(p, StageChange{Stage: space.RuntimeFailed, Reason: printable.Reason(refused.Reason), Cause: cmp.Or(refused.Cause, CauseRefused)}, printable.Line(refused.Next))
			}
			return s.ended(p, StageChange{Stage: space.RuntimeFailed, Reason: fmt.Sprintf("The Space's process ended: %s.", p.Err()), Cause: exitCause(p.Err())}, explainExit(p))
		case <-ctx.Done():
			cause, now, _ := Restart{}.hurries(ctx)
			return s.endFor(p, cause, now)
		case r := <-s.again:
			if cause, now, ends := r.hurries(ctx); ends {
				return s.endFor(p, cause, now)
			}
			if !s.config.AwaitChange { // the change that caused it is on the screen
				s.config.Note("Restarting it at the operator's request.")
			}
			_ = s.endFor(p, r.cause(), r.Now)
			return errRestart
		case after := <-hung:
			cause := hangCause(after)
			s.config.Note(cause.Reason)
			_ = s.endFor(p, cause, true)
			return errRestart
		case <-timeout.C:
			if s.Status().Stage.IsUp() {
				continue
			}
			s.awaitStack(p)
			p.End(context.Background(), endGrace)
			return s.ended(p, StageChange{Stage: space.RuntimeFailed, Cause: CauseTimeout, Reason: fmt.Sprintf(
				"The Space did not launch within %s: raise startup_duration_timeout in README.md if it needs longer.", s.config.StartupTimeout)}, "")
		}
	}
}

// failed records that there is no process.
func (s *Supervisor) failed(err error) error {
	s.down(StageChange{Stage: space.RuntimeFailed, Reason: err.Error(), Cause: CauseStart})
	return &StartError{Stage: space.RuntimeFailed, Reason: err.Error()}
}

// ended cleans up after an exited process, which is the current start.
func (s *Supervisor) ended(p Start, to StageChange, next string) error {
	times, stage, reason := 0, to.Stage, to.Reason
	_, h := s.process()
	h.failures.flush()
	if s.hasRun() || stage != space.RuntimeFailed {
		h.comparison.release()
		s.repeats.forget()
	} else {
		times = s.repeats.failed(h.comparison, reason)
	}
	s.down(to)
	s.queue.Lost(reason)
	s.close(p)
	return &StartError{Stage: stage, Reason: reason, Next: next, Tail: p.Tail(), Shown: !p.Exit().Dropped, Times: times}
}

// close frees what belongs to a start that has ended.
func (s *Supervisor) close(p Start) {
	s.config.Ended(p.Facts().Instance)
	p.Close()
}

// nextStep returns the advice to the author for a start that ended by itself.
func nextStep(p Start) string {
	var killed *proctree.KilledError
	switch {
	case errors.As(p.Err(), &killed) && killed.Memory:
		return "Load less, use smaller data types, or give the Space more memory."
	case errors.As(p.Err(), &killed):
		return "Check the kernel log (`dmesg`): it names each process that the out-of-memory killer ended."
	case p.Exit().Stacks != "":
		return "Close only descriptors that the app has opened (os.closerange)."
	case p.Exit().Exit == sandbox.Exit{}:
		return "End app.py with launch(): an app that exits without an error never called it. A606 (bucket A); more: spacehost explain-rule A606"
	case p.Exit().Signal == 0:
		return "Fix the error shown above."
	}
	return ""
}

func (s *Supervisor) down(to StageChange) {
	s.mu.Lock()
	before, staged := s.stage, s.config.Staged
	s.stage, s.reason, s.hint, s.current, s.session, s.port, s.key = to.Stage, to.Reason, "", nil, nil, 0, ""
	s.mu.Unlock()
	if staged != nil && (before != to.Stage || to.Cause != "") {
		staged(to)
	}
}

func (s *Supervisor) running(m queue.Manifest) {
	s.mu.Lock()
	if h := s.session; h != nil {
		defer h.comparison.release() // without the lock: the screen may not accept lines
	}
	if staged := s.config.Staged; staged != nil && !s.stage.IsUp() {
		defer staged(StageChange{Stage: space.Running}) // without the lock too
	}
	defer s.mu.Unlock()
	if !s.stage.IsUp() && s.session != nil {
		s.config.Logger.Info("space running", zap.String("instance", s.session.instance), zap.Duration("took", time.Since(s.session.began)))
	}
	if s.port = m.Port; s.stage != space.Unresponsive { // of an earlier launch: its answers end that
		s.stage, s.reason = space.Running, ""
	}
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
func (s *Supervisor) hasRun() bool { return s.Status().Stage.IsUp() }

// closed records that the app has shut down its server while its process runs.
func (s *Supervisor) closed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port = 0; s.stage != space.Unresponsive {
		s.reason = "The app closed its server and has not launched again."
	}
}

// Methods of queue.Runner

func (s *Supervisor) process() (Start, *session) {
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
