package proctree

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"spacehost/internal/proctree/proctreetest"
)

// TestStatus checks what is read of a stopped process, of one with handlers of signals, and of one that has exited.
func TestStatus(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	s, _ := ReadStat(cmd.Process.Pid)
	sleeper := s.Process
	eventually := func(what string, reached func(Status, bool) bool) {
		t.Helper()
		proctreetest.Eventually(t, what, func() bool { return reached(sleeper.Status()) })
	}
	eventually("it sleeps", func(s Status, ok bool) bool {
		return ok && s.State == 'S' && !s.IsStopped() && s.Tracer == 0 && !s.Catches(unix.SIGURG)
	})
	if err := sleeper.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually("it is stopped", func(s Status, ok bool) bool { return ok && s.State == StateStopped && s.IsStopped() })
	if err := sleeper.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually("it has exited", func(_ Status, ok bool) bool { return !ok })
	_ = cmd.Wait() // killed
	if err := sleeper.Signal(unix.SIGSTOP); err != unix.ESRCH {
		t.Errorf("a signal to an exited process: %v", err)
	}
	self, _ := ReadStat(os.Getpid())
	if s, ok := self.Process.Status(); !ok || !s.Catches(unix.SIGURG) || s.Catches(unix.SIGKILL) { // SIGURG preempts goroutines
		t.Errorf("of this process: %+v %v", s, ok)
	}
}
