package worker

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/printable"
	"spacehost/queue"
)

// session translates the reports of one start of a Space to calls of its Queue. A report is a claim by the Space,
// whose code may be hostile. It counts only for Events that run in this start, and each Event ends once.
type session struct {
	supervisor *Supervisor
	instance   string
	began      time.Time     // of the start
	wasStandby bool          // it began as one
	abandoned  bool          // its start was not taken over after all, so no report counts; set before opened is closed
	adopted    bool          // an earlier host has begun it, and has checked that it may receive visitors
	opened     chan struct{} // closed when the start is the current one; nil: reports do not wait for that

	mu     sync.Mutex
	events map[queue.EventID]phase

	foreignPort sync.Once   // the note about a port of another program
	failures    *failures   // joins reports with the output
	answers     *answers    // to probes
	comparison  *comparison // holds back what the start before has printed, too; nil: nothing

	outputMu sync.Mutex                // held while a line is shown
	output   func(stream, line string) // nil: lines are not shown

	attachMu sync.Mutex // orders attach and end
	ended    bool       // by the host: an app that attaches later is not that of the next start

	// Used only by report.
	attached int
	received int                      // bytes of all manifests
	visited  int                      // number of the app that visitors reach
	mounts   []string                 // of the apps that have sent a manifest, by number
	atMount  map[string]mountedBlocks // the last app at each mount

	observations int // received
}

// mountedBlocks is the last manifest of one mount, as far as later reports refer to it. Earlier ones are not kept.
type mountedBlocks struct {
	first  int          // the Blocks, by the number of their first manifest
	files  *queue.Files // may be nil
	memory int          // estimate for the whole manifest, which the Queue keeps
}

// phase is the progress of an Event that runs in this start. Other Events have phase 0.
type phase int

const (
	running   phase = iota + 1 // messages are accepted
	completed                  // process_completed was received: only done may follow
)

// open registers the Events of a job that is about to be sent.
func (s *session) open(job queue.Job) {
	for _, e := range job.Events {
		s.set(e.ID, running)
	}
}

func (s *session) set(event queue.EventID, to phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events == nil {
		s.events = map[queue.EventID]phase{}
	}
	s.events[event] = to
}

func (s *session) phase(event queue.EventID) phase {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[event]
}

var _ Reporter = (*session)(nil)

// Report implements Reporter. The first Job, which the first report can trigger, must find the start.
func (s *session) Report(f Frame) error {
	if s.opened != nil {
		<-s.opened
	}
	if s.abandoned {
		return nil
	}
	r, err := parseReport(f)
	if err != nil {
		return err
	}
	return s.report(r, f.Payload)
}

// Print implements Reporter.
func (s *session) Print(stream, line string) {
	show := func() {
		s.outputMu.Lock()
		defer s.outputMu.Unlock()
		if s.output != nil {
			s.output(stream, line)
		}
	}
	switch stream {
	case Stdout:
		s.comparison.add(streamOut, line, show)
	case Stderr:
		s.comparison.add(streamErr, line, show)
	default: // after what it is about
		s.comparison.release()
		show()
	}
}

// Mark implements Reporter.
func (s *session) Mark(number int) {
	if s.failures != nil {
		s.failures.mark(number)
	}
}

// Note implements Reporter.
func (s *session) Note(text string) {
	if note := s.supervisor.config.Note; note != nil {
		note(text)
	}
}

func (s *session) report(r report, payload []byte) error {
	switch r.Op {
	case "manifest", "unknown", "server":
		return s.app(r)
	case "changed":
		s.supervisor.queue.Changed(r.App)
		return nil
	case "closed":
		return s.closed(r)
	case "static":
		return s.static(r)
	case "admitted":
		return s.admitted(r)
	case "message":
		return s.message(r, payload)
	case "failure":
		s.failure(r)
		return nil
	case "done":
		return s.done(r)
	case "fact":
		return s.fact(r)
	case "calls":
		return s.calls(payload)
	case "alive":
		return s.alive(r)
	case "hello":
		return unexpected(r)
	}
	return &FrameError{fmt.Sprintf("unknown report %.40q", r.Op)}
}

