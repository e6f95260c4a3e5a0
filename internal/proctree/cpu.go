package proctree

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc/<pid>/stat: USER_HZ is 100 on every architecture that Linux supports (proc(5)).
const clockTick = 10 * time.Millisecond

// CPU returns the CPU time that the tree has used. A cgroup knows it, with processes that have ended (cgroup-v2.rst, cpu.stat). Without
// one it is that of the processes that run now and of their ended children, so it can fall.
func (t Tree) CPU() time.Duration {
	if t.Cgroup != "" {
		text, _ := os.ReadFile(filepath.Join(t.Cgroup, "cpu.stat"))
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "usage_usec" {
				n, _ := strconv.ParseInt(fields[1], 10, 64) // digits written by the kernel
				return time.Duration(n) * time.Microsecond
			}
		}
	}
	return time.Duration(sum(t.measured(), cpuTicks)) * clockTick
}

// cpuTicks returns the ticks of a process and of its children that it has waited for: fields 14 to 17 of /proc/<pid>/stat.
func cpuTicks(pid int) (ticks int64) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // an exited process has none
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 15 {
		return 0
	}
	for _, field := range fields[11:15] {
		n, _ := strconv.ParseInt(field, 10, 64) // digits written by the kernel
		ticks += n
	}
	return ticks
}
