package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/identity"
	"spacehost/internal/space"
	"spacehost/queue"
)

// Supervisor keeps one Space running: it starts its process, hands it Jobs, and starts it again when it dies.
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
	heard   *heard        // of the current start

	again   chan struct{} // the operator wants a new start
	refused sync.WaitGroup
}

// SupervisorConfig is what every start of the Space has in common.
type SupervisorConfig struct {
	Space     string
	Dir       string
	AppFile   string
	RunDir    string // a folder below which each start gets one of its own
	Secrets   map[string]string
	PublicURL string
	// Device opens the door at which this start's `spaces` finds the device API; Ended shuts it.
	Device         func(instance string) (url string, port int)
	Simulated      bool // no GPU is behind it
	Processes      *Processes
	StartupTimeout time.Duration
	Output         func(line string)
	// Events of a start's life; Started is called as the app begins, and an error from it ends the start.
	// Ended is called once per Device.
	Started func(StartedProcess) error
	Ended   func(instance string)
	// Note shows the operator a sentence: why visitors wait, or reach not all that they should.
	Note func(text string)
	// Unknown is told of a Gradio whose inside the runner does not know, each time that one attaches; nil: nobody.
	Unknown func(gradio, reason string)
	// Account pays for what the Space does on nobody's behalf.
	Account func() identity.Identity
	Logger  *zap.Logger
}

// StartedProcess is what recovery must know to find a start's processes after a crash of the host.
type StartedProcess struct {
	Instance, Marker string
	PID              int
	Start            uint64
}

// StartError says that a Space has never come up: it is for the author to mend.
type StartError struct {
	Stage  space.Stage
	Reason string
	Next   string   // the next step, where Reason does not say it
	Tail   []string // what it printed last
}

func (e *StartError) Error() string { return e.Reason }

var _ queue.Runner = (*Supervisor)(nil)

// NewSupervisor returns a Supervisor; the Space starts with Run. Give it its Queue by SetQueue first. Until
// Prepare its environment is taken to be in the making.
func NewSupervisor(config SupervisorConfig) *Supervisor {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	return &Supervisor{config: config, stage: space.Building, ready: make(chan struct{}), again: make(chan struct{}, 1)}
}

// SetQueue closes the circle: the Queue starts Jobs here, and hears of them from here.
func (s *Supervisor) SetQueue(q *queue.Queue) { s.queue = q }

// Prepare says what to run it with: the interpreter, the folder from InstallRunner, and the whole
// environment. Call it before Run.
func (s *Supervisor) Prepare(python, runnerDir string, env []string) {
	s.python, s.runnerDir, s.env = python, runnerDir, env
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage = space.AppStarting
}

// NotRunning says where a Space stands of which there is no process: its environment is being made, or could not be.
func (s *Supervisor) NotRunning(stage space.Stage, reason string) { s.down(stage, reason) }

// Restart has the Space started anew, at once. It returns before that is done. While Run does not run, whoever would
// call it hears of the wish by Restarts.
func (s *Supervisor) Restart() {
	select {
	case s.again <- struct{}{}:
	default: // somebody else has asked, too
	}
}

// Restarts tells of each Restart that no process has heeded.
func (s *Supervisor) Restarts() <-chan struct{} { return s.again }

// Ready is closed when the Space answers for the first time.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Status is where a Space stands.
type Status struct {
	Stage  space.Stage `json:"stage"`
	Reason string      `json:"reason,omitempty"`
	PID    int         `json:"pid,omitempty"`
}

// Status may be called from any goroutine.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := Status{Stage: s.stage, Reason: s.reason}
	if s.current != nil {
		status.PID = s.current.PID
	}
	return status
}

// Stage returns the Hub's name of where the Space stands, and why.
func (s *Supervisor) Stage() (stage, reason string) {
	status := s.Status()
	return string(status.Stage), status.Reason
}

// Upstream is where the Space's own server listens and the key that opens it; false while it is down.
func (s *Supervisor) Upstream() (port int, key string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port, s.key, s.stage == space.Running && s.port != 0
}

// Restarts: the first at once, then slower. A Space that ran for a minute starts afresh.
const (
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 30 * time.Second
	longRun      = time.Minute
)

