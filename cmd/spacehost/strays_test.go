package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/control"
)

const straysDir = "testdata/spaces/strays"

// strays is a host with a Space that runs code of the test, also in daemons.
type strays struct {
	*product
	client *client
}

// TestSpacesHaveNoControl is an attack on the control socket by a Space, and by a daemon of a Space that has left its
// parent, its session and its environment. Either would create a login link, and with it act as the operator.
func TestSpacesHaveNoControl(t *testing.T) {
	t.Parallel()
	for name, disable := range map[string]string{"as this machine allows": "", "without cgroups": "cgroup"} {
		t.Run(name, func(t *testing.T) {
			s := runStrays(t, disable)
			s.wantDaemonOutsideTree()
			for _, api := range []string{"/here", "/daemon"} {
				s.wantNothing(api, "without a key", postCode(s.Socket, ""))
				s.wantNothing(api, "with the key that it has read", postCode(s.Socket, s.key()))
			}
			s.wantNothing("/daemon", "by the child of an exited process", handOver+postCode(s.Socket, s.key()))
			s.wantNothing("/daemon", "outside of its cgroup", leaveCgroup+postCode(s.Socket, s.key()))
			s.wantOperator()
		})
	}
}

// TestControlKey checks the key for clients that no Space has started, and over a restart.
func TestControlKey(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	first := startProduct(t, state, leasesDir)
	t.Cleanup(first.stop)
	first.awaitReady()
	info, err := os.Stat(filepath.Join(state, "control.key"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("control.key has mode %v (%v), want -rw-------", info.Mode(), err)
	}
	stale := controlKey(t, first.Socket)
	wantUnauthorized(t, first.Socket, "", "the request has no key: use the spacehost command", "or send the content of "+state+"/control.key in the header X-Spacehost-Key")
	wantUnauthorized(t, first.Socket, strings.Repeat("A", 26), "is not the key of this host", "read "+state+"/control.key again")
	first.stop()

	second := startProduct(t, state, leasesDir)
	t.Cleanup(second.stop)
	second.awaitReady()
	wantUnauthorized(t, second.Socket, stale, "which changes at each start: read "+state+"/control.key again")
	if body, err := overSocket(t, second.Socket, "/quota"); err != nil {
		t.Errorf("the new key: %s %v", body, err)
	}
}

func wantUnauthorized(t *testing.T, socket, key string, texts ...string) {
	t.Helper()
	status, body, err := overSocketWith(t, socket, key, http.MethodPost, control.CreateLoginLink.Path)
	if err != nil || status != http.StatusUnauthorized {
		t.Errorf("POST with the key %q: got %d %s (%v), want 401", key, status, body, err)
	}
	for _, text := range texts {
		if !strings.Contains(string(body), text) {
			t.Errorf("POST with the key %q: got %s, want %q in it", key, body, text)
		}
	}
}

// TestSpacesReadNoMetrics: /metrics names private Spaces. A Space and its daemon are refused, and a Prometheus on the same
// machine is not.
func TestSpacesReadNoMetrics(t *testing.T) {
	t.Parallel()
	for name, disable := range map[string]string{"as this machine allows": "", "without cgroups": "cgroup"} {
		t.Run(name, func(t *testing.T) {
			s := runStrays(t, disable)
			for _, api := range []string{"/here", "/daemon"} {
				for _, path := range []string{"/metrics", "/metrics?x=1"} {
					got := s.run(api, fmt.Sprintf(getCode, s.Console+path))
					if !strings.HasPrefix(got, "403 ") || !strings.Contains(got, "metrics are not readable for Spaces") {
						t.Errorf("%s from %s: got %.200s, want 403 and the reason", path, api, got)
					}
				}
				if got := s.run(api, fmt.Sprintf(getCode, s.Console+"/healthz")); !strings.HasPrefix(got, "200 ") {
					t.Errorf("/healthz from %s: got %.200s, want 200", api, got)
				}
			}
			if got := statusOfRequest(t, "GET", s.Console+"/metrics", nil); got != http.StatusOK {
				t.Errorf("/metrics for another program of this machine: got %d, want 200", got)
			}
		})
	}
}

// runStrays runs the Space without isolation: in a sandbox its daemons would find neither socket nor console.
func runStrays(t *testing.T, disable string) *strays {
	t.Helper()
	p := startProductWith(t, []string{"SPACEHOST_DISABLE=" + disable}, t.TempDir(), straysDir, "--isolation", "none")
	t.Cleanup(p.stop)
	p.awaitReady()
	t.Log(p.containment())
	return &strays{p, p.client()}
}

// run returns what the code prints in the Space.
func (s *strays) run(api, code string) string {
	s.t.Helper()
	return s.client.ok(api, code)
}

func (s *strays) key() string { return controlKey(s.t, s.Socket) }

// wantDaemonOutsideTree checks that a daemon is what the tests claim: its parent is the host, and it has no marker.
func (s *strays) wantDaemonOutsideTree() {
	s.t.Helper()
	got := s.run("/daemon", `import os; print(os.getppid(), dict(os.environ))`)
	if !strings.HasPrefix(got, fmt.Sprint(s.cmd.Process.Pid, " ")) || strings.Contains(got, "ZEROGPU_PROC_SELF_CGROUP_PATH") {
		s.t.Fatalf("the parent and the environment of the daemon are %s, want the host %d and no marker", got, s.cmd.Process.Pid)
	}
}

// wantNothing runs code that creates a login link, and checks that the host closes its connection.
func (s *strays) wantNothing(api, how, code string) {
	s.t.Helper()
	got := s.run(api, code)
	if !strings.Contains(got, "connected\n") || !strings.HasSuffix(strings.TrimSpace(got), "received 0 bytes") {
		s.t.Errorf("%s, %s: got %q, want a connection that is closed without an answer", api, how, got)
	}
}

// wantOperator checks that the command line works, also with another environment than the host's.
func (s *strays) wantOperator() {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, env := range [][]string{append(os.Environ(), beSpacehost+"=1"), {beSpacehost + "=1"}} {
		for _, args := range [][]string{{"login"}, {"quota", "--json"}, {"space", "list"}} {
			cmd := exec.Command(self, append(args, "--state", s.State)...)
			cmd.Env = env
			if out, err := cmd.CombinedOutput(); err != nil {
				s.t.Errorf("spacehost %v with %d variables: %v\n%s", args, len(env), err, out)
			}
		}
	}
}

// postCode is Python that requests a login link at the control socket. connection() opens the socket.
func postCode(socket, key string) string {
	header := ""
	if key != "" {
		header = control.KeyHeader + ": " + key + "\r\n"
	}
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: spacehost\r\n%sConnection: close\r\nContent-Length: 0\r\n\r\n", control.CreateLoginLink.Path, header)
	return fmt.Sprintf(`
import socket
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(60)
connection.connect(%q)
print("connected", flush=True)
globals().get("after_connect", lambda: None)()
received = b""
try:
    connection.sendall(%q.encode())
    while part := connection.recv(1 << 16):
        received += part
except (BrokenPipeError, ConnectionResetError):
    pass
print("received", len(received), "bytes", received.decode(), flush=True)
`, socket, request)
}

const (
	// handOver lets a child use the connection of a process that has exited.
	handOver = `
import os
def after_connect():
    if child := os.fork():
        os._exit(0)
`
	// leaveCgroup moves the process to the cgroup above those of the Space, if this user may.
	leaveCgroup = `
import os
own = next((line[4:] for line in open("/proc/self/cgroup").read().splitlines() if line.startswith("0::")), "")
for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
    try:
        with open(mount + own.split("/spacehost-")[0] + "/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
    except OSError:
        pass
`
	// getCode prints the status and the text of an answer.
	getCode = `
import urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(%q)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
`
)
