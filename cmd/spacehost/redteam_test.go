package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"spacehost/internal/feature/featuretest"
	"spacehost/internal/people"
	"spacehost/internal/sandbox"
	"spacehost/internal/views"
)

const (
	redteamDir = "testdata/spaces/redteam"
	codeDir    = "testdata/spaces/code"
)

// redteam is a host with a hostile Space, another person's private Space (victim) and a public Space (open). Whatever a
// Space must not reach contains a canary: a text that begins with "CANARY".
type redteam struct {
	*product
	level    string
	folders  string // copies of the Spaces
	home     string // of the host's user
	venv     string // environment of the hostile Space
	services *services
	token    string // of ada, the only member of the victim
	facts    map[string]any
	client   *client
}

// TestRedTeam runs every attack at every level of isolation, in the Space's own process and in a GPU worker. A level fails if it
// stops less than it promises, and also if it stops what it lets through: such an attack would prove nothing at the other levels.
func TestRedTeam(t *testing.T) {
	for _, one := range []struct{ level, disable string }{
		{"none", "userns,landlock"}, {"files", "userns"}, {"namespaces", ""},
	} {
		t.Run(one.level, func(t *testing.T) {
			requireLevel(t, one.level)
			if one.level != "namespaces" {
				requireOwnMachine(t, "a Space runs on a node at level namespaces only")
			}
			r := newRedteam(t, one.level, one.disable)
			before := r.outside()
			for _, place := range []string{"/attack_here", "/attack_in_worker"} {
				r.attackFrom(place)
			}
			if one.level == "namespaces" {
				r.wantUnchanged(before)
				r.wantRefusalsShown()
				r.wantFilesServed()
			}
		})
	}
}

// requireLevel skips the test if the machine lacks the level, or fails it if SPACEHOST_REQUIRE_ALL is set.
func requireLevel(t *testing.T, level string) {
	t.Helper()
	var err error
	switch level {
	case "files":
		err = filesProbe().Err
	case "namespaces":
		var probe sandbox.NamespacesProbe
		if probe, err = sandbox.Probe(t.TempDir()); err == nil {
			err = probe.Err
		}
	}
	if err != nil {
		featuretest.Missing(t, "this machine does not offer the level %s (%v)", level, err)
	}
}

