package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forest is a tree of fake processes whose root stands for the runner of the Space "test".
type forest struct {
	processes *Processes
	tree      tree
	pids      map[string]proc
	reaped    chan struct{} // closed when the root is
}

// plant starts the processes and waits until each has said its name. They are all gone after the test.
func plant(t *testing.T, root node) *forest {
	t.Helper()
	f := &forest{processes: &Processes{}, pids: map[string]proc{}, reaped: make(chan struct{})}
	f.tree.marker = filepath.Join(tempDir(t), "cgroup")
	text, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self(t))
	cmd.Env = append(fakeEnv("tree", string(text)), markerVariable+"="+f.tree.marker)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout = out
	err = cmd.Start()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-f.reaped
		f.processes.EndOrphans(f.tree.marker)
	})
	go func() { _ = cmd.Wait(); close(f.reaped) }()
	_ = said.SetReadDeadline(time.Now().Add(patient))
	for lines := bufio.NewScanner(said); len(f.pids) < root.size(); {
		if !lines.Scan() {
			t.Fatalf("only %v of %d processes came up: %v", f.pids, root.size(), lines.Err())
		}
		var name string
		var pid int
		_, _ = fmt.Sscan(lines.Text(), &name, &pid)
		s, _ := readStat(pid)
		if s.proc == (proc{}) { // it has left and was reaped: only its number is known
			s.pid = pid
		}
		f.pids[name] = s.proc
	}
	f.tree.root = f.pids[root.Name]
	f.processes.set("test", f.tree)
	return f
}

func (n node) size() int {
	size := 1
	for _, child := range n.Children {
		size += child.size()
	}
	return size
}

// lives checks who has survived.
func (f *forest) lives(t *testing.T, living ...string) {
	t.Helper()
	want := map[string]bool{}
	for _, name := range living {
		want[name] = true
	}
	for name, p := range f.pids {
		if p.alive() != want[name] {
			t.Errorf("%s (pid %d) lives: %v, want %v", name, p.pid, p.alive(), want[name])
		}
	}
}

func (f *forest) end(t *testing.T, name string, grace time.Duration) (took time.Duration) {
	t.Helper()
	began := time.Now()
	if p := f.pids[name]; !f.processes.End(p.pid, p.start, grace) {
		t.Errorf("%s is not gone", name)
	}
	return time.Since(began)
}

func TestOwns(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{
		{Name: "worker", Group: true, Children: []node{{Name: "grandchild"}}},
		{Name: "session", Session: true},
		{Name: "middle", Session: true, Leaves: true, Children: []node{{Name: "daemon", Session: true}}},
	}})
	stranger := plant(t, node{Name: "runner", Children: []node{{Name: "worker"}}})
	for _, name := range []string{"worker", "grandchild", "session", "daemon"} {
		if start, ok := f.processes.Owns("test", f.pids[name].pid); !ok || start != f.pids[name].start {
			t.Errorf("Owns(%s) = %d, %v; want %d", name, start, ok, f.pids[name].start)
		}
	}
	for what, pid := range map[string]int{
		"the runner": f.tree.root.pid, "another Space's runner": stranger.tree.root.pid, "another Space's worker": stranger.pids["worker"].pid,
		"the host": os.Getpid(), "who started the host": os.Getppid(), "init": 1, "0": 0, "-1": -1, "its negative": -f.pids["worker"].pid,
		"no process": 1 << 22, "who has left": f.pids["middle"].pid,
	} {
		if start, ok := f.processes.Owns("test", pid); ok {
			t.Errorf("Owns(%s, %d) = %d", what, pid, start)
		}
	}
	if _, ok := f.processes.Owns("another", f.pids["worker"].pid); ok {
		t.Error("a Space that never started owns the worker")
	}
	if err := f.tree.root.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, patient, "the runner is reaped", f.reaped)
	if _, ok := f.processes.Owns("test", f.pids["worker"].pid); ok {
		t.Error("a dead runner owns its worker")
	}
}

