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

// KilledError says that somebody other than the host has ended the Space by SIGKILL.
type KilledError struct {
	Memory bool   // the kernel counted a kill for lack of memory at that time
	Limit  uint64 // of memory in its cgroup, in bytes; 0 where there is none, or none is known
}

func (e *KilledError) Error() string {
	switch {
	case e.Memory && e.Limit > 0:
		return fmt.Sprintf("it was killed by the kernel for lack of memory: its cgroup may use %d MiB", e.Limit>>20)
	case e.Memory:
		return "it was killed by the kernel for lack of memory"
	}
	return "it was killed by SIGKILL by another program, most often for lack of memory"
}

// memory watches how often the kernel has killed for lack of memory, as far as anybody may read that: in the
// cgroup of a process, and on the whole machine. Two looks are kept: the last one may come between the kill and
// the news of it.
type OOMWatch struct {
	mu         sync.Mutex
	root       string // "" is the real one
	last, late oomCounters
}

// OOMInterval keeps somebody else's lack of memory, hours ago, from passing for this one.
const OOMInterval = 2 * time.Second

type oomCounters struct {
	dir      string // its folder; "" if not known
	file     string // in it
	kills    int    // of its processes; -1 unknown
	machine  int    // kills on this machine
	limit    uint64
	happened bool // false: the zero look
}

// look notes the counters as they are now for pid, which lives.
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

// counting is the cgroup that counts the kills: its own, or the first above those that we have made without the
// controller. Version 2 counts what happens below, too.
func (m *OOMWatch) counting(dir, file string) (string, int) {
	for ; filepath.Base(dir) == "app" || strings.HasPrefix(filepath.Base(dir), "spacehost-"); dir = filepath.Dir(dir) {
		if kills := m.count(filepath.Join(dir, file)); kills >= 0 {
			return dir, kills
		}
	}
	return dir, m.count(filepath.Join(dir, file))
}

// killed says what is known about a SIGKILL of which the host has just heard.
func (m *OOMWatch) Killed() *KilledError {
	m.mu.Lock()
	defer m.mu.Unlock()
	machine := m.count("/proc/vmstat")
	for _, before := range []oomCounters{m.last, m.late} {
		if !before.happened {
			continue
		}
		if before.kills >= 0 && m.count(filepath.Join(before.dir, before.file)) > before.kills {
			return &KilledError{Memory: true, Limit: before.limit}
		}
		if before.machine >= 0 && machine > before.machine {
			return &KilledError{Memory: true}
		}
	}
	return &KilledError{}
}

// cgroupVersions: where the controller lives, which file counts the kills, which holds the limit
// (Documentation/admin-guide/cgroup-v2.rst, memory.events; cgroup-v1/memory.rst, memory.oom_control).
var cgroupVersions = []struct{ controller, events, limit string }{
	{"memory", "memory.oom_control", "memory.limit_in_bytes"}, // version 1, also where version 2 is mounted beside it
	{"", "memory.events", "memory.max"},
}

// count reads the line "oom_kill N"; -1 if there is none.
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

// cgroupOf is the folder of pid's cgroup in the tree of that controller, "" being version 2's.
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

// mounted is the folder at which a cgroup is seen.
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
	text, _ := os.ReadFile(m.root + path) // what cannot be read is no evidence
	return string(text)
}

// lowestLimit is the smallest limit of the cgroup and those above it. "max", and version 1's largest number of
// whole pages, are none.
func (m *OOMWatch) lowestLimit(dir, file string) (lowest uint64) {
	for ; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		n, err := strconv.ParseUint(strings.TrimSpace(m.read(filepath.Join(dir, file))), 10, 64)
		if err == nil && n < math.MaxInt64>>1 && (lowest == 0 || n < lowest) {
			lowest = n
		}
	}
	return lowest
}
