package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
)

// numbered returns a connection from a port that stands for its owner.
func numbered(port int) *Conn {
	return &Conn{Client: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))}
}

const (
	visitors = iota + 1
	spaceA
	spaceB
)

// countedLimit returns a connLimit, and the number of its lookups.
func countedLimit() (*connLimit, *atomic.Int64) {
	l, lookups := newConnLimit(New(nil).log), &atomic.Int64{}
	l.owner = func(client, _ netip.AddrPort) string {
		lookups.Add(1)
		return map[uint16]string{spaceA: "a", spaceB: "b"}[client.Port()]
	}
	return l, lookups
}

// connect opens connections and returns those that stay.
func (l *connLimit) connect(n, port int) (stay []*Conn) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			c := numbered(port)
			if l.add(c) {
				if _, ok := l.admit(c); !ok {
					l.remove(c)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			stay = append(stay, c)
		})
	}
	all.Wait()
	return stay
}

// TestConnectionsOfAnOwner: each owner has maxOwned connections at most, however they are mixed with those of others.
func TestConnectionsOfAnOwner(t *testing.T) {
	for name, first := range map[string]int{"an idle server": 0, "a few visitors": 100, "many visitors": 3 * maxOwned} {
		t.Run(name, func(t *testing.T) {
			l, _ := countedLimit()
			if got := len(l.connect(first, visitors)); got != first {
				t.Errorf("%d of %d visitors were accepted", got, first)
			}
			a := l.connect(1200, spaceA)
			if len(a) != maxOwned {
				t.Errorf("%d connections of a Space stay, want %d", len(a), maxOwned)
			}
			if got := len(l.connect(100, spaceB)); got != 100 {
				t.Errorf("%d of 100 connections of another Space stay", got)
			}
			if got := len(l.connect(5000, visitors)); got != 5000 {
				t.Errorf("%d of 5000 visitors were accepted", got)
			}
			for _, c := range a[:10] {
				l.remove(c)
				l.remove(c) // a second Close
			}
			if got := len(l.connect(100, spaceA)); got != 10 {
				t.Errorf("%d connections were accepted after 10 were closed", got)
			}
		})
	}
}

// TestLookupsAreRare: a server with few connections looks up none. Above, each is looked up once, and visitors cause no lookup of
// earlier connections.
func TestLookupsAreRare(t *testing.T) {
	l, lookups := countedLimit()
	l.connect(maxOwned, visitors)
	if n := lookups.Load(); n != 0 {
		t.Errorf("%d lookups for %d connections, want none", n, maxOwned)
	}
	l.connect(1000, visitors)
	if n := lookups.Load(); n != 1000 {
		t.Errorf("%d lookups for 1000 more visitors", n)
	}
	l.connect(100, spaceA)
	if n := lookups.Load(); n > 1100+maxOwned {
		t.Errorf("%d lookups, want each connection looked up once at most", n)
	}
	without := newConnLimit(New(nil).log)
	if got := len(without.connect(1200, spaceA)); got != 1200 {
		t.Errorf("without LimitOwners: %d of 1200 connections stay", got)
	}
}

// TestClosedConnectionsAreForgotten: the limit keeps nothing of a closed connection, even if it is closed during its lookup.
func TestClosedConnectionsAreForgotten(t *testing.T) {
	l, _ := countedLimit()
	for _, c := range append(l.connect(300, spaceA), l.connect(300, visitors)...) {
		l.remove(c)
	}
	late := numbered(spaceB)
	l.open = maxOwned
	l.add(late)
	l.remove(late)
	if _, ok := l.admit(late); !ok {
		t.Error("a closed connection was refused")
	}
	if l.open != maxOwned || len(l.unknown) != 0 || len(l.owned) != 0 {
		t.Errorf("%d open, %d unknown, by owner %v", l.open, len(l.unknown), l.owned)
	}
}

// TestRefusedConnection: a client above the bound reads the reason, whether it has sent a request or not, and its connection is
// closed.
func TestRefusedConnection(t *testing.T) {
	s := New(nil)
	s.LimitOwners(func(netip.AddrPort, netip.AddrPort) string { return "demo" }, nil)
	site, err := s.Mount("127.0.0.1:0", "--addr")
	if err != nil {
		t.Fatal(err)
	}
	site.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "served") })
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() { stop(); <-ended }()
	ask := func(request string) (net.Conn, string) {
		t.Helper()
		conn, err := net.Dial("tcp", site.Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprint(conn, request)
		answer := make([]byte, 1024)
		n, err := conn.Read(answer)
		if err != nil {
			t.Error(err)
		}
		return conn, string(answer[:n])
	}
	const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	var open []net.Conn
	for range maxOwned {
		conn, answer := ask(request)
		if open = append(open, conn); !strings.HasSuffix(answer, "served") {
			t.Fatalf("connection %d: got %q", len(open), answer)
		}
	}
	for _, sent := range []string{request, ""} {
		conn, answer := ask(sent)
		if !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "The Space demo has 256 connections") {
			t.Errorf("after %q: got %q, want 503 with the reason", sent, answer)
		}
		if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
			t.Errorf("after %q: not closed after the answer: %q (%v)", sent, rest, err)
		}
		conn.Close()
	}
	for _, conn := range open {
		conn.Close()
	}
	conn, answer := ask(request) // reads only after the closed connections were noticed, or is refused
	for deadline := time.Now().Add(20 * time.Second); !strings.HasSuffix(answer, "served") && time.Now().Before(deadline); {
		conn.Close()
		conn, answer = ask(request)
	}
	if conn.Close(); !strings.HasSuffix(answer, "served") {
		t.Errorf("after the others were closed: got %q", answer)
	}
}
