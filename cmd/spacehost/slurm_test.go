package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/internal/control"
	"spacehost/internal/lease"
	"spacehost/internal/nodes"
	"spacehost/internal/people"
)

// realSlurm is set by `make slurm`: the tests use the Slurm of testdata/slurm/bed.sh. Otherwise its commands are those of
// testdata/slurm/standin.
var realSlurm = os.Getenv("SPACEHOST_TEST_SLURM") != ""

// parallelSlurm is t.Parallel, except with a real Slurm: two that start at once would choose the same ports.
func parallelSlurm(t *testing.T) {
	t.Helper()
	if !realSlurm {
		t.Parallel()
	}
}

// slurmLab is a front with a pool "lab", and a Space "far" that runs on its nodes.
type slurmLab struct {
	reloadLab
	token   string // of ada
	root    string // state folder of the jobs
	path    string // PATH of the commands
	conf    string // SLURM_CONF; empty with the stand-in
	program string // spacehost on the machines of the jobs
}

const slurmTop = `
cluster: {listen: CLUSTER}
gpus: {machine: mock:1xH200}
quota: 2026-04
console: CONSOLE
drain: 30s
tiers: {lab: {unlimited: true}}
people: [{name: ada, tier: lab, tokens: [HASH]}]
spaces:
  - {folder: FAR, name: far, address: ADDRESS, on: h200, variables: {CALLED: "http://OTHER"}}
`

const slurmPool = `pools:
  - slurm: {name: lab, partition: gpu, gres: "gpu:2", max: 2, wait: 1s, idle: IDLE, time: 4h, drain: 2m, labels: [h200], gpus: "mock:2xH200", program: PROGRAM, state: ROOT}
`

// newSlurmLab returns a lab whose front does not run yet.
func newSlurmLab(t *testing.T) *slurmLab {
	t.Helper()
	requireLevel(t, "namespaces")
	dir, err := os.MkdirTemp("", "slurm") // short, for the sockets of the Spaces
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	token, hash := people.NewToken()
	l := &slurmLab{reloadLab: reloadLab{product: &product{t: t}, file: filepath.Join(dir, "lab.yaml")}, token: token, root: filepath.Join(dir, "jobs"), program: filepath.Join(dir, "program")}
	l.State = filepath.Join(dir, "state")
	for _, folder := range []string{l.State, l.root} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(environments(t), filepath.Join(l.root, "environments")); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, l.program, "#!/bin/sh\nexport "+beSpacehost+"=1\nexec "+self+" \"$@\"\n")
	if err := os.Chmod(l.program, 0o700); err != nil {
		t.Fatal(err)
	}
	far, err := filepath.Abs("testdata/spaces/far")
	if err != nil {
		t.Fatal(err)
	}
	l.vars = []string{"HASH", hash, "PROGRAM", l.program, "ROOT", l.root, "FAR", far}
	for _, name := range []string{"CLUSTER", "CONSOLE", "OTHER", "ADDRESS"} {
		l.vars = append(l.vars, name, freeAddress(t))
	}
	l.openSlurm(t, dir)
	t.Cleanup(func() { l.endJobs(t) })
	return l
}

// openSlurm starts a Slurm, or copies the stand-in.
func (l *slurmLab) openSlurm(t *testing.T, dir string) {
	t.Helper()
	if !realSlurm {
		bin := filepath.Join(dir, "bin")
		if err := os.CopyFS(bin, os.DirFS("testdata/slurm/standin")); err != nil {
			t.Fatal(err)
		}
		l.path = bin + ":" + os.Getenv("PATH")
		return
	}
	requireRoot(t)
	bed, port := filepath.Join(dir, "bed"), freePorts(t, 3)
	if err := os.Chmod(dir, 0o755); err != nil { // slurmd and munged look at the folders above theirs
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("testdata/slurm/bed.sh", "down", bed).CombinedOutput(); err != nil {
			t.Errorf("bed.sh down: %v: %s", err, out)
		}
	})
	if out, err := exec.Command("testdata/slurm/bed.sh", "up", bed, strconv.Itoa(port)).CombinedOutput(); err != nil {
		t.Fatalf("bed.sh up: %v: %s", err, out)
	}
	l.path, l.conf = os.Getenv("PATH"), filepath.Join(bed, "slurm.conf")
}

// freePorts returns the first of n free ports in a row.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for port := 17000; port < 30000; port += n {
		free := true
		for i := range n {
			listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port+i))
			if free = free && err == nil; err == nil {
				listener.Close()
			}
		}
		if free {
			return port
		}
	}
	t.Fatal("no free ports")
	return 0
}

