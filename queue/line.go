package queue

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"spacehost/internal/identity"
)

// effects is what the line asks of the world. No method blocks.
type effects interface {
	// start hands job to the runner; its end comes back as a finished value.
	start(job Job)
	// stop ends a running Event at its visitor's wish; abandon says that visitors have left running ones.
	stop(app int, event EventID)
	abandon(app int, events []EventID)
	// ended is told once per Event, whatever became of it.
	ended(event *Event, reason string)
}

// How long a Session lives without a stream: with nothing to tell, and with an end that nobody has fetched
// (a POST to /call without its GET). Gradio keeps such answers until 2,000 other sessions have come.
const (
	sessionLife = 60 * time.Second
	unreadLife  = 15 * time.Minute
)

// keptBytes bounds what is kept for all Sessions together: many who never read are no way to the host's memory.
const keptBytes = 512 << 20

// sessionsEach is how many Sessions are kept for one visitor: a classroom behind one address fits, a flood does not.
const sessionsEach = 2000

// line decides. It is touched by one goroutine.
type line struct {
	do       effects
	now      func() time.Time
	manifest *Manifest            // of the app that attached last; its MaxThreads are the process's
	apps     map[string]*Manifest // by Mount
	up       map[string]bool      // Mounts whose app runs: none while the Space is down
	update   <-chan time.Time
	ranks    <-chan time.Time // when ranks are due that were put off; nil: none

	groups   map[string]*group
	order    []*group // in the order of their making
	sessions map[SessionHash]*Session
	owners   map[string]int // visitor -> how many Sessions, of those who are counted
	waiting  map[EventID]*Event
	running  map[EventID]*Event
	jobs     int // that hold one of MaxThreads
	members  map[EventID]*job
	averages map[fnKey]float64 // Gradio's mean run time in seconds
	lasting  map[string]bool   // groups that the manifest names
	joins    uint64            // how many Events have ever joined
	revision int               // of the manifest

	sessionsEach int // bounds owners
	kept         atomic.Int64
	keptBytes    int64 // bounds kept
}

// fnKey names an Endpoint among those of all apps.
type fnKey struct {
	mount string
	id    int
}

func (e Endpoint) key() fnKey { return fnKey{e.Mount, e.ID} }

// group is Gradio's EventQueue: Endpoints that share a concurrency limit.
type group struct {
	id      string
	mount   string
	limit   int // 0: none
	waiting []*Event
	jobs    map[*job]struct{}
	told    time.Time // when all who wait were last told their rank
	stale   bool      // they are to be told again
}

// job is a Job under way: it holds one unit of its group until its last Event is finished.
type job struct {
	group   *group
	open    int
	fn      Endpoint
	started time.Time
}

func newLine(do effects) *line {
	return &line{
		do: do, now: time.Now, sessions: map[SessionHash]*Session{}, owners: map[string]int{}, waiting: map[EventID]*Event{},
		running: map[EventID]*Event{}, groups: map[string]*group{}, members: map[EventID]*job{}, averages: map[fnKey]float64{},
		apps: map[string]*Manifest{}, up: map[string]bool{}, sessionsEach: sessionsEach, keptBytes: keptBytes,
	}
}

// What comes in

// onSubmit admits an Event in Gradio's order of checks: queue size, Endpoint, group, then the estimate
// for the newcomer alone (gradio/queueing.py, push).
//
//  1. The Space makes the ids of what it admits, and may be hostile.
//  2. What the Space has admitted was asked about before; since then others may have filled the queue. Its visitor
//     has an id already, and reads the refusal where they read the answer.
func (l *line) onSubmit(e *Event) error {
	if l.manifest == nil {
		return ErrNoRunner
	}
	if l.waiting[e.ID] != nil || l.running[e.ID] != nil {
		return ErrKnownEvent // 1
	}
	refusal := l.refuses(e)
	if e.Admitted {
		if refusal != nil {
			l.turnAway(e, refusal) // 2
			return nil
		}
	} else {
		if refusal != nil {
			return refusal
		}
		endpoint, ok := l.endpoint(e.Endpoint)
		if !ok {
			return &UnknownEndpointError{e.Endpoint.ID}
		}
		e.Endpoint = endpoint
	}
	l.joins++
	e.serial = l.joins
	l.session(e).expect(e.ID)
	if e.Finished {
		l.running[e.ID] = e // a cache hit: its Messages follow, it needs no start
		return nil
	}
	l.enqueue(e)
	g := l.groups[e.Endpoint.Group]
	l.estimate(g, len(g.waiting)-1)
	l.dispatch()
	return nil
}

