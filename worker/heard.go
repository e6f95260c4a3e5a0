package worker

import (
	"bytes"
	"fmt"
	"sync"

	"spacehost/queue"
)

// heard turns what one start of a Space says into calls of its Queue. What a runner says is a claim by the
// Space, whose code may be hostile: it counts only for Events that run there, each of which ends once.
type heard struct {
	supervisor *Supervisor
	port       int // that the Space was given for its own server

	mu        sync.Mutex
	events    map[queue.EventID]bool // running there; true: completed
	manifests int
}

func (h *heard) open(job queue.Job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range job.Events {
		h.add(e.ID)
	}
}

func (h *heard) add(event queue.EventID) {
	if h.events == nil {
		h.events = map[queue.EventID]bool{}
	}
	h.events[event] = false
}

func (h *heard) report(r report, payload []byte) error {
	switch r.Op {
	case "manifest":
		return h.manifest(r)
	case "unknown":
		return h.unknown(r)
	case "admitted":
		return h.admitted(r)
	case "message":
		return h.message(r, payload)
	case "done":
		return h.done(r)
	}
	return &FrameError{fmt.Sprintf("unknown report %q", r.Op)}
}

// maxManifests bounds how often one process may attach; an app relaunches a few times, not forever.
const maxManifests = 1000

func (h *heard) manifest(r report) error {
	m, err := r.manifestOf()
	if err != nil {
		return err
	}
	if h.manifests++; h.manifests > maxManifests || r.App != h.manifests-1 {
		return &FrameError{fmt.Sprintf("manifest number %d names app %d", h.manifests, r.App)}
	}
	h.supervisor.queue.Attach(m)
	h.supervisor.running(m)
	return nil
}

func (h *heard) unknown(r report) error {
	m := queue.Manifest{PassThrough: true, Reason: r.Reason, Gradio: r.Gradio, Port: h.port, MaxThreads: 1}
	h.supervisor.config.Logger.Warn("this gradio is not known: its own queue is used")
	h.supervisor.queue.Attach(m)
	h.supervisor.running(m)
	return nil
}

func (h *heard) admitted(r report) error {
	if r.Endpoint == nil || r.Session == "" || len(r.Event) != 32 {
		return &FrameError{"admitted without endpoint, session or event"}
	}
	endpoint, err := r.Endpoint.endpoint()
	if err != nil {
		return err
	}
	payer, ok := h.supervisor.queue.Payer(r.Call)
	if !ok { // not through the host's edge: the Space called itself
		payer = h.supervisor.config.Account()
	}
	event := &queue.Event{
		ID: r.Event, Session: r.Session, Endpoint: endpoint, Payer: payer, Admitted: true, Finished: r.Cached,
	}
	if r.Cached {
		h.mu.Lock()
		h.add(r.Event)
		h.mu.Unlock()
	}
	return h.supervisor.queue.Join(event)
}

func (h *heard) message(r report, payload []byte) error {
	h.mu.Lock()
	completed, running := h.events[r.Event]
	if running && r.Msg == queue.Completed {
		h.events[r.Event] = true
	}
	h.mu.Unlock()
	if !running || completed {
		return &FrameError{fmt.Sprintf("%s for an event that does not run there", r.Msg)}
	}
	if bytes.IndexByte(payload, '\n') >= 0 { // it would end the line of the visitor's stream
		return &FrameError{fmt.Sprintf("%s with a line break", r.Msg)}
	}
	m := queue.Message{Kind: r.Msg, Event: r.Event, Raw: payload}
	m.Success = r.Success != nil && *r.Success
	h.supervisor.queue.Message(r.Event, m)
	return nil
}

func (h *heard) done(r report) error {
	h.mu.Lock()
	_, running := h.events[r.Event]
	delete(h.events, r.Event)
	h.mu.Unlock()
	if !running {
		return &FrameError{"done for an event that does not run there"}
	}
	h.supervisor.queue.Done(r.Event, r.Error, r.Average)
	return nil
}
