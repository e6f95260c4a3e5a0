// Package kernelfile reads and writes files of /proc and of cgroups that are opened for each GPU call. Package os offers each file to the
// poller first, which takes twice as many system calls, and its calls wake the monitor thread of Go (outbox.Direct). The kernel answers them
// within microseconds, except that a cgroup is frozen only when no process is being moved into a cgroup, which can take milliseconds.
package kernelfile

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads the beginning of a file into buffer, which must not be empty. The kernel gives a file of /proc that fits in one piece. Errors are
// those of package os.
func Read(path string, buffer []byte) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer closeFile(fd)
	n, err := transfer("read", unix.SYS_READ, path, fd, buffer)
	return buffer[:n], err
}

// Write writes value, which must not be empty, to a file whose write does not block long. A file that is missing stays missing. Errors are
// those of package os.
func Write(path, value string) error {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer closeFile(fd)
	_, err = transfer("write", unix.SYS_WRITE, path, fd, []byte(value))
	return err
}

// atFDCWD lets a relative path begin at the current folder.
var atFDCWD = func() uintptr { fd := unix.AT_FDCWD; return uintptr(fd) }()

func open(path string, mode int) (fd uintptr, err error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	for {
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, atFDCWD, uintptr(unsafe.Pointer(name)), uintptr(mode|unix.O_CLOEXEC), 0, 0, 0)
		if errno != unix.EINTR {
			return fd, pathError("open", path, errno)
		}
	}
}

func transfer(what string, call uintptr, path string, fd uintptr, buffer []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, pathError(what, path, errno)
		}
	}
}

func closeFile(fd uintptr) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0) } // nothing is buffered

// pathError returns the error as package os does; nil without one.
func pathError(what, path string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return &os.PathError{Op: what, Path: path, Err: errno}
}
