package worker

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/proctree"
	"spacehost/internal/space"
	"spacehost/queue"
)

// world is a Supervisor with its Queue, connected as in cmd.
type world struct {
	*Supervisor
	queue     *queue.Queue
	processes *proctree.Processes
	stop      context.CancelFunc
	stopFor   context.CancelCauseFunc // with a *StopCause
	ended     chan error              // result of Run

	mu        sync.Mutex
	starts    []Facts
	over      []string // instances reported as ended
	unchecked bool     // the test checks what follows by itself
	doors     []string // instances whose doors were opened
	shut      []string // instances whose doors were closed
	closed    []string // instances that the Place has closed
	payers    map[queue.EventID]string
	lines     []string
}

var owner = identity.Identity{Kind: identity.Space, Name: "test"}

// newWorld starts a Space that is ended with the test.
func newWorld(t *testing.T, mode, text string, change ...func(*SupervisorConfig)) *world {
	t.Helper()
	w := prepareWorld(t, change...)
	w.Prepare(self(t), "/nowhere", fakeEnv(mode, text))
	w.run(t)
	return w
}

func prepareWorld(t *testing.T, change ...func(*SupervisorConfig)) *world {
	t.Helper()
	w := &world{processes: &proctree.Processes{}, ended: make(chan error, 1), payers: map[queue.EventID]string{}}
	config := SupervisorConfig{
		Space: "test", AppFile: "app.py", PublicURL: "http://127.0.0.1:7860/", Secrets: map[string]string{"TOKEN": "secret"}, StartupTimeout: time.Minute,
		Place: NewLocal(LocalConfig{
			Dir: t.TempDir(), RunDir: filepath.Join(tempDir(t), "run"), Processes: w.processes,
			OpenDoor: func(instance string) (string, int) {
				w.note(func() { w.doors = append(w.doors, instance) })
				return "http://127.0.0.1:1/d/secret", 1
			},
			CloseDoor: func(instance string) { w.note(func() { w.shut = append(w.shut, instance) }) },
			Closed:    func(instance string) { w.note(func() { w.closed = append(w.closed, instance) }) },
		}),
		Started: func(p Facts) error { w.note(func() { w.starts = append(w.starts, p) }); return nil },
		Ended:   func(instance string) { w.note(func() { w.over = append(w.over, instance) }) },
		Note:    func(text string) { w.note(func() { w.lines = append(w.lines, "note: "+text) }) },
		Output:  func(_, line string) { w.note(func() { w.lines = append(w.lines, line) }) },
		Account: func() identity.Identity { return owner },
	}
	for _, c := range change {
		c(&config)
	}
	w.Supervisor = NewSupervisor(config)
	w.queue = queue.New(queue.Config{Runner: w.Supervisor, Sign: func(event queue.Event) string {
		w.note(func() { w.payers[event.ID] = event.Payer.Key() })
		return "token-" + string(event.ID)
	}})
	w.SetQueue(w.queue)
	return w
}

// Prepare sets what the starts execute, on the Place too.
func (w *world) Prepare(python, runnerDir string, env []string) {
	local := w.config.Place.(*Local)
	local.Install(Installation{Python: python, Runner: runnerDir, Environ: func(map[string]string) []string { return env }})
	w.Supervisor.Prepare(nil)
}

// local returns the configuration of the Place of a world.
func local(c *SupervisorConfig) *LocalConfig { return &c.Place.(*Local).config }

// current returns the process of the current start.
func (w *world) current() *Process {
	p, _ := w.process()
	return p.(*localStart).LocalProcess.(*Process)
}

func (w *world) run(t *testing.T) {
	ctx, stopFor := context.WithCancelCause(context.Background())
	stop := func() { stopFor(nil) }
	queueCtx, stopQueue := context.WithCancel(context.Background())
	queueEnded := make(chan struct{})
	go func() { _ = w.queue.Run(queueCtx); close(queueEnded) }()
	go func() { w.ended <- w.Run(ctx); close(w.ended) }()
	w.stop, w.stopFor = stop, stopFor
	t.Cleanup(func() {
		stop()
		within(t, patient, "the Supervisor ends", w.ended)
		stopQueue()
		<-queueEnded
		if w.unchecked {
			return
		}
		for what, got := range map[string][]string{"closed": w.shut, "reported as ended": w.over, "closed by the Place": w.closed} {
			if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(w.doors))) {
				t.Errorf("doors were opened for %v, %s: %v", w.doors, what, got)
			}
		}
	})
}

func (w *world) note(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) printed() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, "\n")
}

