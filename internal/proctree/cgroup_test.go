package proctree

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// trueCgroups are below a cgroup of the test's own, which is gone after it.
func trueCgroups(t *testing.T) *Cgroups {
	t.Helper()
	here, err := OpenCgroups()
	if err != nil {
		t.Skipf("SKIPPED: no cgroup can be made here: %v", err)
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
	return &Cgroups{base}
}

// set writes a file of the base.
func (c *Cgroups) set(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Base, name), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// refusals let no cgroups be made below the base, or nobody be moved into them.
var refusals = map[string]func(*testing.T, *Cgroups){
	"none below":        func(t *testing.T, c *Cgroups) { c.set(t, "cgroup.max.descendants", "0") },
	"one below":         func(t *testing.T, c *Cgroups) { c.set(t, "cgroup.max.descendants", "1") },
	"no move into them": func(t *testing.T, c *Cgroups) { c.set(t, "cgroup.type", "threaded") }, // what is below is "domain invalid"
}

// TestCgroupsAreTried: what is refused to a start of a Space is found when the host starts, and the trial leaves nothing.
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
			ours := func() []Process { all, _ := allStats(); return below(os.Getpid(), all) }
			before, _ := (&OOMWatch{}).cgroupOf(os.Getpid(), "")
			processes := ours()
			if err := c.try(); (err == nil) != want {
				t.Errorf("it says %v, want success: %v", err, want)
			}
			if after, _ := (&OOMWatch{}).cgroupOf(os.Getpid(), ""); after != before {
				t.Errorf("we are in %s, and were in %s", after, before)
			}
			if left, _ := filepath.Glob(c.of("*")); len(left) > 0 {
				t.Errorf("left behind: %s", left)
			}
			if left := slices.DeleteFunc(ours(), func(p Process) bool { return slices.Contains(processes, p) }); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
