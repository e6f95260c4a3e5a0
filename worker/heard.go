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

// heard turns what one start of a Space says into calls of its Queue. What a runner says is a claim by the
// Space, whose code may be hostile: it counts only for Events that run there, each of which ends once.
type heard struct {
	supervisor *Supervisor

	mu     sync.Mutex
	events map[queue.EventID]phase

	// Touched only by report.
	attached int
	app      int            // the number of the app that visitors reach
	files    []*queue.Files // of the apps that are attached
	mounts   []string       // of the apps that have said their manifest, by number
	distinct int            // of them
}

// phase is how far an Event is that runs there. One that does not has none.
type phase int

const (
	running   phase = iota + 1 // it may speak
	completed                  // it has said process_completed: only done may follow
)

// open says that the process is about to get job.
func (h *heard) open(job queue.Job) {
	for _, e := range job.Events {
		h.set(e.ID, running)
	}
}

func (h *heard) set(event queue.EventID, to phase) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.events == nil {
		h.events = map[queue.EventID]phase{}
	}
	h.events[event] = to
}

func (h *heard) phase(event queue.EventID) phase {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events[event]
}

func (h *heard) report(r report, payload []byte) error {
	switch r.Op {
	case "manifest":
		return h.manifest(r)
	case "changed":
		h.supervisor.queue.Changed(r.App)
		return nil
	case "unknown":
		return h.unknown(r)
	case "closed":
		return h.closed(r)
	case "static":
		return h.static(r)
	case "admitted":
		return h.admitted(r)
	case "message":
		return h.message(r, payload)
	case "done":
		return h.done(r)
	}
	return &FrameError{fmt.Sprintf("unknown report %.40q", r.Op)}
}

func (h *heard) manifest(r report) error {
	m, err := r.manifestOf()
	if err != nil {
		return err
	}
	if r.App != len(h.mounts) {
		return &FrameError{fmt.Sprintf("manifest number %d names app %d", len(h.mounts)+1, r.App)}
	}
	if !slices.Contains(h.mounts, m.Mount) {
		if h.distinct++; h.distinct > maxMounts {
			return &FrameError{fmt.Sprintf("apps at more than %d mounts", maxMounts)}
		}
	}
	h.mounts = append(h.mounts, m.Mount)
	if r.Further {
		return h.further()
	}
	h.app = r.App
	if m.Files != nil {
		h.files = append(h.files, m.Files)
	}
	return h.attach(m)
}

// further leaves an app alone that was launched beside the first. On the Hub a Space has one port, which the
// first has taken, and GRADIO_NUM_PORTS=1 makes the launch of another fail.
func (h *heard) further() error {
	if h.attached++; h.attached > maxAttached {
		return errAttached
	}
	h.supervisor.config.Note("A further demo was launched: visitors reach the first one alone. On the Hub this launch fails " +
		"(a Space has one port): make one demo of them, as with gr.TabbedInterface.")
	return nil
}

// closed: the app has shut its server in a living process. Who waits, waits for its next launch.
func (h *heard) closed(r report) error {
	if r.App != h.app || len(h.mounts) == 0 {
		return nil
	}
	h.supervisor.closed()
	h.supervisor.queue.Lost(appClosed)
	return nil
}

const appClosed = "The app was closed."

// static is said of the whole process, whatever number of apps it has (gradio/data_classes.py, _StaticFiles).
func (h *heard) static(r report) error {
	for _, files := range h.files {
		files.SetStatic(r.Paths)
	}
	return nil
}

func (h *heard) unknown(r report) error {
	if !isPort(r.Port) {
		return &FrameError{fmt.Sprintf("unknown gradio at port %d", r.Port)}
	}
	if r.Further {
		return h.further()
	}
	h.supervisor.config.Logger.Warn("this gradio is not known: its own queue is used",
		zap.String("gradio", r.Gradio), zap.String("reason", r.Reason))
	if tell := h.supervisor.config.Unknown; tell != nil {
		tell(r.Gradio, r.Reason)
	}
	return h.attach(queue.Manifest{PassThrough: true, Reason: r.Reason, Gradio: r.Gradio, Port: r.Port, MaxThreads: 1, Tasks: r.tasks()})
}

// maxMounts bounds what is kept of one Space: a manifest for each.
const maxMounts = 64

// maxAttached bounds how often one process may attach; an app relaunches a few times, not forever.
const maxAttached = 1000

var errAttached = &FrameError{fmt.Sprintf("attached more than %d times", maxAttached)}

func (h *heard) attach(m queue.Manifest) error {
	if h.attached++; h.attached > maxAttached {
		return errAttached
	}
	h.supervisor.queue.Attach(m)
	h.supervisor.running(m)
	return nil
}

func (h *heard) admitted(r report) error {
	if r.App < 0 || r.App >= len(h.mounts) || r.Endpoint == nil || r.Session == "" || len(r.Event) != 32 {
		return &FrameError{"admitted without manifest, endpoint, session or event"}
	}
	endpoint, err := r.Endpoint.endpoint(h.mounts[r.App])
	if err != nil {
		return err
	}
	payer, ok := h.supervisor.queue.Payer(r.Call)
	if !ok { // not through the host's edge: the Space called itself
		payer = h.supervisor.config.Account()
	}
	if r.Cached { // its answer follows, without a start
		h.set(r.Event, running)
	}
	err = h.supervisor.queue.Join(&queue.Event{
		ID: r.Event, Session: r.Session, Endpoint: endpoint, Payer: payer, Admitted: true, Finished: r.Cached,
	})
	if err != nil && !errors.Is(err, queue.ErrNoRunner) { // that one: the host is about to end
		return &FrameError{"admitted: " + err.Error()}
	}
	return nil
}

func (h *heard) message(r report, payload []byte) error {
	if h.phase(r.Event) != running {
		return &FrameError{fmt.Sprintf("%.40q for an event that does not run there", r.Msg)}
	}
	if bytes.ContainsAny(payload, "\r\n") { // either would end the line of the visitor's stream
		return &FrameError{fmt.Sprintf("%.40q with a line break", r.Msg)}
	}
	if r.Msg == queue.Completed {
		h.set(r.Event, completed)
	}
	m := queue.Message{Kind: r.Msg, Event: r.Event, Raw: payload}
	m.Success = r.Success != nil && *r.Success
	h.supervisor.queue.Message(r.Event, m)
	return nil
}

func (h *heard) done(r report) error {
	if h.phase(r.Event) == 0 {
		return &FrameError{"done for an event that does not run there"}
	}
	if r.Average != nil && (*r.Average < 0 || *r.Average > maxSeconds) {
		return &FrameError{fmt.Sprintf("a mean run time of %g s", *r.Average)}
	}
	h.mu.Lock()
	delete(h.events, r.Event)
	h.mu.Unlock()
	h.supervisor.queue.Done(r.Event, r.Error, r.Average)
	return nil
}
