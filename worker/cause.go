package worker

import (
	"errors"

	"spacehost/internal/proctree"
	"spacehost/internal/space"
)

// StageChange is a new stage of a Space.
type StageChange struct {
	Stage  space.Stage
	Reason string // for visitors; "": none
	Cause  Cause  // why a start has ended; "" if none has
	By     string // the operator who requested it; "": none
}

// Cause is why a start of a Space has ended. Each is a label of a metric, and a value of the API.
type Cause string

// The causes.
const (
	CauseCrash    Cause = "crash"    // the process ended by itself
	CauseMemory   Cause = "memory"   // a limit of memory, or the kernel's out-of-memory killer
	CauseLimit    Cause = "limit"    // another limit: processes or disk
	CauseHung     Cause = "hung"     // UNRESPONSIVE for too long
	CauseTimeout  Cause = "timeout"  // it did not launch in time
	CauseStart    Cause = "start"    // the process could not be started
	CauseRefused  Cause = "refused"  // the host refused what the Space did
	CauseOperator Cause = "operator" // a restart by command
	CauseSettings Cause = "settings" // other settings, another environment, or a removal
	CauseNode     Cause = "node"     // it runs on another machine, or waits for one
	CausePause    Cause = "pause"    // paused by command
	CauseHost     Cause = "host"     // the end of the host
)

// RestartCauses returns the Causes after which a process starts again.
func RestartCauses() (all []string) {
	for _, cause := range []Cause{CauseCrash, CauseMemory, CauseLimit, CauseHung, CauseTimeout, CauseStart, CauseRefused, CauseOperator, CauseSettings, CauseNode} {
		all = append(all, string(cause))
	}
	return all
}

// Restarts reports whether the Space starts again after an end with this cause.
func (c Cause) Restarts() bool { return c != "" && c != CausePause && c != CauseHost }

// exitCause returns the Cause of a process that has ended by itself.
func exitCause(err error) Cause {
	if killed, ok := errors.AsType[*proctree.KilledError](err); ok && killed.Memory {
		return CauseMemory
	}
	return CauseCrash
}
