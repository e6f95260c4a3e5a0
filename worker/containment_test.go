package worker

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"spacehost/internal/proctree"
)

// trueCgroups returns Cgroups below a cgroup of this test, which is removed after it.
func trueCgroups(t *testing.T) *proctree.Cgroups {
	t.Helper()
	here, err := proctree.OpenCgroups()
	if err != nil {
		t.Skipf("SKIPPED: cannot create a cgroup on this machine: %v", err)
	}
	base := filepath.Join(here.Base, "spacehost-test-"+filepath.Base(tempDir(t)))
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(base); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	return &proctree.Cgroups{Base: base}
}

// refusals are files of the base. Their values make the kernel refuse to create cgroups below it or to move
// processes into them.
var refusals = map[string]struct{ file, value string }{
	"none below":    {"cgroup.max.descendants", "0"},
	"one below":     {"cgroup.max.descendants", "1"},
	"no move below": {"cgroup.type", "threaded"}, // children of the base become "domain invalid"
}

func cgroupHolds(dir string, pid int) bool {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // a removed cgroup has no members
	return slices.Contains(strings.Fields(string(text)), strconv.Itoa(pid))
}

// TestASpaceWithoutACgroup checks that the workers of such a Space are subreapers, even on a machine that allows
// cgroups.
func TestASpaceWithoutACgroup(t *testing.T) {
	started := func(t *testing.T, c *proctree.Cgroups) (subreaper bool) {
		p, r := startFake(t, "good", "", func(config *ProcessConfig) { config.Cgroups = c })
		r.awaitOp(t, "manifest")
		var lines []string
		eventually(t, "the runner prints its config", func() bool {
			lines = slices.DeleteFunc(r.printed(), func(line string) bool { return !strings.HasPrefix(line, "subreaper ") })
			return len(lines) == 1
		})
		if has := p.tree.Cgroup != ""; has && !cgroupHolds(filepath.Join(p.tree.Cgroup, "app"), p.PID) {
			t.Errorf("it is not in %s", p.tree.Cgroup)
		}
		if c != nil {
			if left, _ := filepath.Glob(filepath.Join(c.Base, "spacehost-*")); len(left) > 0 != (p.tree.Cgroup != "") {
				t.Errorf("its cgroup is %q, and the base contains %q", p.tree.Cgroup, left)
			}
		}
		return lines[0] == "subreaper true"
	}
	t.Run("the machine has none", func(t *testing.T) {
		if !started(t, nil) {
			t.Error("its workers are no subreapers")
		}
	})
	t.Run("the base does not exist", func(t *testing.T) {
		file := filepath.Join(tempDir(t), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !started(t, &proctree.Cgroups{Base: file}) {
			t.Error("its workers are no subreapers")
		}
	})
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			c := trueCgroups(t)
			if err := os.WriteFile(filepath.Join(c.Base, refusal.file), []byte(refusal.value), 0); err != nil {
				t.Fatal(err)
			}
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
