package proctree

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap"
)

// nested returns Cgroups with a cgroup of all starts, whose files are fakes of those of the kernel.
func nested(t *testing.T, controllers string) *Cgroups {
	t.Helper()
	c := fakeBase(t, controllers)
	if err := c.delegate(limitControllers); err != nil {
		t.Fatal(err)
	}
	all := filepath.Join(c.Base, allCgroup+"1")
	if err := os.Mkdir(all, 0o755); err != nil {
		t.Fatal(err)
	}
	c.all = all
	return c
}

// TestTotalLimits checks what is written for the sum of all starts, also when a reload changes it.
func TestTotalLimits(t *testing.T) {
	c := nested(t, "cpu memory pids")
	machineOf(t, c.all, map[string]string{"memory.max": "", "pids.max": "", "cpu.max": ""})
	for _, row := range []struct {
		limits Limits
		want   map[string]string
	}{
		{someLimits, map[string]string{"memory.max": "8589934592", "pids.max": "500", "cpu.max": "150000 100000"}},
		{Limits{Memory: 1 << 30}, map[string]string{"memory.max": "1073741824", "pids.max": "max", "cpu.max": "max 100000"}},
	} {
		for name := range row.want { // the kernel replaces the value at each write
			if err := os.Truncate(filepath.Join(c.all, name), 0); err != nil {
				t.Fatal(err)
			}
		}
		rest, err := c.LimitTotal(row.limits)
		if got := read(t, c.all); err != nil || rest != (Limits{}) || !maps.Equal(got, row.want) {
			t.Errorf("%+v: got %v, left to the host %+v, %v; want %v", row.limits, got, rest, err, row.want)
		}
	}
	partial := nested(t, "pids")
	machineOf(t, partial.all, map[string]string{"pids.max": ""})
	if rest, err := partial.LimitTotal(someLimits); err != nil || rest != (Limits{Memory: 8 << 30, CPU: 1.5}) {
		t.Errorf("left to the host: %+v, %v", rest, err)
	}
	for name, none := range map[string]*Cgroups{"no cgroups": nil, "no common cgroup": fakeBase(t, "memory")} {
		if rest, err := none.LimitTotal(someLimits); err != nil || rest != someLimits {
			t.Errorf("%s: left to the host %+v, %v", name, rest, err)
		}
	}
	if dir := c.of("abc"); dir != filepath.Join(c.all, "spacehost-abc") {
		t.Errorf("a start is at %s", dir)
	}
}

// TestSweepKeepsTheCgroupOfARunningHost checks that only the empty cgroup of a host that has exited is removed.
func TestSweepKeepsTheCgroupOfARunningHost(t *testing.T) {
	exited := exec.Command("true")
	if err := exited.Run(); err != nil {
		t.Fatal(err)
	}
	c, old := fakeBase(t, ""), time.Now().Add(-time.Hour)
	running, left := filepath.Join(c.Base, allCgroup+strconv.Itoa(os.Getppid())), filepath.Join(c.Base, allCgroup+strconv.Itoa(exited.Process.Pid))
	for _, dir := range []string{running, left} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chtimes(dir, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	c.sweep()
	if _, err := os.Stat(running); err != nil {
		t.Errorf("that of a running host: %v", err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("that of a host that has exited: %v", err)
	}
}

// TestNestWithTheKernel creates the cgroup of all starts with a true controller, and a start and a worker in it.
func TestNestWithTheKernel(t *testing.T) {
	above := trueController(t)
	if err := above.delegate([]string{"hugetlb"}); err != nil {
		t.Fatal(err)
	}
	if err := above.nest(); err != nil {
		t.Fatal(err)
	}
	f := plant(t, node{Name: "runner"})
	dir, err := above.Begin("one", f.tree.Root.PID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.tree.Cgroup = dir
		f.tree.Kill(zap.NewNop())
		if err := removeCgroup(above.all); err != nil {
			t.Error(err)
		}
	})
	if !isMember(filepath.Join(dir, "app"), f.tree.Root.PID) || filepath.Dir(dir) != above.all {
		t.Errorf("the start is in %s", dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "hugetlb.2MB.max")); err != nil {
		t.Errorf("the controller is not in force for a start: %v", err)
	}
	if err := confine(dir, f.tree.Root); err != nil {
		t.Fatal(err)
	}
	if found := above.ofWorker(f.tree.Root); filepath.Dir(found) != dir {
		t.Errorf("its worker is found in %q, want below %s", found, dir)
	}
}

// TestMemory checks the sum over a tree, and that a cgroup with the controller answers itself.
func TestMemory(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "one", Allocates: 96 << 20}}})
	rss, pss := f.tree.Memory(false), f.tree.Memory(true)
	if pss < 96<<20 || rss < pss || rss > 512<<20 {
		t.Errorf("%d MiB, exactly %d MiB; want at least 96 MiB", rss>>20, pss>>20)
	}
	dir := t.TempDir()
	machineOf(t, dir, map[string]string{"memory.current": "12345\n"})
	if n := (Tree{Root: f.tree.Root, Cgroup: dir}).Memory(true); n != 12345 {
		t.Errorf("got %d of memory.current", n)
	}
}