// newRedteam starts the host. The level is the best of those that disable leaves.
func newRedteam(t *testing.T, level, disable string) *redteam {
	t.Helper()
	r := &redteam{level: level, folders: t.TempDir(), home: t.TempDir(), services: newServices(t)}
	state := t.TempDir()
	r.plantHome(t)
	r.venv = layeredVenv(t)
	for name, source := range map[string]string{"redteam": redteamDir, "victim": codeDir, "open": codeDir} {
		if err := os.CopyFS(filepath.Join(r.folders, name), os.DirFS(source)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(r.folders, "redteam", "shipped.txt"), "shipped")
	file := filepath.Join(t.TempDir(), "lab.yaml")
	writeFile(t, file, r.config(t))
	r.product = startCommandWith(t, []string{"SPACEHOST_DISABLE=" + disable, "HOME=" + r.home, "XDG_CACHE_HOME=", "HF_HOME=", "REDTEAM_SECRET=CANARY-of-the-victim"}, state,
		"serve", "--config", file)
	t.Cleanup(r.stop)
	r.awaitReady()
	for _, s := range r.Spaces {
		if s.Level != level || s.Stage != "RUNNING" {
			t.Fatalf("%s is %s at level %s, want RUNNING at %s", s.Name, s.Stage, s.Level, level)
		}
	}
	r.client = r.clientAt(r.Spaces[0].URL)
	r.collectFacts()
	return r
}

// config returns the configuration. At level namespaces the port of the canary services is one of the hostile Space's egress,
// so that the policy of addresses decides, not the port.
func (r *redteam) config(t *testing.T) string {
	token, hash := people.NewToken()
	r.token = token
	egress := ""
	if r.level == "namespaces" {
		egress = fmt.Sprintf(`, egress: {ports: [%d]}`, r.services.port)
		if os.Geteuid() != 0 { // the kernel refuses the fork; root's processes are counted, and too many end the Space (TestProcessLimit)
			egress += `, limits: {processes: 300}`
		}
	}
	return strings.NewReplacer("FOLDERS", r.folders, "VENV", filepath.Join(r.venv, "bin", "python"), "PYTHON", environment(t), "HASH", hash, "EGRESS", egress).Replace(`
gpus: {machine: mock:4xH200, large: 1}
quota: 2026-04
console: 127.0.0.1:0
isolation: auto
people: [{name: ada, tokens: [HASH]}]
spaces:
  - {folder: FOLDERS/redteam, address: "127.0.0.1:0", python: VENVEGRESS}
  - {folder: FOLDERS/victim, address: "127.0.0.1:0", python: PYTHON, visibility: private, members: [ada], secrets: {TOKEN: {env: REDTEAM_SECRET}}}
  - {folder: FOLDERS/open, address: "127.0.0.1:0", python: PYTHON}
`)
}

// plantHome fills the home of the host's user with canaries.
func (r *redteam) plantHome(t *testing.T) {
	t.Helper()
	for path, text := range map[string]string{
		".ssh/id_ed25519": "CANARY-ssh", ".bashrc": "# CANARY-bashrc", ".cache/huggingface/token": "CANARY-hub", ".cache/uv/wheel.txt": "CANARY-uv",
		".cache/huggingface/hub/models--org--model/config.json": "CANARY-model",
	} {
		writeFile(t, filepath.Join(r.home, path), text)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// layeredVenv returns an environment with the packages of the shared test environment. Attacks may write into it.
func layeredVenv(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "environment")
	script := `import pathlib, site, sys, sysconfig, venv
venv.create(sys.argv[1])
names = {"base": sys.argv[1], "platbase": sys.argv[1]}
pathlib.Path(sysconfig.get_path("purelib", "venv", names), "shared.pth").write_text(sysconfig.get_path("purelib"))`
	if out, err := exec.Command(environment(t), "-c", script, dir).CombinedOutput(); err != nil {
		t.Fatalf("create an environment: %v\n%s", err, out)
	}
	writeFile(t, filepath.Join(dir, "redteam.txt"), "CANARY-environment")
	return dir
}

// runCode lets another Space of this host run code, and returns what it prints.
func (p *product) runCode(space int, token, code string) string {
	p.t.Helper()
	status, body := request(p.t.(*testing.T), "POST", p.Spaces[space].URL+"/", code, bearer(token))
	if status != 200 {
		p.t.Fatalf("code in %s: %d %s\n%s", p.Spaces[space].Name, status, body, code)
	}
	return strings.TrimSpace(body)
}

// view returns a Space as the operator sees it.
func (p *product) view(name string) views.Space {
	p.t.Helper()
	for _, s := range controlJSON[views.Health](p.t, p, "/healthz").Spaces {
		if s.Name == name {
			return s
		}
	}
	p.t.Fatalf("no Space %s", name)
	return views.Space{}
}

// victim is the index of the victim in the list of Spaces.
const victim = 1

// collectFacts gives the attacker everything that the test knows: places, pids, ports and keys.
func (r *redteam) collectFacts() {
	r.t.Helper()
	t := r.t.(*testing.T)
	writeFile(t, filepath.Join(r.stateOfSpaces(), "spaces", "victim", "home", "note.txt"), "CANARY-neighbour")
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	victimPort, err := strconv.Atoi(r.runCode(victim, r.token, "print(server.server_port)"))
	if err != nil {
		t.Fatal(err)
	}
	canary := r.services.startCanary(t)
	r.facts = map[string]any{
		"home": r.home, "state": r.State, "victim_folder": filepath.Join(r.folders, "victim"), "environment": r.venv,
		"shared_memory": r.services.sharedMemory, "temporary": r.services.temporary,
		"host": r.cmd.Process.Pid, "host_address": firstAddress(t, r.cmd.Process.Pid), "victim": r.view("victim").PID, "canary": canary, "canary_argument": r.services.argument,
		"control_key": controlKey(t, r.Socket), "console": r.Console, "public_url": r.Spaces[2].URL, "victim_url": r.Spaces[victim].URL,
		"victim_port": victimPort, "victim_door": r.runCode(victim, r.token, `import os; print(os.environ["SPACES_ZERO_DEVICE_API_URL"])`),
		"port": r.services.port, "hidden_port": r.services.hidden, "runner": r.runner(), "machine": r.services.machine, "machine_name": name, "abstract": r.services.abstract, "named": r.services.named,
		"disk": r.services.disk, "system_v": r.services.systemV,
	}
}

// runner returns a file that every Space imports at its start.
func (r *redteam) runner() string {
	r.t.Helper()
	found, err := filepath.Glob(filepath.Join(r.stateOfSpaces(), "runner", "*", "sitecustomize.py"))
	if err != nil || len(found) != 1 {
		r.t.Fatalf("the runner: %v (%v), want one file", found, err)
	}
	return found[0]
}

// firstAddress returns the first mapped address of a process.
func firstAddress(t *testing.T, pid int) uint64 {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(maps), "-")
	address, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// startOf returns the start time of a process as in /proc/PID/stat, "" without one.
func startOf(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// attackResult is the attacker's report on one attack.
type attackResult struct {
	Attack    string
	Succeeded bool
	Detail    string
}

// run lets the hostile Space run attacks at an endpoint.
func (r *redteam) run(api string, names ...string) map[string]attackResult {
	r.t.Helper()
	facts := map[string]any{"names": names, "starts": map[string]string{}}
	for key, value := range r.facts {
		facts[key] = value
	}
	for _, key := range []string{"host", "victim", "canary", "killable"} {
		if pid, ok := facts[key].(int); ok {
			facts["starts"].(map[string]string)[strconv.Itoa(pid)] = startOf(pid)
		}
	}
	text, err := json.Marshal(facts)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []attackResult
	if err := json.Unmarshal([]byte(r.client.ok(api, string(text))), &all); err != nil {
		r.t.Fatal(err)
	}
	found := map[string]attackResult{}
	for _, one := range all {
		found[one.Attack] = one
	}
	return found
}

// attackFrom runs the whole table from one place and compares it with what the level promises.
func (r *redteam) attackFrom(place string) {
	r.t.Helper()
	t := r.t.(*testing.T)
	mark := "mark" + strings.ReplaceAll(place, "/", "_")
	r.facts["mark"], r.facts["killable"] = mark, r.services.startCanary(t)
	names := make([]string, len(attackTable))
	for i, row := range attackTable {
		names[i] = row.name
	}
	began := time.Now()
	found := r.run(place, names...)
	t.Logf("%d attacks at %s: %s", len(names), place, time.Since(began).Round(time.Millisecond))
	connections := r.services.connections.Load()
	if r.level == "namespaces" && connections > 0 {
		t.Errorf("%s: %d connections reached services of this machine", place, connections)
	}
	for _, row := range attackTable {
		r.judge(place, row, found[row.name])
	}
}

// judge compares the outcome of an attack with the promise. Effects outside are looked for outside.
func (r *redteam) judge(place string, row attackRow, got attackResult) {
	r.t.Helper()
	if got.Attack == "" {
		r.t.Errorf("%s, %s: no result", place, row.name)
		return
	}
	succeeded := got.Succeeded
	if row.effect != nil {
		succeeded = row.effect(r, got)
	}
	want, judged := row.at(r)
	if !judged && !succeeded {
		r.t.Logf("%s, level %s, %q: fails on this machine, so its failure at other levels proves nothing: %.100s", place, r.level, row.name, got.Detail)
	}
	if judged && succeeded != want {
		r.t.Errorf("%s, level %s, %q: succeeded %t, want %t: %.300s", place, r.level, row.name, succeeded, want, got.Detail)
	}
	if text := got.Detail; r.level == "namespaces" && strings.Contains(text, "CANARY") && !slices.Contains(ownCanaries, row.name) {
		r.t.Errorf("%s, %q: the answer contains a canary: %.300s", place, row.name, text)
	}
}
