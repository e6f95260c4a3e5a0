package egress

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestRelayPassesBytesOnAndCounts(t *testing.T) {
	n := newNetwork(t, Config{})
	space, server := n.pair()
	write(t, space, "question")
	expectRead(t, server, "question")
	write(t, server, "the answer")
	expectRead(t, space, "the answer")
	space.Close()
	expectEOF(t, server)
	server.Close()
	want := Stats{Opened: 1, Sent: 8, Received: 10}
	eventually(t, "the counters of one ended connection", func() bool { return n.Stats() == want })
	if _, refused := n.LastRefusal(); refused {
		t.Error("a refusal is reported")
	}
}

// The counters of a connection that stays open are current.
func TestOpenConnectionsAreCounted(t *testing.T) {
	n := newNetwork(t, Config{})
	space, server := n.pair()
	write(t, space, "question")
	expectRead(t, server, "question")
	eventually(t, "8 bytes of an open connection", func() bool { return n.Stats() == Stats{Open: 1, Opened: 1, Sent: 8} })
}

func TestRelayDialsExactlyTheDestination(t *testing.T) {
	dialled := make(chan string, 1)
	n := newNetwork(t, Config{Dial: func(_ context.Context, network, address string) (net.Conn, error) {
		dialled <- network + " " + address
		return nil, syscall.ECONNREFUSED
	}})
	n.expectRefused(publicWeb)
	if got := <-dialled; got != "tcp "+publicWeb {
		t.Errorf("got %s, want tcp %s", got, publicWeb)
	}
	eventually(t, "a counted failure", func() bool { return n.Stats() == Stats{Failed: 1} })
}

func TestRefusedDestinationsAreNotDialled(t *testing.T) {
	n := newNetwork(t, Config{Own: func() ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("::ffff:203.5.6.7"), netip.MustParseAddr("8.8.4.4")}, nil
	}})
	for i, c := range []struct {
		to     string
		reason Reason
	}{
		{"10.1.2.3:443", ReasonPrivate},
		{"[::ffff:10.1.2.3]:443", ReasonPrivate},
		{"169.254.169.254:80", ReasonLinkLocal},
		{"127.0.0.1:8080", ReasonLoopback},
		{"8.8.4.4:443", ReasonOwn},
		{"[::ffff:203.5.6.7]:443", ReasonOwn},
		{"93.184.216.34:22", ReasonPort},
	} {
		n.expectRefused(c.to)
		got, refused := n.LastRefusal()
		to := netip.MustParseAddrPort(c.to)
		if !refused || got.Reason != c.reason || got.Destination.Port() != to.Port() || got.Destination.Addr() != to.Addr().Unmap() {
			t.Errorf("%s: got %+v, want %q", c.to, got, c.reason)
		}
		if got := n.Stats(); got != (Stats{Refused: int64(i + 1)}) {
			t.Errorf("%s: got %+v, want %d refusals", c.to, got, i+1)
		}
	}
	if got := n.dials.Load(); got != 0 {
		t.Errorf("%d destinations were dialled", got)
	}
}

// The addresses of this machine may change while a Space runs.
func TestOwnAddressesAreReadAgain(t *testing.T) {
	var mu sync.Mutex
	var own []netip.Addr
	now := time.Now()
	n := newNetwork(t, Config{
		Own: func() ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			return own, nil
		},
		Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
	})
	n.connect(publicWeb)
	n.accept()
	mu.Lock()
	own, now = []netip.Addr{netip.MustParseAddrPort(publicWeb).Addr()}, now.Add(ownMaxAge)
	mu.Unlock()
	n.expectRefused(publicWeb)
}

func TestOwnAddressesThatCannotBeRead(t *testing.T) {
	broken := errors.New("no descriptor is free")
	if _, err := New(Config{Own: func() ([]netip.Addr, error) { return nil, broken }}); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	reads, clock := 0, int64(0)
	o, err := newOwnAddresses(func() ([]netip.Addr, error) {
		if reads++; reads > 1 {
			return nil, broken
		}
		return []netip.Addr{netip.MustParseAddr("8.8.4.4")}, nil
	}, func() time.Time { clock += 1000; return time.Unix(clock, 0) })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if !o.contains(netip.MustParseAddr("8.8.4.4")) || o.contains(netip.MustParseAddr("8.8.8.8")) {
			t.Error("the last known addresses are not in force")
		}
	}
	if reads < 2 {
		t.Errorf("got %d reads, want another one per check", reads)
	}
	if all, err := interfaceAddresses(); err != nil || len(all) == 0 {
		t.Errorf("interface addresses: got %v, %v", all, err)
	}
}

