package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/lease"
	"spacehost/internal/nodes"
)

// TestFrontAndAgentAreKilled kills both during a GPU call. Neither has a record of its end, so it is charged to the last beat in the
// database.
func TestFrontAndAgentAreKilled(t *testing.T) {
	t.Parallel()
	l := joinedNodeLab(t)
	running := l.ada("far").submit("/on_gpu", 25)
	awaitActive(t, l.product)
	began := time.Now()
	db := l.database()
	eventually(t, "a beat of the lease is written", patience, func() bool {
		var used int
		err := db.QueryRowContext(t.Context(), `SELECT max(beat_at - active_at) FROM leases WHERE ended_at IS NULL`).Scan(&used)
		return err == nil && used >= 1000
	})
	l.kill()
	l.agent.kill()
	killed := time.Since(began).Seconds()
	if r := running.wait(); !r.Failed {
		t.Errorf("the running call: %s, want an error", r.Value)
	}
	l.wantNothingOnNode("SIGKILL of front and agent")
	l.join() // it dials until the front answers
	l.start()
	l.awaitFar()
	ended := l.awaitNewest(1)
	isKnown := ended.Reason == "machine has no record" || ended.Reason == lease.ReasonMachineLost // the front came back 7 s after the deadline
	if ended.Machine != "gpu2" || ended.State != lease.Revoked || !isKnown || ended.ChargedSeconds < 1 || ended.ChargedSeconds > killed+3 {
		t.Errorf("the lease has ended as %+v, want it charged to a beat before %.1f s", ended, killed)
	}
	wantText(t, "a GPU call afterwards", l.ada("far").ok("/on_gpu", 0), "computed")
	l.awaitNewest(2)
	l.stop()
	l.wantExactLedger(2)
}

// TestNodeIsSilent stops the agent, so that nothing arrives in either direction. A call outlasts a short silence. A long one fails it, and
// the front takes the Space over, with its processes, when the node is back.
func TestNodeIsSilent(t *testing.T) {
	t.Parallel()
	l := joinedNodeLab(t)
	pid, c := l.space("far").PID, l.ada("far")
	wantText(t, "a plain call", c.ok("/count"), "1")
	running := c.submit("/on_gpu", 8)
	awaitActive(t, l.product)
	l.agent.signal(syscall.SIGSTOP)
	l.awaitNode("gpu2", nodes.Suspect)
	l.agent.signal(syscall.SIGCONT)
	l.awaitNode("gpu2", nodes.Connected)
	if r := running.wait(); text(r.Value) != "computed" {
		t.Errorf("the call over a short silence: %+v", r)
	}
	if ended := l.awaitNewest(1); ended.State != lease.Released || ended.ChargedSeconds < 8 {
		t.Errorf("the lease over a short silence has ended as %+v", ended)
	}

	running = c.submit("/on_gpu", 29)
	awaitActive(t, l.product)
	l.agent.signal(syscall.SIGSTOP)
	if r := running.wait(); !r.Failed {
		t.Errorf("the call over a long silence: %s, want an error", r.Value)
	}
	l.awaitNode("gpu2", nodes.Lost)
	eventually(t, "far waits for its machine", patience, func() bool { return l.space("far").WaitsForNode })
	if !alive(pid) {
		t.Error("the Space has ended on its node")
	}
	l.agent.signal(syscall.SIGCONT)
	if back := l.awaitFar().PID; back != pid {
		t.Errorf("the Space runs as %d when its node is back, want %d", back, pid)
	}
	c = l.ada("far")
	wantText(t, "a GPU call afterwards", c.ok("/on_gpu", 0), "computed")
	l.awaitNewest(3)
	all := l.leases().Ended // the newest end first; the silence began with its lease
	slices.SortFunc(all, func(a, b lease.Past) int { return a.Admitted.Compare(b.Admitted) })
	if ended := all[1]; ended.State != lease.Released || ended.ChargedSeconds < 28 || ended.ChargedSeconds > 30 { // its node was back before its end
		t.Errorf("the lease over a long silence has ended as %+v", ended)
	}
	l.stop()
	l.wantNothingOnNode("the end of the front")
	l.wantExactLedger(3)
}

