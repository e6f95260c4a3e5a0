package proctree

import (
	"bufio"
	"context"
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

	"spacehost/internal/proctree/proctreetest"
)

// testInstance is the start of the Space "test" whose runner a forest plays.
const testInstance = "test-1"

// forest is a tree of fake processes. Its root plays the runner of the Space "test".
type forest struct {
	processes *Processes
	tree      Tree
	pids      map[string]Process
	reaped    chan struct{} // closed when the root is reaped
}

// plant starts the processes and waits until each has printed its name. All have exited after the test.
func plant(t *testing.T, root node) *forest {
	t.Helper()
	f := &forest{processes: &Processes{}, pids: map[string]Process{}, reaped: make(chan struct{})}
	f.tree.Marker = filepath.Join(tempDir(t), "cgroup")
	cmd := exec.Command(self(t))
	cmd.Env = append(root.env(), MarkerVariable+"="+f.tree.Marker)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	cmd.Stdout = out
	err = cmd.Start()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-f.reaped
		f.processes.EndOrphans(f.tree.Marker)
	})
	go func() { _ = cmd.Wait(); close(f.reaped) }()
	_ = stdout.SetReadDeadline(time.Now().Add(patient))
	for lines := bufio.NewScanner(stdout); len(f.pids) < root.size(); {
		if !lines.Scan() {
			t.Fatalf("only %v of %d processes came up: %v", f.pids, root.size(), lines.Err())
		}
		var name string
		var pid int
		_, _ = fmt.Sscan(lines.Text(), &name, &pid)
		s, _ := ReadStat(pid)
		if s.Process == (Process{}) { // it has exited and was reaped: only its pid is known
			s.PID = pid
		}
		f.pids[name] = s.Process
	}
	f.tree.Root = f.pids[root.Name]
	f.processes.Register("test", testInstance, f.tree)
	return f
}

// expectRunning checks that exactly the named processes are running.
func (f *forest) expectRunning(t *testing.T, running ...string) {
	t.Helper()
	want := map[string]bool{}
	for _, name := range running {
		want[name] = true
	}
	for name, p := range f.pids {
		if p.Alive() != want[name] {
			t.Errorf("%s (pid %d) is running: %v, want %v", name, p.PID, p.Alive(), want[name])
		}
	}
}

func (f *forest) end(t *testing.T, name string, grace time.Duration) (took time.Duration) {
	t.Helper()
	began := time.Now()
	if p := f.pids[name]; !f.processes.End(p.PID, p.Start, grace) {
		t.Errorf("%s has not ended", name)
	}
	return time.Since(began)
}

func TestOwns(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{
		{Name: "worker", Group: true, Children: []node{{Name: "grandchild"}}},
		{Name: "session", Session: true},
		{Name: "middle", Session: true, Exits: true, Children: []node{{Name: "daemon", Session: true}}},
	}})
	other := plant(t, node{Name: "runner", Children: []node{{Name: "worker"}}})
	for _, name := range []string{"worker", "grandchild", "session", "daemon"} {
		if _, start, ok := f.processes.FromInside(testInstance, f.pids[name].PID); !ok || start != f.pids[name].Start {
			t.Errorf("Owns(%s) = %d, %v; want %d", name, start, ok, f.pids[name].Start)
		}
	}
	for what, pid := range map[string]int{
		"the runner": f.tree.Root.PID, "another Space's runner": other.tree.Root.PID, "another Space's worker": other.pids["worker"].PID,
		"the host": os.Getpid(), "the parent of the host": os.Getppid(), "init": 1, "0": 0, "-1": -1, "its negative": -f.pids["worker"].PID,
		"no process": 1 << 22, "an exited process": f.pids["middle"].PID,
	} {
		if _, start, ok := f.processes.FromInside(testInstance, pid); ok {
			t.Errorf("Owns(%s, %d) = %d", what, pid, start)
		}
	}
	if _, _, ok := f.processes.FromInside("another-instance", f.pids["worker"].PID); ok {
		t.Error("a Space that never started owns the worker")
	}
	if err := f.tree.Root.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, patient, "the runner is reaped", f.reaped)
	if _, _, ok := f.processes.FromInside(testInstance, f.pids["worker"].PID); ok {
		t.Error("an exited runner owns its worker")
	}
}