func TestHalfCloseInBothDirections(t *testing.T) {
	n := newNetwork(t, Config{})
	space, server := n.pair()
	write(t, space, "all of the question")
	space.CloseWrite()
	expectRead(t, server, "all of the question")
	expectEOF(t, server)
	write(t, server, "answer after the end of the question")
	expectRead(t, space, "answer after the end of the question")
	server.CloseWrite()
	expectEOF(t, space)

	space, server = n.pair()
	server.CloseWrite()
	expectEOF(t, space)
	write(t, space, "question after the end of the answer")
	expectRead(t, server, "question after the end of the answer")
	space.CloseWrite()
	expectEOF(t, server)
	eventually(t, "no open connection", func() bool { return n.Stats().Open == 0 })
}

// A truncated download must not look complete.
func TestResetsArePassedOn(t *testing.T) {
	n := newNetwork(t, Config{})
	space, server := n.pair()
	write(t, server, "half of it")
	expectRead(t, space, "half of it")
	server.SetLinger(0)
	server.Close()
	expectReset(t, space)

	space, server = n.pair()
	write(t, space, "half of it")
	expectRead(t, server, "half of it")
	space.SetLinger(0)
	space.Close()
	expectReset(t, server)
}

func TestIdleConnectionsAreReset(t *testing.T) {
	n := newNetwork(t, Config{})
	n.idle = 50 * time.Millisecond
	space, server := n.pair()
	expectReset(t, space)
	expectReset(t, server)
	eventually(t, "no open connection", func() bool { return n.Stats().Open == 0 })
}

// A peer that accepts nothing is idle too, also after the end of its own direction.
func TestStalledConnectionsAreReset(t *testing.T) {
	n := newNetwork(t, Config{})
	n.idle = 200 * time.Millisecond
	for _, ended := range []bool{false, true} {
		space, server := n.pair() // the Space reads nothing
		if ended {
			space.CloseWrite()
			expectEOF(t, server)
		}
		var err error
		for chunk := make([]byte, 1<<20); err == nil; {
			_, err = server.Write(chunk)
		}
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("Space's direction ended: %t: got %v, want a reset", ended, err)
		}
	}
}

// Data in one direction keeps a connection open.
func TestOneDirectionIsEnough(t *testing.T) {
	n := newNetwork(t, Config{})
	n.idle = 4 * time.Second
	space, server := n.pair()
	tick := time.NewTicker(n.idle / 4)
	defer tick.Stop()
	for range 6 {
		<-tick.C
		write(t, server, ".")
		expectRead(t, space, ".")
	}
}

// 256 MB in each direction at the same time arrive complete and in order.
func TestLargeTransfers(t *testing.T) {
	const size = 256 << 20
	n := newNetwork(t, Config{})
	space, server := n.pair()
	var wg sync.WaitGroup
	send := func(c *net.TCPConn, seed uint64) {
		source := io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), size)
		if _, err := io.CopyBuffer(struct{ io.Writer }{c}, source, make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
		c.CloseWrite()
	}
	receive := func(c *net.TCPConn, seed uint64) {
		want, got := sha256.New(), sha256.New()
		io.CopyN(want, rand.NewChaCha8([32]byte{byte(seed)}), size)
		if read, err := io.Copy(got, c); err != nil || read != size || [32]byte(got.Sum(nil)) != [32]byte(want.Sum(nil)) {
			t.Errorf("got %d bytes, %v, want %d and the same digest", read, err, size)
		}
	}
	for _, c := range []*net.TCPConn{space, server} {
		c.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	wg.Go(func() { send(space, 1) })
	wg.Go(func() { send(server, 2) })
	wg.Go(func() { receive(server, 1) })
	wg.Go(func() { receive(space, 2) })
	wg.Wait()
	eventually(t, "all bytes counted", func() bool { return n.Stats() == Stats{Opened: 1, Sent: size, Received: size} })
}