// endJobs ends what a failed test leaves, and shows the logs of its jobs.
func (l *slurmLab) endJobs(t *testing.T) {
	logs, _ := filepath.Glob(filepath.Join(l.root, "logs", "*.log"))
	for _, path := range logs {
		if text, err := os.ReadFile(path); err == nil && t.Failed() {
			t.Logf("%s:\n%s", path, text)
		}
	}
	for _, job := range l.listed() {
		for range 2 { // the second one ends at once
			_ = l.command("scancel", job).Run()
		}
	}
	l.wantNothing("the end of the test")
}

// listed returns the IDs of all jobs in Slurm, without a front.
func (l *slurmLab) listed() (ids []string) {
	if l.conf != "" {
		out, _ := l.command("squeue", "--noheader", "--format=%i").Output()
		return strings.Fields(string(out))
	}
	states, _ := filepath.Glob(filepath.Join(filepath.Dir(l.root), "bin", "jobs", "*.state"))
	for _, state := range states {
		ids = append(ids, strings.TrimSuffix(filepath.Base(state), ".state"))
	}
	return ids
}

// wantNothing waits until no process of a job is left, neither of an agent nor of a Space.
func (l *slurmLab) wantNothing(after string) {
	l.t.Helper()
	eventually(l.t, "no process of a job is left after "+after, patience, func() bool { return len(processesOf(l.root)) == 0 && len(l.agents()) == 0 })
}

