package proctree

import (
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"
)

// connected is a connection on this machine. Its client end is passed to another process.
type connected struct {
	client         *net.TCPConn
	clientAt, host netip.AddrPort
}

func connect(t *testing.T, addr string) connected {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("SKIPPED: cannot listen on %s: %v; this was not tested", addr, err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return connected{
		client.(*net.TCPConn), client.LocalAddr().(*net.TCPAddr).AddrPort(), server.LocalAddr().(*net.TCPAddr).AddrPort(),
	}
}

// giveAway starts a process that inherits the client end, and closes the test's own copy.
func (c connected) giveAway(t *testing.T, env ...string) Process {
	t.Helper()
	file, err := c.client.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "300")
	cmd.Env, cmd.ExtraFiles = append(env, "PATH=/usr/bin:/bin"), append(cmd.ExtraFiles, file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	file.Close()
	c.client.Close()
	s, _ := ReadStat(cmd.Process.Pid)
	return s.Process
}

// TestOwnerOfAConnection checks that a connection belongs to a Space if its runner, or a process with its marker,
// holds the client end. A connection of another process, such as this one, belongs to no Space. A child of this process
// may be the daemon of any Space.
func TestOwnerOfAConnection(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			ours, runner, strayed, outside, daemon := connect(t, addr), connect(t, addr), connect(t, addr), connect(t, addr), connect(t, addr)
			if _, _, err := socketAt(ours.clientAt, ours.host); err != nil {
				t.Skipf("SKIPPED: %v; this was not tested", err)
			}
			marker := filepath.Join(tempDir(t), "cgroup")
			p := &Processes{}
			p.Register("other", "other-1", Tree{Root: Process{PID: 1 << 30}, Marker: marker + "-of-another"})
			p.Register("test", "test-1", Tree{Root: runner.giveAway(t), Marker: marker})
			strayed.giveAway(t, MarkerVariable+"="+marker)
			p.inherited = []Process{outside.giveAway(t, MarkerVariable+"="+marker+"-of-no-space")}
			daemon.giveAway(t)
			for name, row := range map[string]struct {
				connected
				want string
			}{
				"this process": {ours, ""}, "the runner": {runner, "test"}, "a process that has left the tree": {strayed, "test"}, "an external process": {outside, ""},
				"a child of this process without a marker": {daemon, Stray},
			} {
				for range 2 { // the second time the external process is cached
					if got := p.SpaceAt(row.clientAt, row.host); got != row.want {
						t.Errorf("%s: got %q, want %q", name, got, row.want)
					}
				}
			}
			if got := p.SpaceAt(netip.AddrPortFrom(ours.clientAt.Addr(), 1), ours.host); got != "" {
				t.Errorf("no such connection: got %q", got)
			}
		})
	}
}
