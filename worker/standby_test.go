package worker

import (
	"strings"
	"testing"

	"spacehost/internal/space"
	"spacehost/queue"
)

// TestStandby restarts a Space with a standby: the standby becomes the next start, and another one takes its place.
func TestStandby(t *testing.T) {
	w := newWorld(t, "good", "", func(c *SupervisorConfig) { c.Standby, c.AwaitChange = true, true })
	w.ready(t)
	started := func(n int) string {
		t.Helper()
		var instance string
		eventually(t, "there are so many starts", func() bool {
			w.note(func() {
				if len(w.starts) >= n {
					instance = w.starts[n-1].Instance
				}
			})
			return instance != ""
		})
		return instance
	}
	second := started(2)
	w.note(func() {
		for _, start := range w.starts[:2] {
			eventually(t, "its process belongs to the Space", func() bool { s, _ := w.processes.SpaceOf(start.PID); return s == "test" })
		}
	})
	if got := w.Instance(); got == second || w.Status().Stage != space.Running {
		t.Fatalf("beside its standby the Space is %v at start %s", w.Status(), got)
	}
	w.Restart(Restart{Now: true})
	eventually(t, "the standby runs", func() bool { return w.Instance() == second && w.Status().Stage == space.Running })
	w.join(t, "s", "echo")
	messages := w.receive(t, "s", queue.Completed)
	if last := messages[len(messages)-1]; last.Kind != queue.Completed || !last.Success {
		t.Errorf("a call of the second start: %+v", messages)
	}
	started(3)
}

// TestStaleStandby restarts a Space whose app begins with other imports now: a new process takes the place of the standby.
func TestStaleStandby(t *testing.T) {
	w := newWorld(t, "good", "stale", func(c *SupervisorConfig) { c.Standby, c.AwaitChange = true, true })
	w.ready(t)
	first := w.Instance()
	eventually(t, "there is a standby", func() (ok bool) { w.note(func() { ok = len(w.starts) == 2 }); return ok })
	w.Restart(Restart{Now: true})
	eventually(t, "the next start runs", func() bool { return w.Instance() != first && w.Status().Stage == space.Running })
	w.note(func() {
		if w.starts[1].Instance == w.Instance() {
			t.Errorf("the stale standby runs: %v", w.starts)
		}
	})
	if got := w.printed(); strings.Contains(got, "note: ") {
		t.Errorf("the operator reads:\n%s", got)
	}
}
