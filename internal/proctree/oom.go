package proctree

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// KilledError reports that SIGKILL from outside the host ended the Space.
type KilledError struct {
	Memory bool   // the kernel counted an out-of-memory kill at that time
	Limit  uint64 // memory limit of its cgroup in bytes; 0 if there is none or it is unknown
}

func (e *KilledError) Error() string {
	switch {
	case e.Memory && e.Limit > 0:
		return fmt.Sprintf("it was killed by the kernel's out-of-memory killer: the limit of its cgroup is %d MiB", e.Limit>>20)
	case e.Memory:
		return "it was killed by the kernel's out-of-memory killer"
	}
	return "it was killed by SIGKILL from another program, most often for lack of memory"
}

// OOMWatch compares the kernel's counters of out-of-memory kills before and after an exit. It reads the counters of
// the process's cgroup and of the whole machine, if they are readable. It keeps two readings, because the last
// reading can fall between the kill and the exit report.
type OOMWatch struct {
	mu         sync.Mutex
	root       string // prefix of all paths, for tests; "" in production
	last, late oomCounters
}

// OOMInterval is the interval between two calls of Look. It is short, so that an unrelated out-of-memory kill hours
// ago does not count.
const OOMInterval = 2 * time.Second

type oomCounters struct {
	dir      string // folder of the cgroup; "" if unknown
	file     string // the file in dir that contains the counter
	kills    int    // kills in the cgroup; -1 if unknown
	machine  int    // kills on this machine
	limit    uint64
	happened bool // false for the zero value
}

// Look records the current counters for pid, a running process.
func (m *OOMWatch) Look(pid int) {
	now := oomCounters{happened: true, kills: -1, machine: m.count("/proc/vmstat")}
	for _, version := range cgroupVersions {
		dir, ok := m.cgroupOf(pid, version.controller)
		if !ok {
			continue
		}
		dir, kills := m.counting(dir, version.events)
		if kills >= 0 {
			now.dir, now.file, now.kills = dir, version.events, kills
			now.limit = m.lowestLimit(dir, version.limit)
			break
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last, m.late = m.late, now
}

// counting returns the cgroup that counts the kills. That is the process's own cgroup, or the first ancestor above
// the cgroups that this program created without the memory controller. Version 2 includes the kills of descendants.
func (m *OOMWatch) counting(dir, file string) (string, int) {
	for ; filepath.Base(dir) == "app" || strings.HasPrefix(filepath.Base(dir), "spacehost-"); dir = filepath.Dir(dir) {
		if kills := m.count(filepath.Join(dir, file)); kills >= 0 {
			return dir, kills
		}
	}
	return dir, m.count(filepath.Join(dir, file))
}

// Killed returns the evidence about a SIGKILL that was just reported. A counter of a cgroup is better evidence than the machine's,
// also in the later reading: the first one may be of another cgroup, which the process has left.
func (m *OOMWatch) Killed() *KilledError {
	m.mu.Lock()
	defer m.mu.Unlock()
	machine := m.count("/proc/vmstat")
	readings := []oomCounters{m.last, m.late}
	for _, before := range readings {
		if before.happened && before.kills >= 0 && m.count(filepath.Join(before.dir, before.file)) > before.kills {
			return &KilledError{Memory: true, Limit: before.limit}
		}
	}
	for _, before := range readings {
		if before.happened && before.machine >= 0 && machine > before.machine {
			return &KilledError{Memory: true}
		}
	}
	return &KilledError{}
}

// cgroupVersions lists, for each cgroup version, the memory controller, the file with the number of kills, and the
// file with the limit (Documentation/admin-guide/cgroup-v2.rst, memory.events; cgroup-v1/memory.rst,
// memory.oom_control).
var cgroupVersions = []struct{ controller, events, limit string }{
	{"memory", "memory.oom_control", "memory.limit_in_bytes"}, // version 1, also where version 2 is mounted in addition
	{"", "memory.events", "memory.max"},
}

// count returns N of the line "oom_kill N"; -1 if there is none.
func (m *OOMWatch) count(path string) int {
	for line := range strings.Lines(m.read(path)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "oom_kill" {
			if n, err := strconv.Atoi(fields[1]); err == nil {
				return n
			}
		}
	}
	return -1
}

// cgroupOf returns the folder of pid's cgroup in the hierarchy of a controller. Version 2 has the controller "".
func (m *OOMWatch) cgroupOf(pid int, controller string) (dir string, ok bool) {
	for line := range strings.Lines(m.read(fmt.Sprintf("/proc/%d/cgroup", pid))) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || !slices.Contains(strings.Split(parts[1], ","), controller) {
			continue
		}
		return m.mounted(controller, parts[2])
	}
	return "", false
}

// mounted returns the folder at which a cgroup is mounted.
func (m *OOMWatch) mounted(controller, path string) (dir string, ok bool) {
	for line := range strings.Lines(m.read("/proc/self/mountinfo")) {
		left, right, _ := strings.Cut(line, " - ") // proc_pid_mountinfo(5)
		before, after := strings.Fields(left), strings.Fields(right)
		if len(before) < 5 || len(after) < 3 || !isCgroup(after, controller) {
			continue
		}
		if below, err := filepath.Rel(before[3], path); err == nil && filepath.IsLocal(below) {
			return filepath.Join(before[4], below), true
		}
	}
	return "", false
}

func isCgroup(after []string, controller string) bool {
	if controller == "" {
		return after[0] == "cgroup2"
	}
	return after[0] == "cgroup" && slices.Contains(strings.Split(after[2], ","), controller)
}

func (m *OOMWatch) read(path string) string {
	text, _ := os.ReadFile(m.root + path) // an unreadable file is no evidence
	return string(text)
}

// lowestLimit returns the smallest limit of the cgroup and its ancestors; 0 if there is none. "max", and version 1's
// largest number of whole pages, mean no limit.
func (m *OOMWatch) lowestLimit(dir, file string) (lowest uint64) {
	for ; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		n, err := strconv.ParseUint(strings.TrimSpace(m.read(filepath.Join(dir, file))), 10, 64)
		if err == nil && n < math.MaxInt64>>1 && (lowest == 0 || n < lowest) {
			lowest = n
		}
	}
	return lowest
}
