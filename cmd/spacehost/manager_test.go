package main

import (
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// managerSocket is the socket of a service manager that starts the host with Type=notify.
type managerSocket struct {
	mu   sync.Mutex
	told []string
}

func newManagerSocket(t *testing.T) (path string, m *managerSocket) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m = &managerSocket{}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return // closed
			}
			m.mu.Lock()
			m.told = append(m.told, strings.Split(string(buffer[:n]), "\n")...)
			m.mu.Unlock()
		}
	}()
	return path, m
}

func (m *managerSocket) has(state string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.told, state)
}

// TestServiceManager checks what a service manager is told, and that Spaces do not have its socket.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	received := make(chan os.Signal, 1) // tests that run under nohup ignore SIGHUP, and their children would, too
	signal.Notify(received, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(received) })
	socket, m := newManagerSocket(t)
	p := startProductWith(t, []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=600000"}, t.TempDir(), "testdata/spaces/scripts")
	t.Cleanup(p.stop)
	eventually(t, "the host is ready", patience, func() bool { return m.has("READY=1") })
	p.awaitReady()
	for _, state := range []string{"STATUS=Spaces: 1 of 1 running", "WATCHDOG=1"} {
		eventually(t, state, patience, func() bool { return m.has(state) })
	}
	names := eval[[]string](p.client(), "/run", "import os; result = [n for n in os.environ if n in ('NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID')]")
	if len(names) != 0 {
		t.Errorf("the Space has %v", names)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil { // the terminal has closed
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatal("`run` does not end at SIGHUP")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("`run` ends with %d at SIGHUP", code)
	}
	eventually(t, "the end is told", patience, func() bool { return m.has("STOPPING=1") })
}

// TestServiceManagerOfNode checks what the service manager of a node is told.
func TestServiceManagerOfNode(t *testing.T) {
	t.Parallel()
	socket, m := newManagerSocket(t)
	p := serveFront(t, t.TempDir(), "127.0.0.1:0")
	a := startAgentWith(t, []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=600000"}, p.Cluster, t.TempDir(), "--token-file", p.joinToken(), "--name", "gpu2")
	for _, state := range []string{"READY=1", "STATUS=Processes of Spaces: 0; GPU calls: 0", "WATCHDOG=1"} {
		eventually(t, state, patience, func() bool { return m.has(state) })
	}
	a.signal(syscall.SIGTERM)
	awaitClosed(t, "the agent has exited", a.ended)
	eventually(t, "the end is told", patience, func() bool { return m.has("STOPPING=1") })
}
