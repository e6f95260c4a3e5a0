package pools

import (
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"

	"spacehost/internal/slurm"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// The members of the tests. Each has another ID.
func pending(id string, since time.Duration) Member {
	return Member{Job: slurm.Job{ID: id, State: slurm.Pending}, Since: ago(since)}
}

func starting(id string, since time.Duration) Member {
	return Member{Job: slurm.Job{ID: id, State: slurm.Running}, Since: ago(since)}
}

func serving(id string, spaces, leases int, used time.Duration) Member {
	return Member{slurm.Job{ID: id, State: slurm.Running}, ago(10 * time.Hour), Node{Name: "slurm-" + id, Connected: true, Seen: true, InService: true, Spaces: spaces, Leases: leases, UsedAt: ago(used)}}
}

func given(id string, spaces int) Member {
	m := serving(id, spaces, 0, time.Hour)
	m.Node.InService, m.Node.Given = false, true
	return m
}

// leaving is a node that an operator has drained, or whose job is about to end.
func leaving(id string) Member {
	m := serving(id, 1, 1, 0)
	m.Node.InService = false
	return m
}

func lost(id string) Member {
	m := serving(id, 1, 0, time.Hour)
	m.Node.Connected = false
	return m
}

// TestDecide has a row for each rule and its exceptions.
func TestDecide(t *testing.T) {
	rules := Rules{Min: 0, Max: 3, Idle: time.Hour, Wait: 30 * time.Second}
	least := Rules{Min: 1, Max: 3, Idle: time.Hour, Wait: 30 * time.Second}
	members := func(all ...Member) View { return View{Members: all} }
	waiting := func(since time.Duration, all ...Member) View {
		return View{Members: all, Demand: ago(since), Wanted: noon}
	}
	backOff := func(v View) View { v.Backoff = true; return v }
	submit := Decision{Submit: true}
	drain := func(id, why string) Decision { return Decision{Drain: []Action{{"slurm-" + id, why}}} }
	cancel := func(id, why string) Decision { return Decision{Cancel: []Action{{id, why}}} }
	const unused, empty = "nobody has used it for 1h0m0s", "its node is drained and empty"
	for _, row := range []struct {
		name  string
		rules Rules
		view  View
		want  Decision
	}{
		{"nothing is needed", rules, View{}, Decision{}},
		{"below min", least, View{}, submit},
		{"below min, after a failure", least, backOff(View{}), Decision{}},
		{"min is pending", least, members(pending("1", time.Minute)), Decision{}},
		{"min is lost for a moment", least, members(lost("1")), Decision{}},
		{"min is about to leave", least, members(leaving("1")), submit},
		{"min is about to leave, and max is 1", Rules{1, 1, time.Hour, 0}, members(leaving("1")), Decision{}},
		{"min was given back", least, members(given("1", 1)), submit},

		{"waits for a short time", rules, waiting(29 * time.Second), Decision{}},
		{"waits", rules, waiting(30 * time.Second), submit},
		{"waits, after a failure", rules, backOff(waiting(time.Hour)), Decision{}},
		{"waits, and a job is pending", rules, waiting(time.Hour, pending("1", time.Hour)), Decision{}},
		{"waits, and a job is starting", rules, waiting(time.Hour, starting("1", time.Minute)), Decision{}},
		{"waits, and a node is empty", rules, waiting(time.Hour, serving("1", 0, 0, 0)), Decision{}},
		{"waits, and the node is in use", rules, waiting(time.Hour, serving("1", 2, 2, 0)), submit},
		{"waits, and the node is lost", rules, waiting(time.Hour, lost("1")), submit},
		{"waits, and the node is leaving", rules, waiting(time.Hour, leaving("1")), submit},
		{"waits, and there are max jobs", rules, waiting(time.Hour, serving("1", 1, 1, 0), serving("2", 1, 1, 0), leaving("3")), Decision{}},

		{"used lately", rules, members(serving("1", 1, 0, 59*time.Minute)), Decision{}},
		{"idle", rules, members(serving("1", 1, 0, time.Hour)), drain("1", unused)},
		{"idle, and one waits", rules, waiting(time.Second, serving("1", 1, 0, time.Hour)), Decision{}},
		{"idle, and at min", least, members(serving("1", 1, 0, time.Hour)), Decision{}},
		{"the idlest of two", least, members(serving("1", 1, 0, time.Hour), serving("2", 0, 0, 2*time.Hour)), drain("2", unused)},
		{"idle with a lease", rules, members(serving("1", 1, 1, time.Hour)), Decision{}},
		{"lost nodes are not drained", rules, members(lost("1")), Decision{}},
		{"pending for nobody", rules, members(pending("1", time.Hour)), cancel("1", "it was pending, and nobody has waited for a machine for 1h0m0s")},
		{"pending for nobody since a short time", rules, View{Members: []Member{pending("1", 2*time.Hour)}, Wanted: ago(time.Minute)}, Decision{}},

		{"given back with a running call", rules, members(given("1", 1)), Decision{}},
		{"given back and empty", rules, members(given("1", 0)), cancel("1", empty)},
		{"the agent never came", rules, members(starting("1", startTimeout)), cancel("1", "its agent has not connected in 10m0s")},
		{"the agent never came, at min", least, members(starting("1", startTimeout)), Decision{Submit: true, Cancel: []Action{{"1", "its agent has not connected in 10m0s"}}}},
		{"ending", least, members(Member{Job: slurm.Job{ID: "1", State: slurm.Ending}}), submit},

		{"max was lowered", Rules{0, 1, time.Hour, 0}, members(serving("1", 1, 1, 0), serving("2", 1, 0, 0), pending("3", 0)),
			Decision{Cancel: []Action{{"3", "the pool has at most 1 jobs now"}}, Drain: []Action{{"slurm-2", "the pool has at most 1 jobs now"}}}},
		{"max was lowered, and one is leaving", Rules{0, 1, time.Hour, 0}, members(serving("1", 1, 1, 0), given("2", 1)), Decision{}},
	} {
		if got := Decide(row.rules, row.view, noon); !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: got %+v, want %+v", row.name, got, row.want)
		}
	}
}

