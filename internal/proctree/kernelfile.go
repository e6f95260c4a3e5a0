package proctree

import (
	"os"

	"golang.org/x/sys/unix"
)

// Files of /proc and of cgroups that are opened for each GPU call are read and written without package os, which offers each file to
// the poller first: that takes twice as many system calls.

// readKernelFile reads the beginning of a file into buffer. The kernel gives a file of /proc that fits in one piece.
func readKernelFile(path string, buffer []byte) ([]byte, error) {
	fd, err := openKernelFile(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := repeated("read", path, func() (int, error) { return unix.Read(fd, buffer) })
	return buffer[:max(n, 0)], err
}

// writeKernelFile writes a file that the kernel has made. A file that is missing stays missing.
func writeKernelFile(path, value string) error {
	fd, err := openKernelFile(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = repeated("write", path, func() (int, error) { return unix.Write(fd, []byte(value)) })
	return err
}

func openKernelFile(path string, mode int) (fd int, err error) {
	return repeated("open", path, func() (int, error) { return unix.Open(path, mode|unix.O_CLOEXEC, 0) })
}

// repeated repeats a system call that a signal has interrupted. Its errors are those of package os.
func repeated(what, path string, call func() (int, error)) (n int, err error) {
	for {
		switch n, err = call(); err {
		case nil:
			return n, nil
		case unix.EINTR:
		default:
			return n, &os.PathError{Op: what, Path: path, Err: err}
		}
	}
}
