package proctree

import (
	"errors"
	"math"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Stray is the result of SpaceAt for a process that may run code of a Space, but cannot be attributed to one. It is not
// the name of a Space.
const Stray = "?"

// maxWalks bounds how often Untrusted follows the parents of a process while some of them exit.
const maxWalks = 8

// Untrusted reports whether a process may run code of a Space. It does if one of these holds:
//
//  1. It has the marker of a Space.
//  2. It is in the cgroup of a Space.
//  3. It descends from this process. Contain makes this process a subreaper, so a daemon of a Space that has left its
//     parent, its session and its environment becomes a child of this process. The tools of a build descend from it,
//     too. Children from before Contain do not count, nor do their descendants: an entrypoint may start a process in
//     the background and then become this program by exec.
//  4. It has exited: another process may hold its connections.
//
// A process outside of this pid namespace, with pid 0, is trusted: no descendant is there.
func (p *Processes) Untrusted(pid int) bool {
	return pid != 0 && (p.hasAnyMarker(pid) || p.cgroups.contain(pid) || p.descends(pid))
}

// contain reports whether a process is in the cgroup of a start of a Space.
func (c *Cgroups) contain(pid int) bool {
	if c == nil {
		return false
	}
	dir, ok := (&OOMWatch{}).cgroupOf(pid, "")
	return ok && strings.HasPrefix(dir, c.of(""))
}

// isWithin reports whether a process is in a cgroup or in a cgroup below it.
func isWithin(cgroup string, pid int) bool {
	dir, ok := (&OOMWatch{}).cgroupOf(pid, "")
	return ok && strings.HasPrefix(dir+"/", cgroup+"/")
}

// descends returns true for a process that has exited or that cannot be read.
func (p *Processes) descends(pid int) bool {
	for range maxWalks {
		if below, known := p.walk(pid); known {
			return below
		}
	}
	return true
}

// walk follows the parents of a process up to this process. known is false if one of them exited meanwhile: then the
// process below it has another parent by now. A parent that is younger than its child is another process with a reused
// pid.
func (p *Processes) walk(pid int) (below, known bool) {
	child := Process{Start: math.MaxUint64}
	for {
		s, _, err := readStatErr(pid)
		switch {
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
			return true, true
		case s.PID == 0 && isThere(pid): // hidden from this user, so of another user
			return false, true
		case s.PID == 0 || s.Start > child.Start:
			return false, false
		case s.Parent == os.Getpid():
			return !slices.Contains(p.inherited, s.Process), true
		case s.Parent == 0:
			return false, true
		}
		child, pid = s.Process, s.Parent
	}
}

// children returns the running children of this process.
func children() (found []Process) {
	all, _ := allStats() // a child that cannot be read does not become trusted
	for _, s := range all {
		if s.Parent == os.Getpid() {
			found = append(found, s.Process)
		}
	}
	return found
}
