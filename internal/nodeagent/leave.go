package nodeagent

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/link"
	"spacehost/internal/nodes"
)

// End is when this machine is given back.
type End struct {
	At  time.Time // zero: not known
	Why string    // for operators, such as "job 4711 ends"
}

// The times of a drain.
const (
	// EndTime is what remains after a drain, to end what still runs: the front has it for an orderly end, and the agent ends the rest.
	EndTime = 10 * time.Second
	// frontEndTime is the part of EndTime that the front has.
	frontEndTime = 5 * time.Second
	// endRefresh is how often a known end is looked up again: the limit of a job may be changed.
	endRefresh = 10 * time.Minute
	// leaveTimeout bounds the answer of the front to nodes.OpLeave.
	leaveTimeout = 5 * time.Second
	// drainTick is the interval at which a drain looks whether something still runs.
	drainTick = 50 * time.Millisecond
)

// reasonStopped is the reason of a drain that a signal has begun.
const reasonStopped = "its agent is stopped"

// departure is what the agent knows about the end of its machine. The zero value: nothing.
type departure struct {
	at       time.Time // until which calls may run
	why      string
	draining bool
}

// leaving returns the departure for the front; nil: nothing is known.
func (d departure) leaving() *nodes.Leaving {
	left := time.Until(d.at)
	if d.at.IsZero() || left > nodes.MaxLeft {
		return nil
	}
	return &nodes.Leaving{LeftMillis: max(0, left).Milliseconds(), Draining: d.draining, Why: d.why}
}

// leave waits for the end of signal or of this machine, and drains it. It returns when the agent may end; false: work has ended before.
func (a *agent) leave(signal, work context.Context) bool {
	to, ok := a.awaitDeparture(signal, work)
	if !ok {
		return false
	}
	a.Logger.Info("machine is drained", zap.String("why", to.why), zap.Duration("left", time.Until(to.at)))
	a.depart(work, to)
	a.Service.Leave()
	a.awaitIdle(work, to)
	a.Service.End()
	return work.Err() == nil
}

// awaitDeparture returns when the drain begins: with the signal, or Config.Drain before the machine's end.
func (a *agent) awaitDeparture(signal, work context.Context) (to departure, ok bool) {
	for {
		known := a.departure()
		wait := endRefresh
		if !known.at.IsZero() {
			wait = min(time.Until(known.at.Add(-a.Drain)), endRefresh)
		}
		due := time.NewTimer(wait)
		select {
		case <-signal.Done():
			due.Stop()
			to = departure{time.Now().Add(a.Drain), reasonStopped, true}
			if !known.at.IsZero() && known.at.Before(to.at) {
				to.at = known.at
			}
			return to, true
		case <-work.Done():
			due.Stop()
			return to, false
		case <-due.C:
		}
		now := a.lookUpEnd(signal, known)
		switch {
		case now != known:
			a.depart(work, now)
		case !now.at.IsZero() && time.Until(now.at) <= a.Drain:
			now.draining = true
			return now, true
		}
	}
}

// lookUpEnd returns the end of this machine as it is known now. If it cannot be looked up, it is before.
func (a *agent) lookUpEnd(ctx context.Context, before departure) departure {
	if a.Ends == nil {
		return before
	}
	end, err := a.Ends(ctx)
	switch {
	case err != nil:
		a.Logger.Warn("end of this machine not found", zap.Error(err))
		return before
	case end.At.IsZero():
		return departure{}
	}
	now := departure{at: end.At.Add(-EndTime), why: end.Why}
	if now.why == before.why && now.at.Sub(before.at).Abs() < endJitter { // it is known to the second
		return before
	}
	a.Logger.Info("end of this machine", zap.Time("at", end.At), zap.String("why", end.Why))
	return now
}

// endJitter is the difference of two ends that are the same one.
const endJitter = 3 * time.Second

// awaitIdle waits until nothing of this machine runs any more, at most for the time of the departure and that of the front to end the
// rest.
func (a *agent) awaitIdle(work context.Context, to departure) {
	tick, late := time.NewTicker(drainTick), time.NewTimer(time.Until(to.at.Add(frontEndTime)))
	defer tick.Stop()
	defer late.Stop()
	for hurry := a.Hurry; !a.isIdle(); {
		select {
		case <-tick.C:
		case <-hurry:
			hurry = nil
			a.Logger.Info("drain is cut off")
			to.at = time.Now()
			a.depart(work, to)
			late.Reset(frontEndTime)
		case <-late.C:
			a.Logger.Warn("drain is over, and the rest is ended")
			return
		case <-work.Done():
			return
		}
	}
}

// isIdle reports whether the agent may end. A front that drains this machine ends the Spaces after their calls. Without it, only the GPU
// calls that have begun are worth waiting for: their visitors are gone, and the front charges what they use.
func (a *agent) isIdle() bool {
	processes, leases := a.Service.Running()
	return leases == 0 && (processes == 0 || !a.hasFront())
}

// departure returns the present one.
func (a *agent) departure() departure {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.departs
}

// depart changes the departure, and reports it to the front.
func (a *agent) depart(ctx context.Context, to departure) {
	a.mu.Lock()
	a.departs = to
	l := a.current
	a.mu.Unlock()
	if l != nil {
		a.report(ctx, l)
	}
}

// use begins to use a link. sent is the departure in its hello.
func (a *agent) use(ctx context.Context, l connection, sent departure) {
	a.mu.Lock()
	a.current = l
	now := a.departs
	a.mu.Unlock()
	if now != sent || now.draining {
		a.report(ctx, l)
	}
}

// leaveLink ends the use of a link.
func (a *agent) leaveLink() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current = nil
}

// report tells the front on a link about the departure, and returns with its answer.
func (a *agent) report(ctx context.Context, l connection) {
	now := a.departure()
	leaving := now.leaving()
	if leaving == nil {
		leaving = &nodes.Leaving{LeftMillis: nodes.MaxLeft.Milliseconds()}
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	err := l.Call(ctx, nodes.OpLeave, leaving, nil)
	if refused := (*link.RemoteError)(nil); errors.As(err, &refused) {
		a.Logger.Warn("the front does not drain this machine; run `spacehost node drain` there, or install the version of this agent", zap.Error(err))
		a.mu.Lock()
		defer a.mu.Unlock()
		a.refusedBy = l
	} else if err != nil { // the hello of the next link has it
		a.Logger.Warn("no answer of the front about the end of this machine", zap.Error(err))
	}
}

// hasFront reports whether there is a front that drains this machine. A front that has not answered yet counts as one.
func (a *agent) hasFront() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.current != nil && a.refusedBy != a.current
}