// Every kind of descendant of the worker goes, nobody else.
func TestEndOfAWorker(t *testing.T) {
	for name, worker := range map[string]node{
		"leads a group":          {Group: true},
		"leads a session":        {Session: true},
		"in the runner's group":  {},
		"ignores SIGTERM":        {Group: true, Deaf: true},
		"a zombie, its group on": {Group: true, Leaves: true, Unreaped: true},
		"reaped, its group on":   {Group: true, Leaves: true},
	} {
		t.Run(name, func(t *testing.T) {
			worker.Name = "worker"
			worker.Children = []node{{Name: "child", Children: []node{{Name: "grandchild"}}}}
			if !worker.Leaves { // else nothing but the group tells whose they are
				worker.Children = append(worker.Children, node{Name: "own-group", Group: true}, node{Name: "own-session", Session: true, Children: []node{{Name: "deep"}}})
			}
			f := plant(t, node{Name: "runner", Children: []node{
				{Name: "sibling"}, worker, {Name: "other-worker", Group: true, Children: []node{{Name: "its-child"}}},
			}})
			if worker.Leaves {
				eventually(t, "the leader has left", func() bool { return !f.pids["worker"].alive() })
				s, _ := readStat(f.pids["worker"].pid)
				if zombie := s.pid != 0; zombie != worker.Unreaped {
					t.Fatalf("zombie: %v", zombie)
				}
			}
			grace := 300 * time.Millisecond
			took := f.end(t, "worker", grace)
			if took > grace+time.Second || worker.Deaf && took < grace {
				t.Errorf("it took %s with a grace of %s", took, grace)
			}
			f.lives(t, "runner", "sibling", "other-worker", "its-child")
			f.end(t, "worker", grace) // of who is gone already is nothing
			f.lives(t, "runner", "sibling", "other-worker", "its-child")
		})
	}
}

// TestEndOfAWorkerThatHasDied: what it started goes, and nothing is kept of it. (A warm worker that dies just after its grant.)
func TestEndOfAWorkerThatHasDied(t *testing.T) {
	started := []string{"child", "own-session", "deep", "daemon"}
	for name, below := range map[string]func(*testing.T) *cgroups{
		"in a cgroup": trueCgroups, "without": func(*testing.T) *cgroups { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := below(t)
			f := plant(t, node{Name: "runner", Children: []node{{Name: "sibling"}, {Name: "worker", Group: true, Adopts: true, Children: []node{
				{Name: "child"}, {Name: "own-session", Session: true, Children: []node{{Name: "deep"}}},
				{Name: "middle", Session: true, Leaves: true, Children: []node{{Name: "daemon", Session: true}}},
			}}}})
			worker := f.pids["worker"]
			if c != nil {
				f.inCgroup(t, c)
			}
			f.processes.Confine("test", worker.pid, worker.start)
			own := f.processes.cgroups.ofWorker(worker)
			if (own != "") != (c != nil) {
				t.Fatalf("its cgroup is %q", own)
			}
			for _, name := range started {
				if own != "" { // as if they had been started after Confine
					if err := enter(own, f.pids[name].pid); err != nil {
						t.Fatal(err)
					}
				}
				eventually(t, name+" is seen, as by Run", func() bool { return f.processes.Within(f.pids[name].pid, worker.pid, worker.start) })
			}
			if err := worker.signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the worker is reaped", func() bool { s, _ := readStat(worker.pid); return s.pid == 0 })
			f.lives(t, append(started, "runner", "sibling")...)
			for range 2 { // the second time there is nothing to do
				f.end(t, "worker", time.Second)
				f.lives(t, "runner", "sibling")
				if left := f.processes.cgroups.ofWorker(worker); left != "" || len(f.processes.families) != 0 {
					t.Errorf("of the dead worker are kept %q and %d families", left, len(f.processes.families))
				}
			}
		})
	}
}

// inCgroup puts the runner into one, as Start does.
func (f *forest) inCgroup(t *testing.T, c *cgroups) {
	t.Helper()
	var err error
	if f.tree.cgroup, err = c.begin(instanceOf(f.tree.marker), f.tree.root.pid); err != nil {
		t.Fatal(err)
	}
	f.processes.cgroups = c
	f.processes.set("test", f.tree)
}

func TestEndWithoutGraceIsAtOnce(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker", Group: true, Deaf: true}}})
	f.end(t, "worker", 0)
	f.lives(t, "runner")
}

