package proctree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/internal/kernelfile"
)

// MarkerVariable is an environment variable with the path of a file that is unique to one start of a Space. The
// interpreter is exec'd with it. Therefore /proc shows it for every process of that start, forked or exec'd, even
// after the process has left its parent, its process group and its session.
const MarkerVariable = "ZEROGPU_PROC_SELF_CGROUP_PATH"

// instanceOf returns the start that a marker belongs to.
func instanceOf(marker string) string { return filepath.Base(filepath.Dir(marker)) }

// Tree identifies the processes of one start of a Space.
type Tree struct {
	Root   Process // the runner, or process 1 of its sandbox
	Marker string  // value of MarkerVariable; "" if it has none
	Cgroup string  // folder of its cgroup; "" if it has none

	// Runner is the runner below Root; zero if Root is the runner.
	Runner Process
	// HostPID translates a pid that a process of the tree uses for itself; nil: the pids are the host's. It blocks for
	// a moment.
	HostPID func(pid int) (int, error)
}

// Interpreter returns the runner, which is Root without a sandbox.
func (t Tree) Interpreter() Process {
	if t.Runner.PID != 0 {
		return t.Runner
	}
	return t.Root
}

// Process identifies a process. A pid can be reused; a pid with a start time is unique within one boot.
type Process struct {
	PID   int
	Start uint64 // clock ticks since boot, field 22 of /proc/<pid>/stat
}

func (p Process) String() string { return strconv.Itoa(p.PID) }

// Stat is a Process with the pid of its parent, the number of its process group and the number of its threads.
type Stat struct {
	Process
	Parent, Group, Threads int
}

// ReadStat reads /proc/<pid>/stat. It returns false if the process does not exist or is a zombie. A process that
// ended its first thread but not its others is shown as a zombie with more than one thread; it counts as running.
func ReadStat(pid int) (Stat, bool) {
	s, ok, _ := readStatErr(pid)
	return s, ok
}

// readStatErr is ReadStat with the error of the read.
func readStatErr(pid int) (Stat, bool, error) {
	var buffer [1024]byte // three times the length of a line
	data, err := kernelfile.Read("/proc/"+strconv.Itoa(pid)+"/stat", buffer[:])
	if err != nil {
		return Stat{}, false, err
	}
	after := bytes.LastIndexByte(data, ')') // the command name before it can contain any character
	fields := strings.Fields(string(data[after+1:]))
	if after < 0 || len(fields) < 20 {
		return Stat{}, false, nil
	}
	var s Stat
	s.PID = pid
	s.Parent, _ = strconv.Atoi(fields[1])
	s.Group, _ = strconv.Atoi(fields[2])
	s.Threads, _ = strconv.Atoi(fields[17])
	s.Start, _ = strconv.ParseUint(fields[19], 10, 64)
	return s, fields[0] != "X" && (fields[0] != "Z" || s.Threads > 1), nil
}

// Alive reports whether the process is running. It returns true for a process that cannot be read because no
// descriptor is free: such a process must not be mistaken for an exited one.
func (p Process) Alive() bool {
	s, ok := ReadStat(p.PID)
	return ok && s.Start == p.Start || s.PID == 0 && isThere(p.PID)
}

// isThere reports whether the pid is in use, at least by a zombie. It needs no descriptor.
func isThere(pid int) bool {
	return pid > 0 && unix.Kill(pid, 0) != unix.ESRCH // signal 0: a check only
}

// signal sends sig to exactly this process through a pidfd, never to another process with a reused pid. EAGAIN means
// that the pid is in use, but its process cannot be identified because no descriptor is free.
func (p Process) signal(sig unix.Signal) error { return p.send(sig, 0) }

// signalMainThread sends sig to the main thread of exactly this process. A signal to the whole process is taken by any of
// its threads when all leave a freeze at once, and Python handles a signal only when its main thread wakes.
func (p Process) signalMainThread(sig unix.Signal) error {
	err := p.send(sig, pidfdSignalThread)
	if err == unix.EINVAL && p.Alive() { // Linux before 6.9, which has only the pid; it was looked at just now
		return unix.Tgkill(p.PID, p.PID, sig)
	}
	return err
}

func (p Process) send(sig unix.Signal, flags int) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch s, ok := ReadStat(p.PID); { // after PidfdOpen: from here on fd identifies one process
	case s.PID == 0 && isThere(p.PID):
		return unix.EAGAIN
	case !ok || s.Process != p:
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, flags)
}

// signalGroup sends sig atomically to the process group that this process leads (Linux 6.9; older kernels refuse).
// If a member forks at that moment, both parent and child receive it.
func (p Process) signalGroup(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if s, ok := ReadStat(p.PID); !ok || s.Process != p || s.Group != p.PID {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, pidfdSignalGroup)
}

// Flags of pidfd_send_signal (linux/pidfd.h).
const (
	pidfdSignalThread = 1 << 0 // PIDFD_SIGNAL_THREAD: the thread with the pid's number, which is the main thread
	pidfdSignalGroup  = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP
)

// allStats lists the running processes. The slice is shared by concurrent callers: do not modify it.
func allStats() ([]Stat, error) { return snapshot.read() }

var snapshot procSnapshot

// procSnapshot lets concurrent callers share one scan of all processes. A caller gets only a scan that began after
// its call. This matters if many workers exceed their time at once and fork: then there are many processes to scan
// and many callers.
type procSnapshot struct {
	mu      sync.Mutex
	next    *scan // the scan that has not begun; nil if no caller waits for it
	running bool  // a scan is running
}

