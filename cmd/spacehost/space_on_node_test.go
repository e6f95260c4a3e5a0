package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/control"
	"spacehost/internal/lease"
	"spacehost/internal/nodes"
	"spacehost/internal/people"
	"spacehost/internal/views"
)

// nodeLab is a front with a Space "far" on the node gpu2, and its own Space "kept". All addresses outlast a restart.
type nodeLab struct {
	reloadLab
	token string // of ada
	home  string // state folder of the node
	agent *nodeAgent
}

const nodeTop = `
cluster: {listen: CLUSTER}
isolation: namespaces
gpus: {machine: mock:1xH200}
quota: 2026-04
console: CONSOLE
drain: 30s
tiers: {lab: {unlimited: true}}
people: [{name: ada, tier: lab, tokens: [HASH]}]
spaces:
  - {folder: KEPT, name: kept, address: OTHER, python: PYTHON}
`

const farSpace = `  - {folder: FAR, name: far, address: ADDRESS, on: gpu2, variables: {CALLED: "http://OTHER"}}
`

// serveNodeLab returns a running front without a node.
func serveNodeLab(t *testing.T) *nodeLab {
	t.Helper()
	return startNodeLab(t, nodeTop)
}

// startNodeLab is serveNodeLab with another beginning of the file.
func startNodeLab(t *testing.T, top string) *nodeLab {
	t.Helper()
	l := newNodeLab(t)
	writeFile(t, l.file, strings.NewReplacer(l.vars...).Replace(top+farSpace))
	l.start()
	return l
}

// joinedNodeLab returns a front with the Space far on the node gpu2.
func joinedNodeLab(t *testing.T) *nodeLab {
	t.Helper()
	l := serveNodeLab(t)
	l.joinFirst()
	l.awaitFar()
	return l
}

// newNodeLab returns a lab without a front and without its file.
func newNodeLab(t *testing.T) *nodeLab {
	t.Helper()
	requireLevel(t, "namespaces")
	state := t.TempDir()
	token, hash := people.NewToken()
	l := &nodeLab{reloadLab: reloadLab{product: &product{t: t}, file: filepath.Join(state, "lab.yaml")}, token: token, home: t.TempDir()}
	l.State = state
	l.vars = []string{"HASH", hash, "PYTHON", environment(t)}
	for _, name := range []string{"kept", "far"} {
		folder, err := filepath.Abs(filepath.Join("testdata/spaces", name))
		if err != nil {
			t.Fatal(err)
		}
		l.vars = append(l.vars, strings.ToUpper(name), folder)
	}
	for _, name := range []string{"CLUSTER", "CONSOLE", "OTHER", "ADDRESS"} {
		l.vars = append(l.vars, name, freeAddress(t))
	}
	return l
}

func (l *nodeLab) write(t *testing.T, spaces string) {
	t.Helper()
	writeFile(t, l.file, strings.NewReplacer(l.vars...).Replace(nodeTop+spaces))
}

// join starts the agent of the node.
func (l *nodeLab) join(args ...string) {
	l.t.Helper()
	agent := startAgent(l.t.(*testing.T), l.Cluster, l.home, args...)
	l.agent = agent
	l.t.Cleanup(func() {
		if !l.t.Failed() {
			return
		}
		_ = agent.cmd.Process.Signal(syscall.SIGQUIT) // it prints its goroutines
		select {
		case <-agent.ended:
		case <-time.After(10 * time.Second): // it is stopped
		}
		l.t.Logf("output of the agent:\n%s", agent.text())
	})
}

// joinFirst is join with a new token.
func (l *nodeLab) joinFirst(args ...string) {
	l.t.Helper()
	l.join(append([]string{"--token-file", l.joinToken("--name", "gpu2"), "--name", "gpu2"}, args...)...)
}

// awaitFar waits until the Space runs on the node, and returns it.
func (l *nodeLab) awaitFar() (far views.Space) {
	l.t.Helper()
	eventually(l.t, "far runs on gpu2", killPatience, func() bool { far = l.space("far"); return far.Stage == "RUNNING" && far.Node == "gpu2" })
	return far
}

// ada connects a client to a Space.
func (l *nodeLab) ada(name string) *client {
	l.t.Helper()
	return l.clientAs(l.space(name).URL, l.token)
}

// awaitNewest waits until no lease is open and n have ended, and returns the newest.
func (l *nodeLab) awaitNewest(n int) lease.Past {
	l.t.Helper()
	var all control.Leases
	eventually(l.t, fmt.Sprintf("%d leases have ended", n), patience, func() bool { all = l.leases(); return len(all.Open) == 0 && len(all.Ended) == n })
	return all.Ended[0]
}

// wantNothingOnNode waits until no process of a Space is left on the node.
func (l *nodeLab) wantNothingOnNode(after string) {
	l.t.Helper()
	eventually(l.t, "nothing is left on the node after "+after, patience, func() bool { return len(processesOf(l.home)) == 0 })
}

