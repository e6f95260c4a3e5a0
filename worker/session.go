package worker

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.uber.org/zap"

	"spacehost/queue"
)

// session translates the reports of one start of a Space to calls of its Queue. A report is a claim by the Space,
// whose code may be hostile. It counts only for Events that run in this start, and each Event ends once.
type session struct {
	supervisor *Supervisor
	instance   string

	mu     sync.Mutex
	events map[queue.EventID]phase

	// Used only by report.
	attached int
	app      int            // number of the app that visitors reach
	files    []*queue.Files // of the attached apps
	mounts   []string       // of the apps that have sent a manifest, by number
	distinct int            // number of distinct mounts
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

func (s *session) report(r report, payload []byte) error {
	switch r.Op {
	case "manifest":
		return s.manifest(r)
	case "changed":
		s.supervisor.queue.Changed(r.App)
		return nil
	case "unknown":
		return s.unknown(r)
	case "closed":
		return s.closed(r)
	case "static":
		return s.static(r)
	case "admitted":
		return s.admitted(r)
	case "message":
		return s.message(r, payload)
	case "done":
		return s.done(r)
	}
	return &FrameError{fmt.Sprintf("unknown report %.40q", r.Op)}
}

func (s *session) manifest(r report) error {
	m, err := r.manifestOf()
	if err != nil {
		return err
	}
	if r.App != len(s.mounts) {
		return &FrameError{fmt.Sprintf("manifest number %d names app %d", len(s.mounts)+1, r.App)}
	}
	if !slices.Contains(s.mounts, m.Mount) {
		if s.distinct++; s.distinct > maxMounts {
			return &FrameError{fmt.Sprintf("more than %d mounts", maxMounts)}
		}
	}
	s.mounts = append(s.mounts, m.Mount)
	if r.Further {
		return s.further()
	}
	s.app = r.App
	if m.Files != nil {
		s.files = append(s.files, m.Files)
	}
	return s.attach(m)
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
	if r.App != s.app || len(s.mounts) == 0 {
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
	for _, files := range s.files {
		files.SetStatic(r.Paths)
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
	s.supervisor.config.Logger.Warn("unknown gradio, its own queue is used",
		zap.String("gradio", r.Gradio), zap.String("reason", r.Reason))
	if report := s.supervisor.config.Unknown; report != nil {
		report(r.Gradio, r.Reason)
	}
	return s.attach(queue.Manifest{PassThrough: true, Reason: r.Reason, Gradio: r.Gradio, Port: r.Port, MaxThreads: 1, Tasks: r.tasks()})
}

// maxMounts bounds the memory for one Space: each mount keeps a manifest.
const maxMounts = 64

// maxAttached bounds how often one process may attach. A normal app relaunches a few times.
const maxAttached = 1000

var errAttached = &FrameError{fmt.Sprintf("attached more than %d times", maxAttached)}

func (s *session) attach(m queue.Manifest) error {
	if s.attached++; s.attached > maxAttached {
		return errAttached
	}
	if check := s.supervisor.config.Attached; check != nil && s.attached == 1 {
		if err := check(s.instance, m); err != nil {
			return err
		}
	}
	s.supervisor.queue.Attach(m)
	s.supervisor.running(m)
	return nil
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
	err = s.supervisor.queue.Join(&queue.Event{
		ID: r.Event, Session: r.Session, Endpoint: endpoint, Payer: payer, Admitted: true, Finished: r.Cached,
	})
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
	s.supervisor.queue.Done(r.Event, r.Error, r.Average)
	return nil
}