// 300 connections at once: 256 are relayed, the others are reset with a reason, and no descriptor is lost.
func TestManyConnectionsAtOnce(t *testing.T) {
	n := newNetwork(t, Config{})
	n.expectRefused("10.0.0.1:443")
	listener := n.connect(publicWeb)
	n.accept().Close()
	listener.Close()
	eventually(t, "no open connection", func() bool { return n.Stats().Open == 0 })
	before := descriptors(t)

	const all = 300
	var wg sync.WaitGroup
	spaces := make([]*net.TCPConn, all)
	for i := range all {
		wg.Go(func() {
			c, err := n.tryConnect(publicWeb)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(c, "%3d", i); err != nil { // the reset has arrived
				c.Close()
				return
			}
			spaces[i] = c
		})
	}
	wg.Wait()
	eventually(t, "256 open connections and 44 refusals", func() bool {
		return n.Stats().Open == defaultConnections && n.Stats().Refused == all-defaultConnections+1
	})
	if last, _ := n.LastRefusal(); last.Reason != ReasonLimit {
		t.Errorf("got %+v, want %q", last, ReasonLimit)
	}
	for range defaultConnections {
		wg.Go(func() {
			c := n.accept()
			io.Copy(c, c) // an echo until the Space's end
			c.Close()
		})
	}
	var echoed, reset int
	for i, c := range spaces {
		if c == nil {
			reset++
			continue
		}
		c.CloseWrite()
		switch got, err := io.ReadAll(c); {
		case err == nil && string(got) == fmt.Sprintf("%3d", i):
			echoed++
		case errors.Is(err, syscall.ECONNRESET):
			reset++
		default:
			t.Errorf("connection %d: got %q, %v", i, got, err)
		}
		c.Close()
	}
	wg.Wait()
	if echoed != defaultConnections || reset != all-defaultConnections {
		t.Errorf("got %d echoes and %d resets, want %d and %d", echoed, reset, defaultConnections, all-defaultConnections)
	}
	eventually(t, "as many descriptors as before", func() bool { return descriptors(t) <= before })
}

// An idle connection holds two descriptors, not the pipes of splice.
func TestIdleConnectionsHoldNoPipes(t *testing.T) {
	n := newNetwork(t, Config{})
	before := descriptors(t)
	const all = 20
	for range all {
		space, server := n.pair()
		write(t, space, "question")
		expectRead(t, server, "question")
		write(t, server, "answer")
		expectRead(t, space, "answer")
	}
	want := before + 4*all + 1 // both ends of this test, both of the relay, and the inner listener
	eventually(t, "two descriptors per connection", func() bool { return descriptors(t) <= want })
}

func TestCloseEndsEverythingOnce(t *testing.T) {
	dialling := make(chan struct{})
	var n *network
	n = newNetwork(t, Config{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == publicWeb {
			return n.dialServer(ctx, network, address)
		}
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	space, server := n.pair()
	write(t, space, "question")
	expectRead(t, server, "question") // the connection is relayed now
	waiting := n.connect("8.8.8.8:443")
	<-dialling
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { n.Close() })
	}
	wg.Wait()
	expectReset(t, space)
	expectReset(t, server)
	expectReset(t, waiting)
	if got := n.Stats(); got != (Stats{Opened: 1, Sent: 8}) {
		t.Errorf("got %+v, want one connection that has ended and no failure", got)
	}
	l := listen(t)
	if err := n.ServeTCP(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ServeTCP after Close: got %v, want %v", err, net.ErrClosed)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener stays open: %v", err)
	}
}

// failing is a listener whose first errors are given.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
	}
	return f.Listener.Accept()
}

func TestTemporaryErrorsOfListeners(t *testing.T) {
	n := newNetwork(t, Config{})
	l := listen(t)
	n.dest[l.Addr().(*net.TCPAddr).Port] = netip.MustParseAddrPort(publicWeb)
	n.inner[publicWeb] = l
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.ServeTCP(&failing{l, []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE}}); err != nil {
			t.Errorf("got %v, want nil after Close", err)
		}
	})
	n.pair()
	n.Close()
	wg.Wait()

	n = newNetwork(t, Config{})
	if err := n.ServeTCP(&failing{listen(t), []error{syscall.EINVAL}}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v, want %v", err, syscall.EINVAL)
	}
}
