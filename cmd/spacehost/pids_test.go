package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// hostPID returns the pid on the host of a process that calls itself inside, in the pid namespace of the process space.
func hostPID(t testing.TB, space, inside int) int {
	t.Helper()
	if pid, ok := findHostPID(space, inside); ok {
		return pid
	}
	t.Fatalf("no process in the pid namespace of %d calls itself %d", space, inside)
	return 0
}

// findHostPID is hostPID for a process that may have exited.
func findHostPID(space, inside int) (int, bool) {
	of := pidNamespace(space)
	if of == pidNamespace(os.Getpid()) {
		return inside, true
	}
	folders, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, folder := range folders {
		pid, _ := strconv.Atoi(filepath.Base(folder)) // the pattern matches numbers
		if pidNamespace(pid) == of && slices.Contains(insidePIDs(pid), strconv.Itoa(inside)) {
			return pid, true
		}
	}
	return 0, false
}

// pidNamespace identifies the pid namespace of a process; "" if it has exited.
func pidNamespace(pid int) string {
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)) // as the comment says
	return link
}

// insidePIDs lists the names of a process in its pid namespaces, without the host's.
func insidePIDs(pid int) []string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // an exited process has none
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return strings.Fields(rest)[1:]
		}
	}
	return nil
}

// insidePID returns the pid by which a process of a Space calls itself.
func insidePID(pid int) int {
	if names := insidePIDs(pid); len(names) > 0 {
		inside, _ := strconv.Atoi(names[len(names)-1]) // the kernel writes numbers
		return inside
	}
	return pid
}
