package queue

import (
	"time"

	"spacehost/internal/identity"
)

// onSubmit admits an Event in Gradio's order of checks: queue size, Endpoint, group. Then it sends the estimate to the
// new Event only (gradio/queueing.py, push).
//
//  1. A Space chooses the ids of the Events that it admits, and a Space may be hostile.
//  2. The queue size was checked before the Space admitted the Event. Other Events may have filled the queue since.
//     The visitor already has an event id, so the refusal is sent as the event's result.
func (sc *scheduler) onSubmit(e *Event) error {
	if sc.manifest == nil {
		return ErrNoRunner
	}
	if sc.waiting[e.ID] != nil || sc.running[e.ID] != nil {
		return ErrKnownEvent // 1
	}
	refusal := sc.checkAdmission(e)
	if e.Admitted {
		if refusal != nil {
			sc.reject(e, refusal) // 2
			return nil
		}
	} else {
		if refusal != nil {
			return refusal
		}
		endpoint, ok := sc.endpoint(e.Endpoint)
		if !ok {
			return &UnknownEndpointError{e.Endpoint.ID}
		}
		e.Endpoint = endpoint
	}
	sc.joins++
	e.serial = sc.joins
	sc.session(e).expect(e.ID)
	if e.Finished {
		sc.running[e.ID] = e // a cache hit needs no start; its Messages follow
		return nil
	}
	if sc.refusesNew() && !e.Admitted { // as its result: the stock clients show no text of a refused join
		sc.fail(e, sc.draining.text)
		return nil
	}
	sc.enqueue(e)
	g := sc.groups[e.Endpoint.Group]
	sc.estimate(g, len(g.waiting)-1)
	if sc.draining != nil && sc.draining.paused && !e.Admitted {
		sc.notify(e, pausedTitle)
	}
	sc.dispatch()
	return nil
}

// reject ends an Event that the Space has admitted. A visitor with too many Sessions gets no Session for the refusal.
func (sc *scheduler) reject(e *Event, refusal error) {
	if _, full := refusal.(*FullError); full {
		sc.session(e).expect(e.ID)
		sc.complete(e, &Failure{Title: "Error", Text: refusal.Error()})
	}
	sc.do.stop(sc.manifest.App, e.ID)
	sc.do.ended(e, refusal.Error())
}

// checkAdmission returns the error that refuses e, or nil. A finished Event does not wait, so the queue size does not
// apply to it.
func (sc *scheduler) checkAdmission(e *Event) error {
	if isBounded(e.Payer) && sc.find(e.Session) == nil && sc.isCrowded(e.Payer.Key()) {
		return &CrowdedError{sc.maxSessions}
	}
	if e.Finished {
		return nil
	}
	return sc.checkSize(e.Endpoint.Mount)
}

// isCrowded reports whether a visitor has as many Sessions as it may have. Sessions without a stream and without an undelivered
// result do not count: a program that makes many short calls leaves one after each. They are removed at most once a second,
// because that looks at all Sessions.
func (sc *scheduler) isCrowded(owner string) bool {
	if sc.owners[owner] < sc.maxSessions {
		return false
	}
	if now := sc.now(); now.Sub(sc.cleared) >= time.Second {
		sc.cleared = now
		for _, s := range sc.sessions {
			if s.isDone() {
				sc.onLeave(s)
			}
		}
	}
	return sc.owners[owner] >= sc.maxSessions
}

func (sc *scheduler) checkSize(mount string) error {
	m := sc.apps[mount]
	if m == nil || m.MaxSize == nil || sc.sizeAt(mount) < *m.MaxSize {
		return nil
	}
	return &FullError{Max: *m.MaxSize, Size: sc.sizeAt(mount)}
}

func (sc *scheduler) sizeAt(mount string) (n int) {
	if len(sc.apps) == 1 {
		return sc.size()
	}
	for _, g := range sc.groupOrder {
		if g.mount == mount {
			n += len(g.waiting)
		}
	}
	return n
}

func (sc *scheduler) size() int { return len(sc.waiting) }

// maxBuffered bounds the undelivered bytes of all Sessions together, so that many clients that never read cannot
// exhaust the host's memory.
const maxBuffered = 512 << 20

// maxSessions bounds the Sessions of one visitor: a classroom behind one address fits, a flood does not.
const maxSessions = 2000

// session returns the Session that a new Event joins. It replaces an evicted Session by a new one.
func (sc *scheduler) session(e *Event) *Session {
	if s := sc.find(e.Session); s != nil {
		return s
	}
	if evicted := sc.sessions[e.Session]; evicted != nil {
		sc.onLeave(evicted)
	}
	s := newSession(e.Session, sc.now)
	s.total = &sc.buffered
	if isBounded(e.Payer) {
		s.owner = e.Payer.Key()
		sc.owners[s.owner]++
	}
	sc.sessions[e.Session] = s
	return s
}

// find returns nil for an unknown Session and for an evicted one: the visitor has to start again.
func (sc *scheduler) find(hash SessionHash) *Session {
	if s := sc.sessions[hash]; s != nil && !s.isGone() {
		return s
	}
	return nil
}

func (sc *scheduler) sessionOf(id EventID) *Session {
	for _, events := range []map[EventID]*Event{sc.waiting, sc.running} {
		if e := events[id]; e != nil && !e.abandoned {
			return sc.find(e.Session)
		}
	}
	for _, s := range sc.sessions { // ended, but the result is undelivered
		if s.isPending(id) {
			return s
		}
	}
	return nil
}

// isBounded reports whether maxSessions applies to payer. The local visitor and Spaces are exempt.
func isBounded(payer identity.Identity) bool {
	return payer.Kind == identity.Address || payer.Kind == identity.User
}

// deliver sends m to the Event's Session. It drops Messages of abandoned Events, because a new Session may have taken
// the same hash. An evicted Session is removed later by onSweep: callers may be iterating over the waiting Events.
func (sc *scheduler) deliver(e *Event, m Message) {
	if s := sc.sessions[e.Session]; s != nil && !e.abandoned {
		s.put(m)
		sc.evictHeaviest()
	}
}

// evictHeaviest evicts the Session with the most undelivered bytes until the total is within maxBuffered.
func (sc *scheduler) evictHeaviest() {
	for sc.buffered.Load() > sc.maxBuffered {
		var heaviest *Session
		most := 0
		for _, s := range sc.sessions {
			if weight := s.weight(); weight > most {
				heaviest, most = s, weight
			}
		}
		if heaviest == nil {
			return
		}
		heaviest.end()
	}
}
