package pools

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/slurm"
)

// lab is a scheduler and a front in memory. Agents connect 20 s after the submission. It is used inside a synctest bubble by one
// goroutine.
type lab struct {
	rules    Rules
	removed  bool
	jobs     []*labJob
	demand   time.Time
	listErr  error
	sendErr  error
	accepts  bool // a submission that fails has been accepted
	broken   bool // jobs end at once
	lists    int
	submits  int
	forgot   []string
	canceled []string
}

type labJob struct {
	slurm.Job
	born time.Time
	node Node
	gone bool // the node was forgotten
}

func (l *lab) Submit(context.Context, string) (string, error) {
	l.submits++
	if l.sendErr != nil && !l.accepts {
		return "", l.sendErr
	}
	id := strconv.Itoa(len(l.jobs) + 1)
	l.jobs = append(l.jobs, &labJob{Job: slurm.Job{ID: id, State: slurm.Pending, Word: "PENDING"}, born: time.Now()})
	return id, l.sendErr
}

func (l *lab) Jobs(context.Context, string) (all []slurm.Job, err error) {
	l.lists++
	for _, j := range l.jobs {
		switch {
		case j.State == slurm.Ended:
		case l.broken:
			j.State, j.Word, j.Machine, j.Reason = slurm.Ended, "FAILED", "n1", "NonZeroExitCode"
		case j.State == slurm.Pending && time.Since(j.born) >= 20*time.Second:
			j.State, j.Word, j.Machine = slurm.Running, "RUNNING", "n1"
			j.node = Node{Name: "slurm-" + j.ID, Connected: true, Seen: true, InService: true}
		}
		all = append(all, j.Job)
	}
	return all, l.listErr
}

func (l *lab) Cancel(_ context.Context, id string) error {
	l.canceled = append(l.canceled, id)
	for _, j := range l.jobs {
		if j.ID == id {
			j.State, j.Word, j.node.Connected = slurm.Ended, "CANCELLED", false
		}
	}
	return nil
}

func (l *lab) Rules() (Rules, bool) { return l.rules, !l.removed }

func (l *lab) Nodes(context.Context) (all []Node, demand time.Time, err error) {
	for _, j := range l.jobs {
		if j.node.Seen && !j.gone {
			all = append(all, j.node)
		}
	}
	return all, l.demand, nil
}

func (l *lab) Script(context.Context) (string, error) { return "#!/bin/bash", nil }
func (l *lab) LogOf(job string) string                { return "/var/tmp/" + job + ".log" }

func (l *lab) Drain(_ context.Context, node, _ string) error {
	for _, j := range l.jobs {
		if j.node.Name == node {
			j.node.InService, j.node.Given = false, true
		}
	}
	return nil
}

func (l *lab) Forget(_ context.Context, node string) error {
	for _, j := range l.jobs {
		if j.node.Name == node {
			if j.node.Leases > 0 {
				return errors.New("it has open leases")
			}
			j.gone = true
			l.forgot = append(l.forgot, node)
		}
	}
	return nil
}

// live counts the jobs that have not ended.
func (l *lab) live() (n int) {
	for _, j := range l.jobs {
		if j.State != slurm.Ended {
			n++
		}
	}
	return n
}

func (l *lab) pool() *Pool {
	return New(Config{Name: "slurm", JobName: "spacehost-slurm", Scheduler: l, Front: l, Now: time.Now, Logger: zap.NewNop()})
}

// pass runs a Pool for some simulated time. It returns early if the Pool has nothing to do any more.
func pass(t *testing.T, p *Pool, d time.Duration) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	p.Run(ctx)
}

var usual = Rules{Min: 0, Max: 2, Idle: time.Hour, Wait: 30 * time.Second}

// TestLifeOfPool: a Space waits, a job is submitted, the node is used, then nobody uses it, and it is drained, cancelled and forgotten.
func TestLifeOfPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{rules: usual}
		p := l.pool()
		pass(t, p, time.Minute)
		if l.lists != 1 || l.submits != 0 {
			t.Fatalf("without demand: %d lists, %d submits", l.lists, l.submits)
		}
		l.demand = time.Now()
		pass(t, p, 25*time.Second)
		if l.submits != 0 {
			t.Fatal("a job was submitted too early")
		}
		pass(t, p, 20*time.Second)
		if l.submits != 1 {
			t.Fatalf("%d submits after 45 s", l.submits)
		}
		pass(t, p, 35*time.Second)
		one := l.jobs[0]
		l.demand, one.node.Spaces = time.Time{}, 1
		if s := p.Status(); len(s.Members) != 1 || !s.Members[0].Node.Connected || s.Trouble != "" {
			t.Fatalf("status %+v", s)
		}
		for range 5 {
			one.node.UsedAt = time.Now()
			pass(t, p, 50*time.Minute)
		}
		if l.live() != 1 || one.node.Given {
			t.Fatal("a node in use was given back")
		}
		pass(t, p, 11*time.Minute)
		if !one.node.Given || l.live() != 1 {
			t.Fatalf("the idle node was not drained, or it was cancelled before its Space had left: %+v", one)
		}
		one.node.Spaces = 0
		pass(t, p, 30*time.Second)
		if l.live() != 0 || !slices.Equal(l.canceled, []string{"1"}) || !slices.Equal(l.forgot, []string{"slurm-1"}) {
			t.Fatalf("cancelled %v, forgotten %v", l.canceled, l.forgot)
		}
		lists := l.lists
		pass(t, p, time.Hour)
		if l.lists > lists+1 {
			t.Errorf("an empty pool has listed its jobs %d times", l.lists-lists)
		}
	})
}