// agents returns the pids of the agents of jobs.
func (l *slurmLab) agents() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		content, _ := os.ReadFile(path)
		if bytes.Contains(content, []byte("--state\x00"+l.root+"/")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// startFront starts the front, and does not wait for its Spaces.
func (l *slurmLab) startFront() {
	l.t.Helper()
	t := l.t.(*testing.T)
	l.product = startCommandWith(t, []string{"PATH=" + l.path, "SLURM_CONF=" + l.conf}, l.State, "serve", "--config", l.file)
	t.Cleanup(l.product.kill)
	l.awaitReady()
}

func (l *slurmLab) command(name string, args ...string) *exec.Cmd {
	path := name
	if l.conf == "" {
		path = filepath.Join(filepath.Dir(l.root), "bin", name)
	}
	c := exec.CommandContext(context.Background(), path, args...)
	c.Env = append(os.Environ(), "PATH="+l.path, "SLURM_CONF="+l.conf)
	return c
}

// jobs returns the IDs of the jobs that have not ended.
func (l *slurmLab) jobs() (ids []string) {
	for _, p := range l.poolViews() {
		for _, job := range p.Jobs {
			ids = append(ids, job.ID)
		}
	}
	return ids
}

func (l *slurmLab) poolViews() []control.Pool {
	l.t.Helper()
	return controlJSON[[]control.Pool](l.t, l.product, control.ListPools.Path)
}

// write writes the configuration.
func (l *slurmLab) write(t *testing.T, pool, idle string) {
	t.Helper()
	writeFile(t, l.file, strings.NewReplacer(append(slices.Clone(l.vars), "IDLE", idle)...).Replace(slurmTop+pool))
}

// awaitFar waits until the Space runs on a node of the pool, and returns the node.
func (l *slurmLab) awaitFar(not string) (node string) {
	l.t.Helper()
	eventually(l.t, "far runs on a node of the pool", killPatience, func() bool {
		far := l.space("far")
		node = far.Node
		return far.Stage == "RUNNING" && strings.HasPrefix(node, "lab-") && node != not
	})
	return node
}

func (l *slurmLab) nodes() []control.Node {
	return controlJSON[[]control.Node](l.t, l.product, control.ListNodes.Path)
}

// TestSlurmPool: a pool gets a job for a Space that waits, loses it in a GPU call, gets another one, keeps it across a restart of the front,
// and gives it back once nobody uses it.
func TestSlurmPool(t *testing.T) {
	parallelSlurm(t)
	l := newSlurmLab(t)
	l.write(t, slurmPool, "1h")
	l.startFront()
	began := time.Now()
	first := l.awaitFar("")
	t.Logf("far runs on %s %s after the front", first, time.Since(began).Round(time.Second))
	eventually(t, "the pool shows the node", patience, func() bool {
		out := l.must("node", "pools")
		return strings.Contains(out, "serving") && strings.Contains(out, first)
	})
	l.wantSecretScript(t)
	l.wantEarlyHello(t, first)

	running := l.clientAs(l.space("far").URL, l.token).submit("/on_gpu", 3)
	awaitActive(t, l.product)
	cancelled := time.Now() // all processes of the job get SIGTERM, those of the Space too
	if out, err := l.command("scancel", strings.TrimPrefix(first, "lab-")).CombinedOutput(); err != nil {
		t.Fatalf("scancel: %v: %s", err, out)
	}
	if r := running.wait(); text(r.Value) != "computed" {
		t.Errorf("the GPU call in a cancelled job: %s, error %q", r.Value, r.Err)
	}
	t.Logf("the GPU call has ended %s after scancel", time.Since(cancelled).Round(100*time.Millisecond))
	second := l.awaitFar(first)
	t.Logf("far runs on %s %s after scancel", second, time.Since(cancelled).Round(time.Second))
	if ended := l.leases().Ended; len(ended) != 1 || ended[0].State != lease.Released || ended[0].Machine != first || ended[0].ChargedSeconds < 3 {
		t.Errorf("the leases have ended as %+v", ended)
	}
	eventually(t, "the node of the ended job is forgotten", patience, func() bool { all := l.nodes(); return len(all) == 1 && all[0].Name == second })

	l.stop()
	l.startFront()
	if again := l.awaitFar(""); again != second || len(l.jobs()) != 1 {
		t.Errorf("after a restart of the front, far runs on %s, and the jobs are %v; want %s alone", again, l.jobs(), second)
	}

	l.write(t, slurmPool, "1s")
	l.must("reload")
	eventually(t, "the idle node is given back", patience, func() bool { return len(l.nodes()) == 0 && len(l.jobs()) == 0 && l.space("far").WaitsForNode })
	l.wantNothing("the pool has given its job back")
	if out := l.must("audit"); !strings.Contains(out, "pool lab") {
		t.Errorf("spacehost audit prints\n%s", out)
	}

	l.write(t, slurmPool, "1h")
	l.must("reload")
	answer, err := http.Get(l.space("far").URL) // a visitor
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	third := l.awaitFar(second)
	l.write(t, "", "")
	l.must("reload")
	eventually(t, "the jobs of a removed pool are given back", patience, func() bool { return len(l.poolViews()) == 0 && len(l.nodes()) == 0 })
	if third == second {
		t.Errorf("the third job has the ID of the second one")
	}
	l.stop()
	wantExactLedger(t, filepath.Join(l.State, "spacehost.db"), 1)
}

// TestSlurmTimeLimit: a job drains before its time limit, and another one takes over, while a visitor calls a GPU function again and again.
func TestSlurmTimeLimit(t *testing.T) {
	if !realSlurm {
		t.Skip("SKIPPED: the stand-in has no time limits; run make slurm")
	}
	l := newSlurmLab(t)
	l.write(t, strings.Replace(slurmPool, "time: 4h, drain: 2m", "time: 3m, drain: 1m", 1), "1h")
	l.startFront()
	first, began := l.awaitFar(""), time.Now()
	client, calls := l.clientAs(l.space("far").URL, l.token), 0
	for ; l.space("far").Node == first || l.space("far").Stage != "RUNNING"; calls++ {
		if r := client.call("/on_gpu", 4); text(r.Value) != "computed" {
			t.Errorf("call %d, %s after the start: %s, error %q", calls, time.Since(began).Round(time.Second), r.Value, r.Err)
		}
		if time.Since(began) > 5*time.Minute {
			t.Fatal("the job has not drained")
		}
	}
	t.Logf("far runs on %s %s after the start on %s; %d calls", l.space("far").Node, time.Since(began).Round(time.Second), first, calls)
	ended := l.leases().Ended
	for _, one := range ended {
		if one.State != lease.Released || one.ChargedSeconds < 4 || one.ChargedSeconds > 10 {
			t.Errorf("a lease has ended as %+v", one)
		}
	}
	if len(ended) != calls {
		t.Errorf("%d leases of %d calls", len(ended), calls)
	}
	eventually(t, "the node of the ended job is forgotten", killPatience, func() bool {
		return !slices.ContainsFunc(l.nodes(), func(n control.Node) bool { return n.Name == first })
	})
	out, err := l.command("scontrol", "show", "job", strings.TrimPrefix(first, "lab-")).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("JobState=COMPLETED")) {
		t.Errorf("the job has ended as %s, %v", out, err)
	}
	l.stop()
}

