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

// storm throws random events at a line and looks after each whether what must always hold still does.
type storm struct {
	*testing.T
	*rand.Rand
	line   *line
	seed   uint64
	step   string
	joined []EventID
	ends   map[EventID]int
	told   map[EventID]int // how often a Session heard of its end
}

func TestWhateverHappensTheLineStaysSound(t *testing.T) {
	for seed := range uint64(150) {
		s := &storm{T: t, Rand: rand.New(rand.NewPCG(seed, 7)), seed: seed, ends: map[EventID]int{}, told: map[EventID]int{}}
		s.line = newLine(s)
		s.line.sessionsEach = 2
		for n := range 400 {
			s.anything(n)
			s.check()
			if t.Failed() {
				t.FailNow()
			}
		}
		s.settle()
	}
}

func (s *storm) fail(format string, args ...any) {
	s.Helper()
	s.Errorf("seed %d, after %s: %s", s.seed, s.step, fmt.Sprintf(format, args...))
}

// The effects, with what must hold at that moment.

func (s *storm) start(job Job) {
	first := s.line.running[job.Events[0].ID]
	g := s.line.members[first.ID].group
	if g.limit != 0 && len(g.jobs) > g.limit {
		s.fail("%s above its limit", g)
	}
	for _, e := range g.waiting {
		if e.serial < first.serial {
			s.fail("%s started before %s", first.ID, e.ID)
		}
	}
	if len(job.Events) > max(1, first.Endpoint.Batch) || job.App != s.line.manifest.App {
		s.fail("a job of %d for app %d", len(job.Events), job.App)
	}
	for _, e := range job.Events {
		if e.Endpoint.ID != first.Endpoint.ID {
			s.fail("a batch of endpoints %d and %d", first.Endpoint.ID, e.Endpoint.ID)
		}
	}
}

func (s *storm) stop(_ int, event EventID) {
	e := s.line.running[event]
	if e == nil && s.line.waiting[event] != nil || e != nil && !e.completed {
		s.fail("%s is stopped before its visitor was told", event)
	}
}

func (s *storm) abandon(_ int, events []EventID) {
	for _, id := range events {
		if e := s.line.running[id]; e != nil && !e.left {
			s.fail("%s is abandoned but not left", id)
		}
	}
}

func (s *storm) ended(event *Event, _ string) { s.ends[event.ID]++ }

// What happens

func (s *storm) anything(n int) {
	switch s.IntN(20) {
	case 0:
		s.step = "attach"
		s.line.onAttach(s.manifest())
	case 1:
		s.step = "lost"
		s.line.onLost("lost")
	case 2, 3:
		s.step = "leave"
		s.withSession(s.line.onLeave)
	case 4, 5:
		id := s.anyEvent()
		s.step = "cancel of " + string(id)
		s.line.onCancel(s.session(), id)
	case 6, 7, 8:
		id := s.anyEvent()
		s.step = "message for " + string(id)
		s.line.onMessage(id, Message{Kind: []Kind{Generating, Completed}[s.IntN(2)], Event: id, Raw: []byte("{}")})
	case 9, 10, 11, 12:
		id := s.anyEvent()
		s.step = "end of " + string(id)
		s.line.onFinished(finished{event: id, average: []*float64{nil, seconds(.5)}[s.IntN(2)]})
	case 13:
		s.step = "update"
		s.line.onUpdate(time.Time{})
	case 14, 15:
		s.step = "reading"
		s.withSession(s.read)
	case 16:
		s.step = "a cut"
		s.withSession((*Session).end)
	default:
		s.join(EventID(fmt.Sprint("e", n)))
	}
}