func (w *world) ready(t *testing.T) {
	t.Helper()
	within(t, patient, "the Space is up", w.Ready())
}

// join submits an event. Its body determines what the fake does.
func (w *world) join(t *testing.T, session queue.SessionHash, body string) queue.EventID {
	t.Helper()
	id := queue.NewEventID()
	event := &queue.Event{ID: id, Session: session, Body: []byte(body), Payer: identity.Identity{Kind: identity.Local}}
	if err := w.queue.Join(event); err != nil {
		t.Fatal(err)
	}
	return id
}

// receive reads the Session's stream to its end, or to the first Message of that kind.
func (w *world) receive(t *testing.T, session queue.SessionHash, until queue.Kind) (messages []queue.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	var s *queue.Session
	eventually(t, "there is a session "+string(session), func() bool { s = w.queue.Session(session); return s != nil })
	defer s.Open()()
	for {
		m, err := s.Next(ctx, nil)
		if err != nil && err != io.EOF {
			t.Fatalf("session %s: %v after %v", session, err, messages)
		}
		messages = append(messages, m)
		if err == io.EOF || m.Kind == until {
			return messages
		}
	}
}

func kinds(messages []queue.Message) string {
	var words []string
	for _, m := range messages {
		words = append(words, string(m.Kind))
	}
	return strings.Join(words, " ")
}

func TestAJobRuns(t *testing.T) {
	w := newWorld(t, "good", "")
	if got := w.Status(); got.Stage != space.AppStarting || got.Reason != "" {
		t.Errorf("before: %+v", got)
	}
	if _, _, up := w.Upstream(); up {
		t.Error("it is up before its manifest")
	}
	w.ready(t)
	_, key, up := w.Upstream()
	port := w.serverPort()
	if got := w.Status(); got.Stage != space.Running || got.PID == 0 || !up || port != 40000 || len(key) != 32 {
		t.Errorf("up: %+v, port %d, key %q", got, port, key)
	}
	id := w.join(t, "s", "echo")
	messages := w.receive(t, "s", "")
	if got := kinds(messages); got != "estimation estimation process_starts process_completed close_stream" && got != "estimation process_starts process_completed close_stream" {
		t.Errorf("got %s", got)
	}
	last := messages[len(messages)-2]
	if string(last.Raw) != `{"token":"token-`+string(id)+`"}` || !last.Success || last.Event != id {
		t.Errorf("got %+v", last)
	}
	eventually(t, "the event is forgotten", func() bool { _, h := w.process(); return h.phase(id) == 0 && !w.queue.Alive(id) })
	start := w.starts[0]
	if start.Instance != w.doors[0] || start.PID != w.Status().PID || start.Start == 0 || !strings.Contains(start.Marker, start.Instance) {
		t.Errorf("started %+v", start)
	}
	eventually(t, "it prints what it was given", func() bool {
		output := w.printed()
		return strings.Contains(output, "given TOKEN secret") && strings.Contains(output, "given SPACES_ZERO_DEVICE_API_URL http://127.0.0.1:1/d/secret")
	})
	w.stop()
	if err := within(t, patient, "Run returns", w.ended); err != nil {
		t.Error(err)
	}
	if got := w.Status(); got.Stage != space.Stopped || got.PID != 0 {
		t.Errorf("after: %+v", got)
	}
	if _, _, up := w.Upstream(); up {
		t.Error("it is up after its end")
	}
}

func TestASpaceIsRestartedAfterAnExit(t *testing.T) {
	w := newWorld(t, "good", "")
	w.ready(t)
	first := w.Status().PID
	w.join(t, "exits", "die")
	messages := w.receive(t, "exits", queue.Completed)
	last := messages[len(messages)-1]
	if last.Failure == nil || !strings.Contains(last.Failure.Text, "it exited with code 9") {
		t.Errorf("the visitor reads %+v", last)
	}
	if got := w.Status(); got.Stage == space.Running && got.PID == first {
		t.Errorf("status %+v after its exit", got)
	}
	eventually(t, "it is up again", func() bool { return w.Status().Stage == space.Running && w.Status().PID != first })
	w.join(t, "next", "echo")
	if messages := w.receive(t, "next", queue.Completed); messages[len(messages)-1].Failure != nil {
		t.Errorf("got %+v", messages)
	}
	w.note(func() {
		if len(w.starts) != 2 || w.starts[0].Instance == w.starts[1].Instance || !slices.Equal(w.over, w.doors[:1]) {
			t.Errorf("starts %+v, ended %v of %v", w.starts, w.over, w.doors)
		}
	})
}

