package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	publicWeb = "93.184.216.34:443" // a destination that the Hub's rule allows
	patience  = 20 * time.Second    // the deadline of every wait
)

// network is an Egress in front of a server on loopback, which takes the place of all destinations.
type network struct {
	*Egress
	t      testing.TB
	server net.Listener
	served chan *net.TCPConn // the server's ends of connections
	dials  atomic.Int64

	mu    sync.Mutex
	inner map[string]net.Listener // by destination
	dest  map[int]netip.AddrPort  // by port of the inner listener
}

func newNetwork(t testing.TB, c Config) *network {
	t.Helper()
	n := &network{t: t, server: listen(t), served: make(chan *net.TCPConn, 512), inner: map[string]net.Listener{}, dest: map[int]netip.AddrPort{}}
	if c.Space == "" {
		c.Space = "hello"
	}
	if c.Own == nil {
		c.Own = func() ([]netip.Addr, error) { return nil, nil }
	}
	if c.Dial == nil {
		c.Dial = n.dialServer
	}
	var err error
	if n.Egress, err = New(c); err != nil {
		t.Fatal(err)
	}
	n.destination = n.destinationOf
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := n.server.Accept()
			if err != nil {
				return
			}
			n.served <- c.(*net.TCPConn)
		}
	})
	t.Cleanup(func() {
		n.Close()
		n.server.Close()
		accepting.Wait()
		for len(n.served) > 0 {
			(<-n.served).Close()
		}
	})
	return n
}

func (n *network) dialServer(ctx context.Context, network, _ string) (net.Conn, error) {
	n.dials.Add(1)
	return (&net.Dialer{}).DialContext(ctx, network, n.server.Addr().String())
}

func (n *network) destinationOf(c *net.TCPConn) netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dest[c.LocalAddr().(*net.TCPAddr).Port]
}

// connect opens the Space's end of a connection to a destination.
func (n *network) connect(destination string) *net.TCPConn {
	n.t.Helper()
	c, err := n.tryConnect(destination)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (n *network) tryConnect(destination string) (*net.TCPConn, error) {
	n.mu.Lock()
	l := n.inner[destination]
	if l == nil {
		l = listen(n.t)
		n.inner[destination] = l
		n.dest[l.Addr().(*net.TCPAddr).Port] = netip.MustParseAddrPort(destination)
		go n.ServeTCP(l) // Close waits for its end
	}
	n.mu.Unlock()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	n.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn), nil
}

// expectRefused fails unless a connection is reset: while it is opened, or at the first read.
func (n *network) expectRefused(destination string) {
	n.t.Helper()
	c, err := n.tryConnect(destination)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		n.t.Errorf("%s: got %v, want a reset", destination, err)
	}
}

// accept returns the server's end of the next connection.
func (n *network) accept() *net.TCPConn {
	n.t.Helper()
	select {
	case c := <-n.served:
		n.t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		return c
	case <-time.After(patience):
		n.t.Fatal("no connection arrived at the server")
		return nil
	}
}

// pair returns both ends of a relayed connection.
func (n *network) pair() (space, server *net.TCPConn) {
	n.t.Helper()
	space = n.connect(publicWeb)
	return space, n.accept()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func write(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// expectRead fails unless the next bytes of a connection are these.
func expectRead(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read: got %q, %v, want %q", got, err, want)
	}
}

func expectEOF(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("read: got %d bytes, %v, want the end", n, err)
	}
}

func expectReset(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: got %d bytes, %v, want a reset", n, err)
	}
}

// eventually waits for a state.
func eventually(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !reached(); {
		if time.Now().After(deadline) {
			t.Fatalf("not reached: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// descriptors counts the open files. Pipes of splice are closed by the garbage collector.
func descriptors(t testing.TB) int {
	t.Helper()
	runtime.GC()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