// turnAway ends what the Space has admitted. A visitor with too many Sessions gets none in which to read it.
func (l *line) turnAway(e *Event, refusal error) {
	if _, full := refusal.(*FullError); full {
		l.session(e).expect(e.ID)
		l.complete(e, &Failure{Title: "Error", Text: refusal.Error()})
	}
	l.do.stop(l.manifest.App, e.ID)
	l.do.ended(e, refusal.Error())
}

func (l *line) enqueue(e *Event) {
	g := l.group(e.Endpoint)
	g.waiting = append(g.waiting, e)
	l.waiting[e.ID] = e
}

// onLeave takes the Session rather than its hash: the stream of one that was cut may end only after a new one
// has come under the same hash.
func (l *line) onLeave(s *Session) {
	if l.sessions[s.Hash] != s {
		return
	}
	delete(l.sessions, s.Hash)
	if l.owners[s.owner]--; l.owners[s.owner] <= 0 {
		delete(l.owners, s.owner)
	}
	s.end()
	left := map[int][]EventID{} // by app, that it knows of: the running ones, and those whose body it holds
	for _, e := range inOrder(l.waiting, s.Hash) {
		l.withdraw(e)
		if e.Admitted {
			app := l.apps[e.Endpoint.Mount].App
			left[app] = append(left[app], e.ID)
		}
		l.do.ended(e, "visitor left")
	}
	for _, e := range inOrder(l.running, s.Hash) {
		if !e.left {
			e.left = true
			left[e.app] = append(left[e.app], e.ID)
		}
	}
	for app, events := range left {
		l.do.abandon(app, events)
	}
}

func (l *line) onCancel(hash SessionHash, id EventID) {
	if e := l.waiting[id]; e != nil && e.Session == hash {
		l.withdraw(e)
		if e.Admitted {
			l.do.stop(l.apps[e.Endpoint.Mount].App, id)
		}
		l.complete(e, nil)
		l.do.ended(e, "cancelled")
	} else if e := l.running[id]; e != nil && e.Session == hash && !e.completed {
		l.complete(e, nil)
		l.do.stop(e.app, id)
	}
}

func (l *line) onMessage(id EventID, m Message) {
	e := l.running[id]
	if e == nil || e.completed {
		return
	}
	e.completed = m.Kind == Completed
	l.tell(e, m)
}

func (l *line) onFinished(f finished) {
	e := l.running[f.event]
	if e == nil {
		return
	}
	delete(l.running, f.event)
	if f.average != nil {
		l.averages[e.Endpoint.key()] = *f.average
	}
	l.leaveJob(e.ID)
	if !e.completed { // Gradio may end without a word (gradio/queueing.py, process_events)
		l.complete(e, &Failure{Title: "Error", Text: unanswered(f.reason)})
	}
	l.do.ended(e, f.reason)
	l.dispatch()
}

func unanswered(reason string) string {
	if reason == "" {
		reason = "see the Space's log"
	}
	return "The Space ended this call without an answer: " + reason
}

func (l *line) leaveJob(id EventID) {
	j := l.members[id]
	delete(l.members, id)
	if j == nil {
		return
	}
	if j.open--; j.open == 0 {
		delete(j.group.jobs, j)
		l.jobs--
		l.tidy(j.group)
	}
}

// tidy drops a group that is empty unless the manifest names it: gr.render makes new functions, and with them
// new groups, for as long as the Space lives.
func (l *line) tidy(g *group) {
	if len(g.jobs) > 0 || len(g.waiting) > 0 || l.lasting[g.id] {
		return
	}
	delete(l.groups, g.id)
	l.order = slices.DeleteFunc(l.order, func(other *group) bool { return other == g })
}

