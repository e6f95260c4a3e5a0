package linktest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network connects the two ends of tests in memory, so that they can run in a bubble of testing/synctest. It has one address with a
// listener. Its methods are safe for concurrent use.
type Network struct {
	mu      sync.Mutex
	waiting chan net.Conn
	closed  chan struct{}
}

// NewNetwork returns a network with its listener.
func NewNetwork() *Network {
	return &Network{waiting: make(chan net.Conn), closed: make(chan struct{})}
}

// Address is the address of the listener of each Network.
const Address = "10.0.0.1:7443"

var _ net.Listener = (*Network)(nil)

// Accept returns the next connection.
func (n *Network) Accept() (net.Conn, error) {
	select {
	case conn := <-n.waiting:
		return conn, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and refuses connections. It may be called twice.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.closed:
	default:
		close(n.closed)
	}
	return nil
}

// Addr returns Address.
func (n *Network) Addr() net.Addr { return address(Address) }

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// Dial returns a function for Dialer.DialContext. Its connections come from an IP address.
func (n *Network) Dial(from string) func(ctx context.Context, network, to string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := newPipe(address(net.JoinHostPort(from, "40000")), address(Address))
		select {
		case n.waiting <- theirs:
			return ours, nil
		case <-n.closed:
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: n.Addr(), Err: syscall.ECONNREFUSED}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// pipe is one end of a connection in memory. Unlike that of net.Pipe, a Write returns when the bytes are buffered.
type pipe struct {
	local, remote net.Addr
	in, out       *buffer
}

func newPipe(client, server net.Addr) (ours, theirs *pipe) {
	up, down := newBuffer(), newBuffer()
	return &pipe{client, server, down, up}, &pipe{server, client, up, down}
}

func (p *pipe) Read(b []byte) (int, error)         { return p.in.read(b) }
func (p *pipe) Write(b []byte) (int, error)        { return p.out.write(b) }
func (p *pipe) LocalAddr() net.Addr                { return p.local }
func (p *pipe) RemoteAddr() net.Addr               { return p.remote }
func (p *pipe) SetReadDeadline(t time.Time) error  { return p.in.setDeadline(&p.in.reading, t) }
func (p *pipe) SetWriteDeadline(t time.Time) error { return p.out.setDeadline(&p.out.writing, t) }

func (p *pipe) SetDeadline(t time.Time) error {
	if err := p.SetReadDeadline(t); err != nil {
		return err
	}
	return p.SetWriteDeadline(t)
}

// CloseWrite lets the other end read io.EOF.
func (p *pipe) CloseWrite() error {
	p.out.end(false)
	return nil
}

func (p *pipe) Close() error {
	p.out.end(false)
	p.in.end(true)
	return nil
}

// bufferSize is about that of a socket.
const bufferSize = 256 << 10

// buffer is one direction of a pipe.
type buffer struct {
	mu      sync.Mutex
	cond    *sync.Cond
	data    []byte
	ended   bool // by its writer
	closed  bool // by its reader
	reading deadline
	writing deadline
}

type deadline struct {
	timer  *time.Timer
	set    int // number of SetDeadline
	passed bool
}

func newBuffer() *buffer {
	b := &buffer{}
	b.cond = sync.NewCond(&b.mu)
	return b
}

func (b *buffer) read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case b.closed:
			return 0, net.ErrClosed
		case b.reading.passed:
			return 0, os.ErrDeadlineExceeded
		case len(b.data) > 0:
			n := copy(p, b.data)
			b.data = b.data[n:]
			b.cond.Broadcast()
			return n, nil
		case b.ended:
			return 0, io.EOF
		}
		b.cond.Wait()
	}
}

func (b *buffer) write(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(p) > 0 {
		switch {
		case b.ended:
			return n, net.ErrClosed
		case b.closed:
			return n, syscall.EPIPE
		case b.writing.passed:
			return n, os.ErrDeadlineExceeded
		}
		if room := bufferSize - len(b.data); room > 0 {
			k := min(room, len(p))
			b.data = append(b.data, p[:k]...)
			p, n = p[k:], n+k
			b.cond.Broadcast()
			continue
		}
		b.cond.Wait()
	}
	return n, nil
}

// end closes the buffer for its reader, or ends it after the data that it has.
func (b *buffer) end(reader bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if reader {
		b.closed, b.data = true, nil
	} else {
		b.ended = true
	}
	for _, d := range []*deadline{&b.reading, &b.writing} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	b.cond.Broadcast()
}

func (b *buffer) setDeadline(d *deadline, t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.set++
	d.passed = !t.IsZero() && time.Until(t) <= 0
	if d.passed {
		b.cond.Broadcast()
	}
	if t.IsZero() || d.passed {
		return nil
	}
	set := d.set
	d.timer = time.AfterFunc(time.Until(t), func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if d.set == set {
			d.passed = true
			b.cond.Broadcast()
		}
	})
	return nil
}
