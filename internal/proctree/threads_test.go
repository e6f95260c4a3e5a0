package proctree

import (
	"os"
	"path/filepath"
	"testing"
)

// TestThreads compares the scan of all processes with the list of a cgroup.
func TestThreads(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "one"}, {Name: "two", Children: []node{{Name: "below"}}}}})
	eventually(t, "the scan finds all threads of the four processes", func() bool { // Go starts a thread at any time
		threads := 0
		for _, p := range f.pids {
			entries, err := os.ReadDir("/proc/" + p.String() + "/task")
			if err != nil {
				t.Fatal(err)
			}
			threads += len(entries)
		}
		return f.tree.Threads(0) == threads && threads >= 4
	})
	if n := f.tree.Threads(1 << 22); n != 0 {
		t.Errorf("%d threads on a machine with fewer than asked for, want 0", n)
	}
	dir := t.TempDir()
	for _, name := range []string{"app", "gpu-7-7"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	machineOf(t, dir, map[string]string{"app/cgroup.threads": "1\n2\n3\n", "gpu-7-7/cgroup.threads": "7\n", "cgroup.threads": ""})
	if n := (Tree{Root: f.tree.Root, Cgroup: dir}).Threads(0); n != 4 {
		t.Errorf("%d threads in the cgroups, want 4", n)
	}
	if n := (Tree{Cgroup: filepath.Join(dir, "removed")}).Threads(0); n != 0 {
		t.Errorf("%d threads in a removed cgroup", n)
	}
}

// TestForksRefused reads the files of the kernel's pids controller.
func TestForksRefused(t *testing.T) {
	for text, want := range map[string]int{"max 12\n": 12, "max 0\n": 0, "": 0, "max.imposed 9\nmax 2\n": 2} {
		dir := t.TempDir()
		machineOf(t, dir, map[string]string{"pids.events": text})
		if n := (Tree{Cgroup: dir}).ForksRefused(); n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
	if n := (Tree{Cgroup: t.TempDir()}).ForksRefused() + (Tree{}).ForksRefused(); n != 0 {
		t.Errorf("%d without the controller", n)
	}
}