// app handles the report of an app that attaches.
func (s *session) app(r report) error {
	if s.received += r.size; s.received > maxManifestBytes {
		return &FrameError{fmt.Sprintf("manifests of more than %d MiB", maxManifestBytes>>20)}
	}
	switch r.Op {
	case "unknown":
		return s.unknown(r)
	case "server":
		return s.server(r)
	}
	return s.manifest(r)
}

func (s *session) manifest(r report) error {
	m, err := r.manifestOf()
	if err != nil {
		return err
	}
	if r.App != len(s.mounts) {
		return &FrameError{fmt.Sprintf("manifest number %d names app %d", len(s.mounts)+1, r.App)}
	}
	s.mounts = append(s.mounts, m.Mount)
	if r.Further {
		return s.further()
	}
	s.visited = r.App
	before, known := s.atMount[m.Mount]
	m.Replaces = known && before.first != r.First
	if err := s.keep(m, mountedBlocks{r.First, m.Files, r.memory}); err != nil {
		return err
	}
	return s.attach(m)
}

// keep replaces the manifest of a mount. It bounds the memory that the manifests of all mounts take together.
func (s *session) keep(m queue.Manifest, blocks mountedBlocks) error {
	if s.atMount == nil {
		s.atMount = map[string]mountedBlocks{}
	}
	s.atMount[m.Mount] = blocks
	if len(s.atMount) > maxMounts {
		return &FrameError{fmt.Sprintf("more than %d mounts", maxMounts)}
	}
	memory := 0
	for _, one := range s.atMount {
		memory += one.memory
	}
	if memory > maxManifestMemory {
		return &FrameError{fmt.Sprintf("manifests of %d mounts need more than %d MiB of memory", len(s.atMount), maxManifestMemory>>20)}
	}
	return nil
}

// further ignores an app that was launched in addition to the first. On the Hub a Space has one port, which the
// first app uses, and GRADIO_NUM_PORTS=1 makes the launch of another app fail.
func (s *session) further() error {
	if s.attached++; s.attached > maxAttached {
		return errAttached
	}
	s.supervisor.config.Note("A further demo was launched: visitors reach only the first one. On the Hub this launch fails, because " +
		"a Space has one port. Combine the demos into one, for example with gr.TabbedInterface.")
	return nil
}

// closed handles an app that has shut down its server while the process runs. Queued calls wait for its next launch.
func (s *session) closed(r report) error {
	if r.App != s.visited || len(s.mounts) == 0 {
		return nil
	}
	s.supervisor.closed()
	s.supervisor.queue.Lost(appClosed)
	return nil
}

const appClosed = "The app was closed."

// static handles the static paths of the whole process, regardless of its number of apps (gradio/data_classes.py,
// _StaticFiles).
func (s *session) static(r report) error {
	for _, blocks := range s.atMount {
		if blocks.files != nil {
			blocks.files.SetStatic(r.Paths)
		}
	}
	return nil
}

func (s *session) unknown(r report) error {
	if !isPort(r.Port) {
		return &FrameError{fmt.Sprintf("unknown gradio: port %d is out of bounds", r.Port)}
	}
	if r.Further {
		return s.further()
	}
	gradio, reason := printable.Reason(r.Gradio), printable.Reason(r.Reason)
	s.supervisor.config.Logger.Warn("unknown gradio, its own queue is used", zap.String("gradio", gradio), zap.String("reason", reason))
	if report := s.supervisor.config.Unknown; report != nil {
		report(gradio, reason)
	}
	return s.attach(queue.Manifest{PassThrough: true, Reason: reason, Gradio: gradio, Port: r.Port, MaxThreads: 1, Tasks: r.tasks()})
}

// server attaches an app without Gradio: every request is passed through to it.
func (s *session) server(r report) error {
	if !isPort(r.Port) {
		return &FrameError{fmt.Sprintf("server: port %d is out of bounds", r.Port)}
	}
	if r.Further {
		return s.further()
	}
	return s.attach(queue.Manifest{PassThrough: true, Reason: noGradio, Port: r.Port, MaxThreads: 1, Tasks: r.tasks()})
}

const noGradio = "The app serves no Gradio."

