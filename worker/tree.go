package worker

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// markerVariable names a file whose path is unique to one start of a Space. It is in the environment that
// the interpreter was exec'd with, so /proc shows it for every process of that start, forked or exec'd,
// also when it has left its parent, its group and its session.
const markerVariable = "ZEROGPU_PROC_SELF_CGROUP_PATH"

// tree is the processes of one start of a Space.
type tree struct {
	root   proc
	marker string
}

// proc is a process that cannot be mistaken for another: a pid comes back, a pid with its start time does not
// within one boot.
type proc struct {
	pid   int
	start uint64 // clock ticks since boot, field 22 of /proc/<pid>/stat
}

type stat struct {
	proc
	parent, group int
	state         byte
}

// readStat reads /proc/<pid>/stat; false if there is no such process, or only its zombie.
func readStat(pid int) (stat, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, false
	}
	after := bytes.LastIndexByte(data, ')') // the name before it may hold anything
	fields := strings.Fields(string(data[after+1:]))
	if after < 0 || len(fields) < 20 {
		return stat{}, false
	}
	s := stat{state: fields[0][0]}
	s.pid = pid
	s.parent, _ = strconv.Atoi(fields[1])
	s.group, _ = strconv.Atoi(fields[2])
	s.start, _ = strconv.ParseUint(fields[19], 10, 64)
	return s, s.state != 'Z' && s.state != 'X'
}

func (p proc) alive() bool {
	s, ok := readStat(p.pid)
	return ok && s.start == p.start
}

// signal sends sig to exactly this process, through a pidfd, so that a recycled pid is never hit.
func (p proc) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !p.alive() { // checked after the open: from here on fd means one process
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

func allStats() []stat {
	entries, _ := os.ReadDir("/proc")
	var found []stat
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if s, ok := readStat(pid); ok {
				found = append(found, s)
			}
		}
	}
	return found
}

// below returns root's descendants among all, root itself not included.
func below(root int, all []stat) []proc {
	var found []proc
	for parents := []int{root}; len(parents) > 0; {
		var next []int
		for _, s := range all {
			if slices.Contains(parents, s.parent) && s.pid != root {
				found, next = append(found, s.proc), append(next, s.pid)
			}
		}
		parents = next
	}
	return found
}

// members returns every living process of the tree but the runner: its descendants, and whoever bears its marker.
func (t tree) members() []proc {
	all := allStats()
	var found []proc
	if t.root.alive() { // else its pid may be somebody else's by now
		found = below(t.root.pid, all)
	}
	for _, s := range all {
		if s.proc == t.root {
			continue
		}
		if !slices.Contains(found, s.proc) && s.pid != os.Getpid() && hasMarker(s.pid, t.marker) {
			found = append(found, s.proc)
		}
	}
	return found
}

func (t tree) has(pid int) (proc, bool) {
	s, ok := readStat(pid)
	if !ok || pid == t.root.pid || !t.root.alive() {
		return proc{}, false
	}
	ours := hasMarker(pid, t.marker) || slices.Contains(below(t.root.pid, allStats()), s.proc)
	return s.proc, ours
}

func hasMarker(pid int, marker string) bool {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(pair []byte) bool {
		return string(pair) == markerVariable+"="+marker
	})
}

// killTime bounds how long kill looks for processes that fork faster than they die.
const killTime = 5 * time.Second

// kill ends every process of the tree and returns when none is left, or says in the log which ones stay.
func (t tree) kill(log *zap.Logger) {
	left := killAll(t.members, killTime)
	if len(left) > 0 {
		log.Error("processes of a space outlive SIGKILL", zap.Any("pids", pids(left)))
	}
}

// killAll kills what find returns until it returns nothing, and gives what is left after limit.
func killAll(find func() []proc, limit time.Duration) []proc {
	for deadline := time.Now().Add(limit); ; {
		found := find()
		for _, p := range found {
			_ = p.signal(unix.SIGKILL) // ESRCH: it died meanwhile
		}
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
		awaitEnd(found, 50*time.Millisecond)
	}
}

func pids(procs []proc) []int {
	var out []int
	for _, p := range procs {
		out = append(out, p.pid)
	}
	return out
}

// awaitEnd waits until all procs have died, limit at most; it reports whether they have.
func awaitEnd(procs []proc, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for _, p := range procs {
		if !p.await(time.Until(deadline)) {
			return false
		}
	}
	return true
}

// await waits until p has died, limit at most; it reports whether it has.
func (p proc) await(limit time.Duration) bool {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	for deadline := time.Now().Add(limit); p.alive(); {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, _ = unix.Poll(polled, int(left.Milliseconds())+1) // EINTR: the loop asks again
	}
	return true
}
