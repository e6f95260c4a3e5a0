package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"spacehost/internal/nodes"
)

// sshStandIn runs the command of ssh on this machine in another home, as sshd does.
const sshStandIn = `#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift 2
cd "$NODE_HOME"
HOME=$NODE_HOME XDG_STATE_HOME= exec sh -c "$*"
`

// TestNodeAdd sets up a node with a stand-in for ssh: the program is copied, the agent joins, and it is started again after its end. A
// second agent does not reach the front.
func TestNodeAdd(t *testing.T) {
	t.Parallel()
	bin, home := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(sshStandIn), 0o700); err != nil {
		t.Fatal(err)
	}
	front := serveFront(t, t.TempDir(), "127.0.0.1:0")
	run := func(args ...string) (code int, stdout, stderr string) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), self, append([]string{"node", "add", "machine", "--state", front.State}, args...)...)
		c.Env = append(productEnv(t), "PATH="+bin+":"+os.Getenv("PATH"), "NODE_HOME="+home)
		var out, errout bytes.Buffer
		c.Stdout, c.Stderr = &out, &errout
		if err := c.Run(); err != nil && c.ProcessState == nil {
			t.Fatal(err)
		}
		return c.ProcessState.ExitCode(), out.String(), errout.String()
	}

	code, _, errout := run("--name", "gpu2", "--gpus", "mock:2xH200")
	if code != 1 || !strings.Contains(errout, "install that version there, or copy this program with --copy") {
		t.Fatalf("without a program: %d %s", code, errout)
	}
	state := filepath.Join(home, ".local/state/spacehost-gpu2")
	endAgent := func(signal syscall.Signal) {
		text, _ := os.ReadFile(filepath.Join(state, "node.pid"))
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return
		}
		if command, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); strings.Contains(string(command), state) { // it may have exited
			_ = syscall.Kill(pid, signal)
		}
	}
	t.Cleanup(func() { endAgent(syscall.SIGKILL) })
	add := []string{"--name", "gpu2", "--gpus", "mock:2xH200", "--label", "h200", "--copy", "--timeout", patience.String()}
	code, out, errout := run(append(add, "--json")...)
	var added struct{ Name, Program, Unit, State string }
	if err := json.Unmarshal([]byte(out), &added); code != 0 || err != nil {
		t.Fatalf("%d %s %s (%v)", code, out, errout, err)
	}
	if added.Name != "gpu2" || added.Program != filepath.Join(home, ".local/share/spacehost/spacehost") || added.Unit != "" || added.State != state {
		t.Errorf("got %+v", added)
	}
	if n := front.node("gpu2"); len(n.Labels) != 1 || n.Labels[0] != "h200" {
		t.Errorf("the node is %+v", n)
	}
	if code, _, errout := run(add...); code != 1 || !strings.Contains(errout, "node gpu2 is connected already") {
		t.Errorf("a second time: %d %s", code, errout)
	}

	tokens := func() int { return strings.Count(front.must("audit"), " node.token ") }
	before := tokens()
	endAgent(syscall.SIGTERM)
	front.awaitNode("gpu2", nodes.Lost)
	if code, out, errout := run(append(add, "--address", front.Cluster)...); code != 0 || !strings.HasPrefix(out, "gpu2 is connected (process, state folder "+state+").") {
		t.Errorf("after its end: %d %s %s", code, out, errout)
	}
	if after := tokens(); after != before {
		t.Errorf("the agent of a lost node was started with a new token: %d, then %d", before, after)
	}

	state = filepath.Join(home, ".local/state/spacehost-gpu3")
	code, _, errout = run("--name", "gpu3", "--gpus", "mock:1xH200", "--address", "127.0.0.1:1", "--timeout", "3s")
	endAgent(syscall.SIGKILL)
	state = added.State
	if code != 1 || !strings.Contains(errout, "has not connected within 3s and continues to try") {
		t.Errorf("a front that cannot be reached: %d %s", code, errout)
	}
}