// TestSpaceOnNode covers what visitors and operators have of a Space on a node.
func TestSpaceOnNode(t *testing.T) {
	t.Parallel()
	l := serveNodeLab(t)
	eventually(t, "far waits for a node", patience, func() bool {
		return l.space("far").WaitsForNode && strings.Contains(l.must("space", "list"), "waits for a machine")
	})
	if waits := l.metrics()[`spacehost_space_waits_for_node{space="far"}`]; waits != 1 {
		t.Errorf("spacehost_space_waits_for_node is %v, want 1", waits)
	}
	l.joinFirst()
	pid := l.awaitFar().PID
	if !alive(pid) || len(processesOf(l.home)) == 0 {
		t.Errorf("far has pid %d, and the node has processes %v", pid, processesOf(l.home))
	}
	if out := l.must("space", "list"); !strings.HasPrefix(out, "SPACE  STAGE    NODE ") || !strings.Contains(out, "\nfar    RUNNING  gpu2 ") || !strings.Contains(out, "\nkept   RUNNING  host ") {
		t.Errorf("spacehost space list prints\n%s", out)
	}

	c := l.ada("far")
	wantText(t, "a plain call", c.ok("/count"), "1")
	wantText(t, "the state of the session", c.ok("/count"), "2")
	wantText(t, "the state of another session", l.ada("far").ok("/count"), "1")
	if r := c.call("/steps", 3); r.Failed || len(r.Steps) != 3 || text(r.Value) != "1 2 3 " {
		t.Errorf("the generator: steps %s, value %s, error %q", r.Steps, r.Value, r.Err)
	}
	l.wantFiles(c)

	running := c.submit("/on_gpu", 2)
	awaitActive(t, l.product)
	if out := l.must("lease"); !strings.HasPrefix(out, "NODE  LEASE ") || !strings.Contains(out, "\ngpu2  ") {
		t.Errorf("spacehost lease prints\n%s", out)
	}
	if out := l.must("gpu"); !strings.Contains(out, "\ngpu2  ") || !strings.Contains(out, "held by far (lease "+l.leases().Open[0].Lease+")") {
		t.Errorf("spacehost gpu prints\n%s", out)
	}
	if r := running.wait(); text(r.Value) != "computed" {
		t.Errorf("the GPU call: %+v", r)
	}
	if ended := l.awaitNewest(1); ended.Machine != "gpu2" || ended.State != lease.Released || ended.ChargedSeconds < 2 || ended.ChargedSeconds > 20 {
		t.Errorf("the lease of 2 s has ended as %+v", ended)
	}
	if r := c.call("/overstay"); !strings.Contains(r.Err, "GPU task aborted") {
		t.Errorf("the call that overstays: %+v", r)
	}
	if ended := l.awaitNewest(2); ended.Machine != "gpu2" || ended.State != lease.Expired || ended.ChargedSeconds < 2 {
		t.Errorf("the lease of the call that overstays has ended as %+v", ended)
	}

	wantText(t, "a call of a Space on the front", c.ok("/call_other"), "computed")
	if ended := l.awaitNewest(3); ended.Machine != "" || ended.Space != "kept" || ended.Identity != "space:far" {
		t.Errorf("the lease of the called Space has ended as %+v, want far as its payer", ended)
	}
	l.wantPrunes()
	l.wantMetrics()
	l.stop()
	l.wantNothingOnNode("the end of the front")
	l.wantExactLedger(3)
}

// wantFiles uploads a file, and downloads what the Space makes of it.
func (l *nodeLab) wantFiles(c *client) {
	l.t.Helper()
	content := bytes.Repeat([]byte("0123456789\x00\xff"), 100_000)
	path := filepath.Join(l.t.TempDir(), "sent.bin")
	writeFile(l.t.(*testing.T), path, string(content))
	r := c.call("/double", map[string]any{"path": path, "meta": map[string]string{"_type": "gradio.FileData"}})
	if r.Failed {
		l.t.Fatalf("the call with a file: %s", r.Err)
	}
	if got, err := os.ReadFile(text(r.Value)); err != nil || !bytes.Equal(got, append(slices.Clone(content), content...)) {
		l.t.Errorf("the file of the Space has %d bytes (%v), want twice the %d that were sent", len(got), err, len(content))
	}
	if len(filesNamed(l.t, l.home, "sent.bin")) != 1 || len(filesNamed(l.t, l.State, "sent.bin")) != 0 {
		l.t.Errorf("the upload is at %q of the node and at %q of the front", filesNamed(l.t, l.home, "sent.bin"), filesNamed(l.t, l.State, "sent.bin"))
	}
}

