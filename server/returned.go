package server

import (
	"net"
	"sync"
	"time"
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

// returnableListener wraps the connections of a TCP listener so that they can be returned.
type returnableListener struct {
	net.Listener
	to *returnListener
}

func (l returnableListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &returnConn{TCPConn: tcp, to: l.to}, err
	}
	return c, err
}

// returnConn is a TCP connection that remains open after a handler took it over.
type returnConn struct {
	*net.TCPConn
	to    *returnListener
	info  *Conn
	early []byte // beginning of the next request, already fixed
	fixer targetFixer
}

func (c *returnConn) Read(p []byte) (int, error) {
	for len(c.early) == 0 {
		n, err := c.TCPConn.Read(p)
		if fixed := c.fixer.fix(p[:n]); len(fixed) <= len(p) && len(fixed) > 0 {
			return copy(p, fixed), err
		} else if c.early = fixed; err != nil || len(p) == 0 {
			return 0, err
		}
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// Return hands the connection back to the server for its next request. early holds the bytes of that request that the
// caller has read. On true the caller must not use the connection any more. On false the server has ended, and the
// caller still owns the connection.
func (c *returnConn) Return(early []byte) bool {
	if c.SetDeadline(time.Time{}) != nil {
		return false
	}
	c.early = append(append([]byte(nil), early...), c.early...)
	select {
	case c.to.conns <- c:
		return true
	case <-c.to.closed:
		return false
	}
}