// onAttach lets the waiting Events go on with the Space that has just started. Groups are made anew: Gradio
// names most of them by the address of a function, which changes with every start. An app that is launched
// again in a living process attaches without having been lost: its old event loop is gone all the same.
// Other Blocks get no call that was made to the app before them: stock Gradio ends those calls with their server, and
// they would take the units of a new concurrency limit.
func (l *line) onAttach(m Manifest) {
	waiting := l.lose(func(mount string) bool { return mount == m.Mount }, "The Space was started again.")
	if len(l.up) == 0 { // a new process: what it serves, and where, it says anew
		clear(l.apps)
	}
	l.revision++
	m.Revision = l.revision
	l.manifest, l.apps[m.Mount], l.up[m.Mount] = &m, &m, true
	l.lasting = map[string]bool{}
	for _, app := range l.apps {
		for _, endpoint := range app.Endpoints {
			l.lasting[endpoint.Group] = true
		}
	}
	l.update = nil
	if !m.LiveUpdates && m.UpdateEvery > 0 {
		l.update = time.NewTicker(m.UpdateEvery).C // collected with the line: Go 1.23
	}
	for _, e := range waiting {
		if m.Replaces {
			l.fail(e, "The app was closed, and the Space has launched another one in its place.")
			continue
		}
		endpoint, ok := l.endpoint(e.Endpoint)
		if !ok || endpoint.APIName != e.Endpoint.APIName {
			l.fail(e, "The Space was started again and no longer has this function.")
			continue
		}
		e.Endpoint = endpoint
		l.enqueue(e)
	}
	l.dispatch()
}

func (l *line) onChanged(app int) {
	for mount, m := range l.apps {
		if m.App != app {
			continue
		}
		l.revision++
		changed := *m // others read the one that they have
		changed.Revision = l.revision
		if l.apps[mount] = &changed; l.manifest == m {
			l.manifest = &changed
		}
	}
}

// onLost ends what was in the Space's process: running Events, and waiting ones whose body only it had.
func (l *line) onLost(reason string) {
	for _, e := range l.lose(func(string) bool { return true }, reason) {
		l.enqueue(e)
	}
}

// lose ends what the apps at these mounts had, forgets their groups, and returns the Events that can go on.
func (l *line) lose(of func(mount string) bool, reason string) (waiting []*Event) {
	maps.DeleteFunc(l.up, func(mount string, _ bool) bool { return of(mount) })
	for _, e := range inOrder(l.running, "") {
		if of(e.Endpoint.Mount) {
			delete(l.running, e.ID)
			l.leaveJob(e.ID)
			l.fail(e, reason)
		}
	}
	for _, e := range inOrder(l.waiting, "") {
		if !of(e.Endpoint.Mount) {
			continue
		}
		l.withdraw(e)
		if e.Admitted {
			l.fail(e, reason)
		} else {
			waiting = append(waiting, e)
		}
	}
	maps.DeleteFunc(l.groups, func(_ string, g *group) bool { return of(g.mount) })
	l.order = slices.DeleteFunc(l.order, func(g *group) bool { return of(g.mount) })
	maps.DeleteFunc(l.averages, func(fn fnKey, _ float64) bool { return of(fn.mount) })
	return waiting
}

func (l *line) onUpdate(time.Time) {
	for _, g := range l.order {
		l.estimate(g, 0)
	}
}

func (l *line) onSweep(now time.Time) {
	for _, s := range l.sessions {
		if s.isIdle(now) {
			l.onLeave(s)
		}
	}
}

// onStop tells every Session that the host ends, in Gradio's words (gradio/routes.py, queue_data_helper).
func (l *line) onStop() {
	for _, s := range l.sessions {
		s.put(Message{Kind: UnexpectedError, Text: "Server stopped unexpectedly."})
	}
}

// What is decided

// dispatch starts what may start: groups in the order of their first Event, FIFO inside a group, a batch of
// Events of one Endpoint at once (gradio/queueing.py, get_events; there groups are shuffled).
func (l *line) dispatch() {
	for l.manifest != nil && l.jobs < l.manifest.MaxThreads {
		g := l.next()
		if g == nil {
			return
		}
		l.run(g, l.take(g))
	}
}

func (l *line) next() *group {
	var first *group
	for _, g := range l.order {
		free := g.limit == 0 || len(g.jobs) < g.limit
		if l.up[g.mount] && free && len(g.waiting) > 0 && (first == nil || g.waiting[0].serial < first.waiting[0].serial) {
			first = g
		}
	}
	return first
}

