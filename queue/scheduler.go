package queue

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// effects are the actions that the scheduler requests. No method blocks.
type effects interface {
	// start passes job to the runner. The end of each of its Events comes back as a finished value.
	start(job Job)
	// stop ends one running Event because its visitor cancelled it.
	stop(app int, event EventID)
	// abandon reports that the visitors of running Events have left.
	abandon(app int, events []EventID)
	// ended is called exactly once per Event, with any outcome.
	ended(event *Event, reason string)
}

// How long a Session without an open stream is kept. sessionTTL applies when no Message is pending, unreadTTL when
// a result is unread (a POST to /call without its GET). Gradio keeps such results until 2,000 newer sessions exist.
const (
	sessionTTL = 60 * time.Second
	unreadTTL  = 15 * time.Minute
)

// scheduler makes all decisions of the Queue. Only one goroutine uses it, so it has no lock.
type scheduler struct {
	do            effects
	now           func() time.Time
	manifest      *Manifest            // of the app that attached last; its MaxThreads are the process's
	apps          map[string]*Manifest // by Mount
	attached      map[string]bool      // Mounts whose app runs; empty while the Space is down
	update        <-chan time.Time     // periodic estimates, if the manifest disables live updates
	announceTimer <-chan time.Time     // fires when debounced ranks are due; nil: none pending

	groups     map[string]*group
	groupOrder []*group // in order of creation
	sessions   map[SessionHash]*Session
	owners     map[string]int // visitor -> number of Sessions, for payers with a bound
	waiting    map[EventID]*Event
	running    map[EventID]*Event
	jobs       int // running Jobs, each holding one of MaxThreads
	members    map[EventID]*job
	averages   map[fnKey]float64 // Gradio's mean run time in seconds
	declared   map[string]bool   // groups named in a manifest
	joins      uint64            // number of Events that have joined since the start
	revision   int               // of the manifest

	draining *drainState // no Event starts; nil: they do

	maxSessions int          // bounds each value of owners
	cleared     time.Time    // when isCrowded last removed Sessions
	buffered    atomic.Int64 // bytes of undelivered Messages in all Sessions
	maxBuffered int64        // bounds buffered
}

// fnKey identifies an Endpoint across all apps of a Space.
type fnKey struct {
	mount string
	id    int
}

func (e Endpoint) key() fnKey { return fnKey{e.Mount, e.ID} }

// group is Gradio's EventQueue: Endpoints that share a concurrency limit.
type group struct {
	id        string
	mount     string
	limit     int // 0: none
	waiting   []*Event
	jobs      map[*job]struct{}
	announced time.Time // when all waiting Events last received their rank
	stale     bool      // an announcement is pending
}

// job is a running Job. It holds one unit of its group's limit until its last Event is finished.
type job struct {
	group   *group
	open    int
	fn      Endpoint
	started time.Time
}

func newScheduler(do effects) *scheduler {
	return &scheduler{
		do: do, now: time.Now, sessions: map[SessionHash]*Session{}, owners: map[string]int{}, waiting: map[EventID]*Event{},
		running: map[EventID]*Event{}, groups: map[string]*group{}, members: map[EventID]*job{}, averages: map[fnKey]float64{},
		apps: map[string]*Manifest{}, attached: map[string]bool{}, maxSessions: maxSessions, maxBuffered: maxBuffered,
	}
}

// onLeave takes the Session rather than its hash. The stream of an evicted Session may end after a new Session has
// been created under the same hash.
func (sc *scheduler) onLeave(s *Session) {
	if sc.sessions[s.Hash] != s {
		return
	}
	delete(sc.sessions, s.Hash)
	if sc.owners[s.owner]--; sc.owners[s.owner] <= 0 {
		delete(sc.owners, s.owner)
	}
	s.end()
	left := map[int][]EventID{} // by app: the running Events and the waiting ones whose body the app holds
	for _, e := range inOrder(sc.waiting, s.Hash) {
		sc.withdraw(e)
		if e.Admitted {
			app := sc.apps[e.Endpoint.Mount].App
			left[app] = append(left[app], e.ID)
		}
		sc.do.ended(e, "visitor left")
	}
	for _, e := range inOrder(sc.running, s.Hash) {
		if !e.abandoned {
			e.abandoned = true
			left[e.app] = append(left[e.app], e.ID)
		}
	}
	for app, events := range left {
		sc.do.abandon(app, events)
	}
}