// TestDecideBounds: in random views, a decision never leads to more than Max jobs, gives no job up below Min, and names nothing twice.
func TestDecideBounds(t *testing.T) {
	for range 20_000 {
		r := Rules{rand.N(3), 0, time.Hour, 30 * time.Second}
		r.Max = r.Min + rand.N(3)
		v := View{Backoff: rand.N(4) == 0}
		if rand.N(2) == 0 {
			v.Demand = ago(rand.N(2 * time.Minute))
		}
		for i := range rand.N(6) {
			id, age := strconv.Itoa(i+1), rand.N(2*time.Hour)
			make := []func() Member{
				func() Member { return pending(id, age) }, func() Member { return starting(id, age) }, func() Member { return serving(id, rand.N(3), rand.N(3), age) },
				func() Member { return given(id, rand.N(2)) }, func() Member { return leaving(id) }, func() Member { return lost(id) },
			}
			v.Members = append(v.Members, make[rand.N(len(make))]())
		}
		p := Decide(r, v, noon)
		named := map[string]bool{}
		for _, a := range append(append([]Action{}, p.Cancel...), p.Drain...) {
			if named[a.Name] || a.Why == "" {
				t.Fatalf("%+v in %+v: %+v is wrong", a, v, p)
			}
			named[a.Name] = true
		}
		left, useful := 0, 0
		for _, m := range v.Members {
			if named[m.Job.ID] {
				continue
			}
			left++
			if !m.isLeaving() && !named[m.Node.Name] {
				useful++
			}
		}
		if p.Submit && (left >= r.Max || v.Backoff) {
			t.Fatalf("%+v with %+v: %+v submits above max, or in a pause", v, r, p)
		}
		if len(p.Drain) > 0 && useful < r.Min {
			t.Fatalf("%+v with %+v: %+v drains below min", v, r, p)
		}
	}
}