// TestNodeKeepsDeadlines kills the front during a call that overstays. The node ends the worker, and the next front charges the declared
// time.
func TestNodeKeepsDeadlines(t *testing.T) {
	t.Parallel()
	l := joinedNodeLab(t)
	overstays := l.ada("far").submit("/overstay")
	awaitActive(t, l.product)
	open, pid := l.leases().Open, l.space("far").PID
	if len(open) != 1 {
		t.Fatalf("open leases %+v, want one", open)
	}
	worker := open[0].Worker
	l.kill()
	if r := overstays.wait(); !r.Failed {
		t.Errorf("the call: %s, want an error", r.Value)
	}
	eventually(t, "the node has ended the worker", patience, func() bool { return !alive(worker) })
	l.start()
	if back := l.awaitFar().PID; back != pid {
		t.Errorf("the Space runs as %d after the return of the front, want %d", back, pid)
	}
	ended := l.awaitNewest(1)
	isExpired := ended.State == lease.Expired && ended.ChargedSeconds == 2
	isLate := ended.Reason == lease.ReasonMachineLost && ended.ChargedSeconds <= 2 // the front came back 7 s after the deadline
	if !isExpired && !isLate {
		t.Errorf("the lease has ended as %+v, want the declared 2 s of an expired one", ended)
	}
	l.stop()
	l.wantExactLedger(1)
}

// TestCallBetweenNodes lets a Space on one node call a Space on another one. The caller's account pays for the GPU of the other node.
func TestCallBetweenNodes(t *testing.T) {
	t.Parallel()
	l := startNodeLab(t, strings.Replace(nodeTop, "python: PYTHON}", "on: gpu3}", 1))
	l.joinFirst()
	startAgent(t, l.Cluster, t.TempDir(), "--token-file", l.joinToken("--name", "gpu3"), "--name", "gpu3")
	l.awaitFar()
	eventually(t, "kept runs on gpu3", killPatience, func() bool { kept := l.space("kept"); return kept.Stage == "RUNNING" && kept.Node == "gpu3" })
	wantText(t, "a call of a Space on another node", l.ada("far").ok("/call_other"), "computed")
	if ended := l.awaitNewest(1); ended.Machine != "gpu3" || ended.Space != "kept" || ended.Identity != "space:far" {
		t.Errorf("the lease of the called Space has ended as %+v, want far as its payer", ended)
	}
	l.stop()
	l.wantExactLedger(1)
}

// TestFrontEndsInGPUCall ends the front by SIGTERM during a call that outlasts its drain. The next front takes the lease over, and it is
// charged to its true end.
func TestFrontEndsInGPUCall(t *testing.T) {
	t.Parallel()
	l := startNodeLab(t, strings.Replace(nodeTop, "drain: 30s", "drain: 1s", 1))
	l.joinFirst()
	pid := l.awaitFar().PID
	running := l.ada("far").submit("/on_gpu", 20)
	awaitActive(t, l.product)
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitClosed(t, "the front has exited", l.ended)
	if r := running.wait(); !r.Failed {
		t.Errorf("the call beyond the drain: %s, want an error", r.Value)
	}
	l.start()
	if back := l.awaitFar().PID; back != pid {
		t.Errorf("the Space runs as %d after the return of the front, want %d", back, pid)
	}
	ended := l.awaitNewest(1)
	if ended.State != lease.Released || ended.ChargedSeconds < 19 || ended.ChargedSeconds > 30 {
		t.Errorf("the lease of a call of 20 s has ended as %+v", ended)
	}
	wantText(t, "a GPU call afterwards", l.ada("far").ok("/on_gpu", 0), "computed")
	l.awaitNewest(2)
	l.stop()
	l.wantExactLedger(2)
}