// manifest is an app whose numbers change with each start.
func (s *storm) manifest() Manifest {
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

func (s *storm) session() SessionHash { return SessionHash(fmt.Sprint("s", s.IntN(5))) }

func (s *storm) withSession(do func(*Session)) {
	if found := s.line.sessions[s.session()]; found != nil {
		do(found)
	}
}

// anyEvent prefers those that run, so that many of them end.
func (s *storm) anyEvent() EventID {
	if running := inOrder(s.line.running, ""); len(running) > 0 && s.IntN(4) > 0 {
		return running[s.IntN(len(running))].ID
	}
	if len(s.joined) > 0 {
		return s.joined[s.IntN(len(s.joined))]
	}
	return "nosuch"
}

func (s *storm) join(id EventID) {
	s.step = "join of " + string(id)
	e := &Event{ID: id, Session: s.session(), Endpoint: Endpoint{ID: s.IntN(7)}}
	e.Payer = []identity.Identity{{Kind: identity.Local}, {Kind: identity.User, Name: "ada"}, {Kind: identity.User, Name: "bob"}}[s.IntN(3)]
	if s.IntN(4) == 0 {
		e.Admitted, e.Finished = true, s.IntN(3) == 0
		e.Endpoint = Endpoint{ID: 50 + s.IntN(3), Group: fmt.Sprint("render", s.IntN(3)), Limit: 1}
	}
	before := len(s.line.waiting)
	if s.line.onSubmit(e) == nil {
		s.joined = append(s.joined, id)
	} else if s.line.waiting[id] != nil || s.line.running[id] != nil || len(s.line.waiting) != before {
		s.fail("it was refused and is there")
	}
}

func (s *storm) read(from *Session) {
	for {
		m, wake, err := from.pop()
		if wake != nil || err != nil && m.Kind == "" {
			return
		}
		if m.Kind == Completed {
			s.told[m.Event]++
		}
	}
}

// What must always hold

func (s *storm) check() {
	l := s.line
	waiting, jobs := 0, map[*job]int{}
	for _, g := range l.order {
		waiting += len(g.waiting)
		if l.groups[g.id] != g || !slices.IsSortedFunc(g.waiting, func(a, b *Event) int { return int(a.serial) - int(b.serial) }) {
			s.fail("%s is not known or out of order", g)
		}
	}
	for id, j := range l.members {
		jobs[j]++
		if l.running[id] == nil {
			s.fail("%s is in a job and does not run", id)
		}
	}
	for j, open := range jobs {
		if _, held := j.group.jobs[j]; !held || j.open != open || l.groups[j.group.id] != j.group {
			s.fail("a job of %d is counted as %d, held by its group: %v", open, j.open, held)
		}
	}
	if waiting != len(l.waiting) || l.jobs != len(jobs) || len(l.groups) != len(l.order) {
		s.fail("%d of %d wait, %d of %d jobs, %d of %d groups", waiting, len(l.waiting), l.jobs, len(jobs), len(l.groups), len(l.order))
	}
	if l.up[""] && l.jobs < l.manifest.MaxThreads && l.next() != nil || l.manifest != nil && l.jobs > l.manifest.MaxThreads {
		s.fail("%d jobs of %d threads, next is %v", l.jobs, l.manifest.MaxThreads, l.next())
	}
	owners := map[string]int{}
	for _, session := range l.sessions {
		if session.owner != "" {
			owners[session.owner]++
		}
	}
	if !maps.Equal(owners, l.owners) || owners["user:ada"] > 2 {
		s.fail("sessions of %v are counted as %v", owners, l.owners)
	}
	s.checkEvents()
}

func (s *storm) checkEvents() {
	for _, id := range s.joined {
		places := s.ends[id]
		if s.line.waiting[id] != nil {
			places++
		}
		if s.line.running[id] != nil {
			places++
		}
		if places != 1 || s.told[id] > 1 {
			s.fail("%s waits %v, runs %v, has ended %d times and was told of it %d times", id, s.line.waiting[id] != nil, s.line.running[id] != nil, s.ends[id], s.told[id])
		}
	}
}

// settle lets all end and all visitors go: nothing may stay.
func (s *storm) settle() {
	s.step = "settling"
	s.line.onAttach(s.manifest())
	for len(s.line.running) > 0 {
		for _, e := range inOrder(s.line.running, "") {
			s.line.onFinished(finished{event: e.ID})
		}
		s.check()
	}
	s.line.onSweep(time.Now().Add(unreadLife + time.Second))
	l := s.line
	if len(l.waiting)+len(l.running)+len(l.members)+len(l.sessions)+l.jobs > 0 {
		s.fail("%d wait, %d run, %d in %d jobs, %d sessions stay", len(l.waiting), len(l.running), len(l.members), l.jobs, len(l.sessions))
	}
	for _, g := range l.order {
		if len(g.waiting)+len(g.jobs) > 0 || !l.lasting[g.id] {
			s.fail("%s stays", g)
		}
	}
}