// All descendants of the worker are ended, and no other process.
func TestEndOfAWorker(t *testing.T) {
	for name, worker := range map[string]node{
		"leads a group":          {Group: true},
		"leads a session":        {Session: true},
		"in the runner's group":  {},
		"ignores SIGTERM":        {Group: true, IgnoresTERM: true},
		"a zombie, its group on": {Group: true, Exits: true, Unreaped: true},
		"reaped, its group on":   {Group: true, Exits: true},
	} {
		t.Run(name, func(t *testing.T) {
			worker.Name = "worker"
			worker.Children = []node{{Name: "child", Children: []node{{Name: "grandchild"}}}}
			if !worker.Exits { // otherwise only the group identifies the children
				worker.Children = append(worker.Children, node{Name: "own-group", Group: true}, node{Name: "own-session", Session: true, Children: []node{{Name: "deep"}}})
			}
			f := plant(t, node{Name: "runner", Children: []node{
				{Name: "sibling"}, worker, {Name: "other-worker", Group: true, Children: []node{{Name: "its-child"}}},
			}})
			if worker.Exits {
				eventually(t, "the leader has exited", func() bool { return !f.pids["worker"].Alive() })
				s, _ := ReadStat(f.pids["worker"].PID)
				if zombie := s.PID != 0; zombie != worker.Unreaped {
					t.Fatalf("zombie: %v", zombie)
				}
			}
			grace := 300 * time.Millisecond
			took := f.end(t, "worker", grace)
			if took > grace+10*time.Second || worker.IgnoresTERM && took < grace {
				t.Errorf("it took %s with a grace of %s", took, grace)
			}
			f.expectRunning(t, "runner", "sibling", "other-worker", "its-child")
			f.end(t, "worker", grace) // ending an ended worker has no effect
			f.expectRunning(t, "runner", "sibling", "other-worker", "its-child")
		})
	}
}

// TestEndOfAWorkerThatHasExited checks that its descendants are ended and that no record of it is kept. This happens
// when a warm worker exits just after its grant.
func TestEndOfAWorkerThatHasExited(t *testing.T) {
	started := []string{"child", "own-session", "deep", "daemon"}
	for name, below := range map[string]func(*testing.T) *Cgroups{
		"in a cgroup": trueCgroups, "without": func(*testing.T) *Cgroups { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := below(t)
			f := plant(t, node{Name: "runner", Children: []node{{Name: "sibling"}, {Name: "worker", Group: true, Subreaper: true, Children: []node{
				{Name: "child"}, {Name: "own-session", Session: true, Children: []node{{Name: "deep"}}},
				{Name: "middle", Session: true, Exits: true, Children: []node{{Name: "daemon", Session: true}}},
			}}}})
			worker := f.pids["worker"]
			if c != nil {
				f.inCgroup(t, c)
			}
			f.processes.Confine(testInstance, worker.PID, worker.Start)
			own := f.processes.cgroups.ofWorker(worker)
			if (own != "") != (c != nil) {
				t.Fatalf("its cgroup is %q", own)
			}
			for _, name := range started {
				if own != "" { // as if they had been started after Confine
					if err := enter(own, f.pids[name].PID); err != nil {
						t.Fatal(err)
					}
				}
				eventually(t, name+" is recorded, as by Run", func() bool { return f.processes.Within(f.pids[name].PID, worker.PID, worker.Start) })
			}
			if err := worker.signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the worker is reaped", func() bool { s, _ := ReadStat(worker.PID); return s.PID == 0 })
			f.expectRunning(t, append(started, "runner", "sibling")...)
			for range 2 { // the second time there is nothing to do
				f.end(t, "worker", time.Second)
				f.expectRunning(t, "runner", "sibling")
				if left := f.processes.cgroups.ofWorker(worker); left != "" || len(f.processes.subtrees) != 0 {
					t.Errorf("records of the exited worker: cgroup %q, %d subtrees", left, len(f.processes.subtrees))
				}
			}
		})
	}
}

// inCgroup moves the runner to a cgroup, as worker.Start does.
func (f *forest) inCgroup(t *testing.T, c *Cgroups) {
	t.Helper()
	var err error
	if f.tree.Cgroup, err = c.Begin(instanceOf(f.tree.Marker), f.tree.Root.PID); err != nil {
		t.Fatal(err)
	}
	f.processes.cgroups = c
	f.processes.Register("test", testInstance, f.tree)
}

func TestEndWithoutGraceIsAtOnce(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker", Group: true, IgnoresTERM: true}}})
	f.end(t, "worker", 0)
	f.expectRunning(t, "runner")
}