// TestRestart: another front finds the jobs of the first one, and submits none.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{rules: Rules{Min: 2, Max: 2, Idle: time.Hour}}
		pass(t, l.pool(), 5*time.Second)
		pass(t, l.pool(), time.Hour)
		if l.submits != 2 || l.live() != 2 {
			t.Errorf("%d submits, %d jobs; want 2", l.submits, l.live())
		}
	})
}

// TestUnknownJobs: while the jobs are not known, nothing is submitted.
func TestUnknownJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{rules: Rules{Min: 1, Max: 1, Idle: time.Hour}, listErr: errors.New("slurmctld does not answer")}
		p := l.pool()
		pass(t, p, time.Minute)
		if trouble := p.Status().Trouble; l.submits != 0 || trouble != "The jobs of the pool slurm are not known: slurmctld does not answer." {
			t.Errorf("%d submits, trouble %q", l.submits, trouble)
		}
		l.listErr = nil
		pass(t, p, time.Minute)
		if trouble := p.Status().Trouble; l.submits != 1 || trouble != "" {
			t.Errorf("%d submits, trouble %q", l.submits, trouble)
		}
	})
}

// TestFailures: failing submissions and jobs that end at once lead to growing pauses and a sentence.
func TestFailures(t *testing.T) {
	for _, row := range []struct {
		name    string
		break_  func(*lab)
		mend    func(*lab)
		trouble string
	}{
		{"submit", func(l *lab) { l.sendErr = errors.New("invalid partition") }, func(l *lab) { l.sendErr = nil }, "The pool slurm cannot submit a job: invalid partition."},
		{"job", func(l *lab) { l.broken = true }, func(l *lab) { l.broken = false }, "of the pool slurm has ended on n1 before its agent was connected (FAILED, NonZeroExitCode); its log there is /var/tmp/"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &lab{rules: Rules{Min: 1, Max: 1, Idle: time.Hour}}
				row.break_(l)
				p := l.pool()
				pass(t, p, time.Minute)
				early := l.submits
				pass(t, p, 6*time.Hour)
				if late := l.submits - early; early < 2 || early > 4 || late < 30 || late > 45 {
					t.Errorf("%d submits in the first minute, %d in 6 hours", early, late)
				}
				if s := p.Status(); !strings.Contains(s.Trouble, row.trouble) || s.RetryAt.IsZero() {
					t.Errorf("status %+v, want %q", s, row.trouble)
				}
				row.mend(l)
				pass(t, p, 12*time.Minute)
				if s := p.Status(); s.Trouble != "" || l.live() != 1 {
					t.Errorf("afterwards: %+v, %d jobs", s, l.live())
				}
			})
		})
	}
}

// TestAccepted: a job whose submission seemed to fail is found, and no second one is submitted.
func TestAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{rules: Rules{Min: 1, Max: 3, Idle: time.Hour}, sendErr: errors.New("timed out"), accepts: true}
		p := l.pool()
		pass(t, p, time.Hour)
		if l.submits != 1 || l.live() != 1 {
			t.Errorf("%d submits, %d jobs", l.submits, l.live())
		}
	})
}

// TestAgentNeverComes: a job without an agent is cancelled, and the sentence names its log.
func TestAgentNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{rules: Rules{Min: 1, Max: 1, Idle: time.Hour}}
		p := l.pool()
		pass(t, p, 5*time.Second)
		l.jobs[0].State, l.jobs[0].Word, l.jobs[0].Machine = slurm.Running, "RUNNING", "n2"
		pass(t, p, startTimeout+12*time.Second)
		want := fmt.Sprintf("Job 1 of the pool slurm was cancelled, because its agent has not connected in %s; its log on n2 is /var/tmp/1.log.", startTimeout)
		if got := p.Status().Trouble; got != want || !slices.Equal(l.canceled, []string{"1"}) {
			t.Errorf("cancelled %v, trouble %q", l.canceled, got)
		}
		pass(t, p, time.Minute)
		if l.live() != 1 {
			t.Errorf("%d jobs afterwards", l.live())
		}
	})
}

// TestRemoved: the jobs of a removed pool are given back, and Run ends.
func TestRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{rules: Rules{Min: 2, Max: 2, Idle: time.Hour}}
		p := l.pool()
		pass(t, p, time.Minute)
		for _, j := range l.jobs {
			j.node.Spaces = 1
		}
		l.removed, l.demand = true, time.Now()
		pass(t, p, time.Minute)
		if l.live() != 2 || !l.jobs[0].node.Given || !l.jobs[1].node.Given {
			t.Fatalf("%d jobs, want 2 drained ones", l.live())
		}
		for _, j := range l.jobs {
			j.node.Spaces = 0
		}
		p.Run(t.Context()) // it ends
		if l.live() != 0 || len(l.forgot) != 2 {
			t.Errorf("%d jobs, forgotten %v", l.live(), l.forgot)
		}
	})
}

// TestOpenLeases: a node of a finished job stays known while it has open leases.
func TestOpenLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{rules: Rules{Min: 1, Max: 1, Idle: time.Hour}}
		p := l.pool()
		pass(t, p, time.Minute)
		one := l.jobs[0]
		one.State, one.Word, one.node.Connected, one.node.Leases = slurm.Ended, "TIMEOUT", false, 1
		pass(t, p, time.Minute)
		if len(l.forgot) != 0 || l.live() != 1 {
			t.Errorf("forgotten %v, %d jobs", l.forgot, l.live())
		}
		one.node.Leases = 0
		pass(t, p, time.Minute)
		if len(l.forgot) != 1 {
			t.Error("the node is still known")
		}
	})
}
