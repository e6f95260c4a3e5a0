package nodessh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/nodes"
	"spacehost/internal/version"
)

var ownBuild = version.Build{Version: "1.4.0", Commit: "abc"}

// sshStandIn runs the command as sshd does, by a shell, in another home. It exits like ssh if the machine is unknown.
const sshStandIn = `#!/bin/sh
while [ "$1" != -- ]; do echo "$1" >>MACHINE/ssh-args; shift; done
if [ "$2" = unknown ]; then echo "ssh: Could not resolve hostname unknown" >&2; exit 255; fi
shift 2
cd MACHINE
echo "Welcome to this machine."
HOME=MACHINE XDG_STATE_HOME= PATH=MACHINE/fake:/usr/bin:/bin exec sh -c "$*"
`

// spacehostStandIn is a program of one version whose agent keeps what it gets, and then waits, or exits with a reason if its file says so.
const spacehostStandIn = `#!/bin/sh
if [ "$1" = version ]; then echo '{"version":"VERSION","commit":"abc","date":"","go":"go1.26"}'; exit; fi
echo "$@" >MACHINE/agent-args
if [ -f MACHINE/exits ]; then cat MACHINE/exits >&2; exit 1; fi
echo started >MACHINE/started
exec sleep 600
`

// lab is a machine that the stand-in of ssh reaches, and a front.
type lab struct {
	t    *testing.T
	home string
	Config
	layout

	mu     sync.Mutex
	state  nodes.State // of the node at the front, until its agent has started
	tokens int
	steps  []string
}

// newLab returns a machine with a program of a version; "": none.
func newLab(t *testing.T, has string) *lab {
	t.Helper()
	l := &lab{t: t, home: t.TempDir()}
	l.layout = layout{
		program: filepath.Join(l.home, "packaged"), unit: filepath.Join(l.home, "unit"), systemd: filepath.Join(l.home, "systemd"),
		settings: filepath.Join(l.home, "etc", "node.env"), token: filepath.Join(l.home, "etc", "node.token"),
	}
	l.Config = Config{
		Host: "gpu2", SSH: filepath.Join(l.home, "ssh"), Name: "gpu2", GPUs: "mock:1xH200", Labels: []string{"h200", "fast"}, Build: ownBuild,
		Timeout: time.Minute, Front: l, Report: func(step string) { l.steps = append(l.steps, step) },
	}
	l.write("ssh", sshStandIn)
	if has != "" {
		l.write(".local/bin/spacehost", strings.ReplaceAll(spacehostStandIn, "VERSION", has))
	}
	t.Cleanup(l.end)
	return l
}

// write writes an executable file of the machine. MACHINE in the text stands for its folder.
func (l *lab) write(name, text string) {
	l.t.Helper()
	file := filepath.Join(l.home, name)
	text = strings.ReplaceAll(text, "MACHINE", l.home)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o700)); err != nil {
		l.t.Fatal(err)
	}
}

// read returns the content of a file of the machine; "": there is none.
func (l *lab) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(l.home, name))
	return strings.TrimSpace(string(text))
}