func (l *line) take(g *group) []*Event {
	head := g.waiting[0]
	taken := []*Event{head}
	for _, e := range g.waiting[1:] {
		if len(taken) < head.Endpoint.Batch && e.Endpoint.ID == head.Endpoint.ID {
			taken = append(taken, e)
		}
	}
	for _, e := range taken {
		l.withdraw(e)
	}
	return taken
}

func (l *line) run(g *group, events []*Event) {
	j := &job{group: g, open: len(events), fn: events[0].Endpoint, started: l.now()}
	g.jobs[j] = struct{}{}
	l.jobs++
	started := Job{App: l.apps[g.mount].App}
	for _, e := range events {
		e.app = started.App
		l.running[e.ID], l.members[e.ID] = e, j
		started.Events = append(started.Events, *e)
	}
	if l.manifest.LiveUpdates {
		l.announce(g)
	}
	l.do.start(started)
}

// Each start changes the rank of all who wait. If they are more than a few and were told just before, they are told
// when some time has passed: news that the next makes old would be most of what a busy host writes.
const (
	few         = 10
	rankRest    = 50 * time.Millisecond
	rankRestPer = 100 * time.Microsecond // for each that waits
)

func (l *line) announce(g *group) {
	now := l.now()
	next := g.told.Add(max(rankRest, time.Duration(len(g.waiting))*rankRestPer))
	if g.stale = len(g.waiting) > few && next.After(now); !g.stale {
		g.told = now
		l.estimate(g, 0)
	} else if l.ranks == nil {
		l.ranks = time.After(next.Sub(now))
	}
}

// onRanks announces what announce has put off.
func (l *line) onRanks() {
	l.ranks = nil
	for _, g := range l.order {
		if g.stale {
			l.announce(g)
		}
	}
}

func (l *line) withdraw(e *Event) {
	delete(l.waiting, e.ID)
	g := l.groups[e.Endpoint.Group]
	g.waiting = slices.DeleteFunc(g.waiting, func(other *Event) bool { return other == e })
}

// estimate tells the group's waiting Events their rank, from the given index on.
//
// Formula of gradio/queueing.py, broadcast_estimations: own mean + means of those ahead divided by the limit
// + the time until the first running one should end; unknown as soon as one of these is.
func (l *line) estimate(g *group, from int) {
	free, known := l.untilFree(g)
	var ahead float64
	for rank, e := range g.waiting {
		mean, has := l.averages[e.Endpoint.key()]
		if rank >= from {
			m := Message{Kind: Estimation, Event: e.ID, Rank: rank, Size: len(g.waiting)}
			if known && has {
				eta := mean + ahead + free
				m.ETA = &eta
			}
			l.tell(e, m)
		}
		switch {
		case g.limit == 0:
			ahead = 0
		case !has:
			known = false
		case e.Endpoint.Stream:
			ahead += free / float64(g.limit)
		default:
			ahead += mean / float64(g.limit)
		}
	}
}

// untilFree is the time in seconds until a unit of the group should be free; false if a running Endpoint has no mean yet.
func (l *line) untilFree(g *group) (seconds float64, known bool) {
	if len(g.jobs) != g.limit {
		return 0, true
	}
	first, now := -1.0, l.now()
	for j := range g.jobs {
		mean, ok := l.averages[j.fn.key()]
		if !ok {
			return 0, false
		}
		if j.fn.Stream {
			mean = j.fn.TimeLimit.Seconds()
		}
		if left := max(0, mean-now.Sub(j.started).Seconds()); first < 0 || left < first {
			first = left
		}
	}
	return max(0, first), true
}

// Helpers

func (l *line) size() int { return len(l.waiting) }

func (l *line) full(mount string) error {
	m := l.apps[mount]
	if m == nil || m.MaxSize == nil || l.sizeAt(mount) < *m.MaxSize {
		return nil
	}
	return &FullError{Max: *m.MaxSize, Size: l.sizeAt(mount)}
}

func (l *line) sizeAt(mount string) (n int) {
	if len(l.apps) == 1 {
		return l.size()
	}
	for _, g := range l.order {
		if g.mount == mount {
			n += len(g.waiting)
		}
	}
	return n
}

// endpoint returns what the app says now of an Endpoint.
func (l *line) endpoint(e Endpoint) (Endpoint, bool) {
	m := l.apps[e.Mount]
	if m == nil {
		return Endpoint{}, false
	}
	now, ok := m.Endpoints[e.ID]
	return now, ok
}

