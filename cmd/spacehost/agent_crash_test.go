package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/lease"
)

// TestHostCrashesAroundSpaces kills a host during a GPU call, which goes on.
func TestHostCrashesAroundSpaces(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, l *agentLab){
		"a call goes on":               callGoesOn,
		"a call overstays alone":       callOverstaysAlone,
		"a call finishes alone":        callFinishesAlone,
		"a worker crashes alone":       workerCrashesAlone,
		"an idle worker is left alone": idleWorkerIsLeft,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := serveAgentLab(t, agentSpaces)
			pid := l.space("kept").PID
			test(t, l)
			l.wantKept("kept", pid)
			wantText(t, "a call afterwards", l.ada("kept").ok("/on_gpu", 0), "computed")
			l.signal(syscall.SIGINT)
			l.wantNothingLeft("SIGINT")
			l.wantExactLedger(2)
		})
	}
}

// crash starts a call, and kills the host once the call has a GPU.
func (l *agentLab) crash(endpoint string, args ...any) (active time.Time, worker int) {
	l.t.Helper()
	l.ada("kept").submit(endpoint, args...)
	active = awaitActive(l.t.(*testing.T), l.product)
	worker = l.leases().Open[0].Worker
	l.kill()
	if !alive(worker) {
		l.t.Fatal("the worker has ended with the host")
	}
	return active, worker
}

// awaitSettled waits until the only lease has ended.
func (l *agentLab) awaitSettled() lease.Past {
	l.t.Helper()
	eventually(l.t, "the lease has ended", patience, func() bool { all := l.leases(); return len(all.Open) == 0 && len(all.Ended) == 1 })
	return l.leases().Ended[0]
}

