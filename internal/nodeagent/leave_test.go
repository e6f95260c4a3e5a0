package nodeagent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/nodes"
)

// busy is a Service with processes and leases that run until their ends.
type busy struct {
	plain
	mu                sync.Mutex
	processes, leases time.Time
	isLeft            bool
	ended             time.Time
}

func (b *busy) Running() (processes, leases int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	count := func(until time.Time) int {
		if b.ended.IsZero() && time.Now().Before(until) {
			return 1
		}
		return 0
	}
	return count(b.processes), count(b.leases)
}

func (b *busy) Leave() { b.isLeft = true }

func (b *busy) End() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = time.Now()
}

// leaveScene is an agent that is connected from the begin on, in a bubble.
type leaveScene struct {
	*fakeFront
	Config
	service *busy
	begin   time.Time
}

// inLeaveScene runs do in a bubble.
func inLeaveScene(t *testing.T, do func(t *testing.T, s *leaveScene)) {
	t.Helper()
	f, state := newFront(t)
	f.joined(t, state, "gpu2")
	synctest.Test(t, func(t *testing.T) {
		s := &leaveScene{f, config(state), &busy{}, time.Now()}
		s.Service, s.Drain = s.service, time.Minute
		do(t, s)
	})
}

// runUntil runs the agent, which gets a signal after some time.
func (s *leaveScene) runUntil(t *testing.T, signal time.Duration) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), signal)
	defer stop()
	if err := run(ctx, s.Config, s.fakeFront); err != nil {
		t.Fatal(err)
	}
	if s.service.ended.IsZero() {
		t.Error("the rest is not ended")
	}
}

// wantEnd checks when Run has returned.
func (s *leaveScene) wantEnd(t *testing.T, after, tolerance time.Duration) {
	t.Helper()
	if got := time.Since(s.begin); got < after || got > after+tolerance {
		t.Errorf("the agent has ended after %s, want %s", got, after)
	}
}

func (s *leaveScene) wantReports(t *testing.T, want ...nodes.Leaving) {
	t.Helper()
	if len(s.reports) != len(want) {
		t.Fatalf("reports %+v, want %+v", s.reports, want)
	}
	for i := range want {
		if s.reports[i] != want[i] {
			t.Errorf("report %d is %+v, want %+v", i, s.reports[i], want[i])
		}
	}
}

// TestLeave: after a signal, the agent tells the front, and ends once nothing runs.
func TestLeave(t *testing.T) {
	inLeaveScene(t, func(t *testing.T, s *leaveScene) {
		s.service.processes, s.service.leases = s.begin.Add(40*time.Second), s.begin.Add(30*time.Second)
		s.reported = func(nodes.Leaving) {
			if s.service.isLeft {
				t.Error("starts are refused before the front knows that the machine leaves")
			}
		}
		s.runUntil(t, 20*time.Second)
		s.wantEnd(t, 40*time.Second, drainTick)
		s.wantReports(t, nodes.Leaving{LeftMillis: 60_000, Draining: true, Why: reasonStopped})
		if !s.service.isLeft || s.hello.Leaving != nil {
			t.Errorf("starts are refused: %v; the hello has %+v", s.service.isLeft, s.hello.Leaving)
		}
	})
}

// TestDrainIsOver: calls that outlast the drain are the front's to end, and then the agent's.
func TestDrainIsOver(t *testing.T) {
	inLeaveScene(t, func(t *testing.T, s *leaveScene) {
		s.service.processes = s.begin.Add(time.Hour)
		s.runUntil(t, 20*time.Second)
		s.wantEnd(t, 20*time.Second+s.Drain+frontEndTime, drainTick)
	})
}

