package worker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"spacehost/internal/proctree"
)

// canaryServer counts the connections to a service of this machine that is not the Space's.
func canaryServer(t *testing.T, addr string) (port int, connections *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	connections = &atomic.Int64{}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			conn.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, connections
}

func expectForeign(t *testing.T, what string, w *world, port int) {
	t.Helper()
	var foreign *proctree.ForeignPortError
	p, h := w.process()
	conn, err := server{w.Supervisor, p, h, port}.Dial(t.Context())
	if err == nil {
		conn.Close()
	}
	if !errors.As(err, &foreign) || foreign.Port != port {
		t.Errorf("%s: got %v, want a ForeignPortError", what, err)
	}
}

// TestForeignPortsAreNotDialled: a Space names the port of a service of this machine, and a port of the host. Neither
// receives a connection, and the operator reads it once.
func TestForeignPortsAreNotDialled(t *testing.T) {
	port, connections := canaryServer(t, "127.0.0.1:0")
	own, toHost := canaryServer(t, "127.0.0.1:0")
	header := with(manifestHeader(0), map[string]any{"port": port})
	w := newWorld(t, "sends", framesText(helloFrame, sentFrame{Header: header}), func(c *SupervisorConfig) {
		local(c).IsHostPort = func(port int) bool { return port == own }
	})
	w.ready(t)
	if named := w.serverPort(); named != port {
		t.Fatalf("the Space named port %d, want %d", named, port)
	}
	for range 3 {
		expectForeign(t, "a port of another program", w, port)
		expectForeign(t, "a port of the host", w, own)
	}
	if n, hosts := connections.Load(), toHost.Load(); n != 0 || hosts != 0 {
		t.Errorf("%d connections to the other program, %d to the host, want none", n, hosts)
	}
	if notes := strings.Count(w.printed(), "belongs to another program"); notes != 1 {
		t.Errorf("%d notes, want 1:\n%s", notes, w.printed())
	}
}

// TestAnAppAttachesBeforeItListens: no connection is possible until then, and the caller may retry. When another program
// gets the port later, it receives no connection.
func TestAnAppAttachesBeforeItListens(t *testing.T) {
	w := newWorld(t, "serves", "")
	w.ready(t)
	first, _, _ := w.Upstream()
	port := first.(server).port
	expectEcho(t, first)
	eventually(t, "the Space has released its port", func() bool { return strings.Contains(w.printed(), "released") })
	_, connections := canaryServer(t, fmt.Sprintf("127.0.0.1:%d", port))
	expectForeign(t, "the port's next owner", w, port)
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections to it, want none", n)
	}
	eventually(t, "the app has launched at another port", func() bool { next, _, up := w.Upstream(); return up && next != first })
	next, _, _ := w.Upstream()
	expectEcho(t, next)
}

// serverPort returns the port of the Space's own server; 0 while it is down.
func (s *Supervisor) serverPort() int {
	own, _, up := s.Upstream()
	if !up {
		return 0
	}
	return own.(server).port
}

// expectEcho connects to the Space once it listens.
func expectEcho(t *testing.T, own Dialer) {
	t.Helper()
	var conn net.Conn
	eventually(t, "it listens", func() (up bool) {
		var err error
		conn, err = own.Dial(t.Context())
		if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		return err == nil
	})
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(conn); err != nil || string(text) != "x" {
		t.Errorf("got %q (%v)", text, err)
	}
}

// TestServerOfAnEndedStart: the server of an ended start is reached no more, not even if the next start has its port.
func TestServerOfAnEndedStart(t *testing.T) {
	w := newWorld(t, "serves", "")
	w.ready(t)
	old, _, _ := w.Upstream()
	expectEcho(t, old)
	w.Restart(Restart{})
	ended := old.(server)
	var next Dialer
	eventually(t, "the next start is up", func() (up bool) {
		next, _, up = w.Upstream()
		return up && next.(server).process != ended.process
	})
	expectEcho(t, next)
	ended.port = next.(server).port
	conn, err := ended.Dial(t.Context())
	if err == nil {
		conn.Close()
	}
	if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the server of the ended start: got %v, want an error that ends the retries", err)
	}
	w.stop()
	within(t, patient, "Run returns", w.ended)
	if conn, err := next.Dial(t.Context()); err == nil {
		conn.Close()
		t.Error("connected to a stopped Space")
	}
}