func (sc *scheduler) onCancel(hash SessionHash, id EventID) {
	if e := sc.waiting[id]; e != nil && e.Session == hash {
		sc.withdraw(e)
		if e.Admitted {
			sc.do.stop(sc.apps[e.Endpoint.Mount].App, id)
		}
		sc.complete(e, nil)
		sc.do.ended(e, "cancelled")
	} else if e := sc.running[id]; e != nil && e.Session == hash && !e.completed {
		sc.complete(e, nil)
		sc.do.stop(e.app, id)
	}
}

// onDismiss is onCancel for all Events of a Session, with a reason.
func (sc *scheduler) onDismiss(s *Session, reason string) {
	if sc.sessions[s.Hash] != s {
		return
	}
	for _, e := range inOrder(sc.waiting, s.Hash) {
		sc.onDismissEvent(e.ID, reason)
	}
	for _, e := range inOrder(sc.running, s.Hash) {
		sc.onDismissEvent(e.ID, reason)
	}
}

// onDismissEvent is onCancel with a reason.
func (sc *scheduler) onDismissEvent(id EventID, reason string) {
	failure := &Failure{Title: "Access ended", Text: reason}
	if e := sc.waiting[id]; e != nil {
		sc.withdraw(e)
		if e.Admitted {
			sc.do.stop(sc.apps[e.Endpoint.Mount].App, e.ID)
		}
		sc.complete(e, failure)
		sc.do.ended(e, "access ended")
	} else if e := sc.running[id]; e != nil && !e.completed {
		sc.complete(e, failure)
		sc.do.stop(e.app, e.ID)
	}
}

func (sc *scheduler) onMessage(id EventID, m Message) {
	e := sc.running[id]
	if e == nil || e.completed {
		return
	}
	e.completed = m.Kind == Completed
	sc.deliver(e, m)
}

func (sc *scheduler) onFinished(f finished) {
	e := sc.running[f.event]
	if e == nil {
		return
	}
	delete(sc.running, f.event)
	if f.average != nil {
		sc.averages[e.Endpoint.key()] = *f.average
	}
	sc.leaveJob(e.ID)
	if !e.completed { // Gradio may end an event without a final message (gradio/queueing.py, process_events)
		sc.complete(e, &Failure{Title: "Error", Text: noAnswerText(f.reason)})
	}
	sc.do.ended(e, f.reason)
	sc.dispatch()
}

func noAnswerText(reason string) string {
	if reason == "" {
		reason = "see the Space's log"
	}
	return "The Space ended this call without an answer: " + reason
}

// onAttach continues the waiting Events on the Space that has just started. Groups are recreated: Gradio names most
// of them by the address of a function, which changes with every start. An app that is launched again in the same
// process attaches without a preceding onLost. Its old event loop is gone all the same. Other Blocks get no call that
// was made to the app before them: stock Gradio ends those calls with their server, and they would take the units of a
// new concurrency limit.
func (sc *scheduler) onAttach(m Manifest) {
	if sc.draining != nil && sc.draining.keep && len(sc.attached) == 0 { // the next start
		sc.draining = nil
	}
	waiting := sc.detach(func(mount string) bool { return mount == m.Mount }, "The Space was restarted.")
	if len(sc.attached) == 0 { // a new process reports all its apps and mounts again
		clear(sc.apps)
	}
	sc.revision++
	m.Revision = sc.revision
	sc.manifest, sc.apps[m.Mount], sc.attached[m.Mount] = &m, &m, true
	sc.declared = map[string]bool{}
	for _, app := range sc.apps {
		for _, endpoint := range app.Endpoints {
			sc.declared[endpoint.Group] = true
		}
	}
	sc.update = nil
	if !m.LiveUpdates && m.UpdateEvery > 0 {
		sc.update = time.NewTicker(m.UpdateEvery).C // garbage-collected with the scheduler (Go 1.23)
	}
	for _, e := range waiting {
		if m.Replaces {
			sc.fail(e, "The app was closed, and the Space has launched another one in its place.")
			continue
		}
		endpoint, ok := sc.endpoint(e.Endpoint)
		if !ok || endpoint.APIName != e.Endpoint.APIName {
			sc.fail(e, "The Space was restarted and no longer has this function.")
			continue
		}
		e.Endpoint = endpoint
		sc.enqueue(e)
	}
	sc.dispatch()
}

func (sc *scheduler) onChanged(app int) {
	for mount, m := range sc.apps {
		if m.App != app {
			continue
		}
		sc.revision++
		changed := *m // a copy: callers of Queue.Manifest may still read the old one
		changed.Revision = sc.revision
		if sc.apps[mount] = &changed; sc.manifest == m {
			sc.manifest = &changed
		}
	}
}

