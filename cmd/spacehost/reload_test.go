package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/control"
	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/internal/space"
	"spacehost/internal/views"
)

// reloadLab is a `spacehost serve` whose file the test changes. Its Spaces "kept" and "changed" are copies of leases.
type reloadLab struct {
	*product
	file    string
	vars    []string // of strings.NewReplacer
	manager *managerSocket
}

const reloadTop = `
gpus: {machine: mock:2xH200, large: 1/2}
quota: 2026-04
console: 127.0.0.1:0
drain: 30s
webhooks: [{url: "http://127.0.0.1:1/PRIVATE", name: ops, events: [disk.low]}]
`

func serveReload(t *testing.T, text string, vars ...string) *reloadLab {
	t.Helper()
	state := t.TempDir()
	leases, err := filepath.Abs(leasesDir)
	if err != nil {
		t.Fatal(err)
	}
	l := &reloadLab{file: filepath.Join(state, "lab.yaml"), vars: append(vars, "LEASES", leases, "PYTHON", environment(t))}
	l.write(t, text)
	socket, manager := newManagerSocket(t)
	l.manager = manager
	l.product = startCommandWith(t, []string{"NOTIFY_SOCKET=" + socket}, state, "serve", "--config", l.file)
	t.Cleanup(l.kill)
	l.awaitReady()
	return l
}

func (l *reloadLab) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(l.file, []byte(agentKey()+reloadTop+strings.NewReplacer(l.vars...).Replace(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	onNode(t, filepath.Dir(l.file), l.file)
}

// start starts the next host of the lab and waits until its Spaces answer.
func (l *reloadLab) start() {
	l.t.Helper()
	l.product = startCommandWith(l.t, nil, l.State, "serve", "--config", l.file)
	l.t.Cleanup(l.product.kill)
	l.awaitReady()
}

// space returns a Space as the operator sees it.
func (l *reloadLab) space(name string) (found views.Space) {
	l.t.Helper()
	for _, s := range controlJSON[views.Health](l.t, l.product, "/healthz").Spaces {
		if s.Name == name {
			found = s
		}
	}
	return found
}

// isUsingGPU reports whether one call holds a GPU.
func (l *reloadLab) isUsingGPU() bool {
	open := l.leases().Open
	return len(open) == 1 && open[0].State == lease.Active
}

// ledgerReasons returns the reasons of an account's settlements with their charges.
func (l *reloadLab) ledgerReasons(account string) map[string]float64 {
	l.t.Helper()
	_, out, _ := l.cli("ledger", account, "--json")
	var entries []views.Entry
	if err := json.Unmarshal([]byte(out), &entries); err != nil {
		l.t.Fatalf("ledger: %v: %s", err, out)
	}
	charged := map[string]float64{}
	for _, e := range entries {
		if e.Kind == "settle" {
			charged[e.Reason] += e.ChargedSeconds
		}
	}
	return charged
}

const reloadSpaces = `
people: [{name: ada, tier: pro, tokens: [HASH]}]
spaces:
  - {folder: LEASES, name: kept, address: "127.0.0.1:0", python: PYTHON}
  - {folder: LEASES, name: changed, address: "127.0.0.1:0", python: PYTHON}
`

// TestReload applies changes of the file while clients call: a wrong file, each kind of change, and a revoked token.
func TestReload(t *testing.T) {
	t.Parallel()
	token, hash := people.NewToken()
	l := serveReload(t, reloadSpaces, "HASH", hash)
	kept, changed := l.space("kept"), l.space("changed")
	streaming := l.clientAs(kept.URL, token)
	onKept := streaming.submit("/slow", 12)
	onChanged := l.clientAt(changed.URL)
	running, waiting := onChanged.submit("/slow", 4), onChanged.submit("/slow", 0)

	l.write(t, strings.Replace(reloadSpaces, "tier: pro", "tier: gold", 1))
	if code, _, errOut := l.cli("reload"); code != 6 || !strings.Contains(errOut, `people[0].tier: no tier "gold"`) {
		t.Errorf("a wrong file: exit code %d: %s", code, errOut)
	}

	l.write(t, strings.Replace(reloadSpaces, "name: changed,", "name: changed, secrets: {KEY: marker-7413}, concurrency: 1,", 1)+
		`  - {folder: LEASES, name: added, address: "127.0.0.1:0", python: PYTHON}`+"\n")
	code, out, errOut := l.cli("reload")
	for _, want := range []string{"+ space added (", "~ space changed: concurrency none -> 1\n", "~ space changed: secrets.KEY none -> set (the Space restarts)\n", "lab.yaml: applied, changes: 3 (configuration "} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("reload: exit code %d, want %q in %s%s", code, want, out, errOut)
		}
	}
	if code, out, errOut := l.cli("webhook", "test"); code != 1 || !strings.HasPrefix(out, "ops: not accepted: dial tcp 127.0.0.1:1: connect: connection refused") || !strings.Contains(errOut, "1 of 1 webhooks did not accept the test") || strings.Contains(out+errOut, "PRIVATE") {
		t.Errorf("webhook test: exit code %d, %s%s", code, out, errOut)
	}
	if code, out, _ := l.cli("webhook", "list"); code != 0 || !strings.Contains(out, "disk.low") || strings.Contains(out, "PRIVATE") {
		t.Errorf("webhook list: exit code %d, %s", code, out)
	}
	first, second := running.wait(), waiting.wait()
	if first.Failed || second.Failed {
		t.Errorf("calls of a Space that restarts: %+v and %+v, want both with a value", first, second)
	}
	eventually(t, "the added Space runs", patience, func() bool { return l.space("added").Stage == string(space.Running) })
	if now := l.space("changed"); now.PID == changed.PID {
		t.Error("the changed Space has not restarted")
	}
	ended := streaming.submit("/minute", 50) // its messages arrive over the open stream of the call before
	if r := onKept.wait(); r.Failed {
		t.Errorf("the call of an unchanged Space: %+v", r)
	}
	if now := l.space("kept"); now.PID != kept.PID {
		t.Errorf("the unchanged Space has restarted: pid %d, was %d", now.PID, kept.PID)
	}

	eventually(t, "ada's call has a GPU", patience, l.isUsingGPU)
	tokens := controlJSON[[]control.Token](t, l.product, "/tokens")
	if code, _, errOut := l.cli("token", "revoke", tokens[0].ID); code != 0 {
		t.Fatalf("token revoke: %s", errOut)
	}
	if r := ended.wait(); !r.Failed || !strings.Contains(r.Err, "its token was revoked") {
		t.Errorf("the call of a revoked token: %+v", r)
	}
	eventually(t, "ada's call has ended", patience, func() bool { return len(l.leases().Open) == 0 })
	if err := l.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "SIGHUP reloads", patience, func() bool { return strings.Contains(l.log(), `"by":"SIGHUP"`) })
	eventually(t, "the service manager is told", patience, func() bool { return l.manager.has("RELOADING=1") && l.manager.has("READY=1") })
	if status, _ := request(t, "GET", kept.URL+"/config", "", bearer(token)); status != 401 {
		t.Errorf("a revoked token that the file still declares: %d, want 401", status)
	}
	var created control.CreatedToken
	_, _, _ = l.cli("user", "add", "zed")
	if code, out, errOut := l.cli("token", "create", "zed", "--json"); code != 0 || json.Unmarshal([]byte(out), &created) != nil {
		t.Fatalf("token create: %s%s", out, errOut)
	}
	before, _ := request(t, "GET", kept.URL+"/config", "", bearer(created.Text))
	if code, out, errOut := l.cli("user", "remove", "zed"); code != 0 || !strings.HasPrefix(out, "zed is removed, and all tokens of this person are revoked.") {
		t.Errorf("user remove: exit code %d: %s%s", code, out, errOut)
	}
	if after, _ := request(t, "GET", kept.URL+"/config", "", bearer(created.Text)); before != 200 || after != 401 {
		t.Errorf("a token of a removed person: %d before, %d after, want 200 and 401", before, after)
	}
	if strings.Contains(l.log()+l.text(), "marker-7413") {
		t.Error("the value of a Secret is logged")
	}
}

