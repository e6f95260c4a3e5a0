package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"spacehost/internal/people"
	"spacehost/migrations"
)

// agentLab is a `spacehost serve` with an agent. Its hosts end and start again on the same state folder, with the same addresses:
// a Space at another address is started anew.
type agentLab struct {
	reloadLab
	token string // of ada
}

// agentTop is the top of each file. NAME in capitals are replaced.
const agentTop = `
agent: local
orphan_after: 10m
gpus: {machine: mock:4xH200}
quota: 2026-04
console: CONSOLE
drain: 30s
tiers: {lab: {unlimited: true}}
people: [{name: ada, tier: lab, tokens: [HASH]}]
spaces:
`

// agentSpaces are the Spaces of most tests.
const agentSpaces = `  - {folder: FOLDER, name: kept, address: ONE, python: PYTHON}
`

// newAgentLab returns a lab without a host, which ends with the test.
func newAgentLab(t *testing.T, spaces string) *agentLab {
	t.Helper()
	state := t.TempDir()
	token, hash := people.NewToken()
	folder, err := filepath.Abs("testdata/spaces/kept")
	if err != nil {
		t.Fatal(err)
	}
	l := &agentLab{reloadLab{product: &product{t: t}, file: filepath.Join(state, "lab.yaml")}, token}
	l.State = state
	l.vars = []string{"FOLDER", folder, "HASH", hash, "PYTHON", environment(t), "CONSOLE", freeAddress(t)}
	for _, name := range []string{"ONE", "TWO", "THREE"} {
		l.vars = append(l.vars, name, freeAddress(t))
	}
	l.write(t, spaces)
	t.Cleanup(l.endAll)
	return l
}

// serveAgentLab returns a lab with a running host.
func serveAgentLab(t *testing.T, spaces string) *agentLab {
	t.Helper()
	l := newAgentLab(t, spaces)
	l.start()
	return l
}

// write replaces the file, for the next host.
func (l *agentLab) write(t *testing.T, spaces string) {
	t.Helper()
	writeFile(t, l.file, strings.NewReplacer(l.vars...).Replace(agentTop+spaces))
}

// terminate sends SIGTERM to the host and waits until it has exited.
func (l *agentLab) terminate() {
	l.t.Helper()
	l.signal(syscall.SIGTERM)
}

func (l *agentLab) signal(s syscall.Signal) {
	l.t.Helper()
	if err := l.cmd.Process.Signal(s); err != nil {
		l.t.Fatal(err)
	}
	awaitClosed(l.t, "the host has exited", l.ended)
}

// ada connects a client to a Space.
func (l *agentLab) ada(name string) *client {
	l.t.Helper()
	return l.clientAs(l.space(name).URL, l.token)
}

// agents lists the running agents of the state folder.
func (p *product) agents() (pids []int) {
	for pid := range withArgument("agent --state " + p.State + " ") {
		pids = append(pids, pid)
	}
	return pids
}

// agent returns the pid of the only agent.
func (l *agentLab) agent() int {
	l.t.Helper()
	pids := l.agents()
	if len(pids) != 1 {
		l.t.Fatalf("agents %v, want one", pids)
	}
	return pids[0]
}

// endAll ends what is left of the lab, and checks that nothing outlasts its host and its agent.
func (l *agentLab) endAll() {
	if l.cmd != nil {
		l.kill()
	}
	for _, pid := range l.agents() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	l.wantNothingLeft("the end of the test")
	if l.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(l.State, "logs", "agent.log"))
		l.t.Logf("log of the agent:\n%s", log[max(0, len(log)-8000):])
	}
}

// wantNothingLeft waits until neither an agent nor a process of a Space is left.
func (l *agentLab) wantNothingLeft(after string) {
	l.t.Helper()
	eventually(l.t, "nothing is left after "+after, patience, func() bool { return len(l.agents())+len(processesOf(l.State)) == 0 })
}

// wantKept checks that a Space has the process that it had before.
func (l *agentLab) wantKept(name string, pid int) {
	l.t.Helper()
	if now := l.space(name); now.PID != pid || now.Stage != "RUNNING" {
		l.t.Errorf("%s: %s with pid %d, want the process that it had, %d", name, now.Stage, now.PID, pid)
	}
}

