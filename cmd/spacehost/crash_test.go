package main

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSpaceIsKilled sends SIGKILL to a Space during an event. The visitor reads the cause, the worker exits, the lease is
// settled, and the Space restarts at the same address and runs the event that waited.
func TestSpaceIsKilled(t *testing.T) { eachLineInTurn(t, spaceIsKilled) }

func spaceIsKilled(t *testing.T, line string) {
	p := runOn(t, line, leasesDir)
	c := p.client()
	old := spacePID(t, p)
	running := c.submit("/minute", 50)
	awaitActive(t, p)
	worker := p.leases().Open[0].Worker
	blocking := c.submit("/slow", 50)
	eventually(t, "the event is running", patience, func() bool { return strings.Contains(p.log(), `"endpoint":"slow"`) })
	waiting := c.submit("/slow", 0)
	eventually(t, "an event is waiting", patience, func() bool { return p.health().Spaces[0].Queued == 1 })
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r := running.wait(); !strings.Contains(r.Err, "killed by SIGKILL") {
		t.Errorf("the visitor reads %q, want the cause", r.Err)
	}
	if r := blocking.wait(); !r.Failed {
		t.Errorf("the other running event returned %s, want an error", r.Value)
	}
	eventually(t, "the worker has exited", patience, func() bool { return !alive(worker) })
	eventually(t, "the lease is settled", patience, func() bool { return len(p.leases().Open) == 0 })
	if ended := p.leases().Ended; len(ended) != 1 || !strings.HasSuffix(ended[0].Reason, "died") || ended[0].ChargedSeconds > 10 {
		t.Errorf("ended leases: %+v", ended)
	}
	eventually(t, "the Space is running again", patience, func() bool {
		return p.health().Spaces[0].Stage == "RUNNING"
	})
	if r := waiting.wait(); r.Failed {
		t.Errorf("the event that waited: %s", r.Err)
	}
	if now := spacePID(t, p); now == old {
		t.Errorf("the Space still has pid %d, want a new process", now)
	}
	if got := c.ok("/plain", "back"); !strings.HasPrefix(got, "back ") {
		t.Errorf("after the restart: %q", got)
	}
}

// TestHostIsKilled sends SIGKILL to a host during a lease and starts a new one on the same state.
func TestHostIsKilled(t *testing.T) { eachLine(t, hostIsKilled) }

func hostIsKilled(t *testing.T, line string) {
	state, dir := t.TempDir(), onGradio(t, t.TempDir(), line, leasesDir)
	first := startOn(t, line, state, dir)
	first.awaitReady()
	defer first.kill()
	c := first.client()
	c.submit("/minute", 50)
	active := awaitActive(t, first)
	orphans := processesOf(state)
	if len(orphans) < 2 {
		t.Fatalf("processes of the Space: %v, want the runner and a worker", orphans)
	}
	eventually(t, "at least one heartbeat is written", 10*time.Second, func() bool { return time.Since(active) > 2500*time.Millisecond })
	first.kill()
	killed := time.Now()

	second := startOn(t, line, state, dir)
	defer second.stop()
	for pid := range orphans {
		eventually(t, "the orphan has exited", patience, func() bool { return !alive(pid) })
	}
	second.awaitReady()
	ended := second.leases().Ended
	if len(ended) != 1 || ended[0].Reason != "host crashed" {
		t.Fatalf("ended leases after the crash: %+v", ended)
	}
	used := killed.Sub(active).Seconds()
	if got := ended[0].ChargedSeconds; got <= 0 || got > used+0.1 || got < used-3 {
		t.Errorf("charged %v s, want at most the %.2f s since its start, and no less than its last heartbeat", got, used)
	}
	if b := second.balance(); b.HeldSeconds != 0 || b.ChargedSeconds != ended[0].ChargedSeconds {
		t.Errorf("balance %+v, want the lease settled once", b)
	}
	second.client().ok("/five", 0)
}