// onLost ends the Events that depended on the exited process: running ones, and waiting ones whose body only the
// process held.
func (sc *scheduler) onLost(reason string) {
	for _, e := range sc.detach(func(string) bool { return true }, reason) {
		sc.enqueue(e)
	}
}

// detach ends the Events of the apps at the matching mounts and deletes their groups. It returns the waiting Events
// that can continue after a restart.
func (sc *scheduler) detach(of func(mount string) bool, reason string) (waiting []*Event) {
	maps.DeleteFunc(sc.attached, func(mount string, _ bool) bool { return of(mount) })
	for _, e := range inOrder(sc.running, "") {
		if of(e.Endpoint.Mount) {
			delete(sc.running, e.ID)
			sc.leaveJob(e.ID)
			sc.fail(e, reason)
		}
	}
	for _, e := range inOrder(sc.waiting, "") {
		if !of(e.Endpoint.Mount) {
			continue
		}
		sc.withdraw(e)
		if e.Admitted {
			sc.fail(e, reason)
		} else {
			waiting = append(waiting, e)
		}
	}
	maps.DeleteFunc(sc.groups, func(_ string, g *group) bool { return of(g.mount) })
	sc.groupOrder = slices.DeleteFunc(sc.groupOrder, func(g *group) bool { return of(g.mount) })
	maps.DeleteFunc(sc.averages, func(fn fnKey, _ float64) bool { return of(fn.mount) })
	return waiting
}

func (sc *scheduler) onSweep(now time.Time) {
	for _, s := range sc.sessions {
		if s.isIdle(now) {
			sc.onLeave(s)
		}
	}
}

// onStop reports the host's shutdown to every Session. Each Event ends with a sentence, which the stock clients show. The
// clients of Gradio 4 to 6 expect an event_id in the words of Gradio's own shutdown (gradio/routes.py, queue_data_helper) and
// fail with a KeyError (gradio_client/utils.py, stream_sse_v1plus), so those words are for Sessions without an Event only.
func (sc *scheduler) onStop() {
	for _, events := range []map[EventID]*Event{sc.running, sc.waiting} {
		for _, e := range inOrder(events, "") {
			if !e.completed {
				sc.complete(e, &Failure{Title: stoppedTitle, Text: sc.stopText()})
			}
		}
	}
	for _, s := range sc.sessions {
		if !s.hasPending() {
			s.put(Message{Kind: UnexpectedError, Text: "Server stopped unexpectedly."})
		}
		s.stop()
	}
}

// endpoint returns the Endpoint as the app's current Manifest describes it.
func (sc *scheduler) endpoint(e Endpoint) (Endpoint, bool) {
	m := sc.apps[e.Mount]
	if m == nil {
		return Endpoint{}, false
	}
	now, ok := m.Endpoints[e.ID]
	return now, ok
}

func (sc *scheduler) manifestFor(path string) *Manifest {
	found, most := sc.manifest, -1
	for mount, m := range sc.apps {
		if len(mount) > most && (path == mount || strings.HasPrefix(path, mount+"/")) {
			found, most = m, len(mount)
		}
	}
	return found
}

func (sc *scheduler) isRunning(id EventID) bool {
	e := sc.running[id]
	return e != nil && !e.completed
}

// group returns the Endpoint's group and creates it at the first call of a member. A later member with a lower limit
// lowers the group's limit permanently (gradio/queueing.py, create_event_queue_for_fn).
func (sc *scheduler) group(e Endpoint) *group {
	g := sc.groups[e.Group]
	if g == nil {
		g = &group{id: e.Group, mount: e.Mount, limit: e.Limit, jobs: map[*job]struct{}{}}
		sc.groups[e.Group], sc.groupOrder = g, append(sc.groupOrder, g)
	} else if e.Limit != 0 && (g.limit == 0 || e.Limit < g.limit) {
		g.limit = e.Limit
	}
	return g
}

func (sc *scheduler) fail(e *Event, reason string) {
	if !e.completed {
		sc.complete(e, &Failure{Title: stoppedTitle, Text: reason})
	}
	sc.do.ended(e, reason)
}

// complete sends the host's own Completed message. Without a failure the Event counts as cancelled.
func (sc *scheduler) complete(e *Event, failure *Failure) {
	e.completed = true
	sc.deliver(e, Message{Kind: Completed, Event: e.ID, Success: failure == nil, Failure: failure})
}
