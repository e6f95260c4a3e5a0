package worker

import (
	"cmp"
	"context"

	"spacehost/internal/space"
)

// Restart is a request of an operator.
type Restart struct {
	By  string // for the ledger; empty: the operator
	Now bool   // running calls end at once
}

// cause is why a start ends for the request.
func (r Restart) cause() *StopCause {
	return &StopCause{Reason: "The operator restarted the Space.", Ledger: space.EndedByRestart + cmp.Or(r.By, "the operator"), Again: true, Cause: CauseOperator, By: r.By}
}

// hurries reports whether a context has ended, and why. A request that arrives at the same time is no restart then: it only ends the
// drain, as that of a pause does.
func (r Restart) hurries(ctx context.Context) (cause *StopCause, now, ends bool) {
	cause = stopCauseOf(ctx)
	return cause, r.Now || cause.Now || hasFailed(ctx), ctx.Err() != nil
}

// Restart requests a restart and returns at once. While Run is not running, Restarts delivers the request to its caller.
func (s *Supervisor) Restart(r Restart) {
	for {
		select {
		case s.again <- r:
			return
		default: // a request is already pending
		}
		if !r.Now {
			return
		}
		select { // this one replaces it
		case <-s.again:
		default:
		}
	}
}

// Restarts delivers each Restart that no process has handled.
func (s *Supervisor) Restarts() <-chan Restart { return s.again }

// ShowAgain lets the next failed start be shown in full, even if it prints the same as the one before: the operator has asked for
// it. After a change of the code, "same error as before" is the news. The caller of Run calls it after a value of Restarts.
func (s *Supervisor) ShowAgain() {
	if !s.config.AwaitChange {
		s.repeats.forget()
	}
}
