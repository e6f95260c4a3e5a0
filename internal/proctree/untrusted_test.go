package proctree

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUntrusted checks processes that left a Space in every way against processes of the operator.
func TestUntrusted(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	f := plant(t, node{Name: "runner", Children: []node{
		{Name: "child"},
		{Name: "forker", Exits: true, Unreaped: true, Children: []node{{Name: "orphan", Session: true, Children: []node{{Name: "grandchild"}}}}},
	}})
	eventually(t, "the orphan is a child of this process", func() bool {
		s, _ := ReadStat(f.pids["orphan"].PID)
		return s.Parent == os.Getpid()
	})
	p := &Processes{} // without the tree: only the descent counts
	for name := range f.pids {
		if !p.Untrusted(f.pids[name].PID) {
			t.Errorf("%s is trusted", name)
		}
	}
	exited := exec.Command("true")
	if err := exited.Run(); err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{"this process": os.Getpid(), "its parent": os.Getppid(), "process 1": 1, "a process of another pid namespace": 0} {
		if p.Untrusted(pid) {
			t.Errorf("%s is not trusted", name)
		}
	}
	if !p.Untrusted(exited.Process.Pid) {
		t.Error("an exited process is trusted")
	}
}

// TestProcessesFromBeforeAreTrusted: a script may start a process in the background before it becomes the host by exec.
func TestProcessesFromBeforeAreTrusted(t *testing.T) {
	before := exec.Command("sh", "-c", "sleep 300 & echo $!; wait")
	out, err := before.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	after := exec.Command("sleep", "300")
	p := &Processes{}
	for _, start := range []func() error{before.Start, func() error { p.inherited = children(); return nil }, after.Start} {
		if err := start(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, cmd := range []*exec.Cmd{before, after} {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	var below int
	if _, err := fmt.Fscan(out, &below); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(below, unix.SIGKILL) })
	for name, row := range map[string]struct {
		pid  int
		want bool
	}{"a child from before": {before.Process.Pid, false}, "its child": {below, false}, "a later child": {after.Process.Pid, true}} {
		if got := p.Untrusted(row.pid); got != row.want {
			t.Errorf("%s: untrusted %t, want %t", name, got, row.want)
		}
	}
}