// scan is one pass over /proc.
type scan struct {
	over chan struct{}
	all  []Stat
	err  error
}

func (p *procSnapshot) read() ([]Stat, error) {
	p.mu.Lock()
	if p.next == nil {
		p.next = &scan{over: make(chan struct{})}
	}
	mine := p.next
	if !p.running {
		p.running = true
		go p.run()
	}
	p.mu.Unlock()
	<-mine.over
	return mine.all, mine.err
}

// run scans while callers wait.
func (p *procSnapshot) run() {
	for {
		p.mu.Lock()
		r := p.next
		p.next, p.running = nil, r != nil
		p.mu.Unlock()
		if r == nil {
			return
		}
		r.all, r.err = readStats()
		close(r.over)
	}
}

func readStats() ([]Stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []Stat
	for _, entry := range entries {
		pid, notNumber := strconv.Atoi(entry.Name())
		if notNumber != nil {
			continue
		}
		s, ok, unread := readStatErr(pid)
		if ok {
			found = append(found, s)
		}
		if errors.Is(unread, unix.EMFILE) || errors.Is(unread, unix.ENFILE) { // otherwise the process has exited, or is hidden from this user
			err = fmt.Errorf("read processes: %w", unread)
		}
	}
	return found, err
}

// among reports whether the list contains this process. A process that could not be read is not in the list: the
// children of its pid may belong to another process.
func (p Process) among(all []Stat) bool {
	return slices.ContainsFunc(all, func(s Stat) bool { return s.Process == p })
}

// below returns the descendants of root among all, without root.
func below(root int, all []Stat) []Process {
	var found []Process
	for parents := []int{root}; len(parents) > 0; {
		var next []int
		for _, s := range all {
			if slices.Contains(parents, s.Parent) && s.PID != root {
				found, next = append(found, s.Process), append(next, s.PID)
			}
		}
		parents = next
	}
	return found
}

// members returns every running process of the tree except the runner: its descendants and the processes with its
// marker.
func (t Tree) members() (found []Process, err error) {
	all, err := allStats()
	return t.among(all), err
}

// among is members of a list of all processes.
func (t Tree) among(all []Stat) (found []Process) {
	if t.Root.among(all) { // otherwise another process may have its pid
		found = below(t.Root.PID, all)
	}
	for _, s := range all {
		if s.Process != t.Root && s.PID != os.Getpid() && !slices.Contains(found, s.Process) && hasMarker(s.PID, t.Marker) {
			found = append(found, s.Process)
		}
	}
	return found
}

// has reports whether pid is a running process of the tree other than the runner and its process 1. It returns false if
// the runner has exited.
func (t Tree) has(pid int) (Process, bool) {
	s, ok := ReadStat(pid)
	if !ok || t.isRunner(s.Process) || !t.Root.Alive() {
		return Process{}, false
	}
	if hasMarker(pid, t.Marker) {
		return s.Process, true
	}
	all, _ := allStats() // an unreadable process belongs to no Space
	return s.Process, slices.Contains(below(t.Root.PID, all), s.Process)
}

// isRunner reports whether p is the runner or the process 1 of its sandbox.
func (t Tree) isRunner(p Process) bool { return p == t.Root || p == t.Runner }

// hasMarker reports whether a process was exec'd with that marker.
func hasMarker(pid int, marker string) bool {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || marker == "" {
		return false
	}
	return slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(pair []byte) bool {
		return string(pair) == MarkerVariable+"="+marker
	})
}

// killTime bounds how long kill searches for processes that fork faster than they are killed.
const killTime = 5 * time.Second

// Kill ends every process of the tree. It returns when none is left, or logs the reason why some are.
func (t Tree) Kill(log *zap.Logger) {
	if t.Cgroup != "" {
		if err := endCgroup(t.Cgroup, killTime); err != nil {
			log.Warn("cannot remove cgroup of space", zap.Error(err))
		}
	}
	if err := killAll(t.members, killTime); err != nil {
		log.Error("cannot end processes of space", zap.Error(err))
	}
}

// killAll kills the processes that find returns until find returns none, at most for limit.
func killAll(find func() ([]Process, error), limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; {
		found, err := find()
		switch late := time.Now().After(deadline); {
		case err == nil && len(found) == 0:
			return nil
		case late && err != nil:
			return err
		case late:
			return fmt.Errorf("processes are still running after SIGKILL: %v", found)
		}
		for _, p := range found {
			_ = p.signal(unix.SIGKILL) // ESRCH: it has exited; other errors, such as EAGAIN: the next round retries
		}
		if awaitEnd(found, 50*time.Millisecond) && err != nil {
			time.Sleep(50 * time.Millisecond) // retry the search
		}
	}
}

// awaitEnd waits until all processes have exited, at most for limit, and reports whether they have.
func awaitEnd(procs []Process, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for _, p := range procs {
		if !p.Await(time.Until(deadline)) {
			return false
		}
	}
	return true
}

// Await waits until p has exited, at most for limit, and reports whether it has.
func (p Process) Await(limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	polled := []unix.PollFd{{Fd: -1, Events: unix.POLLIN}} // -1 never becomes ready: without a pidfd the loop polls
	if fd, err := unix.PidfdOpen(p.PID, 0); err == nil {
		defer unix.Close(fd)
		polled[0].Fd = int32(fd)
	}
	for p.Alive() {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		if polled[0].Fd < 0 {
			left = min(left, 20*time.Millisecond)
		}
		_, _ = unix.Poll(polled, int(left.Milliseconds())+1) // EINTR: the loop repeats
	}
	return true
}
