package server

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/internal/stack"
)

// returnListener accepts the connections that a handler took over and has returned. A streaming handler needs no
// net/http while it streams, and its client need not connect again for each stream.
type returnListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newReturnListener(addr net.Addr) *returnListener {
	return &returnListener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (r *returnListener) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

func (r *returnListener) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

func (r *returnListener) Addr() net.Addr { return r.addr }

// returnableListener wraps the connections of a TCP listener so that they can be returned. It registers them with limit.
type returnableListener struct {
	net.Listener
	to    *returnListener
	limit *connLimit
	owner string      // of all connections; "": unknown
	tls   *tls.Config // nil: plain connections only
}

func (l returnableListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	tcp, ok := c.(*net.TCPConn)
	if !ok && c != nil && l.owner != "" {
		return newOwnedConn(c, l), err
	}
	if !ok {
		return c, err
	}
	wrapped := &returnConn{TCPConn: tcp, to: l.to, limit: l.limit, info: connOf(tcp), tlsConfig: l.tls}
	wrapped.info.stream = wrapped
	wrapped.info.attach(l.owner)
	wrapped.unchecked = l.limit.add(wrapped.info)
	return wrapped, err
}

// returnConn is a TCP connection that remains open after a handler took it over.
type returnConn struct {
	*net.TCPConn
	to    *returnListener
	limit *connLimit
	info  *Conn
	fixedReader

	unchecked bool // the first Read must ask limit
	reserved  bool // the goroutine that reads has a large stack

	tlsConfig   *tls.Config              // until the first byte has shown whether the client speaks TLS; nil: it does not matter
	tls         atomic.Pointer[tls.Conn] // nil for a plain connection; set by the first Read
	begun       []byte                   // read by detectTLS
	writeWithin time.Duration
}

// Close closes the connection. It may be called twice.
func (c *returnConn) Close() error {
	c.limit.remove(c.info)
	if encrypted := c.tls.Load(); encrypted != nil {
		return encrypted.Close() // it closes the TCP connection too
	}
	return c.TCPConn.Close()
}

// admitted reports whether limit lets the connection stay. It runs in the goroutine of the connection, so that a slow
// lookup delays no other.
func (c *returnConn) admitted() bool {
	if !c.unchecked {
		return true
	}
	c.unchecked = false
	owner, ok := c.limit.admit(c.info)
	if !ok {
		c.discard()
		_, _ = c.TCPConn.Write(c.limit.refusal(owner)) // fits the socket's buffer; fails if the client has gone
		_ = c.Close()
	}
	return ok
}

// discard reads what has arrived: the kernel would reset a connection that is closed with unread bytes, and the client
// would not read the response.
func (c *returnConn) discard() {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool { // fails if the connection is closed
		_, _ = unix.Read(int(fd), make([]byte, 4<<10)) // EAGAIN: nothing has arrived
		return true
	})
}

func (c *returnConn) Read(p []byte) (int, error) {
	if !c.reserved { // the first read of the goroutine that serves the connection
		c.reserved = true
		stack.Reserve()
	}
	if !c.admitted() {
		return 0, net.ErrClosed
	}
	return c.fixedReader.read(p, c.readPlain)
}

// Return hands the connection back to the server for its next request. early holds the bytes of that request that the
// caller has read. On true the caller must not use the connection any more. On false the server has ended, and the
// caller still owns the connection.
func (c *returnConn) Return(early []byte) bool {
	if c.SetDeadline(time.Time{}) != nil {
		return false
	}
	c.reserved = false
	c.early = append(append([]byte(nil), early...), c.early...)
	select {
	case c.to.conns <- c:
		return true
	case <-c.to.closed:
		return false
	}
}
