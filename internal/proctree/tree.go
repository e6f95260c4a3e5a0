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
)

// MarkerVariable names a file whose path is unique to one start of a Space. It is in the environment that
// the interpreter was exec'd with, so /proc shows it for every process of that start, forked or exec'd,
// also when it has left its parent, its group and its session.
const MarkerVariable = "ZEROGPU_PROC_SELF_CGROUP_PATH"

// tree is the processes of one start of a Space.
type Tree struct {
	Root   Process
	Marker string
	Cgroup string // its folder; "" if it has none
}

// Process is a process that cannot be mistaken for another: a pid comes back, a pid with its start time does not
// within one boot.
type Process struct {
	PID   int
	Start uint64 // clock ticks since boot, field 22 of /proc/<pid>/stat
}

// instanceOf is the start that a marker belongs to.
func instanceOf(marker string) string { return filepath.Base(filepath.Dir(marker)) }

func (p Process) String() string { return strconv.Itoa(p.PID) }

type Stat struct {
	Process
	Parent, Group int
}

// ReadStat reads /proc/<pid>/stat; false if there is no such process, or only its zombie. A process whose
// first thread has ended and whose others live is shown as a zombie too, but with its threads.
func ReadStat(pid int) (Stat, bool) {
	s, ok, _ := readStatErr(pid)
	return s, ok
}

// readStatErr is ReadStat, with the reason why nothing could be read.
func readStatErr(pid int) (Stat, bool, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Stat{}, false, err
	}
	after := bytes.LastIndexByte(data, ')') // the name before it may hold anything
	fields := strings.Fields(string(data[after+1:]))
	if after < 0 || len(fields) < 20 {
		return Stat{}, false, nil
	}
	var s Stat
	s.PID = pid
	s.Parent, _ = strconv.Atoi(fields[1])
	s.Group, _ = strconv.Atoi(fields[2])
	threads, _ := strconv.Atoi(fields[17])
	s.Start, _ = strconv.ParseUint(fields[19], 10, 64)
	return s, fields[0] != "X" && (fields[0] != "Z" || threads > 1), nil
}

// alive says true of a process that cannot be looked at, for want of descriptors: it must not be taken for dead.
func (p Process) Alive() bool {
	s, ok := ReadStat(p.PID)
	return ok && s.Start == p.Start || s.PID == 0 && isThere(p.PID)
}

// isThere says whether anybody has that pid, if only as a zombie. It needs no descriptor.
func isThere(pid int) bool {
	return pid > 0 && unix.Kill(pid, 0) != unix.ESRCH // a question, no signal
}

