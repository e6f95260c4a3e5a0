package gradioapi

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"spacehost/queue"
)

// Credential is what a request was authorised by, as far as it can become invalid while the request or its stream is open.
type Credential struct {
	Bearer string // bearer token of this host; empty: none
	SignIn string // text of the browser's sign-in; empty: none
	User   string // name of the user that the request counted as; empty: none
}

// CredentialEnded is the sentence for calls whose token, sign-in or membership has ended.
const CredentialEnded = "The operator has ended the access by which this call was made: its token was revoked, or the membership of this Space has ended."

// errCredentialEnded is the cause of the end of a request whose Credential is not allowed any more.
var errCredentialEnded = errors.New("the credential of the request has ended")

// grants are the open streams, the passed-through requests and the Events, with what authorised them. The zero value is ready to use.
type grants struct {
	mu   sync.Mutex
	open map[*grant]bool
}

type grant struct {
	Credential
	end func() // returns at once
}

// add registers a request until release is called, which may be called twice.
func (g *grants) add(by Credential, end func()) (release func()) {
	one := &grant{by, end}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		g.open = map[*grant]bool{}
	}
	g.open[one] = true
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.open, one)
	}
}

func (g *grants) all() (all []*grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for one := range g.open {
		all = append(all, one)
	}
	return all
}

// EndRefused ends every open stream, passed-through request and Event whose Credential is not allowed any more. Pending calls
// end with a sentence, also those without an open stream.
func (h *Handler) EndRefused() {
	for _, one := range h.grants.all() {
		if !h.config.Allowed(one.Credential) {
			one.end()
		}
	}
}

// grant registers a request that Identify has admitted. A Credential that became invalid since then ends it at once.
func (h *Handler) grant(r *http.Request, end func()) (release func()) {
	if h.config.Credential == nil {
		return func() {}
	}
	by := h.config.Credential(r)
	release = h.grants.add(by, end)
	if !h.config.Allowed(by) {
		end()
	}
	return release
}

// authorise registers an Event until release is called.
func (h *Handler) authorise(by Credential, event queue.EventID) (release func()) {
	return h.grants.add(by, func() { h.config.Queue.DismissEvent(event, CredentialEnded) })
}

// authoriseAdmitted registers the Event that the Space admits for a direct call.
func (h *Handler) authoriseAdmitted(r *http.Request, call queue.EventID) {
	if h.config.Credential == nil {
		return
	}
	by := h.config.Credential(r)
	h.config.Queue.OnAdmitted(call, func(event queue.EventID) (release func()) { return h.authorise(by, event) })
}

// released returns the function for the end of an Event, which this Handler is about to admit.
func (h *Handler) released(r *http.Request, event queue.EventID) func() {
	release := h.bodies.keep(r)
	if h.config.Credential == nil {
		return release
	}
	end := h.authorise(h.config.Credential(r), event)
	return func() { end(); release() }
}

// recheck ends an Event whose Credential became invalid before the queue had the Event.
func (h *Handler) recheck(r *http.Request, event queue.EventID) {
	if h.config.Credential != nil && !h.config.Allowed(h.config.Credential(r)) {
		h.config.Queue.DismissEvent(event, CredentialEnded)
	}
}

// dismiss ends the calls of a Session whose stream lost its authorisation, and writes their ends.
func (h *Handler) dismiss(s *sse, session *queue.Session, frame func(queue.Message) []byte) {
	h.config.Queue.Dismiss(session, CredentialEnded)
	var frames []byte
	for session.Ready() {
		m, err := session.Next(h.ctx, nil)
		if err != nil && err != io.EOF {
			break
		}
		frames = append(frames, frame(m)...)
	}
	s.end(frames)
	h.config.Queue.Leave(session)
}
