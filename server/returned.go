package server

import (
	"net"
	"sync"
	"time"
)

// returns is the listener of connections that a handler had taken over and has given back: what one streams needs no
// net/http meanwhile, and its visitor need not connect again for each.
type returns struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newReturns(addr net.Addr) *returns {
	return &returns{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (r *returns) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

func (r *returns) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

func (r *returns) Addr() net.Addr { return r.addr }

// returnable makes the connections of a TCP listener such that can be given back.
type returnable struct {
	net.Listener
	to *returns
}

func (l returnable) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &returnConn{TCPConn: tcp, to: l.to}, err
	}
	return c, err
}

// returnConn is a TCP connection that outlives whoever takes it over.
type returnConn struct {
	*net.TCPConn
	to    *returns
	facts *Conn
	early []byte // of its next request
}

func (c *returnConn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.TCPConn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// Return lets the server read the next request, of which the caller, who had taken the connection over, has read early;
// the caller touches it no more. False: the server has ended, and the connection is still the caller's.
func (c *returnConn) Return(early []byte) bool {
	if c.SetDeadline(time.Time{}) != nil {
		return false
	}
	c.early = append([]byte(nil), early...)
	select {
	case c.to.conns <- c:
		return true
	case <-c.to.closed:
		return false
	}
}
