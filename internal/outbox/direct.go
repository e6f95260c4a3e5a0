package outbox

import (
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Direct returns a connection whose Read and Write make system calls of which the scheduler of Go does not know. Otherwise, each call
// wakes its monitor thread (sysmon), which then polls every 20 us until the process idles: 40 % of the CPU time of an agent that
// relays small frames. The calls never block: for what the socket does not accept or does not have yet, the goroutine waits as with
// conn. Direct returns conn itself if it is no socket of this process, and under the race detector.
func Direct(conn net.Conn) net.Conn {
	socket, ok := conn.(syscall.Conn)
	if !ok || racing {
		return conn
	}
	return newDirect(conn, socket)
}

func newDirect(conn net.Conn, socket syscall.Conn) net.Conn {
	raw, err := socket.SyscallConn()
	if err != nil { // it is closed, which each call reports
		return conn
	}
	return &direct{conn, raw}
}

type direct struct {
	net.Conn
	raw syscall.RawConn
}

// SyscallConn implements syscall.Conn.
func (d *direct) SyscallConn() (syscall.RawConn, error) { return d.raw, nil }

// Read implements net.Conn.
func (d *direct) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = d.raw.Read(func(fd uintptr) bool {
		n, errno = receive(fd, p)
		return errno != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, d.opError("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (d *direct) Write(p []byte) (written int, err error) {
	var errno syscall.Errno
	err = d.raw.Write(func(fd uintptr) bool {
		for errno = 0; written < len(p) && errno == 0; {
			n := 0
			n, errno = send(fd, p[written:])
			written += n
		}
		return errno != unix.EAGAIN
	})
	if err == nil && errno != 0 {
		err = d.opError("write", errno)
	}
	return written, err
}

func (d *direct) opError(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: d.LocalAddr().Network(), Source: d.LocalAddr(), Addr: d.RemoteAddr(), Err: errno}
}

// maxSend bounds one system call, during which the garbage collector waits for it.
const maxSend = 64 << 10

// send sends as much as the socket accepts at once. p has bytes.
func send(fd uintptr, p []byte) (n int, errno syscall.Errno) {
	return transfer(unix.SYS_SENDTO, fd, p[:min(len(p), maxSend)], unix.MSG_NOSIGNAL)
}

// sendAll sends as much as the socket accepts.
func sendAll(fd uintptr, p []byte) (written int) {
	for written < len(p) {
		n, errno := send(fd, p[written:])
		if errno != 0 {
			break // a later call returns it again
		}
		written += n
	}
	return written
}

// receive receives what the socket has. p has room.
func receive(fd uintptr, p []byte) (n int, errno syscall.Errno) {
	return transfer(unix.SYS_RECVFROM, fd, p[:min(len(p), maxSend)], 0)
}

func transfer(call, fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT|flags, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
