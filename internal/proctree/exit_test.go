package proctree

import (
	"context"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAwaitExit waits in the poller of Go, without the loop of Wait.
func TestAwaitExit(t *testing.T) {
	if fd, err := unix.PidfdOpen(unix.Getpid(), unix.PIDFD_NONBLOCK); err != nil {
		t.Skip("SKIPPED: this kernel has no pidfd for the poller (Linux 5.10 has)")
	} else if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	command := exec.Command("sleep", "1000")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	s, ok := ReadStat(command.Process.Pid)
	if !ok {
		t.Fatal("the process has exited")
	}
	if other := (Process{s.PID, s.Start + 1}); !other.awaitExit(t.Context()) {
		t.Error("another process with this pid counts as running")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() { ended <- s.Process.awaitExit(ctx) }()
	cancel()
	if !within(t, patient, "awaitExit returns when its context ends", ended) || !s.Process.Alive() {
		t.Error("awaitExit used the loop, or the process has exited")
	}
	go func() { ended <- s.Process.awaitExit(t.Context()) }()
	if err := command.Process.Kill(); err != nil { // it stays a zombie until command.Wait
		t.Fatal(err)
	}
	if !within(t, patient, "awaitExit returns after the exit", ended) || s.Process.Alive() {
		t.Error("awaitExit used the loop, or the process runs")
	}
	_ = command.Wait() // it was killed
}
