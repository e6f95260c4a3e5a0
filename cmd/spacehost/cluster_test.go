package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"spacehost/internal/control"
	"spacehost/internal/nodes"
)

// serveFront runs `spacehost serve` as a front that listens for agents at an address. Its one Space has no app.
func serveFront(t *testing.T, state, listen string) *product {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "lab.yaml")
	writeFile(t, file, fmt.Sprintf("console: ':0'\ngpus: mock:1xH200\ncluster: {listen: %q}\nspaces:\n- {folder: ., name: empty, address: ':0'}\n", listen))
	p := startCommand(t, state, "serve", "--config", file)
	t.Cleanup(p.stop)
	p.awaitReady()
	return p
}

// node returns the node of that name.
func (p *product) node(name string) (found control.Node) {
	p.t.Helper()
	for _, n := range controlJSON[[]control.Node](p.t, p, control.ListNodes.Path) {
		if n.Name == name {
			return n
		}
	}
	return control.Node{}
}

func (p *product) awaitNode(name string, want nodes.State) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("node %s is %s", name, want), patience, func() bool { return p.node(name).State == string(want) })
}

// must runs a command that must succeed, and returns its output.
func (p *product) must(args ...string) string {
	p.t.Helper()
	code, out, errout := p.cli(args...)
	if code != 0 {
		p.t.Fatalf("spacehost %s: %d %s", strings.Join(args, " "), code, errout)
	}
	return out
}

// joinToken writes a new join token to a file.
func (p *product) joinToken(args ...string) (file string) {
	p.t.Helper()
	file = filepath.Join(p.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(p.must(append([]string{"node", "token"}, args...)...)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return file
}

// nodeAgent is `spacehost agent --join` as a separate process.
type nodeAgent struct {
	t     testing.TB
	cmd   *exec.Cmd
	ended chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
}

// startAgent starts the agent of a node on a state folder.
func startAgent(t *testing.T, front, state string, args ...string) *nodeAgent {
	t.Helper()
	return startAgentWith(t, nil, front, state, args...)
}

// startAgentWith is startAgent with more environment variables for the agent.
func startAgentWith(t testing.TB, env []string, front, state string, args ...string) *nodeAgent {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &nodeAgent{t: t, ended: make(chan struct{})}
	a.cmd = exec.Command(self, append([]string{"agent", "--join", front, "--state", state, "--gpus", "mock:2xH200"}, args...)...)
	a.cmd.Env, a.cmd.Stdout, a.cmd.Stderr = append(productEnv(t), env...), a, a
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(a.ended); _ = a.cmd.Wait() }()
	t.Cleanup(a.kill)
	return a
}

// Write collects the output of the agent.
func (a *nodeAgent) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.output.Write(b)
}

func (a *nodeAgent) text() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.output.String()
}

func (a *nodeAgent) signal(s syscall.Signal) {
	a.t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil {
		a.t.Fatal(err)
	}
}

func (a *nodeAgent) kill() {
	_ = a.cmd.Process.Kill() // it may have exited
	<-a.ended
}

// wantExit waits for the end of the agent, with a code and a part of its output.
func (a *nodeAgent) wantExit(code int, want string) {
	a.t.Helper()
	eventually(a.t, "the agent exits: "+want, patience, func() bool {
		select {
		case <-a.ended:
			return true
		default:
			return false
		}
	})
	if got := a.cmd.ProcessState.ExitCode(); got != code || !strings.Contains(a.text(), want) {
		a.t.Errorf("the agent exits with %d: %s\nwant %d and %q", got, a.text(), code, want)
	}
}

