package proctree

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Threads returns the number of processes and threads of the tree, as the kernel counts them for a limit. It returns 0 if all
// processes of the machine together have fewer than least, which is one read. With a cgroup it reads one file for each group of
// the start; otherwise it scans all processes, which takes milliseconds.
func (t Tree) Threads(least int) (n int) {
	if total, ok := machineThreads(); ok && total < least {
		return 0
	}
	if t.Cgroup != "" {
		return cgroupThreads(t.Cgroup)
	}
	all, _ := allStats() // a process that cannot be read is not counted
	counts := make(map[Process]int, len(all))
	for _, s := range all {
		counts[s.Process] = s.Threads
	}
	for _, p := range append(t.among(all), t.Root) {
		n += counts[p]
	}
	return n
}

// machineThreads returns the threads of this machine, from "0.31 0.20 0.18 2/614 11827" (proc_loadavg(5)).
func machineThreads() (total int, ok bool) {
	text, _ := os.ReadFile("/proc/loadavg") // a sandbox may hide it
	fields := strings.Fields(string(text))
	if len(fields) < 4 {
		return 0, false
	}
	_, number, _ := strings.Cut(fields[3], "/")
	total, err := strconv.Atoi(number)
	return total, err == nil
}

// cgroupThreads counts the threads in a cgroup and in those one level below it (cgroup-v2.rst, cgroup.threads).
func cgroupThreads(dir string) (n int) {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.threads")) // the pattern is well formed
	for _, file := range append(files, filepath.Join(dir, "cgroup.threads")) {
		text, _ := os.ReadFile(file) // a removed cgroup has no threads
		n += strings.Count(string(text), "\n")
	}
	return n
}

// ForksRefused returns how often the limit of processes of a start's cgroup has made a fork fail (cgroup-v2.rst, pids.events). It
// is 0 without the pids controller.
func (t Tree) ForksRefused() int {
	if t.Cgroup == "" {
		return 0
	}
	text, _ := os.ReadFile(filepath.Join(t.Cgroup, "pids.events")) // absent without the controller
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "max" {
			n, _ := strconv.Atoi(fields[1]) // digits written by the kernel
			return n
		}
	}
	return 0
}

// SetOOMScore makes the kernel's out-of-memory killer prefer a process, and what it starts later, by that many thousandths of the
// machine's memory (proc(5), oom_score_adj).
func (p Process) SetOOMScore(score int) error {
	return writeExisting("/proc/"+strconv.Itoa(p.PID)+"/oom_score_adj", strconv.Itoa(score))
}