func (l *line) at(path string) *Manifest {
	found, most := l.manifest, -1
	for mount, m := range l.apps {
		if len(mount) > most && (path == mount || strings.HasPrefix(path, mount+"/")) {
			found, most = m, len(mount)
		}
	}
	return found
}

// refuses says why e may not join; what has its answer already does not wait.
func (l *line) refuses(e *Event) error {
	if isCounted(e.Payer) && l.owners[e.Payer.Key()] >= l.sessionsEach && l.find(e.Session) == nil {
		return &CrowdedError{l.sessionsEach}
	}
	if e.Finished {
		return nil
	}
	return l.full(e.Endpoint.Mount)
}

func (l *line) isRunning(id EventID) bool {
	e := l.running[id]
	return e != nil && !e.completed
}

// find returns nil for a Session that was cut as for one that never was: its visitor has to start anew.
func (l *line) find(hash SessionHash) *Session {
	if s := l.sessions[hash]; s != nil && !s.isGone() {
		return s
	}
	return nil
}

func (l *line) sessionOf(id EventID) *Session {
	for _, events := range []map[EventID]*Event{l.waiting, l.running} {
		if e := events[id]; e != nil && !e.left {
			return l.find(e.Session)
		}
	}
	for _, s := range l.sessions { // ended, but not yet told
		if s.isPending(id) {
			return s
		}
	}
	return nil
}

// session returns the Session that a new Event joins, in place of one that was cut.
func (l *line) session(e *Event) *Session {
	if s := l.find(e.Session); s != nil {
		return s
	}
	if cut := l.sessions[e.Session]; cut != nil {
		l.onLeave(cut)
	}
	s := newSession(e.Session, l.now)
	s.total = &l.kept
	if isCounted(e.Payer) {
		s.owner = e.Payer.Key()
		l.owners[s.owner]++
	}
	l.sessions[e.Session] = s
	return s
}

// isCounted spares who is this machine itself.
func isCounted(payer identity.Identity) bool {
	return payer.Kind == identity.Address || payer.Kind == identity.User
}

// group returns the Endpoint's group, making it at the first call of a member; a later member with a lower
// limit lowers it for good (gradio/queueing.py, create_event_queue_for_fn).
func (l *line) group(e Endpoint) *group {
	g := l.groups[e.Group]
	if g == nil {
		g = &group{id: e.Group, mount: e.Mount, limit: e.Limit, jobs: map[*job]struct{}{}}
		l.groups[e.Group], l.order = g, append(l.order, g)
	} else if e.Limit != 0 && (g.limit == 0 || e.Limit < g.limit) {
		g.limit = e.Limit
	}
	return g
}

// inOrder returns the Events of a Session, or of all if hash is empty, as they joined.
func inOrder(events map[EventID]*Event, hash SessionHash) []*Event {
	var found []*Event
	for _, e := range events {
		if hash == "" || e.Session == hash {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *Event) int { return cmp.Compare(a.serial, b.serial) })
	return found
}

func (l *line) fail(e *Event, reason string) {
	if !e.completed {
		l.complete(e, &Failure{Title: "Space stopped", Text: reason})
	}
	l.do.ended(e, reason)
}

// complete tells the end of an Event in the host's own words; without a failure it was cancelled.
func (l *line) complete(e *Event, failure *Failure) {
	e.completed = true
	l.tell(e, Message{Kind: Completed, Event: e.ID, Success: failure == nil, Failure: failure})
}

// tell says nothing of an Event whose visitor has left, though its Session's hash may have come back. It leaves
// a Session that was cut to onSweep: whoever calls may be walking over the waiting Events.
func (l *line) tell(e *Event, m Message) {
	if s := l.sessions[e.Session]; s != nil && !e.left {
		s.put(m)
		l.relieve()
	}
}

// relieve cuts whoever has read the least of what was said, while too much is kept in all.
func (l *line) relieve() {
	for l.kept.Load() > l.keptBytes {
		var heaviest *Session
		most := 0
		for _, s := range l.sessions {
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

func (g *group) String() string {
	return fmt.Sprintf("group %s: %d waiting, %d of %d running", g.id, len(g.waiting), len(g.jobs), g.limit)
}
