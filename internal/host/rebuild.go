package host

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/build"
	"spacehost/internal/control"
	"spacehost/internal/placement"
	"spacehost/internal/space"
	"spacehost/worker"
)

// RebuildSpace implements control.Host.
func (h *Host) RebuildSpace(ctx context.Context, name, by string, now bool, progress func(control.BuildStep)) (answer control.RebuildAnswer, err error) {
	s := h.find(name)
	if s == nil {
		return answer, fmt.Errorf("the Space %s was removed by a reload", name)
	}
	if paused, _ := s.paused.get(); paused != nil {
		return answer, fmt.Errorf("%s is paused by %s; resume it first: spacehost space resume %[1]s", name, paused.By)
	}
	if err := s.checkRebuild(); err != nil {
		return answer, err
	}
	requested, restart, ended := time.Now(), worker.Restart{By: by, Now: now}, make(chan struct{})
	started := h.goSpace(func(running context.Context) {
		defer close(ended)
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(running, func() { cancel(context.Cause(running)) })()
		answer, err = s.rebuildAnew(ctx, requested, restart, progress)
	})
	if !started {
		return answer, fmt.Errorf("the host is starting or stopping; try again when it answers")
	}
	<-ended
	return answer, err
}

// checkRebuild refuses a rebuild that would have no effect.
func (s *spaceRun) checkRebuild() error {
	settings := s.host.settings()
	python := s.latest().settings.Python
	switch {
	case python != "":
		return fmt.Errorf("%s uses the interpreter %s, which spacehost does not build; remove `python` to get an environment that it builds", s.space().Name, python)
	case s.latest().settings.MayRunOnNode() && s.node() != placement.Host:
		return fmt.Errorf("%s does not run on this machine, and only its environments can be rebuilt; restart the Space instead: spacehost space restart %[1]s", s.space().Name)
	case !settings.IsServe() && !settings.WatchSource:
		return fmt.Errorf("%s runs under `spacehost run`, which builds at its start only; press Ctrl-C and start it again with --rebuild", s.space().Name)
	}
	return nil
}

// rebuildAnew builds the environment of the Space's files again, beside the running Space, and lets the Space start with it. An
// environment that was built since the request, for another Space with the same inputs, counts. After an error the Space
// continues as it is.
func (s *spaceRun) rebuildAnew(ctx context.Context, requested time.Time, restart worker.Restart, progress func(control.BuildStep)) (answer control.RebuildAnswer, err error) {
	s.renewing.Lock()
	defer s.renewing.Unlock()
	log := s.host.log.With(zap.String("space", s.space().Name), zap.String("by", restart.By))
	log.Info("space rebuild")
	shown := s.host.buildProgress()
	r, err := s.renew(ctx, requested, func(step build.Step) {
		shown(step)
		progress(control.BuildStep{Index: step.Index, Total: step.Total, Text: step.Text, State: string(step.State), Seconds: step.Took.Seconds()})
	})
	if err != nil {
		log.Warn("space not rebuilt", zap.Error(err))
		return answer, err
	}
	answer = control.RebuildAnswer{Space: s.space().Name, Environment: r.environment, Sharing: append([]string{}, s.sharing()...)}
	if !restart.Now && s.supervisor.Status().Stage == space.Running {
		answer.DrainSeconds = s.host.settings().Drain.Seconds()
	}
	s.note(fmt.Sprintf("rebuilt by %s: it restarts with a new environment.", restart.By))
	s.applyRenewal(r, restart.By)
	if restart.Now {
		s.supervisor.Restart(restart)
	}
	return answer, nil
}