// wantEarlyHello prints how long after the begin of its job a node has connected, and bounds that with a real Slurm.
func (l *slurmLab) wantEarlyHello(t *testing.T, node string) {
	t.Helper()
	var began unix.Statx_t // of the log, which the script of the job creates
	path := filepath.Join(l.root, "logs", strings.TrimPrefix(node, "lab-")+".log")
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &began); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(l.product.log()) {
		var entry struct {
			TS        time.Time
			Msg, Node string
		}
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "hello of node" || entry.Node != node {
			continue
		}
		took := entry.TS.Sub(time.Unix(began.Btime.Sec, int64(began.Btime.Nsec)))
		t.Logf("SLURM the node has connected %s after the begin of its job", took.Round(time.Millisecond))
		if took > 2*time.Second && realSlurm {
			t.Error("it must be at most 2 s")
		}
		return
	}
	t.Errorf("the log of the front has no hello of %s", node)
}

// wantSecretScript checks that the token of a job is neither in an environment nor on a command line.
func (l *slurmLab) wantSecretScript(t *testing.T) {
	t.Helper()
	agents, pids := l.agents(), processesOf(l.root)
	if len(agents) != 1 || len(pids) == 0 {
		t.Errorf("the job has agents %v and processes %v", agents, pids)
	}
	for _, pid := range append(slices.Collect(maps.Keys(pids)), agents...) {
		for _, file := range []string{"cmdline", "environ"} {
			if content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file)); err == nil && strings.Contains(string(content), "shj_") {
				t.Errorf("%s of process %d contains the join token", file, pid)
			}
		}
	}
}

// TestSlurmRefuses: a failing sbatch is reported in words, and repeated.
func TestSlurmRefuses(t *testing.T) {
	t.Parallel()
	if realSlurm {
		t.Skip("with the stand-in only")
	}
	l := newSlurmLab(t)
	refuse := filepath.Join(filepath.Dir(l.root), "bin", "jobs", "refuse")
	if err := os.MkdirAll(filepath.Dir(refuse), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, refuse, "sbatch: error: invalid partition specified: gpu\n")
	l.write(t, slurmPool, "1h")
	l.startFront()
	const want = "The pool lab cannot submit a job: sbatch: error: invalid partition specified: gpu."
	eventually(t, "the refusal is shown", patience, func() bool { return strings.Contains(l.must("node"), want) })
	if health := controlJSON[struct{ Reasons []string }](t, l.product, control.ShowHealth.Path); !slices.Contains(health.Reasons, want) {
		t.Errorf("the health has the reasons %q", health.Reasons)
	}
	if err := os.Remove(refuse); err != nil {
		t.Fatal(err)
	}
	l.awaitFar("")
	if out := l.must("node"); strings.Contains(out, "cannot submit") {
		t.Errorf("after a submission, spacehost node prints\n%s", out)
	}
}

// TestSlurmDevicesTwice: two jobs on one machine that see the same GPUs. The second one is refused with the name of the first.
func TestSlurmDevicesTwice(t *testing.T) {
	parallelSlurm(t)
	requireRoot(t)
	l := newSlurmLab(t)
	l.write(t, "", "")
	l.startFront()
	token := filepath.Join(filepath.Dir(l.root), "token")
	writeFile(t, token, l.must("node", "token", "--name", "slurm-*", "--uses", "0"))
	printed, err := exec.Command(l.program, "node", "script", "slurm", "--join", l.Cluster, "--token-file", token, "--partition", "gpu", "--gres", "gpu:1", "--gpus", "mock:2xH200", "--program", l.program, "--folder", "/mnt/spacehost").Output()
	if err != nil {
		t.Fatal(err)
	}
	script := strings.Replace(string(printed), "$root/jobs/$SLURM_JOB_ID", "$root/jobs/same", 1)
	// Each job has the same folder at another place of the disk, so both simulate the same GPUs.
	script = strings.Replace(script, "set -eu\n", "set -eu\nif [ -z \"${INNER:-}\" ]; then INNER=1 exec unshare --mount bash -c 'mount -t tmpfs none /mnt; exec bash \"$0\"' \"$0\"; fi\n", 1)
	var ids []string
	for range 2 {
		c := l.command("sbatch", "--parsable")
		c.Stdin = strings.NewReader(script)
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() { _ = l.command("scancel", ids...).Run() })
	connected := func() (n int) {
		for _, one := range l.nodes() {
			if one.State == string(nodes.Connected) {
				n++
			}
		}
		return n
	}
	eventually(t, "one node is connected and both have joined", patience, func() bool { return len(l.nodes()) == 2 && connected() == 1 })
	eventually(t, "the front refuses the other", patience, func() bool { return strings.Contains(l.product.log(), "node refused") })
	if n := connected(); n != 1 {
		t.Errorf("%d nodes are connected", n)
	}
}