func callGoesOn(t *testing.T, l *agentLab) {
	pid := l.space("kept").PID
	active, worker := l.crash("/until_file")
	l.start()
	if open := l.leases().Open; len(open) != 1 || open[0].State != lease.Active || open[0].Worker != worker {
		t.Fatalf("open leases %+v, want that of worker %d", open, worker)
	}
	least := time.Since(active).Seconds()
	if err := os.WriteFile(inFolder(pid, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ended := l.awaitSettled()
	if took := time.Since(active).Seconds(); ended.State != lease.Released || ended.ChargedSeconds < least-1 || ended.ChargedSeconds > took+0.1 {
		t.Errorf("ended %+v, want %.1f to %.1f s charged", ended, least, took)
	}
}

func callOverstaysAlone(t *testing.T, l *agentLab) {
	_, worker := l.crash("/overstay")
	eventually(t, "the agent has ended the worker", patience, func() bool { return !alive(worker) })
	l.start()
	if ended := l.awaitSettled(); ended.State != lease.Expired || ended.ChargedSeconds != 4 {
		t.Errorf("ended %+v, want the declared 4 s of an expired lease", ended)
	}
}

func callFinishesAlone(t *testing.T, l *agentLab) {
	pid := l.space("kept").PID
	active, _ := l.crash("/on_gpu", 5)
	l.awaitFile(pid, "finished")
	l.start()
	ended := l.awaitSettled()
	t.Logf("the lease of a call of 5 s has ended as %s, %q, and is charged %.3f s", ended.State, ended.Reason, ended.ChargedSeconds)
	if took := time.Since(active).Seconds(); ended.ChargedSeconds < 5 || ended.ChargedSeconds > took+0.1 {
		t.Errorf("ended %+v, want 5 s charged, and at most %.1f s", ended, took)
	}
}

func workerCrashesAlone(t *testing.T, l *agentLab) {
	active, worker := l.crash("/on_gpu", 25)
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Since(active).Seconds()
	eventually(t, "the worker has exited", patience, func() bool { return !alive(worker) })
	l.start()
	if ended := l.awaitSettled(); ended.ChargedSeconds > killed+5 || ended.ChargedSeconds >= 25 {
		t.Errorf("ended %+v, want at most the %.1f s until the worker was killed", ended, killed)
	}
}

func idleWorkerIsLeft(t *testing.T, l *agentLab) {
	wantText(t, "a GPU call", l.ada("kept").ok("/on_gpu", 0), "computed")
	eventually(t, "it is settled", patience, func() bool { return len(l.leases().Open) == 0 })
	l.kill()
	l.start()
	l.awaitSettled()
}

// TestAgentIsKilled kills the agent of two Spaces during a GPU call. The Spaces end, and the host starts another agent, and the
// Spaces in it.
func TestAgentIsKilled(t *testing.T) {
	t.Parallel()
	l := serveAgentLab(t, agentSpaces+"  - {folder: FOLDER, name: other, address: TWO, python: PYTHON}\n")
	c := l.ada("kept")
	running := c.submit("/on_gpu", 25)
	worker := l.workerOf()
	for range 2 {
		agent, kept, other := l.agent(), l.space("kept").PID, l.space("other").PID
		if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the processes of the Spaces have exited", patience, func() bool { return !alive(kept) && !alive(other) })
		eventually(t, "the Spaces run again", patience, func() bool {
			one, two := l.space("kept"), l.space("other")
			return one.Stage == "RUNNING" && two.Stage == "RUNNING" && one.PID != kept && two.PID != other
		})
		if l.agent() == agent {
			t.Errorf("the agent %d runs", agent)
		}
	}
	if r := running.wait(); !r.Failed {
		t.Errorf("the call that was running: %s, want an error", r.Value)
	}
	if alive(worker) {
		t.Errorf("the worker %d runs", worker)
	}
	l.awaitSettled()
	wantText(t, "a call afterwards", c.ok("/on_gpu", 0), "computed")
	kept := l.space("kept").PID
	l.terminate() // the other agent keeps the Spaces as the first one would have
	l.start()
	l.wantKept("kept", kept)
	l.signal(syscall.SIGINT)
	l.wantNothingLeft("SIGINT")
	l.wantExactLedger(2)
}

// TestAgentEnds covers the ends of an agent: with its host at Ctrl-C, by SIGTERM, and without a host. A host that cannot start
// ends no Space.
func TestAgentEnds(t *testing.T) {
	t.Parallel()
	l := serveAgentLab(t, agentSpaces)
	pid := l.space("kept").PID
	l.terminate()
	right, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	l.write(t, "  - {folder: /nowhere, name: kept, address: ONE, python: PYTHON}\n")
	l.failToStart("a wrong file")
	writeFile(t, l.file, string(right))
	unlock := occupy(t, l.address("ONE"))
	l.failToStart("an address in use")
	unlock()
	l.start()
	l.wantKept("kept", pid)

	agent := l.agent()
	if err := syscall.Kill(agent, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent has exited", patience, func() bool { return !alive(agent) })
	eventually(t, "the Space runs in another agent", patience, func() bool { s := l.space("kept"); return s.Stage == "RUNNING" && s.PID != pid })
	l.signal(syscall.SIGINT)
	l.wantNothingLeft("SIGINT")
	if _, err := os.Stat(filepath.Join(l.State, "agent.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket of the agent is left: %v", err)
	}
	l.vars = append(l.vars, "orphan_after: 10m", "orphan_after: 10s")
	l.write(t, agentSpaces)
	l.start()
	l.kill()
	l.wantNothingLeft("orphan_after")
	l.start()
	l.signal(syscall.SIGINT)
}

// failToStart runs a host that exits before it is ready.
func (l *agentLab) failToStart(why string) {
	l.t.Helper()
	p := startCommandWith(l.t, nil, l.State, "serve", "--config", l.file)
	awaitClosed(l.t, "the host has exited", p.ended)
	if p.URL != "" || p.cmd.ProcessState.ExitCode() == 0 {
		l.t.Errorf("a host with %s starts: %s", why, p.text())
	}
}

// address returns the address that replaces a name of the file.
func (l *agentLab) address(name string) string {
	for n := 0; n < len(l.vars); n += 2 {
		if l.vars[n] == name {
			return l.vars[n+1]
		}
	}
	panic(fmt.Sprint("no ", name))
}

// occupy listens on an address until unlock.
func occupy(t *testing.T, address string) (unlock func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return func() { l.Close() }
}
