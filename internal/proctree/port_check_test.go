package proctree

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// listenAt opens a listening socket. With shared, other sockets may listen at the same address.
func listenAt(t *testing.T, addr string, shared bool) *net.TCPListener {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if !shared {
			return nil
		}
		return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), err)
	}}
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		t.Skipf("SKIPPED: cannot listen on %s: %v; this was not tested", addr, err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// holder starts a process that inherits the listening socket, which this process closes.
func holder(t *testing.T, l *net.TCPListener, env ...string) *exec.Cmd {
	t.Helper()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("sleep", "300")
	cmd.Env, cmd.ExtraFiles = append(env, "PATH=/usr/bin:/bin"), []*os.File{file}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	l.Close()
	return cmd
}

func processOf(t *testing.T, cmd *exec.Cmd) Process {
	t.Helper()
	s, ok := ReadStat(cmd.Process.Pid)
	if !ok {
		t.Fatal("the process has ended")
	}
	return s.Process
}

func expectForeign(t *testing.T, what string, c *PortCheck, port int) {
	t.Helper()
	var foreign *ForeignPortError
	if _, err := c.Owner(port); !errors.As(err, &foreign) || foreign.Port != port {
		t.Errorf("%s: got %v, want a ForeignPortError", what, err)
	}
}

// TestPortOfATree: the port belongs to the tree if its runner, or another process of it, holds the listening socket.
func TestPortOfATree(t *testing.T) {
	marker := filepath.Join(tempDir(t), "cgroup")
	for _, addr := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(addr, func(t *testing.T) {
			runners, strays, outsiders := listenAt(t, addr, false), listenAt(t, addr, false), listenAt(t, addr, false)
			c := NewPortCheck(Tree{Root: processOf(t, holder(t, runners)), Marker: marker})
			holder(t, strays, MarkerVariable+"="+marker)
			holder(t, outsiders, MarkerVariable+"="+marker+"-of-another-start")
			for range 2 { // the second time the result is cached
				for _, own := range []*net.TCPListener{runners, strays} {
					socket, err := c.Owner(portOf(own))
					if again, errAgain := c.Owner(portOf(own)); err != nil || errAgain != nil || socket == 0 || again != socket {
						t.Errorf("a port of the tree: got %d (%v), then %d (%v)", socket, err, again, errAgain)
					}
				}
				expectForeign(t, "a port of another program", c, portOf(outsiders))
			}
			own := listenAt(t, addr, false)
			expectForeign(t, "a port of this process", c, portOf(own))
			own.Close()
			if _, err := c.Owner(portOf(own)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a port without a listener: got %v, want ECONNREFUSED", err)
			}
		})
	}
}

// TestPortChangesHands: a port that was the tree's is refused as soon as another program listens there, and when the
// process of the tree has ended.
func TestPortChangesHands(t *testing.T) {
	l := listenAt(t, "127.0.0.1:0", false)
	port := portOf(l)
	cmd := holder(t, l)
	c := NewPortCheck(Tree{Root: processOf(t, cmd)})
	before, err := c.Owner(port)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill() // not reaped yet
	_ = cmd.Wait()         // its error reports our signal
	if _, err := c.Owner(port); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the exit: got %v, want ECONNREFUSED", err)
	}
	other := listenAt(t, l.Addr().String(), false)
	expectForeign(t, "the next program", c, port)
	c.tree.Root = processOf(t, holder(t, other))
	c.last.at = c.last.at.Add(-searchInterval) // the refusal is cached for an interval
	if after, err := c.Owner(port); err != nil || after == before {
		t.Errorf("another socket of the tree: got %d (%v), before %d", after, err, before)
	}
}

// TestSharedPort: with SO_REUSEPORT the kernel may give a connection to any of the sockets.
func TestSharedPort(t *testing.T) {
	first := listenAt(t, "127.0.0.1:0", true)
	second := listenAt(t, first.Addr().String(), true)
	c := NewPortCheck(Tree{Root: processOf(t, holder(t, first))})
	expectForeign(t, "shared with another program", c, portOf(first))
	second.Close()
	c.last.at = c.last.at.Add(-searchInterval)
	if _, err := c.Owner(portOf(first)); err != nil {
		t.Errorf("not shared: got %v", err)
	}
}

// TestManySharingSockets: a foreign socket is found among hundreds that share its address.
func TestManySharingSockets(t *testing.T) {
	first := listenAt(t, "127.0.0.1:0", true)
	for range 300 {
		listenAt(t, first.Addr().String(), true)
	}
	all, err := listenersAt(portOf(first))
	if err != nil || len(all) != 301 {
		t.Errorf("got %d sockets (%v), want 301", len(all), err)
	}
}

// TestListenersWithoutSockDiag: /proc has the same sockets as the kernel's own answer.
func TestListenersWithoutSockDiag(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(addr, func(t *testing.T) {
			l := listenAt(t, addr, false)
			asked, err := listenerAt(portOf(l))
			if err != nil || asked.inode == 0 || int(asked.uid) != os.Geteuid() {
				t.Fatalf("got %+v (%v)", asked, err)
			}
			at := asked.addr
			if at.Addr().IsUnspecified() {
				at = l.Addr().(*net.TCPAddr).AddrPort()
			}
			if read, err := procListenerAt(at); err != nil || read != asked {
				t.Errorf("/proc: got %+v (%v), want %+v", read, err, asked)
			}
			all, err := listenersAt(portOf(l))
			if err != nil || !slices.Equal(all, []listener{asked}) {
				t.Errorf("got %+v (%v), want %+v alone", all, err, asked)
			}
		})
	}
	for _, line := range []string{"", "sl local_address", "0: 0100007F:1F90 00000000:0000 01 0:0 0:0 0 0 0 7 1 0", "0: X:1F90 00000000:0000 0A 0:0 0:0 0 0 0 7 1 0"} {
		if l, ok := parseListener(line); ok {
			t.Errorf("%q: got %+v", line, l)
		}
	}
}

func BenchmarkPortCheck(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	self, _ := ReadStat(os.Getpid())
	c := NewPortCheck(Tree{Root: self.Process})
	for b.Loop() {
		if _, err := c.Owner(portOf(l)); err != nil {
			b.Fatal(err)
		}
	}
}
