package queue

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"spacehost/internal/identity"
)

// randomWalk applies random inputs to a scheduler and checks its invariants after each.
type randomWalk struct {
	*testing.T
	*rand.Rand
	scheduler *scheduler
	seed      uint64
	step      string
	joined    []EventID
	ends      map[EventID]int
	delivered map[EventID]int // number of deliveries of its result
}

func TestSchedulerInvariants(t *testing.T) {
	for seed := range uint64(150) {
		s := &randomWalk{T: t, Rand: rand.New(rand.NewPCG(seed, 7)), seed: seed, ends: map[EventID]int{}, delivered: map[EventID]int{}}
		s.scheduler = newScheduler(s)
		s.scheduler.maxSessions = 2
		for n := range 400 {
			s.randomInput(n)
			s.check()
			if t.Failed() {
				t.FailNow()
			}
		}
		s.settle()
	}
}

func (s *randomWalk) fail(format string, args ...any) {
	s.Helper()
	s.Errorf("seed %d, after %s: %s", s.seed, s.step, fmt.Sprintf(format, args...))
}

// These methods implement effects and check the invariants of each.

func (s *randomWalk) start(job Job) {
	first := s.scheduler.running[job.Events[0].ID]
	g := s.scheduler.members[first.ID].group
	if g.limit != 0 && len(g.jobs) > g.limit {
		s.fail("%s above its limit", g)
	}
	for _, e := range g.waiting {
		if e.serial < first.serial {
			s.fail("%s started before %s", first.ID, e.ID)
		}
	}
	if len(job.Events) > max(1, first.Endpoint.Batch) || job.App != s.scheduler.manifest.App {
		s.fail("a job of %d for app %d", len(job.Events), job.App)
	}
	for _, e := range job.Events {
		if e.Endpoint.ID != first.Endpoint.ID {
			s.fail("a batch of endpoints %d and %d", first.Endpoint.ID, e.Endpoint.ID)
		}
	}
}

func (s *randomWalk) stop(_ int, event EventID) {
	e := s.scheduler.running[event]
	if e == nil && s.scheduler.waiting[event] != nil || e != nil && !e.completed {
		s.fail("%s is stopped before its visitor received a result", event)
	}
}

func (s *randomWalk) abandon(_ int, events []EventID) {
	for _, id := range events {
		if e := s.scheduler.running[id]; e != nil && !e.abandoned {
			s.fail("%s is abandoned but not left", id)
		}
	}
}

func (s *randomWalk) ended(event *Event, _ string) { s.ends[event.ID]++ }

func (s *randomWalk) randomInput(n int) {
	switch s.IntN(20) {
	case 0:
		s.step = "attach"
		s.scheduler.onAttach(s.manifest())
	case 1:
		s.step = "lost"
		s.scheduler.onLost("lost")
	case 2, 3:
		s.step = "leave"
		s.withSession(s.scheduler.onLeave)
	case 4, 5:
		id := s.anyEvent()
		s.step = "cancel of " + string(id)
		s.scheduler.onCancel(s.session(), id)
	case 6, 7, 8:
		id := s.anyEvent()
		s.step = "message for " + string(id)
		s.scheduler.onMessage(id, Message{Kind: []Kind{Generating, Completed}[s.IntN(2)], Event: id, Raw: []byte("{}")})
	case 9, 10, 11, 12:
		id := s.anyEvent()
		s.step = "end of " + string(id)
		s.scheduler.onFinished(finished{event: id, average: []*float64{nil, seconds(.5)}[s.IntN(2)]})
	case 13:
		s.step = "update"
		s.scheduler.onUpdate(time.Time{})
	case 14, 15:
		s.step = "reading"
		s.withSession(s.read)
	case 16:
		s.step = "eviction"
		s.withSession((*Session).end)
	default:
		s.join(EventID(fmt.Sprint("e", n)))
	}
}

// manifest is an app whose limits change with each start.
func (s *randomWalk) manifest() Manifest {
	m := app(
		Endpoint{ID: 0, Group: "one", Limit: 1}, Endpoint{ID: 1, Group: "shared", Limit: s.IntN(4)},
		Endpoint{ID: 2, Group: "shared", Limit: 1 + s.IntN(3)}, Endpoint{ID: 3, Group: "batch", Limit: 2, Batch: 1 + s.IntN(4)},
		Endpoint{ID: 4, Group: "batch", Limit: 1, Batch: 2}, Endpoint{ID: 5, Group: "free"})
	delete(m.Endpoints, s.IntN(12))
	m.App, m.MaxThreads, m.LiveUpdates = s.IntN(5), 1+s.IntN(6), s.IntN(2) == 0
	if s.IntN(2) == 0 {
		m.MaxSize = new(int)
		*m.MaxSize = s.IntN(20)
	}
	return m
}

func (s *randomWalk) session() SessionHash { return SessionHash(fmt.Sprint("s", s.IntN(5))) }

func (s *randomWalk) withSession(do func(*Session)) {
	if found := s.scheduler.sessions[s.session()]; found != nil {
		do(found)
	}
}