// Run keeps the Space running until ctx ends, then ends it. A *StartError comes back if the Space dies
// before it has ever answered; afterwards it is started again, with a growing pause.
func (s *Supervisor) Run(ctx context.Context) error {
	defer s.refused.Wait()
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
		s.config.Logger.Warn("space died", zap.Error(err), zap.Duration("took", time.Since(began)))
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

// errRestart ends a start at the operator's wish.
var errRestart = errors.New("restarted by the operator")

// endGrace is what a Space gets between SIGTERM and SIGKILL.
const endGrace = 2 * time.Second

// once runs the Space until it dies or ctx ends, and says why it died.
func (s *Supervisor) once(ctx context.Context) error {
	select {
	case <-s.again: // this is the start that was asked for
	default:
	}
	p, err := s.start()
	if err != nil {
		return err
	}
	timeout := time.NewTimer(s.config.StartupTimeout)
	defer timeout.Stop()
	for {
		select {
		case <-p.Done():
			return s.ended(p, space.RuntimeFailed, fmt.Sprintf("The Space's process ended: %s.", p.Err()), nextStep(p))
		case <-ctx.Done():
			p.End(context.Background(), endGrace)
			return s.ended(p, space.Stopped, "The host has stopped the Space.", "")
		case <-s.again:
			s.config.Note("The operator restarts it.")
			p.End(context.Background(), endGrace)
			_ = s.ended(p, space.AppStarting, "The operator has restarted the Space.", "")
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

func (s *Supervisor) start() (*Process, error) {
	instance := hex.EncodeToString(random(6))
	port, err := freePort()
	if err != nil {
		return nil, s.failed(err)
	}
	url, device := s.config.Device(instance)
	secrets := map[string]string{"SPACES_ZERO_DEVICE_API_URL": url}
	maps.Copy(secrets, s.config.Secrets)
	key := hex.EncodeToString(random(16))
	p, err := s.launch(&heard{supervisor: s}, ProcessConfig{
		Space: s.config.Space, Dir: s.config.Dir, AppFile: s.config.AppFile, Python: s.python,
		Runner: s.runnerDir, RunDir: filepath.Join(s.config.RunDir, instance), Env: s.env,
		Secrets: secrets, Port: port, Key: key, Public: s.config.PublicURL, Device: device, Simulated: s.config.Simulated,
		Output: s.config.Output, Logger: s.config.Logger, cgroups: s.config.Processes.cgroups,
	})
	if err != nil {
		s.config.Ended(instance)
		return nil, s.failed(err)
	}
	s.config.Processes.set(s.config.Space, p.tree)
	s.config.Logger.Info("space started", zap.String("instance", instance), zap.Int("pid", p.PID))
	err = s.config.Started(StartedProcess{Instance: instance, Marker: p.tree.marker, PID: p.PID, Start: p.tree.root.start})
	if err != nil {
		p.End(context.Background(), endGrace)
		return nil, s.ended(p, space.RuntimeFailed, err.Error(), "")
	}
	return p, nil
}

// launch makes a start the one that counts. Under the lock, so that the first Job that comes of its first
// word finds it.
func (s *Supervisor) launch(h *heard, config ProcessConfig) (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	config.Reporter = h
	p, err := Start(config)
	if err != nil {
		return nil, err
	}
	s.stage, s.reason, s.current, s.heard, s.key = space.AppStarting, "", p, h, config.Key
	return p, nil
}

// failed says that there is no process.
func (s *Supervisor) failed(err error) error {
	s.down(space.RuntimeFailed, err.Error())
	return &StartError{Stage: space.RuntimeFailed, Reason: err.Error()}
}

// ended settles what a dead process leaves behind.
func (s *Supervisor) ended(p *Process, stage space.Stage, reason, next string) error {
	s.down(stage, reason)
	s.queue.Lost(reason)
	s.config.Ended(p.Instance)
	return &StartError{Stage: stage, Reason: reason, Next: next, Tail: p.Tail()}
}

// nextStep is what an author can do about a Process that ended by itself.
func nextStep(p *Process) string {
	var killed *KilledError
	switch {
	case errors.As(p.Err(), &killed) && killed.Memory:
		return "Load less, or in smaller types, or give the Space more memory."
	case errors.As(p.Err(), &killed):
		return "Look who did it, in the kernel's log (`dmesg`) first: it names what it kills for lack of memory."
	case p.cmd.ProcessState.Success():
		return "End app.py with launch(): an app that ends by itself without an error never called it."
	case p.cmd.ProcessState.Exited():
		return "Fix the error shown above."
	}
	return ""
}

func (s *Supervisor) down(stage space.Stage, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage, s.reason, s.current, s.heard, s.port, s.key = stage, reason, nil, nil, 0, ""
}

func (s *Supervisor) running(m queue.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage, s.reason, s.port = space.Running, "", m.Port
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// closed says that the app answers no more, though its process runs.
func (s *Supervisor) closed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason, s.port = "The app has closed its server and has not launched again.", 0
}

// The queue's orders

func (s *Supervisor) process() (*Process, *heard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.heard
}

// Start implements queue.Runner. A Job for a process that has just died needs no answer: Queue.Lost follows.
func (s *Supervisor) Start(job queue.Job) {
	f := startFrame(job)
	if err := f.check(); err != nil {
		s.refused.Go(func() { // not from the queue's own goroutine
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

// freePort asks the kernel for a port that is free now; the app's server binds it a moment later.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