func TestEndOfAStoppedWorker(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker", Group: true, Children: []node{{Name: "child"}}}}})
	for _, name := range []string{"worker", "child"} {
		if err := f.pids[name].signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	if took := f.end(t, "worker", 200*time.Millisecond); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	f.expectRunning(t, "runner")
}

// TestAGroupIsStopped checks that one signal stops the group and no process outside it.
func TestAGroupIsStopped(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{
		{Name: "worker", Group: true, Children: []node{{Name: "child", Children: []node{{Name: "grandchild"}}}}}, {Name: "sibling"},
	}})
	if err := f.pids["child"].signalGroup(unix.SIGSTOP); err != unix.ESRCH {
		t.Errorf("process that leads no group: %v, want ESRCH", err)
	}
	if err := f.pids["worker"].signalGroup(unix.SIGSTOP); err == unix.EINVAL {
		t.Skip("SKIPPED: this kernel cannot signal the group of a pidfd (Linux 6.9 can)")
	} else if err != nil {
		t.Fatal(err)
	}
	state := func(name string) string {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.pids[name].PID))
		return statusState(string(status))
	}
	eventually(t, "the group is stopped", func() bool {
		return state("worker") == "T" && state("child") == "T" && state("grandchild") == "T"
	})
	if s := state("sibling"); s == "T" {
		t.Error("its sibling is stopped too")
	}
	f.end(t, "worker", 0)
	f.expectRunning(t, "runner", "sibling")
}

// A reused pid identifies another process. Here the pid is the sibling's, with a wrong start time.
func TestAReusedPidIsNotSignalled(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "sibling", Group: true, Children: []node{{Name: "child"}}}}})
	sibling := f.pids["sibling"]
	for _, start := range []uint64{0, sibling.Start - 1, sibling.Start + 1} {
		if !f.processes.End(sibling.PID, start, 50*time.Millisecond) {
			t.Errorf("start %d: End reports it as running", start)
		}
		reused := Process{sibling.PID, start}
		if err := reused.signal(unix.SIGKILL); err != unix.ESRCH {
			t.Errorf("start %d: signal returned %v", start, err)
		}
		if reused.Alive() || !reused.Await(time.Minute) {
			t.Errorf("start %d: it counts as running", start)
		}
	}
	f.expectRunning(t, "runner", "sibling", "child")
}

// If a leader has exited, a group with its number can belong to another process that had the pid meanwhile.
func TestAForeignGroupIsNotEnded(t *testing.T) {
	foreign := plant(t, node{Name: "runner", Children: []node{{Name: "leader", Group: true, Exits: true, Children: []node{{Name: "member"}}}}})
	eventually(t, "the leader is reaped", func() bool { s, _ := ReadStat(foreign.pids["leader"].PID); return s.PID == 0 })
	ours := plant(t, node{Name: "runner"})
	if !ours.processes.End(foreign.pids["leader"].PID, 1, 0) {
		t.Error("End reports the worker as running")
	}
	foreign.expectRunning(t, "runner", "member")
}

func TestEndOrphans(t *testing.T) {
	f := plant(t, node{Name: "runner", IgnoresTERM: true, Children: []node{
		{Name: "worker", Group: true, IgnoresTERM: true},
		{Name: "middle", Session: true, Exits: true, Children: []node{{Name: "daemon", Session: true}}},
	}})
	other := plant(t, node{Name: "runner", Children: []node{{Name: "worker"}}})
	f.processes.EndOrphans(filepath.Join(proctreetest.Root, "never"))
	f.processes.EndOrphans("")
	f.expectRunning(t, "runner", "worker", "daemon")
	f.processes.EndOrphans(f.tree.Marker)
	f.expectRunning(t)
	other.expectRunning(t, "runner", "worker")
}

func TestWait(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker"}, {Name: "zombie", Unreaped: true}}})
	for _, name := range []string{"worker", "zombie"} {
		p, waited := f.pids[name], make(chan struct{})
		go func() { f.processes.Wait(context.Background(), p.PID, p.Start); close(waited) }()
		select {
		case <-waited:
			t.Errorf("Wait returned while %s is running", name)
		default:
		}
		if err := p.signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		within(t, patient, "Wait returns", waited)
		if p.Alive() {
			t.Errorf("%s is still running", name)
		}
	}
	f.processes.Wait(context.Background(), f.tree.Root.PID, f.tree.Root.Start+1) // another process: returns at once
	ctx, cancel := context.WithCancel(context.Background())
	waited := make(chan struct{})
	go func() { f.processes.Wait(ctx, f.tree.Root.PID, f.tree.Root.Start); close(waited) }()
	cancel()
	within(t, patient, "Wait returns when its context ends", waited)
	f.expectRunning(t, "runner")
}