// filesNamed lists the files of that name below a folder.
func filesNamed(t testing.TB, dir, name string) (all []string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == name {
			all = append(all, path)
		}
		return nil // folders of a running Space come and go
	})
	return all
}

// oldHome makes the home of a Space on the node that is older than all environments, which the tests share.
func (l *nodeLab) oldHome(name string) string {
	l.t.Helper()
	home := filepath.Join(l.home, "spaces", name, "home")
	model := filepath.Join(home, "model.bin")
	err := os.MkdirAll(home, 0o700)
	if err == nil {
		err = os.WriteFile(model, []byte("weights"), 0o600)
	}
	for _, at := range []string{model, home, filepath.Dir(home)} {
		if err == nil {
			err = os.Chtimes(at, time.Time{}, time.Unix(1e9, 0))
		}
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return home
}

// wantPrunes removes the folder of a Space on the node that no configuration has, and not that of one which does not run there now.
func (l *nodeLab) wantPrunes() {
	l.t.Helper()
	old, configured := l.oldHome("old"), l.oldHome("kept")
	for _, row := range []struct {
		args  []string
		stays bool
	}{{[]string{"--keep", "5000d", "--dry-run"}, true}, {[]string{"--keep", "20000d"}, true}, {[]string{"--keep", "5000d"}, false}} {
		out := l.must(append([]string{"prune", "--node", "gpu2"}, row.args...)...)
		if _, err := os.Stat(old); (err == nil) != row.stays || strings.Contains(out, "spaces/far") {
			l.t.Errorf("prune %v: the folder of a removed Space stays: %v, want %v\n%s", row.args, err == nil, row.stays, out)
		}
		if _, err := os.Stat(configured); err != nil {
			l.t.Errorf("prune %v: the folder of a Space of the front: %v", row.args, err)
		}
	}
	if code, _, errOut := l.cli("prune", "--node", "gpu9"); code == 0 || !strings.Contains(errOut, "no node gpu9 is connected") {
		l.t.Errorf("prune of an unknown node: %d %s", code, errOut)
	}
	if got := l.ada("far").ok("/count"); got != "1" {
		l.t.Errorf("a call after prune: %s", got)
	}
}

// TestNodeOutlastsFront restarts the front around a Space on a node, ends the agent in both ways, and takes the Space from the node.
func TestNodeOutlastsFront(t *testing.T) {
	t.Parallel()
	l := joinedNodeLab(t)
	pid, c := l.space("far").PID, l.ada("far")
	wantText(t, "a call before", c.ok("/count"), "1")

	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitClosed(t, "the front has exited", l.ended)
	if !alive(pid) {
		t.Error("the Space has ended with its front")
	}
	l.start()
	if now := l.awaitFar().PID; now != pid {
		t.Errorf("after a restart of the front the Space runs as %d, want %d", now, pid)
	}
	wantText(t, "a call of the same session", c.ok("/count"), "2")
	wantText(t, "a GPU call", c.ok("/on_gpu", 0), "computed")
	l.awaitNewest(1)

	running := c.submit("/on_gpu", 25)
	awaitActive(t, l.product)
	l.agent.kill()
	l.wantNothingOnNode("SIGKILL of the agent")
	if r := running.wait(); !r.Failed {
		t.Errorf("the call on a killed node: %s, want an error", r.Value)
	}
	l.join()
	l.awaitFar()
	if ended := l.awaitNewest(2); ended.Machine != "gpu2" || ended.ChargedSeconds > 25 {
		t.Errorf("the lease on the killed node has ended as %+v", ended)
	}
	wantText(t, "a GPU call after the return of the node", l.ada("far").ok("/on_gpu", 0), "computed")
	l.awaitNewest(3)

	l.agent.signal(syscall.SIGTERM)
	l.agent.wantExit(0, "")
	l.wantNothingOnNode("SIGTERM of the agent")
	l.join()
	l.awaitFar()

	l.write(t, strings.Replace(farSpace, "on: gpu2", "on: host", 1))
	l.must("reload")
	l.wantNothingOnNode("`on: host`")
	eventually(t, "far runs on the front", patience, func() bool { far := l.space("far"); return far.Stage == "RUNNING" && far.Node == "host" })
	l.write(t, farSpace)
	l.must("reload")
	l.awaitFar()
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitClosed(t, "the front has exited", l.ended)
	l.write(t, "")
	l.start()
	l.awaitNode("gpu2", nodes.Connected)
	l.wantNothingOnNode("the removal of the Space while no front runs")
	l.write(t, farSpace)
	l.must("reload")
	l.awaitFar()
	l.write(t, "")
	l.must("reload")
	l.wantNothingOnNode("the removal of the Space by a reload")
	if l.node("gpu2").State != string(nodes.Connected) {
		t.Errorf("the node is %+v", l.node("gpu2"))
	}
	l.stop()
	l.wantExactLedger(3)
}