// TestNodes follows one node: it joins, is drained and returned, is late, is killed, comes back, outlasts a restart of its front, is
// revoked and forgotten.
func TestNodes(t *testing.T) {
	t.Parallel()
	state, home := t.TempDir(), t.TempDir()
	front := serveFront(t, state, "127.0.0.1:0")
	token := front.joinToken("--name", "gpu2")
	agent := startAgent(t, front.Cluster, home, "--token-file", token, "--name", "gpu2", "--label", "h200")
	front.awaitNode("gpu2", nodes.Connected)
	eventually(t, "the GPUs of the node are listed", patience, func() bool { return front.node("gpu2").GPUs == 2 })
	n := front.node("gpu2")
	if n.Version == "" || n.Address == "" || n.ConnectedAt == nil || n.SeenAt == nil || len(n.Labels) != 1 || n.RevokedAt != nil {
		t.Errorf("the connected node is %+v", n)
	}
	if _, out, _ := front.cli("node"); !strings.HasPrefix(out, "NODE  STATE      GPUS  LEASES  RTT ") || !strings.Contains(out, "\ngpu2  connected  2     0 ") {
		t.Errorf("spacehost node prints\n%s", out)
	}

	front.must("node", "drain", "gpu2", "--reason", "new fan")
	if n := front.node("gpu2"); n.State != string(nodes.Connected) || n.Drained == nil || n.Drained.Reason != "new fan" {
		t.Errorf("the drained node is %+v", n)
	}
	if out := front.must("node", "explain", "gpu2"); !strings.Contains(out, "has drained it at ") || !strings.Contains(out, "spacehost node return gpu2") {
		t.Errorf("spacehost node explain prints\n%s", out)
	}
	front.must("node", "return", "gpu2")
	if n := front.node("gpu2"); n.Drained != nil {
		t.Errorf("the returned node is %+v", n)
	}

	agent.signal(syscall.SIGSTOP)
	front.awaitNode("gpu2", nodes.Suspect)
	agent.signal(syscall.SIGCONT)
	front.awaitNode("gpu2", nodes.Connected)

	agent.kill()
	front.awaitNode("gpu2", nodes.Suspect)
	front.awaitNode("gpu2", nodes.Lost)
	agent = startAgent(t, front.Cluster, home)
	front.awaitNode("gpu2", nodes.Connected)

	address := front.Cluster
	front.stop()
	front = serveFront(t, state, address)
	front.awaitNode("gpu2", nodes.Connected)

	front.must("node", "revoke", "gpu2")
	agent.wantExit(1, "spacehost: this node is revoked")
	if n := front.node("gpu2"); n.State != string(nodes.Revoked) {
		t.Errorf("the revoked node is %+v", n)
	}
	startAgent(t, front.Cluster, home).wantExit(1, "spacehost: node gpu2 was revoked at ")
	front.must("node", "forget", "gpu2")
	startAgent(t, front.Cluster, home).wantExit(1, "spacehost: the front knows no node gpu2 with this key")
	startAgent(t, front.Cluster, home, "--token-file", front.joinToken("--name", "gpu2"))
	front.awaitNode("gpu2", nodes.Connected)

	out := front.must("audit")
	for _, action := range []string{"node.token", "node.join", "node.drain", "node.return", "node.revoke", "node.forget"} {
		if !strings.Contains(out, " "+action+" ") {
			t.Errorf("the audit log has no %s:\n%s", action, out)
		}
	}
}

// TestRefusedNodes checks the words for an agent that cannot join or connect.
func TestRefusedNodes(t *testing.T) {
	t.Parallel()
	front := serveFront(t, t.TempDir(), "127.0.0.1:0")
	home := t.TempDir()
	startAgent(t, front.Cluster, home).wantExit(1, "spacehost: this machine has not joined yet; create a token on the front with `spacehost node token`")
	token := front.joinToken()
	startAgent(t, front.Cluster, home, "--token-file", token, "--name", "gpu1")
	front.awaitNode("gpu1", nodes.Connected)

	startAgent(t, front.Cluster, home).wantExit(1, "spacehost: another spacehost (pid ")
	join := func(token, want string, args ...string) {
		t.Helper()
		startAgent(t, front.Cluster, t.TempDir(), append(args, "--token-file", token)...).wantExit(1, want)
	}
	join(token, "this join token was used already; create another on the front with `spacehost node token`", "--name", "gpu2")
	join(front.joinToken("--name", "gpu2"), "this join token is for the name gpu2, not gpu3", "--name", "gpu3")
	join(front.joinToken(), "a node named gpu1 has joined already; choose another name, or run `spacehost node forget gpu1`", "--name", "gpu1")
	other := serveFront(t, t.TempDir(), "127.0.0.1:0")
	join(other.joinToken(), "the front is not of the cluster that made the token", "--name", "gpu2")

	copied := t.TempDir() // the identity of a node of the other front
	joined := startAgent(t, other.Cluster, copied, "--token-file", other.joinToken(), "--name", "gpu2")
	other.awaitNode("gpu2", nodes.Connected)
	joined.signal(syscall.SIGTERM)
	joined.wantExit(0, "joined") // the front has the link before the agent
	startAgent(t, front.Cluster, copied).wantExit(1, "the front has no certificate of this node's cluster")

	away := startAgent(t, "127.0.0.1:1", copied)
	eventually(t, "the agent says that no front answers", patience, func() bool {
		return strings.Contains(away.text(), "no front answers at 127.0.0.1:1: connection refused; check --join, and `cluster.listen` in the file of the front")
	})

	expired := front.joinToken("--for", "1m")
	front.must("clock", "advance", "2m")
	join(expired, "this join token expired at ", "--name", "gpu2")
}

// TestNodeIdentity: only the user of the agent and of the front can read their keys.
func TestNodeIdentity(t *testing.T) {
	t.Parallel()
	state, home := t.TempDir(), t.TempDir()
	front := serveFront(t, state, "127.0.0.1:0")
	startAgent(t, front.Cluster, home, "--token-file", front.joinToken(), "--name", "gpu2")
	front.awaitNode("gpu2", nodes.Connected)
	for path, want := range map[string]os.FileMode{
		filepath.Join(home, "node"): 0o700, filepath.Join(home, "node", "identity.pem"): 0o600,
		filepath.Join(state, "cluster"): 0o700, filepath.Join(state, "cluster", "authority.pem"): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v (%v), want %v", path, info.Mode().Perm(), errors.Unwrap(err), want)
		}
	}
}
