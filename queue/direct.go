package queue

import (
	"context"
	"sync"
	"time"

	"spacehost/internal/identity"
)

// Direct registers a call that bypasses the queue until end is called, so that its token may pay. A drain waits for it if
// awaited is set. end may be called twice.
func (q *Queue) Direct(payer identity.Identity, awaited bool) (event EventID, end func()) {
	event = NewEventID()
	q.direct.add(event, payer, awaited)
	return event, sync.OnceFunc(func() { q.direct.remove(event) })
}

// Disconnected ends the GPU leases of a direct call whose client has disconnected, waiting and running ones. Call end
// first: the device API then refuses a request that comes later.
func (q *Queue) Disconnected(event EventID) {
	if q.config.Payments != nil {
		q.config.Payments.Cancelled(event)
	}
}

// Payer returns the payer of a running direct call. The owner of the runner calls it when the Space has admitted the
// call; the call's Event joins next.
func (q *Queue) Payer(event EventID) (identity.Identity, bool) {
	d, ok := q.direct.get(event)
	return d.payer, ok
}

// Joined ends the wait of Admitted: the Event of a direct call has joined, or was refused. It may be called twice.
func (q *Queue) Joined(call EventID) {
	if d, ok := q.direct.get(call); ok {
		d.admit()
	}
}

// OnAdmitted sets what Adopt calls for a running direct call.
func (q *Queue) OnAdmitted(call EventID, adopt func(event EventID) (release func())) {
	q.direct.setAdopt(call, adopt)
}

// Adopt connects an Event, which joins next, with the running direct call that the Space has admitted as this Event. The result is
// for Event.Release; nil: there is nothing to release.
func (q *Queue) Adopt(call, event EventID) (release func()) {
	if d, ok := q.direct.get(call); ok && d.adopt != nil {
		return d.adopt(event)
	}
	return nil
}

// Admitted waits until the Event of a direct call that the Space has admitted has joined (Joined), or until ctx ends. The
// Space's own HTTP response takes another path and may be faster. Without this wait its reader would not find the
// Session.
func (q *Queue) Admitted(ctx context.Context, event EventID) {
	d, ok := q.direct.get(event)
	if !ok {
		return
	}
	select {
	case <-d.admitted:
	case <-ctx.Done():
	}
}

// directCalls holds the running direct calls and the end times of long ones.
type directCalls struct {
	now   func() time.Time
	mu    sync.Mutex
	live  map[EventID]directCall
	ended map[EventID]time.Time
}

type directCall struct {
	payer    identity.Identity
	awaited  bool // a drain waits for its end
	began    time.Time
	admitted chan struct{} // closed when the Space has turned the call into an Event
	admit    func()
	adopt    func(event EventID) (release func()) // nil: none
}

// minRemembered is the shortest direct call whose end is remembered. Short calls are too many to remember.
const minRemembered = time.Minute

// busy returns the number of awaited calls.
func (d *directCalls) busy() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, call := range d.live {
		if call.awaited {
			n++
		}
	}
	return n
}

func (d *directCalls) add(event EventID, payer identity.Identity, awaited bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live == nil {
		d.live, d.ended = map[EventID]directCall{}, map[EventID]time.Time{}
	}
	admitted := make(chan struct{})
	d.live[event] = directCall{payer: payer, awaited: awaited, began: d.now(), admitted: admitted, admit: sync.OnceFunc(func() { close(admitted) })}
}

func (d *directCalls) setAdopt(event EventID, adopt func(event EventID) (release func())) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if call, live := d.live[event]; live {
		call.adopt = adopt
		d.live[event] = call
	}
}

func (d *directCalls) remove(event EventID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.now(); now.Sub(d.live[event].began) >= minRemembered {
		d.ended[event] = now
	}
	delete(d.live, event)
}

func (d *directCalls) get(event EventID) (directCall, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	found, ok := d.live[event]
	return found, ok
}

func (d *directCalls) isRecent(event EventID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, live := d.live[event]
	end, ended := d.ended[event]
	return live || ended && d.now().Sub(end) < tokenGrace
}

func (d *directCalls) sweep(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for event, end := range d.ended {
		if now.Sub(end) >= tokenGrace {
			delete(d.ended, event)
		}
	}
}
