package proctree

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// States of a process in /proc/<pid>/status (proc(5)).
const (
	StateStopped = 'T' // by SIGSTOP or another stop signal
	StateDisk    = 'D' // in an uninterruptible wait of the kernel
	stateTraced  = 't' // by a debugger
)

// Status is how the kernel runs a process.
type Status struct {
	State  byte
	Tracer int    // pid of the debugger that traces it; 0: none
	Caught uint64 // signals that it handles, a bit each
}

// IsStopped reports whether no thread of the process runs until another process continues it.
func (s Status) IsStopped() bool { return s.State == StateStopped || s.State == stateTraced }

// Catches reports whether the process handles a signal. Other signals have their default effect, which may end it, or none.
func (s Status) Catches(sig unix.Signal) bool { return s.Caught&(1<<(uint(sig)-1)) != 0 }

// Status returns false if the process has exited, or cannot be read.
func (p Process) Status() (s Status, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil || !p.Alive() { // Alive comes second: the pid has had this process during the read
		return Status{}, false
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		switch rest = strings.TrimSpace(rest); {
		case name == "State" && rest != "":
			s.State = rest[0]
		case name == "TracerPid":
			s.Tracer, _ = strconv.Atoi(rest) // digits written by the kernel
		case name == "SigCgt":
			s.Caught, _ = strconv.ParseUint(rest, 16, 64)
		}
	}
	return s, s.State != 0
}

// Signal sends sig to exactly this process, never to another one with a reused pid. Errors: unix.ESRCH if it has exited.
func (p Process) Signal(sig unix.Signal) error { return p.signal(sig) }
