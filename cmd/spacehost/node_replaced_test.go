package main

import (
	"strings"
	"syscall"
	"testing"

	"spacehost/internal/nodes"
)

// TestLostNodeIsReplaced stops the agent of a node for more than 90 s during a GPU call. The Space starts on the other node of its label,
// a call that waits continues there, and the first node ends what it still runs when it is back.
func TestLostNodeIsReplaced(t *testing.T) {
	requireKills(t)
	t.Parallel()
	l := newNodeLab(t)
	writeFile(t, l.file, strings.NewReplacer(l.vars...).Replace(nodeTop+strings.Replace(farSpace, "on: gpu2", "on: lab", 1)))
	l.start()
	l.joinFirst("--label", "lab")
	l.awaitFar()
	startAgent(t, l.Cluster, t.TempDir(), "--token-file", l.joinToken("--name", "gpu3"), "--name", "gpu3", "--label", "lab")
	l.awaitNode("gpu3", nodes.Connected)
	c := l.ada("far")
	wantText(t, "a plain call", c.ok("/count"), "1")

	running := c.submit("/on_gpu", 20)
	awaitActive(t, l.product)
	l.agent.signal(syscall.SIGSTOP)
	if r := running.wait(); !r.Failed {
		t.Errorf("the call on the lost node: %s, want an error", r.Value)
	}
	l.awaitNode("gpu2", nodes.Lost)
	waiting := c.submit("/steps", 3)
	eventually(t, "far runs on gpu3", killPatience, func() bool { far := l.space("far"); return far.Stage == "RUNNING" && far.Node == "gpu3" })
	if r := waiting.wait(); text(r.Value) != "1 2 3 " {
		t.Errorf("the call that waited for a machine: %s, error %q", r.Value, r.Err)
	}
	wantText(t, "a GPU call on the other node", l.ada("far").ok("/on_gpu", 0), "computed")
	if ended := l.awaitNewest(2); ended.Machine != "gpu3" {
		t.Errorf("the newest lease has ended as %+v", ended)
	}
	if lost := l.leases().Ended[1]; lost.Machine != "gpu2" || lost.ChargedSeconds > 6 { // to its last beat: the node is stopped
		t.Errorf("the lease on the lost node has ended as %+v", lost)
	}

	l.agent.signal(syscall.SIGCONT)
	l.awaitNode("gpu2", nodes.Connected)
	l.wantNothingOnNode("its return")
	if far := l.space("far"); far.Node != "gpu3" || far.Stage != "RUNNING" {
		t.Errorf("far after the return of gpu2: %+v", far)
	}
	l.stop()
	l.wantExactLedger(2)
}
