package queue

import (
	"cmp"
	"fmt"
	"slices"
)

// dispatch starts all Jobs that may start. Groups are ordered by their first Event, and a group is FIFO. A batch holds
// Events of one Endpoint (gradio/queueing.py, get_events; Gradio shuffles the groups).
func (sc *scheduler) dispatch() {
	for sc.manifest != nil && sc.jobs < sc.manifest.MaxThreads {
		g := sc.nextGroup()
		if g == nil {
			return
		}
		sc.startJob(g, sc.takeBatch(g))
	}
}

func (sc *scheduler) nextGroup() *group {
	var first *group
	for _, g := range sc.groupOrder {
		free := g.limit == 0 || len(g.jobs) < g.limit
		if head := sc.head(g); sc.attached[g.mount] && free && head != nil && (first == nil || head.serial < sc.head(first).serial) {
			first = g
		}
	}
	return first
}

// head returns the first waiting Event of a group that may start, nil if none may.
func (sc *scheduler) head(g *group) *Event {
	if i := slices.IndexFunc(g.waiting, sc.mayStart); i >= 0 {
		return g.waiting[i]
	}
	return nil
}

func (sc *scheduler) takeBatch(g *group) []*Event {
	head := sc.head(g)
	taken := []*Event{head}
	for _, e := range g.waiting {
		if e != head && len(taken) < head.Endpoint.Batch && e.Endpoint.ID == head.Endpoint.ID && sc.mayStart(e) {
			taken = append(taken, e)
		}
	}
	for _, e := range taken {
		sc.withdraw(e)
	}
	return taken
}

func (sc *scheduler) startJob(g *group, events []*Event) {
	j := &job{group: g, open: len(events), fn: events[0].Endpoint, started: sc.now()}
	g.jobs[j] = struct{}{}
	sc.jobs++
	started := Job{App: sc.apps[g.mount].App}
	for _, e := range events {
		e.app = started.App
		sc.running[e.ID], sc.members[e.ID] = e, j
		started.Events = append(started.Events, *e)
	}
	if sc.manifest.LiveUpdates {
		sc.announce(g)
	}
	sc.do.start(started)
}

func (sc *scheduler) enqueue(e *Event) {
	g := sc.group(e.Endpoint)
	g.waiting = append(g.waiting, e)
	sc.waiting[e.ID] = e
}

func (sc *scheduler) withdraw(e *Event) {
	delete(sc.waiting, e.ID)
	g := sc.groups[e.Endpoint.Group]
	g.waiting = slices.DeleteFunc(g.waiting, func(other *Event) bool { return other == e })
}

func (sc *scheduler) leaveJob(id EventID) {
	j := sc.members[id]
	delete(sc.members, id)
	if j == nil {
		return
	}
	if j.open--; j.open == 0 {
		delete(j.group.jobs, j)
		sc.jobs--
		sc.dropIfEmpty(j.group)
	}
}

// dropIfEmpty deletes an empty group unless a manifest names it. gr.render creates new functions, and thereby new
// groups, for as long as the Space runs.
func (sc *scheduler) dropIfEmpty(g *group) {
	if len(g.jobs) > 0 || len(g.waiting) > 0 || sc.declared[g.id] {
		return
	}
	delete(sc.groups, g.id)
	sc.groupOrder = slices.DeleteFunc(sc.groupOrder, func(other *group) bool { return other == g })
}

func (g *group) String() string {
	return fmt.Sprintf("group %s: %d waiting, %d of %d running", g.id, len(g.waiting), len(g.jobs), g.limit)
}

// inOrder returns the Events of a Session in order of joining, or all Events if hash is empty.
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
