package guard

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/lease"
	"spacehost/internal/lease/leasetest"
)

func TestGuardEndsWorkersThatOverstay(t *testing.T) {
	for name, c := range map[string]struct {
		strict, alone bool
		at            time.Duration // of the end, from the deadline
		grace         time.Duration
	}{
		"alone":                     {false, true, 0, KillGrace},
		"with a host":               {false, false, HostGrace, KillGrace},
		"strict, alone":             {true, true, KillGrace, 0},
		"strict, with a connection": {true, false, KillGrace, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				processes := leasetest.NewProcesses()
				g := Guard{Processes: processes, Strict: c.strict}
				defer g.Close()
				g.SetAlone(c.alone)
				began := time.Now()
				worker := lease.Worker{PID: 7, Start: processes.Start("demo", 7)}
				g.Arm("one", worker, time.Minute)
				processes.Wait(t.Context(), worker.PID, worker.Start)
				if passed := time.Since(began); passed != time.Minute+c.at {
					t.Errorf("ended after %v, want %v", passed, time.Minute+c.at)
				}
				synctest.Wait()
				if ends := processes.Ends(7); len(ends) != 1 || ends[0] != c.grace {
					t.Errorf("ended with the grace %v, want %v once", ends, c.grace)
				}
				r := g.Report()
				if len(r.Open) != 0 || len(r.Ended) != 1 || r.Ended[0] != (lease.EndedLease{Lease: "one", State: lease.Expired, Reason: "deadline", Used: WholeTime}) {
					t.Errorf("report %+v", r)
				}
				g.Disarm("one")
				if r := g.Report(); len(r.Ended) != 0 {
					t.Errorf("report after disarm: %+v", r)
				}
			})
		})
	}
}

// guarded is a Guard of workers without processes.
type guarded struct {
	*Guard
	processes *leasetest.Processes
	starts    map[int]uint64
}

func (g guarded) arm(id string, pid int, left time.Duration) {
	if g.starts[pid] == 0 {
		g.starts[pid] = g.processes.Start("demo", pid)
	}
	g.Arm(id, lease.Worker{PID: pid, Start: g.starts[pid]}, left)
}

// want compares the report after a time: the open leases, then the ended ones with the seconds that they have used.
func (g guarded) want(t *testing.T, after time.Duration, want ...string) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	r, got := g.Report(), []string{}
	for _, o := range r.Open {
		got = append(got, o.Lease)
	}
	for _, e := range r.Ended {
		text := fmt.Sprintf("%s %s %g", e.Lease, e.Reason, e.Used.Seconds())
		if e.Used == WholeTime {
			text = fmt.Sprintf("%s %s", e.Lease, e.Reason)
		}
		got = append(got, text)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("report %q, want %q", got, want)
	}
}

func TestGuardReports(t *testing.T) {
	const second = time.Second
	for name, test := range map[string]func(t *testing.T, g guarded){
		"workers overstay": func(t *testing.T, g guarded) {
			g.arm("a", 1, 10*second)
			g.arm("b", 2, 20*second)
			g.want(t, 9999*time.Millisecond, "a", "b")
			g.want(t, 2*time.Millisecond, "a deadline", "b")
			g.want(t, time.Hour, "a deadline", "b deadline")
			g.Disarm("a")
			g.Disarm("unknown")
			g.want(t, 0, "b deadline")
		},
		"a worker exits": func(t *testing.T, g guarded) {
			g.arm("a", 1, 10*second)
			time.Sleep(4 * second)
			g.processes.Exit(1)
			g.want(t, time.Hour, "a worker died 4")
		},
		"a lease ends before its deadline": func(t *testing.T, g guarded) {
			g.arm("a", 1, 10*second)
			time.Sleep(4 * second)
			g.Disarm("a")
			g.want(t, time.Hour)
			if !g.processes.Alive(1) {
				t.Error("its worker was ended")
			}
		},
		"a connected host ends the worker itself": func(t *testing.T, g guarded) {
			g.SetAlone(false)
			g.arm("a", 1, 10*second)
			time.Sleep(12 * second)
			g.Disarm("a")
			g.want(t, time.Hour)
		},
		"the next host arms it again": func(t *testing.T, g guarded) {
			g.arm("a", 1, 10*second)
			time.Sleep(6 * second)
			g.arm("a", 1, 4*second)
			g.want(t, 3999*time.Millisecond, "a")
			g.want(t, 2*time.Millisecond, "a deadline")
		},
		"its beginning stays": func(t *testing.T, g guarded) {
			g.arm("a", 1, time.Minute)
			time.Sleep(10 * second)
			g.arm("a", 1, 50*second)
			time.Sleep(5 * second)
			g.processes.Exit(1)
			g.want(t, 0, "a worker died 15")
		},
		"another worker replaces an idle one": func(t *testing.T, g guarded) {
			g.arm("a", 1, 10*second)
			time.Sleep(second)
			g.arm("a", 2, 9*second)
			g.processes.Exit(1)
			g.want(t, 3*second, "a")
			g.processes.Exit(2)
			g.want(t, time.Hour, "a worker died 4")
		},
		"its deadline has passed": func(t *testing.T, g guarded) {
			g.arm("a", 1, -second)
			g.want(t, time.Millisecond, "a deadline")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				processes := leasetest.NewProcesses()
				g := guarded{&Guard{Processes: processes}, processes, map[int]uint64{}}
				g.SetAlone(true)
				defer g.Close()
				test(t, g)
			})
		})
	}
}

// countingProcesses counts the waits for exits.
type countingProcesses struct {
	*leasetest.Processes
	waits atomic.Int32
}

func (p *countingProcesses) Wait(ctx context.Context, pid int, start uint64) {
	p.waits.Add(1)
	p.Processes.Wait(ctx, pid, start)
}

// TestOneWaitForEachWorker: the leases of a worker share the wait for its exit, which also ends the lease that is open then.
func TestOneWaitForEachWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		processes := &countingProcesses{Processes: leasetest.NewProcesses()}
		g := guarded{&Guard{Processes: processes}, processes.Processes, map[int]uint64{}}
		defer g.Close()
		for range 3 {
			g.arm("a", 1, time.Minute)
			g.arm("b", 2, time.Minute)
			g.want(t, time.Second, "a", "b")
			g.Disarm("a")
		}
		if n := processes.waits.Load(); n != 2 {
			t.Errorf("%d waits for two workers", n)
		}
		g.arm("c", 1, time.Minute)
		time.Sleep(4 * time.Second)
		processes.Exit(1)
		g.want(t, time.Second, "b", "c worker died 4")
		g.arm("late", 1, time.Minute)
		g.want(t, 0, "b", "c worker died 4", "late worker died 0")
	})
}
