package worker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// trueCgroups are below a cgroup of the test's own, which is gone after it.
func trueCgroups(t *testing.T) *cgroups {
	t.Helper()
	here, err := openCgroups()
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
	return &cgroups{base}
}

// set writes a file of the base.
func (c *cgroups) set(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.base, name), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// refusals let no cgroups be made below the base, or nobody be moved into them.
var refusals = map[string]func(*testing.T, *cgroups){
	"none below":        func(t *testing.T, c *cgroups) { c.set(t, "cgroup.max.descendants", "0") },
	"one below":         func(t *testing.T, c *cgroups) { c.set(t, "cgroup.max.descendants", "1") },
	"no move into them": func(t *testing.T, c *cgroups) { c.set(t, "cgroup.type", "threaded") }, // what is below is "domain invalid"
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
			ours := func() []proc { all, _ := allStats(); return below(os.Getpid(), all) }
			before, _ := (&memory{}).cgroupOf(os.Getpid(), "")
			processes := ours()
			if err := c.try(); (err == nil) != want {
				t.Errorf("it says %v, want success: %v", err, want)
			}
			if after, _ := (&memory{}).cgroupOf(os.Getpid(), ""); after != before {
				t.Errorf("we are in %s, and were in %s", after, before)
			}
			if left, _ := filepath.Glob(c.of("*")); len(left) > 0 {
				t.Errorf("left behind: %s", left)
			}
			if left := slices.DeleteFunc(ours(), func(p proc) bool { return slices.Contains(processes, p) }); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestASpaceWithoutACgroup has workers that are subreapers, whatever this machine allows others.
func TestASpaceWithoutACgroup(t *testing.T) {
	started := func(t *testing.T, c *cgroups) (subreaper bool) {
		p, r := startFake(t, "good", "", func(config *ProcessConfig) { config.cgroups = c })
		r.awaitOp(t, "manifest")
		var said []string
		eventually(t, "the runner says what it was told", func() bool {
			said = slices.DeleteFunc(r.printed(), func(line string) bool { return !strings.HasPrefix(line, "subreaper ") })
			return len(said) == 1
		})
		if has := p.tree.cgroup != ""; has && !cgroupHolds(filepath.Join(p.tree.cgroup, "app"), p.PID) {
			t.Errorf("it is not in %s", p.tree.cgroup)
		}
		if c != nil {
			if left, _ := filepath.Glob(c.of("*")); len(left) > 0 != (p.tree.cgroup != "") {
				t.Errorf("its cgroup is %q, and there is %q", p.tree.cgroup, left)
			}
		}
		return said[0] == "subreaper true"
	}
	t.Run("the machine has none", func(t *testing.T) {
		if !started(t, nil) {
			t.Error("its workers are no subreapers")
		}
	})
	t.Run("they are gone", func(t *testing.T) {
		file := filepath.Join(tempDir(t), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !started(t, &cgroups{file}) {
			t.Error("its workers are no subreapers")
		}
	})
	for name, refuse := range refusals {
		t.Run(name, func(t *testing.T) {
			c := trueCgroups(t)
			refuse(t, c)
			if !started(t, c) {
				t.Error("its workers are no subreapers")
			}
		})
	}
	t.Run("it has one", func(t *testing.T) {
		if started(t, trueCgroups(t)) {
			t.Error("its workers are subreapers")
		}
	})
}