func TestEndOfAStoppedWorker(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker", Group: true, Children: []node{{Name: "child"}}}}})
	for _, name := range []string{"worker", "child"} {
		if err := f.pids[name].signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	if took := f.end(t, "worker", 200*time.Millisecond); took > 1200*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	f.lives(t, "runner")
}

// TestAGroupStandsStill, and who is not of it goes on.
func TestAGroupStandsStill(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{
		{Name: "worker", Group: true, Children: []node{{Name: "child", Children: []node{{Name: "grandchild"}}}}}, {Name: "sibling"},
	}})
	if err := f.pids["child"].signalGroup(unix.SIGSTOP); err != unix.ESRCH {
		t.Errorf("one that leads no group: %v, want ESRCH", err)
	}
	if err := f.pids["worker"].signalGroup(unix.SIGSTOP); err == unix.EINVAL {
		t.Skip("SKIPPED: this kernel has no signal for the group of a pidfd (Linux 6.9 has)")
	} else if err != nil {
		t.Fatal(err)
	}
	state := func(name string) string {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.pids[name].pid))
		return statusState(string(status))
	}
	eventually(t, "the group is stopped", func() bool {
		return state("worker") == "T" && state("child") == "T" && state("grandchild") == "T"
	})
	if s := state("sibling"); s == "T" {
		t.Error("its sibling is stopped, too")
	}
	f.end(t, "worker", 0)
	f.lives(t, "runner", "sibling")
}

// A pid that comes back means another process: here the sibling's, with another's start time.
func TestARecycledPidIsNotSignalled(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "sibling", Group: true, Children: []node{{Name: "child"}}}}})
	sibling := f.pids["sibling"]
	for _, start := range []uint64{0, sibling.start - 1, sibling.start + 1} {
		if !f.processes.End(sibling.pid, start, 50*time.Millisecond) {
			t.Errorf("start %d: it is said to live", start)
		}
		recycled := proc{sibling.pid, start}
		if err := recycled.signal(unix.SIGKILL); err != unix.ESRCH {
			t.Errorf("start %d: signal says %v", start, err)
		}
		if recycled.alive() || !recycled.await(time.Minute) {
			t.Errorf("start %d: it lives", start)
		}
	}
	f.lives(t, "runner", "sibling", "child")
}

// The group of a leader that is gone may be one that another process made, whose pid it had in between.
func TestAForeignGroupIsNotEnded(t *testing.T) {
	foreign := plant(t, node{Name: "runner", Children: []node{{Name: "leader", Group: true, Leaves: true, Children: []node{{Name: "member"}}}}})
	eventually(t, "the leader is reaped", func() bool { s, _ := readStat(foreign.pids["leader"].pid); return s.pid == 0 })
	ours := plant(t, node{Name: "runner"})
	if !ours.processes.End(foreign.pids["leader"].pid, 1, 0) {
		t.Error("the worker is said to live")
	}
	foreign.lives(t, "runner", "member")
}

func TestEndOrphans(t *testing.T) {
	f := plant(t, node{Name: "runner", Deaf: true, Children: []node{
		{Name: "worker", Group: true, Deaf: true},
		{Name: "middle", Session: true, Leaves: true, Children: []node{{Name: "daemon", Session: true}}},
	}})
	other := plant(t, node{Name: "runner", Children: []node{{Name: "worker"}}})
	f.processes.EndOrphans(filepath.Join(testRoot, "never"))
	f.processes.EndOrphans("")
	f.lives(t, "runner", "worker", "daemon")
	f.processes.EndOrphans(f.tree.marker)
	f.lives(t)
	other.lives(t, "runner", "worker")
}

func TestWait(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker"}, {Name: "zombie", Unreaped: true}}})
	for _, name := range []string{"worker", "zombie"} {
		p, waited := f.pids[name], make(chan struct{})
		go func() { f.processes.Wait(context.Background(), p.pid, p.start); close(waited) }()
		select {
		case <-waited:
			t.Errorf("%s lives, and Wait has returned", name)
		default:
		}
		if err := p.signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		within(t, patient, "Wait returns", waited)
		if p.alive() {
			t.Errorf("%s lives", name)
		}
	}
	f.processes.Wait(context.Background(), f.tree.root.pid, f.tree.root.start+1) // another process: at once
	ctx, cancel := context.WithCancel(context.Background())
	waited := make(chan struct{})
	go func() { f.processes.Wait(ctx, f.tree.root.pid, f.tree.root.start); close(waited) }()
	cancel()
	within(t, patient, "Wait returns when its context ends", waited)
	f.lives(t, "runner")
}