func TestAPauseBeforeEachRestart(t *testing.T) {
	w := newWorld(t, "good", "")
	w.ready(t)
	var pauses []time.Duration
	for range 2 {
		pid := w.Status().PID
		w.join(t, queue.SessionHash(queue.NewEventID()), "die")
		eventually(t, "it exited", func() bool { return w.Status().PID != pid })
		exited := time.Now()
		eventually(t, "it is up again", func() bool { return w.Status().Stage == space.Running })
		pauses = append(pauses, time.Since(exited))
	}
	if pauses[0] < firstBackoff-20*time.Millisecond || pauses[1] < 2*firstBackoff-20*time.Millisecond {
		t.Errorf("pauses %v, want at least %s and %s", pauses, firstBackoff, 2*firstBackoff)
	}
}

func TestASpaceThatNeverComesUp(t *testing.T) {
	w := newWorld(t, "exits", "3")
	err := within(t, patient, "Run returns", w.ended)
	var start *StartError
	if !errors.As(err, &start) || start.Stage != space.RuntimeFailed || start.Reason != "The Space's process ended: it exited with code 3." ||
		!slices.Contains(start.Tail, "SyntaxError: invalid syntax") {
		t.Errorf("got %#v", err)
	}
	if got := w.Status(); got.Stage != space.RuntimeFailed || got.Reason != start.Reason || got.PID != 0 {
		t.Errorf("status %+v", got)
	}
}

// TestARefusedStart checks that the host can end a start as ZeroGPU would, when its app has attached and before visitors
// reach it.
func TestARefusedStart(t *testing.T) {
	var seen []string
	w := newWorld(t, "good", "", func(c *SupervisorConfig) {
		c.Attached = func(instance string, m queue.Manifest) error {
			seen = append(seen, instance+" "+m.Gradio)
			return &RefusedError{Reason: "No @spaces.GPU function detected during startup.", Next: "Decorate one."}
		}
	})
	err := within(t, patient, "Run returns", w.ended)
	var start *StartError
	if !errors.As(err, &start) || start.Stage != space.RuntimeFailed || start.Reason != "No @spaces.GPU function detected during startup." || start.Next != "Decorate one." {
		t.Errorf("got %#v", err)
	}
	if len(seen) != 1 || len(w.starts) != 1 || seen[0] != w.starts[0].Instance+" 6.31.0" {
		t.Errorf("called with %q, started %v", seen, w.starts)
	}
	select {
	case <-w.Ready():
		t.Error("it was ready for visitors")
	default:
	}
}

func TestStartupTimeout(t *testing.T) {
	w := newWorld(t, "sends", framesText(helloFrame), func(c *SupervisorConfig) { c.StartupTimeout = 300 * time.Millisecond })
	err := within(t, patient, "Run returns", w.ended)
	var start *StartError
	if !errors.As(err, &start) || !strings.HasPrefix(start.Reason, "The Space did not launch within 300ms: raise startup_duration_timeout") {
		t.Errorf("got %#v", err)
	}
	if got := w.Status(); got.Reason != start.Reason || got.Stage != space.RuntimeFailed {
		t.Errorf("status %+v", got)
	}
}

func TestStartupTimeoutIsOverOnceItRuns(t *testing.T) {
	w := newWorld(t, "good", "", func(c *SupervisorConfig) { c.StartupTimeout = 1500 * time.Millisecond })
	w.ready(t)
	pid := w.Status().PID
	timer := time.NewTimer(1600 * time.Millisecond)
	defer timer.Stop()
	select {
	case err := <-w.ended:
		t.Fatalf("it ended: %v", err)
	case <-timer.C:
	}
	if got := w.Status(); got.Stage != space.Running || got.PID != pid {
		t.Errorf("status %+v, was pid %d", got, pid)
	}
}

func TestASpaceThatCannotBeStarted(t *testing.T) {
	w := prepareWorld(t)
	w.Prepare("/no/such/python", "/nowhere", nil)
	w.run(t)
	var start *StartError
	if err := within(t, patient, "Run returns", w.ended); !errors.As(err, &start) || !strings.Contains(start.Reason, "/no/such/python") {
		t.Errorf("got %#v", err)
	}
	if got := w.Status(); got.Stage != space.RuntimeFailed || got.Reason != start.Reason {
		t.Errorf("status %+v", got)
	}
}

func TestAnErrorFromStartedEndsTheStart(t *testing.T) {
	var begun Facts
	w := newWorld(t, "good", "", func(c *SupervisorConfig) {
		c.Started = func(p Facts) error { begun = p; return errors.New("the database is full") }
	})
	if err := within(t, patient, "Run returns", w.ended); err == nil || err.Error() != "the database is full" {
		t.Errorf("got %v", err)
	}
	if (proctree.Process{PID: begun.PID, Start: begun.Start}).Alive() {
		t.Error("it is still running")
	}
}