// TestCutOff: a second signal ends the drain.
func TestCutOff(t *testing.T) {
	inLeaveScene(t, func(t *testing.T, s *leaveScene) {
		s.service.processes = s.begin.Add(time.Hour)
		hurry := make(chan struct{})
		s.Hurry = hurry
		time.AfterFunc(30*time.Second, func() { close(hurry) })
		s.runUntil(t, 20*time.Second)
		s.wantEnd(t, 30*time.Second+frontEndTime, drainTick)
		s.wantReports(t, nodes.Leaving{LeftMillis: 60_000, Draining: true, Why: reasonStopped}, nodes.Leaving{Draining: true, Why: reasonStopped})
	})
}

// TestLeaveWithoutFront: without a front that drains the machine, only leases are awaited.
func TestLeaveWithoutFront(t *testing.T) {
	for what, prepare := range map[string]func(*leaveScene){
		"unreachable": func(s *leaveScene) {
			for range 99 {
				s.dials = append(s.dials, errors.New("no route"))
			}
		},
		"an older front": func(s *leaveScene) { s.answer = &link.RemoteError{Code: link.CodeProtocol, Text: "unknown operation"} },
		"the link breaks": func(s *leaveScene) {
			s.life = 25 * time.Second
			s.reported = func(nodes.Leaving) {
				s.dials = append(s.dials, errors.New("no route"), errors.New("no route"), errors.New("no route"), errors.New("no route"))
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			inLeaveScene(t, func(t *testing.T, s *leaveScene) {
				s.service.processes, s.service.leases = s.begin.Add(time.Hour), s.begin.Add(30*time.Second)
				prepare(s)
				s.runUntil(t, 20*time.Second)
				s.wantEnd(t, 30*time.Second, drainTick)
			})
		})
	}
}

// TestFrontComesBack: the hello of a new link has the drain, with the time that is left, and so has a report.
func TestFrontComesBack(t *testing.T) {
	inLeaveScene(t, func(t *testing.T, s *leaveScene) {
		s.service.processes, s.service.leases = s.begin.Add(45*time.Second), s.begin.Add(40*time.Second)
		s.life = 30 * time.Second
		s.runUntil(t, 20*time.Second)
		s.wantEnd(t, 45*time.Second, drainTick)
		left := s.hello.Leaving
		if left == nil || !left.Draining || left.Left() > 50*time.Second || left.Left() < 48*time.Second || len(s.reports) != 2 {
			t.Errorf("the hello has %+v, and the reports are %+v", left, s.reports)
		}
	})
}

// TestEndOfJob: the front knows the end of the machine from the hello on, and the drain begins by itself.
func TestEndOfJob(t *testing.T) {
	inLeaveScene(t, func(t *testing.T, s *leaveScene) {
		s.service.processes = s.begin.Add(2 * time.Hour)
		end := End{s.begin.Add(time.Hour), "job 4711 ends"}
		s.Ends = func(context.Context) (End, error) { return end, nil }
		s.runUntil(t, 3*time.Hour)
		s.wantEnd(t, time.Hour-EndTime+frontEndTime, drainTick)
		if left := s.hello.Leaving; left == nil || *left != (nodes.Leaving{LeftMillis: (time.Hour - EndTime).Milliseconds(), Why: end.Why}) {
			t.Errorf("the hello has %+v", left)
		}
		s.wantReports(t, nodes.Leaving{LeftMillis: 60_000, Draining: true, Why: end.Why})
	})
}

// TestEndMoves: the limit of a job is changed while it runs, and is unknown for a while.
func TestEndMoves(t *testing.T) {
	inLeaveScene(t, func(t *testing.T, s *leaveScene) {
		s.Ends = func(context.Context) (End, error) {
			switch passed := time.Since(s.begin); {
			case passed < 5*time.Minute:
				return End{}, errors.New("slurm_load_jobs error")
			case passed < 25*time.Minute:
				return End{s.begin.Add(time.Hour), "job 1 ends"}, nil
			}
			return End{s.begin.Add(2 * time.Hour), "job 1 ends"}, nil
		}
		s.runUntil(t, 3*time.Hour)
		s.wantEnd(t, 2*time.Hour-EndTime-s.Drain, drainTick)
		s.wantReports(t,
			nodes.Leaving{LeftMillis: (50*time.Minute - EndTime).Milliseconds(), Why: "job 1 ends"},
			nodes.Leaving{LeftMillis: (90*time.Minute - EndTime).Milliseconds(), Why: "job 1 ends"},
			nodes.Leaving{LeftMillis: 60_000, Draining: true, Why: "job 1 ends"})
	})
}

