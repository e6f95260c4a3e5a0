package main

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSpaceIsKilled: SIGKILL in the middle of an event. The visitor learns of it, the worker dies, the lease is
// settled, the Space comes back at the same address and answers who waited.
func TestSpaceIsKilled(t *testing.T) { eachLineInTurn(t, spaceIsKilled) }

func spaceIsKilled(t *testing.T, line string) {
	p := runOn(t, line, leasesDir)
	c := p.client()
	old := spacePID(t, p)
	running := c.submit("/minute", 50)
	awaitActive(t, p)
	worker := p.leases().Open[0].Worker
	blocking := c.submit("/slow", 50)
	eventually(t, "the event runs", patience, func() bool { return strings.Contains(p.log(), `"endpoint":"slow"`) })
	waiting := c.submit("/slow", 0)
	eventually(t, "an event waits", patience, func() bool { return p.health().Spaces[0].Queued == 1 })
	killed := time.Now()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r := running.wait()
	if took := time.Since(killed); took > time.Second || !strings.Contains(r.Err, "killed by SIGKILL") {
		t.Errorf("the visitor read %q after %s, want the cause within a second", r.Err, took)
	}
	if r := blocking.wait(); !r.Failed {
		t.Errorf("the other running event was answered: %s", r.Value)
	}
	eventually(t, "the worker is dead", 2*time.Second, func() bool { return !alive(worker) })
	eventually(t, "the lease is settled", 2*time.Second, func() bool { return len(p.leases().Open) == 0 })
	if ended := p.leases().Ended; len(ended) != 1 || !strings.HasSuffix(ended[0].Reason, "died") || ended[0].ChargedSeconds > 10 {
		t.Errorf("ended leases: %+v", ended)
	}
	eventually(t, "the Space is back within its own start time and three seconds", p.took+3*time.Second-time.Since(killed), func() bool {
		return p.health().Spaces[0].Stage == "RUNNING"
	})
	if r := waiting.wait(); r.Failed {
		t.Errorf("the event that waited: %s", r.Err)
	}
	if now := spacePID(t, p); now == old {
		t.Errorf("pid %d is still the Space's", now)
	}
	if got := c.ok("/plain", "back"); !strings.HasPrefix(got, "back ") {
		t.Errorf("after the restart: %q", got)
	}
}

// TestHostIsKilled: SIGKILL in the middle of a lease, then a new start on the same state.
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
	eventually(t, "a beat", 10*time.Second, func() bool { return time.Since(active) > 2500*time.Millisecond })
	first.kill()
	killed := time.Now()

	second := startOn(t, line, state, dir)
	defer second.stop()
	for pid := range orphans {
		eventually(t, "no orphan lives", 5*time.Second, func() bool { return !alive(pid) })
	}
	second.awaitReady()
	ended := second.leases().Ended
	if len(ended) != 1 || ended[0].Reason != "host crashed" {
		t.Fatalf("ended leases after the crash: %+v", ended)
	}
	used := killed.Sub(active).Seconds()
	if got := ended[0].ChargedSeconds; got <= 0 || got > used+0.1 || got < used-3 {
		t.Errorf("charged %v s, want at most the %.2f s of its life and at least its last beat", got, used)
	}
	if b := second.balance(); b.HeldSeconds != 0 || b.ChargedSeconds != ended[0].ChargedSeconds {
		t.Errorf("balance %+v, want the lease settled once", b)
	}
	second.client().ok("/five", 0)
}