// A context that is cancelled at the beginning starts nothing.
func TestRunAfterTheEnd(t *testing.T) {
	w := prepareWorld(t)
	w.Prepare(self(t), "/nowhere", fakeEnv("good", ""))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Run(ctx); err != nil || len(w.starts) != 0 {
		t.Errorf("got %v, starts %v", err, w.starts)
	}
}

func TestCancelAndGone(t *testing.T) {
	w := newWorld(t, "good", "")
	w.ready(t)
	id := w.join(t, "s", "hang")
	w.receive(t, "s", "process_starts")
	w.queue.Cancel("s", id)
	if messages := w.receive(t, "s", queue.Completed); messages[len(messages)-1].Failure != nil {
		t.Errorf("got %+v", messages)
	}
	eventually(t, "the runner has ended it", func() bool { _, h := w.process(); return h.phase(id) == 0 })

	id = w.join(t, "leaver", "hang")
	w.receive(t, "leaver", "process_starts")
	w.queue.Leave(w.queue.Session("leaver"))
	eventually(t, "the runner receives it", func() bool { return strings.Contains(w.printed(), `gone ["`+string(id)+`"]`) })
}

func TestAdmittedEventsArePaidByTheCaller(t *testing.T) {
	w := newWorld(t, "good", "")
	w.ready(t)
	visitor := identity.Identity{Kind: identity.User, Name: "ada"}
	call, end := w.queue.Direct(visitor, false)
	defer end()
	admitted := queue.EventID(strings.Repeat("a", 32))
	for _, row := range []struct{ body, payer string }{{"admit " + string(call), visitor.Key()}, {"admit unknown", owner.Key()}} {
		w.join(t, "caller", row.body)
		messages := w.receive(t, "admitted", "")
		if got := messages[len(messages)-2]; string(got.Raw) != `{"token":"token-`+string(admitted)+`"}` {
			t.Errorf("%s: got %+v", row.body, got)
		}
		eventually(t, "it has ended", func() bool { _, h := w.process(); return h.phase(admitted) == 0 })
		w.note(func() {
			if got := w.payers[admitted]; got != row.payer {
				t.Errorf("%s: %s pays, want %s", row.body, got, row.payer)
			}
		})
	}
}

func TestACachedAnswerNeedsNoStart(t *testing.T) {
	w := newWorld(t, "good", "")
	w.ready(t)
	w.join(t, "caller", "cached")
	messages := w.receive(t, "admitted", "")
	if got := kinds(messages); got != "process_completed close_stream" || len(messages[0].Raw) == 0 || !messages[0].Success {
		t.Errorf("got %s: %+v", got, messages)
	}
	w.note(func() {
		if _, signed := w.payers[queue.EventID(strings.Repeat("a", 32))]; signed {
			t.Error("it was started")
		}
	})
}

// An app may call close() and launch() again: calls on its old loop never end by themselves.
func TestRelaunch(t *testing.T) {
	w := newWorld(t, "good", "")
	w.ready(t)
	w.join(t, "old", "hang")
	w.receive(t, "old", "process_starts")
	w.join(t, "relauncher", "relaunch")
	messages := w.receive(t, "old", queue.Completed)
	if last := messages[len(messages)-1]; last.Failure == nil {
		t.Errorf("the visitor of the old app reads %+v", last)
	}
	eventually(t, "the second app is attached", func() bool {
		m, _ := w.queue.Manifest()
		return m.App == 1 && w.serverPort() == 40001
	})
	w.join(t, "new", "echo")
	if messages := w.receive(t, "new", queue.Completed); messages[len(messages)-1].Failure != nil {
		t.Errorf("got %+v", messages)
	}
	if len(w.starts) != 1 {
		t.Errorf("it was started %d times", len(w.starts))
	}
}

func TestACallThatIsTooLarge(t *testing.T) {
	w := newWorld(t, "good", "")
	w.ready(t)
	w.join(t, "s", strings.Repeat("x", payloadLimit+1))
	messages := w.receive(t, "s", queue.Completed)
	if last := messages[len(messages)-1]; last.Failure == nil || !strings.Contains(last.Failure.Text, "the call is too large") {
		t.Errorf("the visitor reads %+v", last)
	}
	if w.Status().Stage != space.Running {
		t.Errorf("status %+v", w.Status())
	}
}
