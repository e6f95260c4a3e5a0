package proctree

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryAbove reports whether the tree uses more memory and swap than limit bytes, and how much. It counts memory that
// processes have mapped, a shared page once (PSS).
//
// The kernel walks all pages of a process for its PSS. The resident size is a counter and never smaller, so the PSS is
// read only if the resident sizes exceed the limit. It blocks for milliseconds, and for longer if processes are large.
func (t Tree) MemoryAbove(limit int64) (used int64, above bool) {
	all := t.measured()
	if sum(all, residentSize) <= limit {
		return 0, false
	}
	used = sum(all, proportionalSize)
	return used, used > limit
}

// measured returns the processes whose use counts for the tree. A cgroup lists them; otherwise all processes are scanned. A process
// that cannot be read is left out.
func (t Tree) measured() []Process {
	if t.Cgroup == "" {
		all, _ := t.members()
		return append(all, t.Root)
	}
	var all []Process
	files, _ := filepath.Glob(filepath.Join(t.Cgroup, "*", "cgroup.procs")) // the pattern is well formed
	for _, file := range append(files, filepath.Join(t.Cgroup, "cgroup.procs")) {
		text, _ := os.ReadFile(file) // a removed cgroup has no processes
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				all = append(all, Process{PID: pid})
			}
		}
	}
	return all
}

func sum(all []Process, size func(pid int) int64) (total int64) {
	for _, p := range all {
		total += size(p.PID)
	}
	return total
}

func residentSize(pid int) int64 {
	size, _ := kilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmRSS", "VmSwap") // an exited process has none
	return size
}

// proportionalSize divides each shared page among the processes that share it. It falls back to the resident size if the
// kernel does not show it to this user.
func proportionalSize(pid int) int64 {
	size, ok := kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss", "SwapPss")
	if !ok {
		return residentSize(pid)
	}
	return size
}

// kilobytes adds up lines like "Pss:  612 kB" of the given keys, in bytes. ok is false if it finds none.
func kilobytes(path string, keys ...string) (total int64, ok bool) {
	text, _ := os.ReadFile(path) // an exited process has no files
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		for _, key := range keys {
			if fields := strings.Fields(rest); name == key && len(fields) == 2 {
				n, _ := strconv.ParseInt(fields[0], 10, 64) // digits written by the kernel
				total, ok = total+n<<10, true
			}
		}
	}
	return total, ok
}

// FormatBytes formats bytes for display: GiB from 1 GiB on, else MiB.
func FormatBytes(bytes int64) string {
	if bytes < 1<<30 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(bytes)/(1<<30)), ".0") + " GiB"
}