// TestDrain restarts a Space and ends the host while clients call. Calls that are cut off end with a sentence and are not
// charged.
func TestDrain(t *testing.T) {
	t.Parallel()
	token, hash := people.NewToken()
	l := serveReload(t, reloadSpaces, "HASH", hash)
	kept := l.space("kept")
	client := l.clientAs(kept.URL, token)

	cut := client.submit("/minute", 50)
	eventually(t, "the call has a GPU", patience, l.isUsingGPU)
	if code, out, errOut := l.cli("space", "restart", "kept"); code != 0 || !strings.Contains(out, "within 30 s at most") {
		t.Errorf("restart: %d %s%s", code, out, errOut)
	}
	eventually(t, "the restart waits for the call", patience, func() bool { return strings.Contains(l.text(), "kept: running calls may end within 30s.") })
	if code, _, errOut := l.cli("space", "restart", "kept", "--now"); code != 0 {
		t.Errorf("restart --now: %s", errOut)
	}
	if r := cut.wait(); !r.Failed || r.Err != "The operator restarted the Space." {
		t.Errorf("a call that a restart has cut off: %+v", r)
	}
	eventually(t, "the Space runs again", patience, func() bool { now := l.space("kept"); return now.PID != kept.PID && now.Stage == string(space.Running) })
	for reason, charged := range l.ledgerReasons("user:ada") {
		if !strings.HasPrefix(reason, "restarted by ") || charged != 0 {
			t.Errorf("the ledger has %q with %g s, want a restart with 0 s", reason, charged)
		}
	}

	other := l.clientAs(l.space("changed").URL, token)
	long := other.submit("/minute", 55)
	eventually(t, "the call has a GPU", patience, l.isUsingGPU)
	running := client.submit("/slow", 8)
	eventually(t, "the first call starts", patience, func() bool { return strings.Contains(l.log(), `"endpoint":"slow"`) })
	waiting := client.submit("/slow", 0)
	eventually(t, "the second call waits", patience, func() bool { return l.space("kept").Queued == 1 })
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service manager waits for the drain", patience, func() bool { return l.manager.has("EXTEND_TIMEOUT_USEC=60000000") })
	stopped := "The host stopped the Space."
	if spacesOutlastHost() {
		stopped = "The host restarts." // the Spaces stay
	}
	if r := waiting.wait(); !r.Failed || r.Err != stopped {
		t.Errorf("the waiting call of a stopping host: %+v", r)
	}
	if r := running.wait(); r.Failed {
		t.Errorf("the running call of a stopping host: %+v", r)
	}
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if r := long.wait(); !r.Failed || r.Err != stopped {
		t.Errorf("the call that a second signal has cut off: %+v", r)
	}
	select {
	case <-l.ended:
	case <-time.After(patience):
		t.Fatal("the host does not end")
	}
	if took := time.Since(began); took > 45*time.Second || l.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("the end took %s, exit code %d", took, l.cmd.ProcessState.ExitCode())
	}
	if left := processesOf(l.State); len(left) > 0 && !spacesOutlastHost() {
		t.Errorf("processes left: %v", left)
	}
}