// Without a free descriptor no process can be read, and a running process must not be mistaken for an exited one.
func TestWithoutDescriptors(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker", Group: true}}})
	worker := f.pids["worker"]
	restore := limitDescriptors(t, 0)
	_, err := unix.PidfdOpen(worker.PID, 0)
	awaited := worker.Await(50 * time.Millisecond)
	nonexistent := Process{1 << 22, 1}.Alive()
	ended := make(chan bool)
	go func() { ended <- f.processes.End(worker.PID, worker.Start, 10*time.Millisecond) }()
	var early bool
	select {
	case <-ended:
		early = true
	case <-time.After(100 * time.Millisecond):
	}
	restore()
	if err == nil || awaited || nonexistent || early {
		t.Fatalf("pidfd: %v; running process counts as exited: %v; nonexistent process counts as running: %v; End returned early: %v", err, awaited, nonexistent, early)
	}
	if !within(t, patient, "End continues once there are descriptors", ended) {
		t.Error("End reports the worker as running")
	}
	f.expectRunning(t, "runner")
}

// limitDescriptors prevents this process from opening descriptors with that number or above, until restore.
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

// With one free descriptor a pidfd can be opened, but its process cannot be identified. The process that has the pid
// is not signalled.
func TestWithTheLastDescriptor(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker", Group: true, Children: []node{{Name: "child"}}}}})
	worker := f.pids["worker"]
	reused := Process{worker.PID, worker.Start - 1}
	last, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0) // the lowest free number
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(last)
	restore := limitDescriptors(t, uint64(last)+1)
	errs := map[string]error{
		"signal of an earlier process with its pid": reused.signal(unix.SIGKILL), "signal": worker.signal(unix.SIGKILL),
	}
	restore()
	restore = limitDescriptors(t, uint64(last)) // none is free
	members := newSubtree(reused, f.processes.hasAnyMarker).among([]Stat{{Process: f.pids["child"], Parent: worker.PID}})
	restore()
	for what, err := range errs {
		if err != unix.EAGAIN {
			t.Errorf("%s: %v, want EAGAIN", what, err)
		}
	}
	if slices.Contains(members, f.pids["child"]) {
		t.Error("a child of another process with its pid is in its subtree")
	}
	f.expectRunning(t, "runner", "worker", "child")
	if !f.processes.End(reused.PID, reused.Start, 0) {
		t.Error("End reports the earlier process with the pid as running")
	}
	f.expectRunning(t, "runner", "worker", "child")
	f.end(t, "worker", 0)
	f.expectRunning(t, "runner")
}

// /proc shows a process whose first thread has ended as a zombie, while its other threads run.
func TestAHeadlessProcessIsRunning(t *testing.T) {
	f := plant(t, node{Name: "runner", Headless: true})
	eventually(t, "its first thread has ended", func() bool {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.tree.Root.PID))
		return len(data) > 0 && statusState(string(data)) == "Z"
	})
	if !f.tree.Root.Alive() {
		t.Error("it counts as exited")
	}
	if f.tree.Root.Await(50 * time.Millisecond) {
		t.Error("Await reports an exit")
	}
	if err := syscall.Kill(f.tree.Root.PID, syscall.SIGKILL); err != nil { // not reaped yet
		t.Fatal(err)
	}
	within(t, patient, "it is reaped", f.reaped)
	if f.tree.Root.Alive() {
		t.Error("it is still running")
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

// TestASnapshotBeginsAfterTheCall checks that a caller never gets a scan that began before its call, because that
// scan may have missed a new process.
func TestASnapshotBeginsAfterTheCall(t *testing.T) {
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
				return err == nil && slices.ContainsFunc(stats, func(s Stat) bool { return s.PID == child.Process.Pid })
			}
			if !sees() {
				t.Errorf("%d is running and was not seen", child.Process.Pid)
			}
			_ = child.Process.Kill() // our own child
			_ = child.Wait()         // its error reports our signal
			if sees() {
				t.Errorf("%d has ended, and was seen", child.Process.Pid)
			}
		})
	}
	all.Wait()
}
