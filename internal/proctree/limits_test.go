package proctree

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeBase returns a folder with the files that the kernel makes in a delegated cgroup without processes.
func fakeBase(t *testing.T, controllers string) *Cgroups {
	t.Helper()
	c := &Cgroups{Base: t.TempDir()}
	machineOf(t, c.Base, map[string]string{"cgroup.controllers": controllers + "\n", "cgroup.subtree_control": "", "cgroup.procs": ""})
	return c
}

// read returns the content of the files of a folder.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[entry.Name()] = string(text)
	}
	return found
}

var someLimits = Limits{Memory: 8 << 30, Processes: 500, CPU: 1.5}

// TestLimitsOfACgroup checks what is written for a start, and what is left to the host.
func TestLimitsOfACgroup(t *testing.T) {
	all := map[string]string{
		"memory.max": "8589934592", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "500", "cpu.max": "150000 100000", "cpu.weight": "33",
	}
	noSwap := maps.Clone(all)
	delete(noSwap, "memory.swap.max")
	for name, row := range map[string]struct {
		controllers string
		limits      Limits
		want        map[string]string // files that the kernel has made, and their content
		rest        Limits
		refused     string
	}{
		"all":            {"cpu io memory pids", someLimits, all, Limits{}, ""},
		"no swap":        {"cpu memory pids", someLimits, noSwap, Limits{}, ""},
		"pids alone":     {"pids hugetlb", someLimits, map[string]string{"pids.max": "500"}, Limits{Memory: 8 << 30, CPU: 1.5}, ""},
		"no controllers": {"hugetlb", someLimits, map[string]string{}, someLimits, ""},
		"none is set":    {"cpu memory pids", Limits{}, map[string]string{"memory.max": "", "pids.max": "", "cpu.max": ""}, Limits{}, ""},
		"a file is missing": {"memory pids", someLimits, map[string]string{"pids.max": "500"}, Limits{Memory: 8 << 30, CPU: 1.5},
			"set memory.max to 8589934592"},
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := fakeBase(t, row.controllers), t.TempDir()
			if err := c.delegate(limitControllers); err != nil {
				t.Fatal(err)
			}
			for file := range row.want {
				machineOf(t, dir, map[string]string{file: ""})
			}
			rest, err := c.Limit(dir, row.limits)
			if got := read(t, dir); !maps.Equal(got, row.want) {
				t.Errorf("got the files %v, want %v", got, row.want)
			}
			if rest != row.rest {
				t.Errorf("left to the host: %+v, want %+v", rest, row.rest)
			}
			if row.refused == "" && err != nil || row.refused != "" && (err == nil || !strings.Contains(err.Error(), row.refused)) {
				t.Errorf("got error %v, want %q", err, row.refused)
			}
		})
	}
}

// TestDelegation checks which controllers come into force below the base.
func TestDelegation(t *testing.T) {
	c := fakeBase(t, "memory")
	if err := c.delegate(limitControllers); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.words("cgroup.subtree_control"), " "); got != "+memory" { // the kernel turns it into "memory"
		t.Errorf("it wrote %q", got)
	}
	if got := c.Unenforced(someLimits); got != (Limits{Processes: 500, CPU: 1.5}) {
		t.Errorf("unenforced: %+v", got)
	}
	if got := (*Cgroups)(nil).Unenforced(someLimits); got != someLimits {
		t.Errorf("unenforced without cgroups: %+v", got)
	}
	readOnly := fakeBase(t, "memory pids")
	if err := os.Remove(filepath.Join(readOnly.Base, "cgroup.subtree_control")); err != nil {
		t.Fatal(err)
	}
	if err := readOnly.delegate(limitControllers); err == nil || readOnly.Unenforced(someLimits) != someLimits {
		t.Errorf("got error %v, unenforced %+v; want all of them", err, readOnly.Unenforced(someLimits))
	}
}

