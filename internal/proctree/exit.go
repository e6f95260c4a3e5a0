package proctree

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// awaitExit blocks until p has exited or ctx ends, in the poller of Go. It returns false at once if p cannot be polled there: no
// descriptor is free, or the kernel is older than Linux 5.10.
func (p Process) awaitExit(ctx context.Context) bool {
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK) // the flag lets os.NewFile use the poller
	if err != nil {
		return !p.Alive()
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	defer file.Close()
	if !p.Alive() { // after PidfdOpen: from here on fd identifies one process
		return true
	}
	raw, err := file.SyscallConn()
	if err != nil || file.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })() // it has deadlines, as the line above shows
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	err = raw.Read(func(uintptr) bool {
		n, err := unix.Poll(polled, 0)
		return n > 0 && err == nil
	})
	return err == nil || ctx.Err() != nil
}