// TestSignalBeforeEnd: a signal shortly before the end of the job does not move the end.
func TestSignalBeforeEnd(t *testing.T) {
	inLeaveScene(t, func(t *testing.T, s *leaveScene) {
		s.Drain = 10 * time.Minute
		s.service.processes = s.begin.Add(2 * time.Hour)
		s.Ends = func(context.Context) (End, error) { return End{s.begin.Add(time.Hour), "job 1 ends"}, nil }
		s.runUntil(t, 49*time.Minute)
		s.wantEnd(t, 59*time.Minute+frontEndTime, drainTick)
	})
}

// TestRefusedWhileLeaving: the front revokes a node that is drained.
func TestRefusedWhileLeaving(t *testing.T) {
	inLeaveScene(t, func(t *testing.T, s *leaveScene) {
		s.service.processes = s.begin.Add(time.Hour)
		s.life, s.ends = 30*time.Second, &link.RemoteError{Code: link.CodeRevoked, Text: "node gpu2 was revoked"}
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		if err := run(ctx, s.Config, s.fakeFront); err == nil || err.Error() != "node gpu2 was revoked" {
			t.Errorf("got %v", err)
		}
		s.wantEnd(t, 30*time.Second, drainTick)
	})
}

// TestSlurmEnd asks a program that stands for squeue.
func TestSlurmEnd(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	squeue := func(script string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bin, "squeue"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{}
	getenv := func(name string) string { return env[name] }
	if SlurmEnd(getenv) != nil {
		t.Error("there is an end outside of a job")
	}
	env["SLURM_JOB_ID"] = "4711"
	squeue(`[ "$*" = "-h -j 4711 -O TimeLeft" ] && echo "1-02:03:04          "`)
	before := time.Now()
	end, err := SlurmEnd(getenv)(t.Context())
	if want := 26*time.Hour + 3*time.Minute + 4*time.Second; err != nil || end.Why != "job 4711 ends" || end.At.Before(before.Add(want)) || end.At.After(time.Now().Add(want)) {
		t.Errorf("got %+v, %v", end, err)
	}
	squeue("echo UNLIMITED")
	if end, err := SlurmEnd(getenv)(t.Context()); err != nil || !end.At.IsZero() {
		t.Errorf("without a limit: %+v, %v", end, err)
	}
	squeue("echo no controller >&2; exit 1")
	if _, err := SlurmEnd(getenv)(t.Context()); err == nil || err.Error() != "ask squeue for the time left of job 4711: exit status 1: no controller; give it with --ends-in" {
		t.Errorf("a failed squeue: %v", err)
	}
	env["SLURM_JOB_END_TIME"] = "1796120000"
	if end, err := SlurmEnd(getenv)(t.Context()); err != nil || end.At.Unix() != 1796120000 {
		t.Errorf("with SLURM_JOB_END_TIME: %+v, %v", end, err)
	}
}

// TestParseTimeLeft reads what squeue prints.
func TestParseTimeLeft(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0:00": 0, "0:59": 59 * time.Second, "59:59": time.Hour - time.Second, "8:00:00": 8 * time.Hour, "10-00:00:01": 240*time.Hour + time.Second, "7": 7 * time.Second,
	} {
		if left, limited, err := parseTimeLeft(text); err != nil || !limited || left != want {
			t.Errorf("%s: %s, %v, %v", text, left, limited, err)
		}
	}
	for _, text := range []string{"", "INVALID", "1:2:3:4", "-1:00", "1-"} {
		if _, _, err := parseTimeLeft(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
