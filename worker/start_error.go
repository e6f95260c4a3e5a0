package worker

import (
	"fmt"
	"strings"

	"spacehost/internal/space"
)

// StartError reports that a Space failed before it was first RUNNING. Its author has to fix it.
type StartError struct {
	Stage  space.Stage
	Reason string
	Next   string   // the next step, if Reason does not contain it
	Tail   []string // the last lines that it printed
	Shown  bool     // Output has received all of them
	Times  int      // in a row with the same output; above 1, the output of this start was not shown
}

func (e *StartError) Error() string { return e.Reason }

// note returns the sentences for the operator about an exit after which the Space is started again. next is when.
func (e *StartError) note(next string) string {
	if e.Times > 1 {
		return fmt.Sprintf("%s, %s. %s", e.Stage, sameAgain(e.Times), next)
	}
	return strings.TrimSpace(fmt.Sprintf("%s: %s %s %s", e.Stage, e.Reason, next, e.Next))
}

// RefusedError reports that the host ends a start: ZeroGPU would end it, or it exceeds a limit.
type RefusedError struct {
	Reason, Next string
	Cause        Cause // for the history; "": CauseRefused
}

func (e *RefusedError) Error() string { return e.Reason }