// trueController returns a base in which the kernel offers the hugetlb controller, which machines with cgroups of
// version 1 leave to version 2.
func trueController(t *testing.T) *Cgroups {
	t.Helper()
	above, err := OpenCgroups()
	if err == nil && !strings.Contains(strings.Join(above.words("cgroup.subtree_control"), " "), "hugetlb") {
		t.Cleanup(func() { _ = writeExisting(filepath.Join(above.Base, "cgroup.subtree_control"), "-hugetlb") })
		err = above.enable("hugetlb")
	}
	if err != nil {
		t.Skipf("SKIPPED: cannot delegate a controller on this machine: %v", err)
	}
	return trueCgroups(t) // removed before
}

// TestDelegationWithTheKernel checks that a host that is alone in its cgroup moves into a cgroup of its own, and that a
// host with others beside it moves nothing.
func TestDelegationWithTheKernel(t *testing.T) {
	above := trueController(t)
	if err := above.enable("hugetlb"); err != nil {
		t.Fatal(err)
	}
	for name, beside := range map[string][]node{"alone": nil, "beside another": {{Name: "another"}}} {
		t.Run(name, func(t *testing.T) {
			base := &Cgroups{Base: filepath.Join(above.Base, strconv.Itoa(len(beside)))}
			if err := os.Mkdir(base.Base, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { eventually(t, "it is empty", func() bool { return removeCgroup(base.Base) == nil }) })
			host := plant(t, node{Name: "host", Delegates: base.Base, Children: beside}).pids["host"]
			alone := len(beside) == 0
			if moved := isMember(filepath.Join(base.Base, hostCgroup), host.PID); moved != alone || isMember(base.Base, host.PID) == alone {
				t.Errorf("the host moved: %v; its base contains %s", moved, base.words("cgroup.procs"))
			}
			if got := strings.Join(base.words("cgroup.subtree_control"), " "); (got == "hugetlb") != alone {
				t.Errorf("in force: %q", got)
			}
		})
	}
}

// TestMemoryAbove checks the sum over a tree of processes.
func TestMemoryAbove(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "one", Allocates: 96 << 20}, {Name: "two", Allocates: 96 << 20}}})
	used, above := f.tree.MemoryAbove(160 << 20)
	if !above || used < 192<<20 || used > 512<<20 {
		t.Errorf("got %d MiB, above %v; want the sum of both children", used>>20, above)
	}
	if used, above := f.tree.MemoryAbove(1 << 30); above || used != 0 {
		t.Errorf("got %d, above %v; want less than 1 GiB", used, above)
	}
	one := f.pids["one"].PID
	if pss, rss := proportionalSize(one), residentSize(one); pss > rss || pss < 96<<20 {
		t.Errorf("PSS is %d MiB of %d MiB", pss>>20, rss>>20)
	}
}

// TestNice checks all threads of a process.
func TestNice(t *testing.T) {
	f := plant(t, node{Name: "runner", Session: true})
	if err := f.tree.Root.SetNice(Nice); err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(f.tree.Root.PID) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, _ := strconv.Atoi(thread.Name())
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, id); err != nil || 20-got != Nice { // the system call returns 20-nice
			t.Errorf("thread %d: nice %d, %v", id, 20-got, err)
		}
	}
	if len(threads) < 2 {
		t.Error("it has one thread only")
	}
	// The file is absent without autogroups, and empty for a process in a cgroup of the cpu controller.
	session, err := os.ReadFile(fmt.Sprintf("/proc/%d/autogroup", f.tree.Root.PID))
	if err == nil && len(session) > 0 && !strings.HasSuffix(strings.TrimSpace(string(session)), fmt.Sprintf("nice %d", Nice)) {
		t.Errorf("its session: %s", session)
	}
}

func TestFormatBytes(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 MiB", 612 << 20: "612 MiB", 8 << 30: "8 GiB", 8<<30 + 300<<20: "8.3 GiB"} {
		if got := FormatBytes(bytes); got != want {
			t.Errorf("%d: got %q, want %q", bytes, got, want)
		}
	}
}
