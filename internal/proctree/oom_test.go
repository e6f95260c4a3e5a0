package proctree

import (
	"os"
	"path/filepath"
	"testing"
)

// machineOf writes the files of a simulated kernel below a folder.
func machineOf(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// unified is a machine with cgroup version 2 only. The process is in /a/b; its container shows /a.
var unified = map[string]string{
	"proc/7/cgroup":                 "0::/a/b\n",
	"proc/self/mountinfo":           "31 23 0:28 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
	"proc/vmstat":                   "nr_free_pages 1\noom_kill 3\n",
	"sys/fs/cgroup/b/memory.events": "low 0\noom 4\noom_kill 3\noom_group_kill 0\n",
	"sys/fs/cgroup/b/memory.max":    "max\n",
	"sys/fs/cgroup/memory.max":      "536870912\n",
}

// hybrid has the memory controller in version 1, and version 2 without a memory controller.
var hybrid = map[string]string{
	"proc/7/cgroup":             "4:cpu,memory:/a\n0::/\n",
	"proc/self/mountinfo":       "35 31 0:32 / /m rw - cgroup cgroup rw,cpu,memory\n41 31 0:38 / /u rw - cgroup2 cgroup2 rw\n",
	"proc/vmstat":               "oom_kill 3\n",
	"m/a/memory.oom_control":    "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
	"m/a/memory.limit_in_bytes": "268435456\n",
	"m/memory.limit_in_bytes":   "9223372036854771712\n",
}

func TestEvidenceOfAnOutOfMemoryKill(t *testing.T) {
	for _, row := range []struct {
		name    string
		machine map[string]string
		then    map[string]string
		want    KilledError
	}{
		{"its cgroup, version 2", unified, map[string]string{"sys/fs/cgroup/b/memory.events": "oom_kill 4\n"}, KilledError{true, 512 << 20}},
		{"its cgroup, version 1", hybrid, map[string]string{"m/a/memory.oom_control": "oom_kill 4\n"}, KilledError{true, 256 << 20}},
		{"the machine", unified, map[string]string{"proc/vmstat": "oom_kill 4\n"}, KilledError{true, 0}},
		{"cgroups are unreadable", map[string]string{"proc/vmstat": "oom_kill 0\n"}, map[string]string{"proc/vmstat": "oom_kill 1\n"}, KilledError{true, 0}},
		{"an older kill", unified, nil, KilledError{}},
		{"all is unreadable", nil, map[string]string{"proc/vmstat": "oom_kill 4\n"}, KilledError{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := OOMWatch{root: t.TempDir()}
			machineOf(t, m.root, row.machine)
			m.Look(7)
			machineOf(t, m.root, row.then)
			m.Look(7) // a reading between the kill and the exit report
			if got := m.Killed(); *got != row.want {
				t.Errorf("got %+v, want %+v", *got, row.want)
			}
		})
	}
}

// The interpreter is a script that moves itself to another cgroup, and the kernel ends it there soon after: the first reading is of
// the former cgroup.
func TestEvidenceOfTheLaterCgroup(t *testing.T) {
	m := OOMWatch{root: t.TempDir()}
	machineOf(t, m.root, hybrid)
	machineOf(t, m.root, map[string]string{"proc/7/cgroup": "4:cpu,memory:/\n0::/\n", "m/memory.oom_control": "oom_kill 3\n"})
	m.Look(7)
	machineOf(t, m.root, map[string]string{"proc/7/cgroup": hybrid["proc/7/cgroup"]})
	m.Look(7)
	machineOf(t, m.root, map[string]string{"m/a/memory.oom_control": "oom_kill 4\n", "proc/vmstat": "oom_kill 4\n"})
	if got, want := m.Killed(), (KilledError{true, 256 << 20}); *got != want {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}