// Bounds of the manifests of one start. The manifest of a small app has 60 kB, most of it media types.
const (
	maxMounts         = 64
	maxManifestMemory = 16 << 20 // of the manifests that are kept: the last one of each mount
	maxManifestBytes  = 64 << 20 // of all manifests, which bounds the time that the host takes to read them
)

// maxAttached bounds how often one process may attach. A normal app relaunches a few times.
const maxAttached = 1000

var errAttached = &FrameError{fmt.Sprintf("attached more than %d times", maxAttached)}

func (s *session) attach(m queue.Manifest) error {
	if s.attached++; s.attached > maxAttached {
		return errAttached
	}
	if check := s.supervisor.config.Attached; check != nil && s.attached == 1 && !s.adopted {
		if err := check(s.instance, m); err != nil {
			return err
		}
	}
	s.attachMu.Lock()
	defer s.attachMu.Unlock()
	if !s.ended {
		s.supervisor.queue.Attach(m)
		s.supervisor.running(m)
	}
	return nil
}

// end ends the start for the Queue, before its process ends. An app that attaches while the process ends is ignored: the Queue would
// take it for the next start, and give it the waiting calls.
func (s *session) end(reason string) {
	s.attachMu.Lock()
	defer s.attachMu.Unlock()
	s.ended = true
	s.supervisor.queue.Lost(reason)
}

func (s *session) admitted(r report) error {
	if r.App < 0 || r.App >= len(s.mounts) || r.Endpoint == nil || r.Session == "" || len(r.Event) != 32 {
		return &FrameError{"admitted without manifest, endpoint, session or event"}
	}
	endpoint, err := r.Endpoint.endpoint(s.mounts[r.App])
	if err != nil {
		return err
	}
	payer, ok := s.supervisor.queue.Payer(r.Call)
	if !ok { // not through the host's edge: the Space called itself
		payer = s.supervisor.config.Account()
	}
	if r.Cached { // its result follows without a start frame
		s.set(r.Event, running)
	}
	release := s.supervisor.queue.Adopt(r.Call, r.Event)
	err = s.supervisor.queue.Join(&queue.Event{
		ID: r.Event, Session: r.Session, Endpoint: endpoint, Payer: payer, Admitted: true, Finished: r.Cached, Release: release,
	})
	s.supervisor.queue.Joined(r.Call)
	if err != nil && release != nil {
		release()
	}
	if err != nil && !errors.Is(err, queue.ErrNoRunner) { // ErrNoRunner: the host is shutting down
		return &FrameError{"admitted: " + err.Error()}
	}
	return nil
}

func (s *session) message(r report, payload []byte) error {
	if s.phase(r.Event) != running {
		return &FrameError{fmt.Sprintf("%.40q for an event that is not running", r.Msg)}
	}
	if bytes.ContainsAny(payload, "\r\n") { // either character would end the line of the visitor's stream
		return &FrameError{fmt.Sprintf("%.40q with a line break", r.Msg)}
	}
	if r.Msg == queue.Completed {
		s.set(r.Event, completed)
	}
	m := queue.Message{Kind: r.Msg, Event: r.Event, Raw: payload}
	m.Success = r.Success != nil && *r.Success
	s.supervisor.queue.Message(r.Event, m)
	return nil
}

// failure handles a known failure. Its Events still run: Gradio prints an exception before it completes the event.
func (s *session) failure(r report) {
	f, ok := r.failureOf()
	if !ok || !s.failures.accepts() {
		return
	}
	f.Events = slices.DeleteFunc(f.Events, func(event queue.EventID) bool { return s.phase(event) != running })
	if failed := s.supervisor.config.Failed; failed != nil {
		failed(f)
	}
	s.failures.report(r.Number, f)
}

func (s *session) done(r report) error {
	if s.phase(r.Event) == 0 {
		return &FrameError{"done for an event that is not running"}
	}
	if r.Average != nil && (*r.Average < 0 || *r.Average > maxSeconds) {
		return &FrameError{fmt.Sprintf("average duration of %g s is out of bounds", *r.Average)}
	}
	s.mu.Lock()
	delete(s.events, r.Event)
	s.mu.Unlock()
	s.supervisor.queue.Done(r.Event, printable.Reason(r.Error), r.Average)
	return nil
}
