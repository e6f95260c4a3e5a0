package worker

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"spacehost/internal/proctree"
	"spacehost/internal/space"
	"spacehost/queue"
)

// TestProcessLimit checks that a Space that forks above its limit is ended with the limit, that nothing of it is left, and that its
// neighbour with the same limit continues.
func TestProcessLimit(t *testing.T) {
	limited := func(c *SupervisorConfig) { c.Limits = proctree.Limits{Processes: 100} }
	neighbour := newWorld(t, "good", "", limited)
	neighbour.ready(t)
	w := newWorld(t, "good", "", limited)
	w.ready(t)
	p := w.current()
	w.join(t, "s1", "fork 60")
	reason := regexp.MustCompile(`^The Space had \d+ processes and threads, more than its limit of 100\.$`)
	var status Status
	eventually(t, "the Space is ended", func() bool { status = w.Status(); return status.Stage == space.RuntimeFailed })
	if !reason.MatchString(status.Reason) {
		t.Errorf("the reason is %q", status.Reason)
	}
	messages := w.receive(t, "s1", "")
	if failure := messages[len(messages)-2]; failure.Kind != queue.Completed || failure.Success || !strings.Contains(failure.Failure.Text, "more than its limit of 100") {
		t.Errorf("the visitor received %+v", failure)
	}
	eventually(t, "the operator reads it", func() bool {
		return strings.Contains(w.printed(), "more than its limit of 100. It is started again. Start fewer, end those that are done, or raise limits.processes")
	})
	if left := p.tree.Threads(0); left != 0 {
		t.Errorf("%d threads are left", left)
	}
	if got := neighbour.Status(); got.Stage != space.Running {
		t.Errorf("its neighbour: %+v", got)
	}
}

// TestKernelRefusesForks checks that the operator reads of a limit that the kernel enforces, once, and that the Space continues. The
// file of the pids controller is a fake, in a cgroup of the kernel.
func TestKernelRefusesForks(t *testing.T) {
	notes := make(chan string, 10)
	p, r := startFake(t, "good", "", func(c *ProcessConfig) {
		c.Limits = proctree.Limits{Processes: 5000}
		c.Reporter.(*recorder).note = func(text string) { notes <- text }
	})
	r.awaitOp(t, "manifest")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pids.events"), []byte("max 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	events := proctree.Tree{Root: p.tree.Root, Cgroup: dir}
	if n := events.ForksRefused(); n != 3 {
		t.Fatalf("%d forks refused, want 3", n)
	}
	watched := &Process{config: p.config, tree: events, exited: make(chan struct{})}
	done := make(chan struct{})
	go func() { defer close(done); watched.watchProcesses() }()
	if text := within(t, patient, "the operator reads it", notes); !strings.HasPrefix(text, "The Space has reached its limit of 5000 processes and threads. Above it nothing more starts") {
		t.Errorf("the operator reads %q", text)
	}
	close(watched.exited)
	within(t, patient, "the watch ends", done)
	if len(notes) != 0 {
		t.Errorf("the operator reads it again: %q", <-notes)
	}
}

// TestForkFailureIsReported checks that the operator reads of the limit where the kernel enforces it without a counter.
func TestForkFailureIsReported(t *testing.T) {
	w := newWorld(t, "good", "", func(c *SupervisorConfig) { c.Limits = proctree.Limits{Processes: 5000} })
	w.ready(t)
	p := w.current()
	p.copyLines(Stderr, strings.NewReader("RuntimeError: can't start new thread\n"))
	eventually(t, "the operator reads it", func() bool {
		return strings.Contains(w.printed(), "The Space could not start a process or thread; its limit of 5000 counts both.")
	})
}

// TestSpaceYieldsMemory checks that the kernel prefers a Space to the host when memory runs out.
func TestSpaceYieldsMemory(t *testing.T) {
	p, r := startFake(t, "good", "")
	r.awaitOp(t, "manifest")
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/oom_score_adj")
	if got := strings.TrimSpace(string(text)); err != nil || got != strconv.Itoa(spaceOOMScore) {
		t.Errorf("oom_score_adj is %q, %v, want %d", got, err, spaceOOMScore)
	}
}
