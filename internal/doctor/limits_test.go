package doctor

import (
	"fmt"
	"testing"
)

// limitsOf returns the text of a /proc/self/limits with low soft limits: only hard limits matter.
func limitsOf(files, processes string) string {
	return fmt.Sprintf("Limit                     Soft Limit           Hard Limit           Units     \n"+
		"Max processes             100                  %-20s processes \nMax open files            1024                 %-20s files     \n", processes, files)
}

func TestLimits(t *testing.T) {
	const files, processes, memory = "ok | open files: enough for 10,000", "ok | processes and threads", "ok | of memory (this machine's)"
	rows := []struct {
		name                            string
		files, processes, kB, memoryMax string
		pidsMax                         string
		want                            []string
	}{
		{"good", "524288", "unlimited", "16000000", "max", "max", []string{"ok | Up to 524288 open files", "ok | No limit on processes", "ok | 15.3 GiB of memory (this machine's)"}},
		{"just enough", "20000", "1024", "2097152", "max", "max", []string{"ok | Up to 20000", "ok | Up to 1024", "ok | 2 GiB"}},
		{"unlimited", "unlimited", "unlimited", "2097152", "max", "max", []string{"ok | No limit on open files", processes, memory}},
		{"few files", "4096", "unlimited", "16000000", "max", "max", []string{"warning | 4096 open files: about 2048 visitors | ulimit -Hn", processes, memory}},
		{"too few files", "512", "unlimited", "16000000", "max", "max", []string{"problem | too few for a Space | LimitNOFILE", processes, memory}},
		{"few processes of the user", "65536", "600", "16000000", "max", "2000", []string{files, "warning | 600 processes and threads (`ulimit -u`) | TasksMax", memory}},
		{"few processes of the cgroup", "65536", "6000", "16000000", "max", "500", []string{files, "warning | 500 processes and threads (/sys/fs/cgroup/pids.max) | --pids-limit", memory}},
		{"too few processes", "65536", "6000", "16000000", "max", "64", []string{files, "problem | too few for one Space | TasksMax", memory}},
		{"small container", "65536", "6000", "16000000", "1073741824", "max", []string{files, processes, "warning | 1 GiB of memory (/sys/fs/cgroup/memory.max) | 2 GiB or more"}},
		{"tiny container", "65536", "6000", "16000000", "268435456", "max", []string{files, processes, "problem | 256 MiB of memory | --memory"}},
		{"container larger than the machine", "65536", "6000", "4194304", "107374182400", "max", []string{files, processes, "ok | 4 GiB of memory (this machine's)"}},
		{"unreadable", "65536", "6000", "", "max", "max", []string{files, processes, "note | cannot be read | /proc"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := fake(t, group("0::/\n", mountsV2, "proc/self/limits", limitsOf(row.files, row.processes), "proc/meminfo", "MemTotal:       "+row.kB+" kB\nMemFree: 1 kB\n",
				"sys/fs/cgroup/memory.max", row.memoryMax+"\n", "sys/fs/cgroup/pids.max", row.pidsMax+"\n"))
			expect(t, Config{machine: m}.limits(t.Context()), row.want...)
		})
	}
}

func TestMemoryOfVersion1(t *testing.T) {
	m := fake(t, group("4:memory:/\n", mountsHybrid, "proc/meminfo", "MemTotal: 16000000 kB\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"))
	expect(t, []Finding{m.memory()}, "warning | 1 GiB of memory (/sys/fs/cgroup/memory/memory.limit_in_bytes) | Docker")
	m = fake(t, group("4:memory:/\n", mountsHybrid, "proc/meminfo", "MemTotal: 16000000 kB\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"))
	expect(t, []Finding{m.memory()}, "ok | 15.3 GiB of memory (this machine's)")
}