// end ends the agent of the machine.
func (l *lab) end() {
	pid, err := strconv.Atoi(l.read(".local/state/spacehost-gpu2/node.pid"))
	if err != nil {
		return
	}
	if command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); string(command) == "sleep\x00600\x00" { // it may have exited
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// State implements Front: the node is connected once its agent has started.
func (l *lab) State(context.Context, string) (nodes.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read("started") != "" {
		return nodes.Connected, nil
	}
	return l.state, nil
}

// Token implements Front.
func (l *lab) Token(_ context.Context, name string) (string, string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens++
	return "shj_" + name, "10.0.0.5:7443", nil
}

func (l *lab) add() (Result, error) {
	if err := l.check(); err != nil {
		return Result{}, err
	}
	a := adder{Config: l.Config, layout: l.layout, on: machine{l.Host, l.Options, l.SSH}}
	return a.add(l.t.Context())
}

func (l *lab) wantError(want string) {
	l.t.Helper()
	if _, err := l.add(); err == nil || !strings.Contains(err.Error(), want) {
		l.t.Errorf("got %v, want %s", err, want)
	}
}

// TestAddAsProcess starts an agent as a process, twice, and again after its end.
func TestAddAsProcess(t *testing.T) {
	l := newLab(t, "1.4.0")
	l.Options = []string{"Port=2222"}
	r, err := l.add()
	if err != nil {
		t.Fatal(err, l.steps)
	}
	state := filepath.Join(l.home, ".local/state/spacehost-gpu2")
	if r.Name != "gpu2" || r.Unit != "" || r.State != state || r.Program != filepath.Join(l.home, ".local/bin/spacehost") {
		t.Errorf("got %+v", r)
	}
	want := "agent --join 10.0.0.5:7443 --state " + state + " --name gpu2 --gpus mock:1xH200 --label h200 --label fast --token-file " + state + "/node.token"
	if got := l.read("agent-args"); got != want {
		t.Errorf("the agent gets %q, want %q", got, want)
	}
	token := filepath.Join(state, "node.token")
	if info, err := os.Stat(token); err != nil || info.Mode().Perm() != 0o600 || l.read(".local/state/spacehost-gpu2/node.token") != "shj_gpu2" {
		t.Errorf("the token file: %v (%v)", info, err)
	}
	if args := l.read("ssh-args"); !strings.HasPrefix(args, "-o\nPort=2222\n-o\nBatchMode=yes\n") {
		t.Errorf("ssh gets %q", args)
	}
	l.wantError("node gpu2 is connected already; ")

	// The node is lost. Its agent still holds its lock, and later it does not.
	l.mu.Lock()
	l.state = nodes.Lost
	err = errors.Join(os.Remove(filepath.Join(l.home, "started")), os.MkdirAll(filepath.Join(state, "node"), 0o700))
	l.mu.Unlock()
	lock, openErr := os.Create(filepath.Join(state, "node", "lock"))
	if err := errors.Join(err, openErr); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	l.wantError("an agent runs already on gpu2 (state folder " + state + "); end it first")
	lock.Close()
	l.end()
	l.Address, l.tokens = "front:7443", 0
	if _, err := l.add(); err != nil || l.tokens != 0 {
		t.Errorf("a lost node: %v, %d tokens", err, l.tokens)
	}
	if got := l.read("agent-args"); !strings.HasPrefix(got, "agent --join front:7443 ") || strings.Contains(got, "--token-file") {
		t.Errorf("the agent of a lost node gets %q", got)
	}
}

// TestAddAsUnit starts the packaged unit, whose programs are stand-ins.
func TestAddAsUnit(t *testing.T) {
	l := newLab(t, "")
	l.write("packaged", strings.ReplaceAll(spacehostStandIn, "VERSION", "1.4.0"))
	l.write("unit", "[Unit]\n")
	l.write("etc/node.env", "SPACEHOST_JOIN=old:1\n")
	if err := os.Mkdir(l.systemd, 0o700); err != nil {
		t.Fatal(err)
	}
	// sudo runs the command; the owner of the file is that of the test.
	l.write("fake/sudo", "#!/bin/sh\n[ \"$1\" = -n ] || exit 1\nshift\necho \"$@\" >>MACHINE/sudo-args\nif [ \"$1\" = install ]; then shift 5; set -- install \"$@\"; fi\nexec \"$@\"\n")
	l.write("fake/systemctl", "#!/bin/sh\nif [ \"$1\" = show ]; then cat MACHINE/substate; fi\nif [ \"$1\" = restart ]; then echo SubState=running >MACHINE/substate; echo started >MACHINE/started; fi\n")
	l.write("substate", "SubState=dead\n")
	r, err := l.add()
	if err != nil || r.Unit != unitName || r.State != "" || r.Program != filepath.Join(l.home, "packaged") {
		t.Fatalf("got %+v, %v", r, err)
	}
	if got, want := l.read("etc/node.env"), "SPACEHOST_JOIN=10.0.0.5:7443\nSPACEHOST_NODE_FLAGS=--name gpu2 --gpus mock:1xH200 --label h200 --label fast"; got != want {
		t.Errorf("node.env has %q, want %q", got, want)
	}
	if got := l.read("etc/node.env.old"); got != "SPACEHOST_JOIN=old:1" {
		t.Errorf("the former node.env is %q", got)
	}
	if info, err := os.Stat(l.layout.token); err != nil || info.Mode().Perm() != 0o600 || l.read("etc/node.token") != "shj_gpu2" {
		t.Errorf("the token file: %v (%v)", info, err)
	}
	if got := l.read("sudo-args"); strings.Contains(got, "shj_") || !strings.Contains(got, "systemctl enable --quiet spacehost-node.service\nsystemctl restart --no-block spacehost-node.service") {
		t.Errorf("sudo runs %q", got)
	}
	if err := os.Remove(filepath.Join(l.home, "started")); err != nil {
		t.Fatal(err)
	}
	l.wantError("an agent runs already on gpu2 (spacehost-node.service)")

	// The unit fails: the error has the end of the journal.
	l.write("substate", "SubState=auto-restart\n")
	l.write("fake/systemctl", "#!/bin/sh\nif [ \"$1\" = show ]; then cat MACHINE/substate; fi\n")
	l.write("fake/journalctl", "#!/bin/sh\necho this join token was used already\n")
	l.wantError("the agent on gpu2 has exited\njournalctl -u spacehost-node.service ends with:\n  this join token was used already\nNext: ")
}

// TestAgentExits: the error has the end of the log, long before the deadline.
func TestAgentExits(t *testing.T) {
	l := newLab(t, "1.4.0")
	l.Timeout = time.Hour
	l.write("exits", "spacehost: no NVIDIA GPU\a found\n")
	l.wantError("the agent on gpu2 has exited\n" + filepath.Join(l.home, ".local/state/spacehost-gpu2/node.log") + " ends with:\n  spacehost: no NVIDIA GPU")
}

// TestCopy copies a program to a machine without one of this version.
func TestCopy(t *testing.T) {
	l := newLab(t, "1.3.0")
	l.wantError("gpu2 has spacehost 1.3.0 at " + filepath.Join(l.home, ".local/bin/spacehost") + ", and the node needs 1.4.0; install that version there, or copy this program with --copy")
	for _, program := range []struct{ text, want string }{
		{"#!/bin/sh\nexit 1\n", "copy the program: ssh gpu2: exit code 1: the copy does not run on this machine; install spacehost 1.4.0 there"},
		{strings.ReplaceAll(spacehostStandIn, "VERSION", "1.2.0"), " on gpu2 has another version; copy a program of version 1.4.0"},
	} {
		l.write("own", program.text)
		l.Copy = filepath.Join(l.home, "own")
		l.wantError(program.want)
	}
	l.write("own", strings.ReplaceAll(spacehostStandIn, "VERSION", "1.4.0"))
	r, err := l.add()
	if err != nil || r.Program != filepath.Join(l.home, ".local/share/spacehost/spacehost") {
		t.Fatalf("got %+v, %v", r, err)
	}
	left, err := filepath.Glob(filepath.Join(l.home, ".local/share/spacehost/*"))
	if err != nil || len(left) != 1 {
		t.Errorf("files beside the copy: %v (%v)", left, err)
	}
}

// TestRefusals checks what ends before anything has changed on the machine.
func TestRefusals(t *testing.T) {
	l := newLab(t, "")
	l.wantError("gpu2 has no spacehost, and the node needs 1.4.0; install that version there, or copy this program with --copy")
	for _, row := range []struct {
		change func(*lab)
		want   string
	}{
		{func(l *lab) { l.Host = "-oProxyCommand=x" }, `"-oProxyCommand=x" is not the name of a machine`},
		{func(l *lab) { l.Host = "unknown" }, "ssh unknown: ssh: Could not resolve hostname unknown; check that `ssh -o BatchMode=yes unknown true` succeeds"},
		{func(l *lab) { l.SSH = "no-such-ssh" }, "install OpenSSH's client on this machine"},
		{func(l *lab) { l.Labels = []string{"a b"} }, `"a b" has a character`},
		{func(l *lab) { l.GPUs = "$(id)" }, `"$(id)" has a character`},
		{func(l *lab) { l.Config.State = "state" }, `the state folder "state" on the node is not an absolute path`},
		{func(l *lab) { l.Name = "host" }, "the name host is that of the front's own machine"},
		{func(l *lab) { l.state = nodes.Revoked }, "node gpu2 is revoked; run `spacehost node forget gpu2` first"},
		{func(l *lab) { l.state = nodes.Suspect }, "node gpu2 is connected already"},
	} {
		l := newLab(t, "1.4.0")
		row.change(l)
		l.wantError(row.want)
		if l.tokens != 0 || l.read("agent-args") != "" {
			t.Errorf("%s: %d tokens, agent %q", row.want, l.tokens, l.read("agent-args"))
		}
	}
}

// TestScripts: the scripts are quoted for any login shell, and sh reads them.
func TestScripts(t *testing.T) {
	for _, script := range []string{probeScript, copyScript, processScript, serviceScript, watchProcessScript, watchServiceScript, processLogScript, serviceLogScript} {
		if strings.ContainsAny(script, "\n\\'") {
			t.Errorf("a line break, a backslash or a quote in %s", script)
		}
		if out, err := exec.Command("sh", "-n", "-c", script).CombinedOutput(); err != nil {
			t.Errorf("%v: %s in %s", err, out, script)
		}
	}
	if !strings.Contains(processScript, fmt.Sprintf("exit %d;", alreadyRuns)) || !strings.Contains(serviceScript, fmt.Sprintf("exit %d;", alreadyRuns)) {
		t.Errorf("no script exits with %d", alreadyRuns)
	}
	words := []string{"", "a b", "it's", `"$HOME" $(id)`, "*", "~", "!x"}
	out, err := exec.Command("sh", "-c", remoteCommand(`for word in "$@"; do echo "<$word>"; done`, words)).Output()
	if want := "<" + strings.Join(words, ">\n<") + ">\n"; err != nil || string(out) != want {
		t.Errorf("got %q (%v), want %q", out, err, want)
	}
}