// signal sends sig to exactly this process, through a pidfd, so that a recycled pid is never hit: EAGAIN says that somebody has
// that pid who cannot be looked at now, for want of descriptors.
func (p Process) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch s, ok := ReadStat(p.PID); { // after the open: from here on fd means one process
	case s.PID == 0 && isThere(p.PID):
		return unix.EAGAIN
	case !ok || s.Process != p:
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// signalGroup sends sig at one stroke to whoever is in the group that this process leads (Linux 6.9; earlier ones refuse). Of
// those who fork just then parent and child get it.
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

const pidfdSignalGroup = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, linux/pidfd.h

// allStats lists the living processes. Nobody may change the list: who asks meanwhile gets the same.
func allStats() ([]Stat, error) { return snapshot.look() }

var snapshot procSnapshot

// procSnapshot lets those who look at all processes at the same time share a look, each one that has begun after they asked:
// where many workers overstay at once and fork, there are many to look at, and many who do.
type procSnapshot struct {
	mu    sync.Mutex
	next  *round // has not begun; nil: nobody waits for it
	under bool   // an earlier one is under way
}

type round struct {
	over chan struct{}
	all  []Stat
	err  error
}

func (c *procSnapshot) look() ([]Stat, error) {
	c.mu.Lock()
	if c.next == nil {
		c.next = &round{over: make(chan struct{})}
	}
	mine := c.next
	if !c.under {
		c.under = true
		go c.run()
	}
	c.mu.Unlock()
	<-mine.over
	return mine.all, mine.err
}

// run looks for as long as somebody waits.
func (c *procSnapshot) run() {
	for {
		c.mu.Lock()
		r := c.next
		c.next, c.under = nil, r != nil
		c.mu.Unlock()
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
		pid, no := strconv.Atoi(entry.Name())
		if no != nil {
			continue
		}
		s, ok, unread := readStatErr(pid)
		if ok {
			found = append(found, s)
		}
		if errors.Is(unread, unix.EMFILE) || errors.Is(unread, unix.ENFILE) { // else it has ended, or is hidden from us
			err = fmt.Errorf("look at all processes: %w", unread)
		}
	}
	return found, err
}

// among says whether all has this very process. One that could not be looked at is not: whose are those below its pid?
func (p Process) among(all []Stat) bool {
	return slices.ContainsFunc(all, func(s Stat) bool { return s.Process == p })
}

// below returns root's descendants among all, root itself not included.
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

// members returns every living process of the tree but the runner: its descendants, and whoever bears its marker.
func (t Tree) members() (found []Process, err error) {
	all, err := allStats()
	if t.Root.among(all) { // else its pid may be somebody else's by now
		found = below(t.Root.PID, all)
	}
	for _, s := range all {
		if s.Process != t.Root && s.PID != os.Getpid() && !slices.Contains(found, s.Process) && hasMarker(s.PID, t.Marker) {
			found = append(found, s.Process)
		}
	}
	return found, err
}

// has says whether pid is a living process of the tree, the runner excepted, while the runner lives.
func (t Tree) has(pid int) (Process, bool) {
	s, ok := ReadStat(pid)
	if !ok || s.Process == t.Root || !t.Root.Alive() {
		return Process{}, false
	}
	if hasMarker(pid, t.Marker) {
		return s.Process, true
	}
	all, _ := allStats() // whose process cannot be told is nobody's
	return s.Process, slices.Contains(below(t.Root.PID, all), s.Process)
}

func hasMarker(pid int, marker string) bool {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || marker == "" {
		return false
	}
	return slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(pair []byte) bool {
		return string(pair) == MarkerVariable+"="+marker
	})
}

// killTime bounds how long kill looks for processes that fork faster than they die.
const killTime = 5 * time.Second

// kill ends every process of the tree and returns when none is left, or says in the log why not.
func (t Tree) Kill(log *zap.Logger) {
	if t.Cgroup != "" {
		if err := endCgroup(t.Cgroup, killTime); err != nil {
			log.Warn("cgroup of a space stays", zap.Error(err))
		}
	}
	if err := killAll(t.members, killTime); err != nil {
		log.Error("processes of a space stay", zap.Error(err))
	}
}

// killAll kills what find returns until that is nothing, for as long as limit.
func killAll(find func() ([]Process, error), limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; {
		found, err := find()
		switch late := time.Now().After(deadline); {
		case err == nil && len(found) == 0:
			return nil
		case late && err != nil:
			return err
		case late:
			return fmt.Errorf("they outlive SIGKILL: %v", found)
		}
		for _, p := range found {
			_ = p.signal(unix.SIGKILL) // ESRCH: it died meanwhile; EAGAIN and the like: the next round tries again
		}
		if awaitEnd(found, 50*time.Millisecond) && err != nil {
			time.Sleep(50 * time.Millisecond) // look again, in vain perhaps
		}
	}
}

// awaitEnd waits until all procs have died, limit at most; it reports whether they have.
func awaitEnd(procs []Process, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for _, p := range procs {
		if !p.Await(time.Until(deadline)) {
			return false
		}
	}
	return true
}

// await waits until p has died, limit at most; it reports whether it has.
func (p Process) Await(limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	polled := []unix.PollFd{{Fd: -1, Events: unix.POLLIN}} // -1 waits for nothing: without a pidfd we look again and again
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
		_, _ = unix.Poll(polled, int(left.Milliseconds())+1) // EINTR: the loop asks again
	}
	return true
}
