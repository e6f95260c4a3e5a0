package worker

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/space"
)

// start makes the standby the current start, or starts a process.
func (s *Supervisor) start(ctx context.Context) (Start, error) {
	if p := s.takeStandby(); p != nil {
		return p, nil
	}
	if p := s.adopt(ctx); p != nil {
		return p, nil
	}
	begun, err := s.open(ctx, false)
	if err != nil && begun != nil {
		begun.process.End(context.Background(), endGrace)
		return nil, s.ended(begun.process, StageChange{Stage: space.RuntimeFailed, Reason: err.Error(), Cause: CauseStart}, "")
	}
	if err != nil {
		return nil, s.failed(err)
	}
	return begun.process, nil
}

// adopt takes over a start that an earlier host has left, and makes it the current one. nil: there is none.
func (s *Supervisor) adopt(ctx context.Context) Start {
	if !s.config.Outlasts {
		return nil
	}
	taken := &standby{session: s.newSession("", time.Now())}
	taken.session.opened, taken.session.adopted = make(chan struct{}), true
	var ended []string
	taken.process, ended = s.config.Place.Adopt(ctx, s.spec(), taken.session)
	for _, instance := range ended {
		s.config.Ended(instance)
	}
	if taken.process == nil {
		taken.session.abandoned = true
		close(taken.session.opened)
		return nil
	}
	facts := taken.process.Facts()
	taken.session.instance = facts.Instance // no report reads it before opened
	s.mu.Lock()
	s.makeCurrent(taken)
	s.mu.Unlock()
	close(taken.session.opened)
	s.config.Logger.Info("space taken over", zap.String("instance", facts.Instance), zap.Int("pid", facts.PID), zap.Duration("took", time.Since(taken.session.began)))
	if err := s.config.Started(facts); err != nil {
		taken.process.Fail(&RefusedError{Reason: err.Error(), Cause: CauseStart})
	}
	return taken.process
}

// open starts a process. Unless it is a standby, it becomes the current start. An error after the start of the process comes
// with the process, which the caller ends.
func (s *Supervisor) open(ctx context.Context, isStandby bool) (*standby, error) {
	if err := s.permit(); err != nil {
		return nil, err
	}
	began := time.Now()
	spec := s.spec()
	spec.Instance, spec.Standby = hex.EncodeToString(random(6)), isStandby
	begun := &standby{session: s.newSession(spec.Instance, began)}
	if isStandby {
		begun.held.show = s.config.Output
		begun.session.output, begun.session.wasStandby = begun.held.print, true
	} else {
		begun.session.opened = make(chan struct{})
	}
	var err error
	begun.process, err = s.config.Place.Start(ctx, spec, begun.session)
	if !isStandby {
		if err == nil {
			s.mu.Lock()
			s.makeCurrent(begun)
			s.mu.Unlock()
		}
		close(begun.session.opened)
	}
	if err != nil {
		s.config.Ended(spec.Instance)
		return nil, err
	}
	facts := begun.process.Facts()
	s.config.Logger.Info("space started", zap.String("instance", facts.Instance), zap.Int("pid", facts.PID), zap.Bool("standby", isStandby), zap.Duration("took", time.Since(began)))
	return begun, s.config.Started(facts)
}

// spec returns what is the same for every start of one Run.
func (s *Supervisor) spec() Spec {
	c := s.config
	return Spec{
		Space: c.Space, AppFile: c.AppFile, Variables: s.variables, Secrets: c.Secrets, PublicURL: c.PublicURL, LocalURL: c.LocalURL,
		Simulated: c.Simulated, Strict: c.Strict, Storage: c.Storage, StartupTimeout: c.StartupTimeout,
		Observe: c.Observe != nil, ObserveCalls: c.Observe != nil && c.Observe.Calls != nil, OutputRate: c.OutputRate, Limits: c.Limits,
	}
}

// newSession returns the session of a start.
func (s *Supervisor) newSession(instance string, began time.Time) *session {
	comparison := s.repeats.begin()
	return &session{
		supervisor: s, instance: instance, began: began, output: s.config.Output, comparison: comparison, answers: newAnswers(),
		failures: newFailures(func(f Failure) {
			comparison.add(streamFailures, fmt.Sprint(f), func() { s.showFailure(f) })
		}),
	}
}

// makeCurrent is called with the lock held.
func (s *Supervisor) makeCurrent(begun *standby) {
	s.stage, s.reason, s.hint, s.current, s.session, s.key = space.AppStarting, "", "", begun.process, begun.session, begun.process.Facts().Key
}
