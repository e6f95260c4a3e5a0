package doctor

import (
	"os"
	"path/filepath"
	"testing"
)

const (
	own, control = "0::/user.slice/run-1.scope\n", slice + "cgroup.subtree_control"

	// mountsV2, mountsHybrid and mountsDocker are lines of /proc/self/mountinfo.
	mountsV2     = "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountsHybrid = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	mountsDocker = "30 22 0:26 /docker/abc /sys/fs/cgroup ro,nosuid master:9 - cgroup2 cgroup rw\n"

	slice = "sys/fs/cgroup/user.slice/run-1.scope/"
)

func group(own, mounts string, more ...string) map[string]string {
	files := map[string]string{"proc/self/cgroup": own, "proc/self/mountinfo": "27 1 254:0 / / rw - ext4 /dev/vda rw\nnonsense\n" + mounts}
	for i := 0; i < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	return files
}

func TestCgroup(t *testing.T) {
	rows := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"delegated", group(own, mountsV2, slice+"cgroup.controllers", "cpu memory pids\n", control, ""), "ok | delegated in /sys/fs/cgroup/user.slice/run-1.scope: cgroup.kill ends the descendants of a Space or a GPU worker"},
		{"bind mount of a container", group("0::/docker/abc\n", mountsDocker, "sys/fs/cgroup/cgroup.controllers", "memory pids", "sys/fs/cgroup/cgroup.subtree_control", ""),
			"ok | delegated in /sys/fs/cgroup: "},
		{"foreign mount", group("0::/elsewhere\n", mountsDocker), "note | in no cgroup of version 2"},
		{"only version 1", group("8:memory:/\n", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"), "note | in no cgroup of version 2 | systemd.unified_cgroup_hierarchy=1"},
		{"cannot be created", group(own, mountsV2), "note | No cgroup can be created in /sys/fs/cgroup/user.slice/run-1.scope (no such file or directory): | systemd-run --user --scope"},
		{"no proc", nil, "note | in no cgroup of version 2"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := fake(t, row.files)
			expect(t, Config{machine: m}.cgroup(t.Context()), row.want)
			if left, _ := filepath.Glob(filepath.Join(m.root, "sys/fs/cgroup/*/*/spacehost-doctor-*")); len(left) > 0 {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

func TestLimitsOfSpaces(t *testing.T) {
	rows := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"delegated", group(own, mountsV2, slice+"cgroup.controllers", "cpu memory pids\n", control, ""), "ok | can limit memory, processes and CPU"},
		{"no memory", group(own, mountsV2, slice+"cgroup.controllers", "cpu pids\n", control, ""), "note | does not limit memory of a Space: cgroup v2 is not delegated in /sys/fs/cgroup/user.slice/run-1.scope. The host measures memory and processes instead, and ends a Space above a limit | Delegate=yes"},
		{"controllers not delegated", group(own, mountsV2, slice+"cgroup.controllers", "memory pids\n"),
			"note | does not limit memory, pids, cpu of a Space: cgroup v2 is not delegated in /sys/fs/cgroup/user.slice/run-1.scope | systemd-run --user --scope -p Delegate=yes"},
		{"hybrid", group("8:pids:/\n4:memory:/\n0::/\n", mountsHybrid, "sys/fs/cgroup/unified/cgroup.procs", ""), "note | not delegated in /sys/fs/cgroup/unified | systemd.unified_cgroup_hierarchy=1"},
		{"autogroup", group(own, mountsV2, slice+"cgroup.controllers", "memory pids\n", control, "", "proc/sys/kernel/sched_autogroup_enabled", "1\n"), "note | Each Space gets the same share of the CPUs (autogroup) | Delegate=yes"},
		{"no autogroup", group(own, mountsV2, slice+"cgroup.controllers", "memory pids\n", control, ""), "note | A Space with more processes gets more of the CPUs (sysctl kernel.sched_autogroup_enabled=1 | Delegate=yes"},
		{"Docker", group("0::/docker/abc\n", mountsDocker, "sys/fs/cgroup/cgroup.controllers", "memory pids cpu"), "note | not delegated in /sys/fs/cgroup | whole container"},
		{"only version 1", group("8:memory:/\n", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"), "note | neither memory nor CPU | systemd.unified_cgroup_hierarchy=1"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			expect(t, []Finding{fake(t, row.files).spaceLimits()}, row.want)
		})
	}
}

func TestCgroupWithoutKill(t *testing.T) {
	m := fake(t, group("0::/user.slice/run-1.scope\n", mountsV2, slice+"cgroup.controllers", "memory pids\n", slice+"cgroup.subtree_control", ""))
	m.canKill = func(string) error { return os.ErrNotExist }
	expect(t, Config{machine: m}.cgroup(t.Context()), "note | not killed as a whole (cgroup.kill needs Linux 5.14): descendants of a GPU worker are found by the process tree, with the worker as child subreaper | newer kernel")
}

func TestReadOnlyCgroupOfContainer(t *testing.T) {
	m := fake(t, nil)
	err := &os.PathError{Op: "mkdir", Path: "x", Err: os.NewSyscallError("mkdir", errReadOnly)}
	expect(t, []Finding{m.notDelegated(hierarchy{m.root, m.path("sys/fs/cgroup")}, err)},
		"note | read-only file system | usual in a container")
}

func TestLowestLimitOfAncestors(t *testing.T) {
	m := fake(t, group("4:memory:/job/1\n8:cpu,pids:/\n0::/user.slice/run-1.scope\n", mountsV2+"36 31 0:32 / /sys/fs/cgroup1 rw - cgroup cgroup rw,memory\n",
		slice+"pids.max", "max\n", "sys/fs/cgroup/user.slice/pids.max", "500\n", "sys/fs/cgroup/pids.max", "900\n",
		"sys/fs/cgroup1/job/memory.limit_in_bytes", "1073741824\n"))
	if n, where := m.lowest("", "pids.max"); n != 500 || where != "/sys/fs/cgroup/user.slice/pids.max" {
		t.Errorf("got %d in %s, want 500 in user.slice", n, where)
	}
	if n, where := m.lowest("memory", "memory.limit_in_bytes"); n != 1<<30 || where != "/sys/fs/cgroup1/job/memory.limit_in_bytes" {
		t.Errorf("got %d in %s, want 1 GiB of version 1", n, where)
	}
	if n, where := m.lowest("pids", "pids.max"); n != unlimited || where != "" {
		t.Errorf("got %d in %s, want no limit: that hierarchy is not mounted", n, where)
	}
}
