package main

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"spacehost/internal/lease"
	"spacehost/internal/proctree"
	"spacehost/internal/space"
)

// TestNodeLeaves ends the agent of a node in a GPU call. The call ends with its result, and the agent exits once nothing runs.
func TestNodeLeaves(t *testing.T) {
	t.Parallel()
	l := serveNodeLab(t)
	l.joinFirst("--drain", "5m")
	l.awaitFar()
	running := l.ada("far").submit("/on_gpu", 3)
	awaitActive(t, l.product)
	l.agent.signal(syscall.SIGTERM)
	eventually(t, "the node leaves", patience, func() bool { n := l.node("gpu2"); return n.Leaves != nil && n.Leaves.Draining })
	if out := l.must("node"); !strings.Contains(out, ": its agent is stopped") {
		t.Errorf("spacehost node prints\n%s", out)
	}
	if out := l.must("node", "explain", "gpu2"); !strings.Contains(out, ": its agent is stopped. Its Spaces end after their running calls.") {
		t.Errorf("spacehost node explain prints\n%s", out)
	}
	if r := running.wait(); text(r.Value) != "computed" {
		t.Errorf("the GPU call: %s, error %q", r.Value, r.Err)
	}
	l.agent.wantExit(0, "machine is drained")
	l.wantNothingOnNode("the exit of the agent")
	if ended := l.awaitNewest(1); ended.Machine != "gpu2" || ended.State != lease.Released || ended.ChargedSeconds < 3 || ended.ChargedSeconds > 30 {
		t.Errorf("the lease has ended as %+v", ended)
	}
	eventually(t, "far waits for a machine", patience, func() bool { return l.space("far").WaitsForNode })
	l.join()
	l.awaitFar()
	if n := l.node("gpu2"); n.Leaves != nil {
		t.Errorf("the node that has come back is %+v", n)
	}
	wantText(t, "a GPU call after the return of the node", l.ada("far").ok("/on_gpu", 0), "computed")
	l.awaitNewest(2)
	l.stop()
	l.wantExactLedger(2)
}

// TestNodeLeavesWithItsJob sends SIGTERM to the agent and to all its descendants, as scancel does. A GPU call ends with its result.
func TestNodeLeavesWithItsJob(t *testing.T) {
	t.Parallel()
	l := serveNodeLab(t)
	l.joinFirst("--drain", "5m")
	l.awaitFar()
	wantText(t, "terminate() of a forked child", l.ada("far").ok("/terminated"), "-15")
	idle := len(l.agent.tree())
	running := l.ada("far").submit("/on_gpu", 15)
	awaitActive(t, l.product)
	eventually(t, "the worker runs", patience, func() bool { return len(l.agent.tree()) > idle })
	l.agent.signalTree(syscall.SIGTERM)
	if r := running.wait(); text(r.Value) != "computed" {
		t.Errorf("the GPU call: %s, error %q", r.Value, r.Err)
	}
	l.agent.wantExit(0, "machine is drained")
	l.wantNothingOnNode("the exit of the agent")
	if ended := l.awaitNewest(1); ended.State != lease.Released || ended.ChargedSeconds < 15 {
		t.Errorf("the lease has ended as %+v", ended)
	}
	l.stop()
	l.wantExactLedger(1)
}

// tree returns the pids of the agent and of all its descendants. The agent is the last: its Spaces get a signal first.
func (a *nodeAgent) tree() []int {
	children := map[int][]int{}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range all {
		pid, _ := strconv.Atoi(filepath.Base(folder))
		if stat, ok := proctree.ReadStat(pid); ok {
			children[stat.Parent] = append(children[stat.Parent], pid)
		}
	}
	tree := []int{a.cmd.Process.Pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	slices.Reverse(tree)
	return tree
}

// signalTree sends a signal to the agent and to all its descendants.
func (a *nodeAgent) signalTree(s syscall.Signal) {
	for _, pid := range a.tree() {
		_ = syscall.Kill(pid, s) // it may have exited
	}
}

// TestNodeLeavesInCall ends calls that outlast the drain of an agent: at the end of its time, and at a second signal.
func TestNodeLeavesInCall(t *testing.T) {
	t.Parallel()
	l := serveNodeLab(t)
	token := l.joinToken("--name", "gpu2")
	for i, row := range []struct {
		what string
		args []string
		end  func()
	}{
		{"--drain", []string{"--token-file", token, "--name", "gpu2", "--drain", "2s"}, func() { l.agent.signal(syscall.SIGTERM) }},
		{"--drain, for all processes", []string{"--drain", "2s"}, func() { l.agent.signalTree(syscall.SIGTERM) }},
		{"a second signal", []string{"--drain", "1h"}, func() {
			l.agent.signal(syscall.SIGINT)
			eventually(t, "the node leaves", patience, func() bool { return l.node("gpu2").Leaves != nil })
			l.agent.signal(syscall.SIGTERM)
		}},
	} {
		l.join(row.args...)
		l.awaitFar()
		running := l.ada("far").submit("/on_gpu", 25)
		awaitActive(t, l.product)
		row.end()
		if r := running.wait(); !strings.Contains(r.Err, "This machine is being given back.") {
			t.Errorf("%s: the call ends with %s, error %q", row.what, r.Value, r.Err)
		}
		l.agent.wantExit(0, "machine is drained")
		l.wantNothingOnNode(row.what)
		if ended := l.awaitNewest(i + 1); ended.State != lease.Revoked || ended.Reason != space.EndedByLeaving || ended.ChargedSeconds <= 0 || ended.ChargedSeconds > 25 {
			t.Errorf("%s: the lease has ended as %+v", row.what, ended)
		}
	}
	l.stop()
	l.wantExactLedger(3)
}
