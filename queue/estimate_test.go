package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// captures/v6/queue_rank_3slow.txt: three calls of a function with limit 1 in one Session.
func TestRanksOfThreeSlowCalls(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "slow", Limit: 1}))
	b.joins(1, "s/a", "s/b", "s/c")
	b.wantMessages("s", "a is 0 of 1", "b is 0 of 1", "c is 1 of 2")
	b.finish("a")
	b.wantMessages("s", "a process_completed from the Space", "c is 0 of 1")
	b.finish("b")
	b.wantMessages("s", "b process_completed from the Space")
	b.finish("c")
	b.wantMessages("s", "c process_completed from the Space", "close_stream")
	b.wantEffects("start [a]", "ended a", "start [b]", "ended b", "start [c]", "ended c")
}

// The expected values are those of gradio 6.31's broadcast_estimations for the same groups.
func TestEstimates(t *testing.T) {
	known := map[int]float64{1: 2, 2: 1, 3: .25}
	for _, row := range []struct {
		name     string
		limit    int
		averages map[int]float64
		running  map[int][]float64 // Endpoint -> seconds that each Job has run
		waiting  []int
		want     string
	}{
		{"nothing is known", 1, nil, nil, []int{1, 1}, "? ?"},
		{"one after the other", 1, known, nil, []int{1, 1, 1}, "2 4 6"},
		{"two at a time", 2, known, nil, []int{1, 1, 1}, "2 3 4"},
		{"all at once", 0, known, nil, []int{1, 1, 1}, "2 2 2"},
		{"one runs", 1, known, map[int][]float64{1: {.5}}, []int{1, 1}, "3.5 5.5"},
		{"one runs longer than usual", 1, known, map[int][]float64{1: {3}}, []int{1, 1}, "2 4"},
		{"the running one is unknown", 1, known, map[int][]float64{9: {.5}}, []int{1, 1}, "? ?"},
		{"one ahead is unknown", 1, known, nil, []int{1, 9, 1}, "2 ? ?"},
		{"one ahead is unknown and not waited for", 0, known, nil, []int{1, 9, 1}, "2 ? 2"},
		{"a unit is free", 2, known, map[int][]float64{1: {.5}}, []int{1, 1}, "2 3"},
		{"the first of two to end", 2, known, map[int][]float64{1: {.5}, 2: {.25}}, []int{1, 1, 2}, "2.75 3.75 3.75"},
		{"one of the running is unknown", 2, known, map[int][]float64{1: {.5}, 9: {.25}}, []int{1}, "?"},
		{"more run than the lowered limit", 1, known, map[int][]float64{1: {.5, .25}}, []int{1, 1}, "2 4"},
		{"two means", 1, known, map[int][]float64{2: {.75}}, []int{1, 2, 1}, "2.25 3.25 5.25"},
		{"a stream runs until its time limit", 1, known, map[int][]float64{3: {4}}, []int{1, 1}, "8 10"},
		{"streams wait for their first answer", 1, known, map[int][]float64{1: {.5}}, []int{3, 3, 1}, "1.75 3.25 6.5"},
	} {
		b := newFixture(t, app())
		for id, mean := range row.averages {
			b.averages[fnKey{id: id}] = mean
		}
		b.estimate(b.groupOf(row.limit, row.running, row.waiting), 0)
		if got := b.estimates(len(row.waiting)); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
}

// groupOf builds a group in a state that would take many calls to reach. Endpoint 3 is a stream of 10 s.
func (b *fixture) groupOf(limit int, running map[int][]float64, waiting []int) *group {
	g := &group{limit: limit, jobs: map[*job]struct{}{}}
	for fn, since := range running {
		for _, s := range since {
			started := b.clock.Add(-time.Duration(s * float64(time.Second)))
			g.jobs[&job{group: g, open: 1, fn: endpointNumber(fn), started: started}] = struct{}{}
		}
	}
	for _, fn := range waiting {
		e := eventNamed(fmt.Sprintf("s/%d", len(g.waiting)), fn)
		e.Endpoint = endpointNumber(fn)
		b.session(&Event{Session: "s"}).expect(e.ID)
		g.waiting = append(g.waiting, e)
	}
	return g
}

func endpointNumber(fn int) Endpoint {
	return Endpoint{ID: fn, Stream: fn == 3, TimeLimit: 10 * time.Second}
}

func (b *fixture) estimates(count int) string {
	b.Helper()
	var etas []string
	for rank := range count {
		m, _, _ := b.sessions["s"].pop()
		if m.Kind != Estimation || m.Rank != rank || m.Size != count {
			b.Errorf("got %+v, want the estimate of rank %d of %d", m, rank, count)
		}
		eta := "?"
		if m.ETA != nil {
			eta = fmt.Sprint(*m.ETA)
		}
		etas = append(etas, eta)
	}
	return strings.Join(etas, " ")
}

func TestOnlyNewEventGetsItsEstimate(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b")
	b.averages[fnKey{id: 1}] = 2
	b.clock = b.clock.Add(500 * time.Millisecond)
	b.wantMessages("b", "b is 0 of 1")
	b.joins(1, "c")
	b.wantMessages("b")
	b.wantMessages("c", "c is 1 of 2, 5.5s")
}

func TestFinishedRunUpdatesMean(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a", "b", "c")
	b.wantMessages("c", "c is 1 of 2")
	b.finishIn("a", seconds(2))
	b.wantMessages("c", "c is 0 of 1, 4s") // b has just begun
	b.finish("b")                          // a run without a mean keeps the old mean
	b.joins(1, "d")
	b.wantMessages("d", "d is 0 of 1, 4s")
}

func TestUpdatesLiveOrPeriodic(t *testing.T) {
	m := app(Endpoint{ID: 1, Group: "g", Limit: 1}, Endpoint{ID: 2, Group: "h", Limit: 1})
	live := newFixture(t, m)
	if live.update != nil {
		t.Error("live updates must not start a timer")
	}
	m.LiveUpdates, m.UpdateEvery = false, time.Second
	b := newFixture(t, m) // captures/v6/mode_rate.txt
	if b.update == nil {
		t.Fatal("no timer for updates")
	}
	b.joins(1, "a", "b", "c")
	b.joins(2, "x", "y")
	b.wantMessages("c", "c is 1 of 2")
	b.wantMessages("y", "y is 0 of 1")
	b.finish("a")
	b.wantMessages("c")
	b.onUpdate(b.clock)
	b.wantMessages("c", "c is 0 of 1")
	b.wantMessages("y", "y is 0 of 1")
}

// With many waiting Events, the ranks after two starts in quick succession are sent once, after the debounce interval.
func TestRankAnnouncementsAreDebounced(t *testing.T) {
	b := newFixture(t, app(Endpoint{ID: 1, Group: "g", Limit: 1}))
	b.joins(1, "a")
	for n := range 13 {
		b.joins(1, fmt.Sprintf("w%02d", n))
	}
	b.wantMessages("w12", "w12 is 12 of 13")
	b.clock = b.clock.Add(announceInterval)
	b.finish("a")
	b.wantMessages("w12", "w12 is 11 of 12")
	b.finish("w00")
	b.wantMessages("w12")
	if b.announceTimer == nil {
		t.Fatal("no timer is set for the delayed ranks")
	}
	b.clock = b.clock.Add(announceInterval)
	b.onAnnounce()
	b.wantMessages("w12", "w12 is 10 of 11")
	b.clock = b.clock.Add(announceInterval)
	b.onAnnounce()
	b.wantMessages("w12")
}
