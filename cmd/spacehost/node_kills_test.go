package main

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killedNodeFile is the file of a front without a Space of its own: its start takes no time, so that kills also meet a front that takes a
// Space over.
const killedNodeFile = `
cluster: {listen: CLUSTER}
isolation: namespaces
gpus: {machine: mock:1xH200}
quota: 2026-04
console: CONSOLE
tiers: {lab: {unlimited: true}}
people: [{name: ada, tier: lab, tokens: [HASH]}]
spaces:
  - {folder: KEPT, name: far, address: ADDRESS, on: gpu2}
`

// TestNodeKills kills the front, the agent of the node or both at random points while clients call. Each lease is settled once, no
// process is left over, and a Space outlasts each end of the front.
func TestNodeKills(t *testing.T) {
	requireKills(t)
	t.Parallel()
	l := newNodeLab(t)
	writeFile(t, l.file, strings.NewReplacer(l.vars...).Replace(killedNodeFile))
	l.start()
	l.joinFirst()
	load := startKilledLoad(t, l.awaitFar().URL, l.token)
	counts := map[string]int{}
	var longest time.Duration
	for n := range kills() {
		if rand.IntN(3) > 0 { // otherwise the kill meets a Space that starts or is taken over
			load.awaitAnswer(t)
		}
		load.pause(t.Context(), randomPause())
		kind := nodeKillKinds[n%len(nodeKillKinds)]
		before, began := l.space("far"), time.Now()
		kind.kill(l)
		if after := l.awaitFar(); kind.keeps && before.Stage == "RUNNING" && after.PID != before.PID {
			t.Errorf("far runs in process %d, want the process that it had, %d", after.PID, before.PID)
		}
		longest = max(longest, time.Since(began))
		eventually(t, "one start is left", killPatience, func() bool { return len(startsOf(l.home)) == 1 })
		counts[kind.name]++
		if t.Failed() {
			t.Fatalf("after %d kills, the last of %s", n+1, kind.name)
		}
	}
	load.awaitAnswer(t)
	load.end()
	eventually(t, "all leases are settled", killPatience, func() bool { return len(l.leases().Open) == 0 })
	l.stop()
	l.wantNothingOnNode("the end of the front")
	l.wantExactLedger(0)
	t.Logf("KILLS %v; %s; the Space ran again after %s at most", counts, load, longest.Round(time.Millisecond))
	logSettlements(t, l.database())
}

// nodeKillKinds are used in turn.
var nodeKillKinds = []struct {
	name  string
	keeps bool // the Space goes on in the same process
	kill  func(l *nodeLab)
}{
	{"the front", true, func(l *nodeLab) { l.kill(); l.start() }},
	{"the agent", false, func(l *nodeLab) {
		pid := l.space("far").PID
		l.killAgent()
		l.join()
		l.awaitAnother("far", pid)
	}},
	{"the front at a failpoint", true, func(l *nodeLab) { l.killAtFailpoint() }},
	{"the front and the agent", false, func(l *nodeLab) {
		l.kill()
		l.killAgent()
		l.start()
		l.join()
	}},
	{"the front by SIGTERM", true, func(l *nodeLab) { l.endWithoutDrain() }},
	{"the agent by SIGTERM", false, func(l *nodeLab) {
		pid := l.space("far").PID
		l.agent.signal(syscall.SIGTERM)
		awaitClosed(l.t, "the agent has exited", l.agent.ended)
		l.wantNothingOnNode("SIGTERM of the agent")
		l.join()
		l.awaitAnother("far", pid)
	}},
}

// killAgent sends SIGKILL to the agent. In half of the cases it returns at once, and the next agent meets what is left.
func (l *nodeLab) killAgent() {
	l.agent.kill()
	if rand.IntN(2) == 0 {
		l.wantNothingOnNode("SIGKILL of the agent")
	}
}