// Without descriptors nothing can be looked at, and a living process must not be taken for a dead one.
func TestWithoutDescriptors(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker", Group: true}}})
	worker := f.pids["worker"]
	restore := limitDescriptors(t, 0)
	_, err := unix.PidfdOpen(worker.pid, 0)
	awaited := worker.await(50 * time.Millisecond)
	nobody := proc{1 << 22, 1}.alive()
	ended := make(chan bool)
	go func() { ended <- f.processes.End(worker.pid, worker.start, 10*time.Millisecond) }()
	var early bool
	select {
	case <-ended:
		early = true
	case <-time.After(100 * time.Millisecond):
	}
	restore()
	if err == nil || awaited || nobody || early {
		t.Fatalf("pidfd: %v; taken for dead: %v; who never was, alive: %v; ended without looking: %v", err, awaited, nobody, early)
	}
	if !within(t, patient, "End goes on once there are descriptors", ended) {
		t.Error("the worker is said to live")
	}
	f.lives(t, "runner")
}

// limitDescriptors lets nobody of this process have a descriptor of that number or above, until restore.
func limitDescriptors(t *testing.T, limit uint64) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
	}
}

// With a single descriptor left there is a pidfd and no look at whom it means: whoever has the pid now is not signalled.
func TestWithTheLastDescriptor(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker", Group: true, Children: []node{{Name: "child"}}}}})
	worker := f.pids["worker"]
	recycled := proc{worker.pid, worker.start - 1}
	last, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0) // the lowest free one
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(last)
	restore := limitDescriptors(t, uint64(last)+1)
	errs := map[string]error{
		"signal of another of its pid": recycled.signal(unix.SIGKILL), "signal": worker.signal(unix.SIGKILL),
	}
	restore()
	restore = limitDescriptors(t, uint64(last)) // none is left
	members := newFamily(recycled, f.processes.bearMarker).among([]stat{{proc: f.pids["child"], parent: worker.pid}})
	restore()
	for what, err := range errs {
		if err != unix.EAGAIN {
			t.Errorf("%s: %v, want EAGAIN", what, err)
		}
	}
	if slices.Contains(members, f.pids["child"]) {
		t.Error("the child of another of its pid is of its family")
	}
	f.lives(t, "runner", "worker", "child")
	if !f.processes.End(recycled.pid, recycled.start, 0) {
		t.Error("who had the pid before is said to live")
	}
	f.lives(t, "runner", "worker", "child")
	f.end(t, "worker", 0)
	f.lives(t, "runner")
}

// /proc shows a process whose first thread has ended as a zombie, while the others go on.
func TestAHeadlessProcessLives(t *testing.T) {
	p, r := startFake(t, "headless", "")
	eventually(t, "its first thread has ended", func() bool {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
		return len(r.printed()) > 0 && len(data) > 0 && statusState(string(data)) == "Z"
	})
	if !p.tree.root.alive() {
		t.Error("it is taken for dead")
	}
	if p.tree.root.await(50 * time.Millisecond) {
		t.Error("it is taken for dead after a while")
	}
	p.End(context.Background(), 0)
	if p.tree.root.alive() {
		t.Error("it lives")
	}
}

func statusState(status string) (state string) {
	for line := range strings.SplitSeq(status, "\n") {
		if _, err := fmt.Sscanf(line, "State:\t%1s", &state); err == nil {
			return state
		}
	}
	return ""
}

// TestWhoAsksIsInTheLook: a look that had begun when somebody asked is not theirs, as it may have passed their process by.
func TestWhoAsksIsInTheLook(t *testing.T) {
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			child := exec.Command("sleep", "60")
			if err := child.Start(); err != nil {
				t.Error(err)
				return
			}
			sees := func() bool {
				stats, err := allStats()
				return err == nil && slices.ContainsFunc(stats, func(s stat) bool { return s.pid == child.Process.Pid })
			}
			if !sees() {
				t.Errorf("%d lives, and was not seen", child.Process.Pid)
			}
			_ = child.Process.Kill() // it is ours
			_ = child.Wait()         // by our signal
			if sees() {
				t.Errorf("%d has ended, and was seen", child.Process.Pid)
			}
		})
	}
	all.Wait()
}
