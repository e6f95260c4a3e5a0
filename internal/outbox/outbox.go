// Package outbox writes to a socket without blocking its caller (Outbox), and makes the system calls of a connection cheaper (Direct).
package outbox

import (
	"bytes"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Outbox buffers data for a reader that is slow, so that Put never blocks. The caller bounds its size. It is safe for concurrent
// use.
type Outbox struct {
	// try writes what the socket accepts at once, so that the caller waits for no other goroutine.
	try func(data []byte) (written int)
	// tryWith is try with a descriptor beside the bytes.
	tryWith func(data []byte, descriptor int) (written int)

	mu      sync.Mutex
	cond    *sync.Cond
	unsent  [][]byte
	size    int  // bytes of unsent
	writing bool // Run is writing data that it has removed
	closed  bool
}

// New returns the Outbox of a connection. One that is no socket of this process is written by Run alone, and carries no descriptors. An
// encrypted connection writes into the Outbox of its socket (Write).
func New(conn net.Conn) *Outbox {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return newBy(func([]byte, []byte) int { return 0 })
	}
	raw, err := socket.SyscallConn()
	if err != nil { // it is closed: run reports it
		return newBy(func([]byte, []byte) int { return 0 })
	}
	return newBy(tryWrite(raw))
}

func newBy(try func(data, rights []byte) int) *Outbox {
	o := &Outbox{
		try:     func(data []byte) int { return try(data, nil) },
		tryWith: func(data []byte, descriptor int) int { return try(data, unix.UnixRights(descriptor)) },
	}
	o.cond = sync.NewCond(&o.mu)
	return o
}

// Put queues parts that are written one after another, without other data between them. It drops them if the Outbox is closed.
func (o *Outbox) Put(parts ...[]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	for _, data := range parts {
		if rest := o.tryNow(data); len(rest) > 0 {
			o.queue(rest)
		}
	}
}

// Write is Put for data that the caller uses again. It implements io.Writer, so that an encrypted connection can write into an Outbox.
// The error is net.ErrClosed if the Outbox is closed.
func (o *Outbox) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, net.ErrClosed
	}
	if rest := o.tryNow(data); len(rest) > 0 {
		o.queue(bytes.Clone(rest))
	}
	return len(data), nil
}

// Waiting returns the number of bytes that wait for the reader.
func (o *Outbox) Waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.size
}

// tryNow writes what the connection accepts at once, unless earlier data waits. It returns the rest.
func (o *Outbox) tryNow(data []byte) (rest []byte) {
	if o.writing || len(o.unsent) > 0 {
		return data
	}
	return data[o.try(data):]
}

func (o *Outbox) queue(data []byte) {
	o.unsent = append(o.unsent, data)
	o.size += len(data)
	o.cond.Signal()
}

// PutWith is Put for the first data of a connection, with a descriptor beside its first bytes.
func (o *Outbox) PutWith(descriptor int, parts ...[]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, data := range parts {
		if i == 0 {
			data = data[o.tryWith(data, descriptor):]
		}
		if len(data) > 0 {
			o.queue(data)
		}
	}
}

// Close drops what is not written, and lets Run return.
func (o *Outbox) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.cond.Signal()
}

func (o *Outbox) next() ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.writing = false; len(o.unsent) == 0 && !o.closed; {
		o.cond.Wait()
	}
	if o.closed {
		return nil, false
	}
	data := o.unsent[0]
	o.unsent[0] = nil // the array may outlive a large payload
	o.unsent, o.size, o.writing = o.unsent[1:], o.size-len(data), true
	return data, true
}

// Run writes until the Outbox or the connection is closed. The reader of the connection sees the same error and handles it.
func (o *Outbox) Run(w io.Writer) {
	for {
		data, ok := o.next()
		if !ok {
			return
		}
		if _, err := w.Write(data); err != nil {
			o.Close()
			return
		}
	}
}

// tryWrite returns a function that writes as much as the connection accepts without blocking, with the descriptors in rights.
func tryWrite(conn syscall.RawConn) func(data, rights []byte) int {
	return func(data, rights []byte) (n int) {
		_ = conn.Write(func(fd uintptr) bool { // the write of the rest returns any error again
			if rights == nil && len(data) > 0 && !racing {
				n = sendAll(fd, data)
			} else {
				n, _ = unix.SendmsgN(int(fd), data, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			}
			return true
		})
		return max(0, n)
	}
}
