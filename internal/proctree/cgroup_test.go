package proctree

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// trueCgroups returns Cgroups below a cgroup of this test, which is removed after it.
func trueCgroups(t *testing.T) *Cgroups {
	t.Helper()
	here, err := OpenCgroups()
	if err != nil {
		t.Skipf("SKIPPED: cannot create a cgroup on this machine: %v", err)
	}
	base := here.of("test-" + filepath.Base(tempDir(t)))
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeCgroup(base); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	return &Cgroups{Base: base}
}

// set writes a file of the base.
func (c *Cgroups) set(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Base, name), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// refusals configure the base so that the kernel refuses to create cgroups below it or to move processes into them.
var refusals = map[string]func(*testing.T, *Cgroups){
	"none below":    func(t *testing.T, c *Cgroups) { c.set(t, "cgroup.max.descendants", "0") },
	"one below":     func(t *testing.T, c *Cgroups) { c.set(t, "cgroup.max.descendants", "1") },
	"no move below": func(t *testing.T, c *Cgroups) { c.set(t, "cgroup.type", "threaded") }, // children of the base become "domain invalid"
}

// TestCgroupsAreTried checks that OpenCgroups detects at startup what the kernel would refuse at the start of a
// Space, and that the trial leaves nothing behind.
func TestCgroupsAreTried(t *testing.T) {
	wants := map[string]bool{"as it is": true}
	for name := range refusals {
		wants[name] = false
	}
	for name, want := range wants {
		t.Run(name, func(t *testing.T) {
			c := trueCgroups(t)
			if refuse := refusals[name]; refuse != nil {
				refuse(t, c)
			}
			children := func() []Process { all, _ := allStats(); return below(os.Getpid(), all) }
			before, _ := (&OOMWatch{}).cgroupOf(os.Getpid(), "")
			processes := children()
			if err := c.try(); (err == nil) != want {
				t.Errorf("got error %v, want success: %v", err, want)
			}
			if after, _ := (&OOMWatch{}).cgroupOf(os.Getpid(), ""); after != before {
				t.Errorf("this process moved to %s from %s", after, before)
			}
			if left, _ := filepath.Glob(c.of("*")); len(left) > 0 {
				t.Errorf("left behind: %s", left)
			}
			if left := slices.DeleteFunc(children(), func(p Process) bool { return slices.Contains(processes, p) }); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