// anyEvent prefers running Events, so that many of them end.
func (s *randomWalk) anyEvent() EventID {
	if running := inOrder(s.scheduler.running, ""); len(running) > 0 && s.IntN(4) > 0 {
		return running[s.IntN(len(running))].ID
	}
	if len(s.joined) > 0 {
		return s.joined[s.IntN(len(s.joined))]
	}
	return "nosuch"
}

func (s *randomWalk) join(id EventID) {
	s.step = "join of " + string(id)
	e := &Event{ID: id, Session: s.session(), Endpoint: Endpoint{ID: s.IntN(7)}}
	e.Payer = []identity.Identity{{Kind: identity.Local}, {Kind: identity.User, Name: "ada"}, {Kind: identity.User, Name: "bob"}}[s.IntN(3)]
	if s.IntN(4) == 0 {
		e.Admitted, e.Finished = true, s.IntN(3) == 0
		e.Endpoint = Endpoint{ID: 50 + s.IntN(3), Group: fmt.Sprint("render", s.IntN(3)), Limit: 1}
	}
	before := len(s.scheduler.waiting)
	if s.scheduler.onSubmit(e) == nil {
		s.joined = append(s.joined, id)
	} else if s.scheduler.waiting[id] != nil || s.scheduler.running[id] != nil || len(s.scheduler.waiting) != before {
		s.fail("it was refused and is queued")
	}
}

func (s *randomWalk) read(from *Session) {
	for {
		m, wake, err := from.pop()
		if wake != nil || err != nil && m.Kind == "" {
			return
		}
		if m.Kind == Completed {
			s.delivered[m.Event]++
		}
	}
}

// check tests the invariants.
func (s *randomWalk) check() {
	sc := s.scheduler
	waiting, jobs := 0, map[*job]int{}
	for _, g := range sc.groupOrder {
		waiting += len(g.waiting)
		if sc.groups[g.id] != g || !slices.IsSortedFunc(g.waiting, func(a, b *Event) int { return int(a.serial) - int(b.serial) }) {
			s.fail("%s is unknown or out of order", g)
		}
	}
	for id, j := range sc.members {
		jobs[j]++
		if sc.running[id] == nil {
			s.fail("%s is in a job and is not running", id)
		}
	}
	for j, open := range jobs {
		if _, held := j.group.jobs[j]; !held || j.open != open || sc.groups[j.group.id] != j.group {
			s.fail("a job of %d is counted as %d, held by its group: %v", open, j.open, held)
		}
	}
	if waiting != len(sc.waiting) || sc.jobs != len(jobs) || len(sc.groups) != len(sc.groupOrder) {
		s.fail("%d of %d wait, %d of %d jobs, %d of %d groups", waiting, len(sc.waiting), sc.jobs, len(jobs), len(sc.groups), len(sc.groupOrder))
	}
	if sc.attached[""] && sc.jobs < sc.manifest.MaxThreads && sc.nextGroup() != nil || sc.manifest != nil && sc.jobs > sc.manifest.MaxThreads {
		s.fail("%d jobs of %d threads, next is %v", sc.jobs, sc.manifest.MaxThreads, sc.nextGroup())
	}
	owners := map[string]int{}
	for _, session := range sc.sessions {
		if session.owner != "" {
			owners[session.owner]++
		}
	}
	if !maps.Equal(owners, sc.owners) || owners["user:ada"] > 2 {
		s.fail("sessions of %v are counted as %v", owners, sc.owners)
	}
	s.checkEvents()
}

func (s *randomWalk) checkEvents() {
	for _, id := range s.joined {
		places := s.ends[id]
		if s.scheduler.waiting[id] != nil {
			places++
		}
		if s.scheduler.running[id] != nil {
			places++
		}
		if places != 1 || s.delivered[id] > 1 {
			s.fail("%s waits %v, runs %v, has ended %d times and was delivered %d times", id, s.scheduler.waiting[id] != nil, s.scheduler.running[id] != nil, s.ends[id], s.delivered[id])
		}
	}
}

// settle ends all Events and removes all visitors. Nothing may remain.
func (s *randomWalk) settle() {
	s.step = "settling"
	s.scheduler.onAttach(s.manifest())
	for len(s.scheduler.running) > 0 {
		for _, e := range inOrder(s.scheduler.running, "") {
			s.scheduler.onFinished(finished{event: e.ID})
		}
		s.check()
	}
	s.scheduler.onSweep(time.Now().Add(unreadTTL + time.Second))
	sc := s.scheduler
	if len(sc.waiting)+len(sc.running)+len(sc.members)+len(sc.sessions)+sc.jobs > 0 {
		s.fail("%d waiting, %d running, %d in %d jobs and %d sessions remain", len(sc.waiting), len(sc.running), len(sc.members), sc.jobs, len(sc.sessions))
	}
	for _, g := range sc.groupOrder {
		if len(g.waiting)+len(g.jobs) > 0 || !sc.declared[g.id] {
			s.fail("%s remains", g)
		}
	}
}
