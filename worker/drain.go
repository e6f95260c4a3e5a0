package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"spacehost/internal/space"
)

// drainTick is the interval at which a drain looks whether calls still run.
const drainTick = 50 * time.Millisecond

// hostStops is the cause of a context without one of its own.
var hostStops = &StopCause{Reason: "The host stopped the Space.", Ledger: space.EndedByHost, Cause: CauseHost}

// stopCauseOf returns why a context has ended.
func stopCauseOf(ctx context.Context) *StopCause {
	if cause := (*StopCause)(nil); errors.As(context.Cause(ctx), &cause) {
		return cause
	}
	return hostStops
}

// hasFailed reports whether a context has ended because a part of the host failed. A drain would only delay the end.
func hasFailed(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return !errors.Is(cause, context.Canceled) && !errors.As(cause, new(*StopCause)) // a signal is a context.Canceled
}

// endFor ends a start for a reason of the host, after a drain unless now is set. Calls that are cut off are not charged, except on a
// node that leaves.
func (s *Supervisor) endFor(p Start, cause *StopCause, now bool) error {
	if !now {
		s.drain(p, cause)
	}
	if s.config.Outlasts && (cause.Leave || isUnreachable(p)) { // perhaps since the drain began
		return s.leave(p, cause)
	}
	if s.config.Ending != nil {
		s.config.Ending(p.Facts().Instance, cause.Ledger)
	}
	if _, session := s.process(); session != nil {
		session.end(cause.Reason) // before the ending process reports an error of its own for a running call
	}
	p.End(context.Background(), endGrace)
	stage := cmp.Or(cause.Stage, space.Stopped)
	if cause.Again {
		stage = space.AppStarting
	}
	return s.ended(p, StageChange{Stage: stage, Reason: cause.Reason, Cause: cmp.Or(cause.Cause, CauseHost), By: cause.By}, "")
}

// leave ends the use of a start by this host. Visitors whose calls still run read why they get no answer.
func (s *Supervisor) leave(p Start, cause *StopCause) error {
	_, session := s.process()
	session.end(cause.Reason)
	p.Leave()
	session.failures.flush()
	session.comparison.release()
	s.down(StageChange{Stage: space.AppStarting, Reason: cause.Reason, Cause: cmp.Or(cause.Cause, CauseHost), By: cause.By})
	return nil
}

// Unreachable is the cause of the end of a start whose machine cannot be reached. The start goes on there, and so do its GPU calls.
func Unreachable() *StopCause {
	return &StopCause{
		Reason: "The machine of this app cannot be reached.", Ledger: space.EndedByRestart + "host", Again: true, Now: true, Leave: true, Cause: CauseNode, By: "host",
	}
}

// lostPause is the time in which the owner of the Supervisor ends ctx if the machine is gone. Otherwise only the connection of the
// start has ended, and the start is taken over again.
const lostPause = time.Second

// isUnreachable reports whether a start has ended because its machine cannot be reached.
func isUnreachable(p Start) bool {
	select {
	case <-p.Done():
		return errors.Is(p.Err(), ErrUnreachable)
	default:
		return false
	}
}

// lost ends the use of a start that cannot be reached.
func (s *Supervisor) lost(ctx context.Context, p Start) error {
	_ = s.leave(p, Unreachable()) // it always succeeds
	select {
	case <-ctx.Done():
	case <-time.After(lostPause):
	}
	return errRestart
}

// drain waits until no call runs, at most for the time of the cause or the configured one. It ends early if the process exits, and at the operator's
// request. Waiting calls are kept for the next start, or end with a sentence.
func (s *Supervisor) drain(p Start, cause *StopCause) {
	if s.config.Drain == nil {
		return
	}
	most := cmp.Or(cause.Drain, s.config.Drain())
	if most <= 0 {
		return
	}
	text := cause.Reason
	if cause.Again {
		text = "The Space restarts. Your call continues afterwards."
	}
	s.queue.Drain(cause.Again, text)
	tick, late := time.NewTicker(drainTick), time.NewTimer(most)
	defer tick.Stop()
	defer late.Stop()
	for noted := false; s.isBusy(p) && s.Status().Stage != space.Unresponsive; noted = true { // an unresponsive Space ends no call
		if !noted {
			note := fmt.Sprintf("running calls may end within %s", most)
			if cause == hostStops {
				note += "; a second Ctrl-C or SIGTERM ends them at once"
			}
			s.config.Note(note + ".")
		}
		select {
		case <-tick.C:
		case <-late.C:
			return
		case <-p.Done():
			return
		case <-s.config.Hurry:
			return
		case r := <-s.again:
			if r.Now {
				return
			}
		}
	}
}

func (s *Supervisor) isBusy(p Start) bool {
	return s.queue.Busy() > 0 || s.config.InUse != nil && s.config.InUse(p.Facts().Instance)
}