// wantOther checks that a Space runs in another process than before.
func (l *agentLab) wantOther(name string, pid int) {
	l.t.Helper()
	if now := l.space(name); now.PID == pid || now.Stage != "RUNNING" {
		l.t.Errorf("%s: %s with pid %d, want another process than %d", name, now.Stage, now.PID, pid)
	}
	if alive(pid) {
		l.t.Errorf("%s: its earlier process %d runs", name, pid)
	}
}

// inFolder returns a path in the working directory of a Space, as its processes see it.
func inFolder(pid int, name string) string { return fmt.Sprintf("/proc/%d/cwd/%s", pid, name) }

// awaitFile waits until a Space has created a file in its working directory.
func (l *agentLab) awaitFile(pid int, name string) {
	l.t.Helper()
	eventually(l.t, "the Space has created "+name, patience, func() bool { _, err := os.Stat(inFolder(pid, name)); return err == nil })
}

// database opens the database of the state folder, while no host runs.
func (p *product) database() *sql.DB {
	p.t.Helper()
	db, err := migrations.Open(p.t.Context(), filepath.Join(p.State, "spacehost.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { db.Close() })
	return db
}

// wantExactLedger checks the ledger with a number of leases (0: any), and the database by `spacehost db check`. No host may run.
func (p *product) wantExactLedger(leases int) {
	p.t.Helper()
	if code, out, errOut := p.cli("db", "check"); code != 0 {
		p.t.Errorf("db check: exit code %d, %s%s", code, out, errOut)
	}
	wantExactLedger(p.t.(*testing.T), filepath.Join(p.State, "spacehost.db"), leases)
}

// awaitClosed waits for the end of something.
func awaitClosed(t testing.TB, what string, ended <-chan struct{}) {
	t.Helper()
	eventually(t, what, killPatience, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
}

// workerOf waits until a call has a GPU and returns the pid of its worker.
func (l *agentLab) workerOf() int {
	l.t.Helper()
	awaitActive(l.t.(*testing.T), l.product)
	return l.leases().Open[0].Worker
}

// pidsBelow lists the processes of the Spaces by pid.
func pidsBelow(state string) string {
	var all []string
	for _, pid := range slices.Sorted(maps.Keys(processesOf(state))) {
		all = append(all, strconv.Itoa(pid))
	}
	return strings.Join(all, " ")
}

// agentVariable makes each `serve` of the tests start its Spaces through an agent (`make agent-suite`).
const agentVariable = "SPACEHOST_TEST_AGENT"

// agentKey is the first line of a file whose first line is empty otherwise, so that the lines of messages are the same.
func agentKey() string {
	if os.Getenv(agentVariable) == "" {
		return ""
	}
	return "agent: local"
}

// spacesOutlastHost reports whether the Spaces of a `serve` stay at SIGTERM.
func spacesOutlastHost() bool { return agentKey() != "" || isNodeSuite() }

// withAgent adds the key to the file of a `serve`, unless it is there already. What the agent keeps ends with the test.
func withAgent(t testing.TB, state string, args []string) {
	t.Helper()
	at := slices.Index(args, "--config")
	if agentKey() == "" || args[0] != "serve" || at < 0 {
		return
	}
	text, err := os.ReadFile(args[at+1])
	if err == nil && !bytes.Contains(text, []byte("agent:")) {
		key := agentKey()
		if !bytes.HasPrefix(text, []byte("\n")) {
			key += "\n"
		}
		err = os.WriteFile(args[at+1], append([]byte(key), text...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	lab := &agentLab{reloadLab: reloadLab{product: &product{t: t}}}
	lab.State = state
	t.Cleanup(lab.endAll)
}

// endWithAgent sends a signal to the host, and then to the agent that would keep its Spaces, if the suite runs with one.
func (p *product) endWithAgent(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	awaitClosed(p.t, "the host has exited", p.ended)
	for _, pid := range p.agents() {
		_ = syscall.Kill(pid, s)
	}
	if n := nodeOf(p.State); n != nil {
		n.agent.signal(s)
	}
}
