package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/build"
	"spacehost/internal/space"
	"spacehost/internal/spacelog"
	"spacehost/worker"
)

// run builds the environment and keeps the Space running until ctx ends. With `run --watch`, it changes to another environment
// when the files that decide it have changed.
func (s *spaceRun) run(ctx context.Context) error {
	for {
		s.supervisor.ForgetReplace()
		if err := s.prepare(ctx); err != nil {
			return err
		}
		starting := "Starting " + s.space.Name + "/" + s.space.AppFile + " ..."
		s.host.screen.note(starting)
		s.runLog.Print(spacelog.Host, starting)
		if err := s.supervisor.Run(ctx); !errors.Is(err, worker.ErrReplaced) {
			return err
		}
	}
}

// prepare builds the environment and prepares all that a start needs.
func (s *spaceRun) prepare(ctx context.Context) error {
	env, err := s.build(ctx)
	if err != nil {
		return err
	}
	s.env = env
	s.current.Store(env.Dir)
	runner, err := worker.InstallRunner(filepath.Join(s.host.kept, "runner"))
	if err != nil {
		return err
	}
	if err := s.makeFolders(); err != nil {
		return err
	}
	if err := s.prepareView(ctx); err != nil {
		return err
	}
	vars := spaceEnv(s.variables(), s.space, env, s.home(), s.publicName(), s.host.visibleGPU)
	vars = s.isolatedVariables(vars)
	if err := s.preload(ctx, env, vars); err != nil {
		return err
	}
	s.supervisor.Prepare(env.Python, runner, vars)
	return nil
}

// variables returns the Variables of the Space. With --by-name, HF_ENDPOINT leads to the other Spaces of this host.
func (s *spaceRun) variables() map[string]string {
	all := map[string]string{}
	if s.host.settings.ByName {
		all["HF_ENDPOINT"] = "http://" + dialAddr(s.host.console)
	}
	maps.Copy(all, s.settings.Variables)
	return all
}

// The pause before a failed start is retried. It doubles from firstRetry to lastRetry.
const (
	firstRetry = 10 * time.Second
	lastRetry  = 5 * time.Minute
)

// runWithRetries runs the Space until ctx ends, and retries a failed start with backoff. The other Spaces continue meanwhile.
func (s *spaceRun) runWithRetries(ctx context.Context) error {
	lastReported := ""
	for pause := firstRetry; ctx.Err() == nil; pause = min(2*pause, lastRetry) {
		s.supervisor.NotRunning(space.Building, "")
		err := s.run(ctx)
		if ctx.Err() != nil {
			break
		}
		s.reportFailure(err, pause, &lastReported)
		select {
		case <-time.After(pause):
		case <-s.supervisor.Restarts():
			pause, lastReported = firstRetry/2, ""
		case <-ctx.Done():
		}
	}
	return nil
}

// reportFailure reports why the Space does not run: to visitors in one sentence, and to the operator in full unless the
// previous try failed with the same error.
func (s *spaceRun) reportFailure(err error, pause time.Duration, lastReported *string) {
	stage, reason := failureOf(err)
	s.supervisor.NotRunning(stage, reason)
	s.host.log.Warn("space start failed", zap.String("space", s.space.Name), zap.Error(err), zap.Duration("pause", pause))
	next := fmt.Sprintf("The other Spaces continue. The next try of this one is in %s; to try now, run `spacehost space restart %s`.", pause, s.space.Name)
	if err.Error() == *lastReported {
		s.note(fmt.Sprintf("%s, same error as before. %s", stage, next))
	} else {
		var text strings.Builder
		Explain(&text, s.space.Name, err)
		s.host.screen.note(text.String() + "  " + next)
		s.runLog.Print(spacelog.Host, string(stage)+": "+err.Error())
	}
	*lastReported = err.Error()
	s.markFailed()
}

// failureOf returns the stage of a Space with this error, and the sentence for its visitors.
func failureOf(err error) (stage space.Stage, reason string) {
	stage, reason = cmp.Or(stageOf(err), space.RuntimeFailed), err.Error()
	if built := (*build.Error)(nil); errors.As(err, &built) {
		reason = built.Problem // the rest of the error describes this machine
	}
	return stage, reason
}

// markFailed lets the others be announced without this Space.
func (s *spaceRun) markFailed() {
	select {
	case <-s.failed:
	default:
		close(s.failed)
	}
}

// announceWhenReady waits for a Space that did not start together with the others.
func (s *spaceRun) announceWhenReady(ctx context.Context) error {
	select {
	case <-s.supervisor.Ready():
		s.announceURL()
	case <-ctx.Done():
	}
	return nil
}

// announceURL prints the Space's URL in the words of Gradio's launch().
func (s *spaceRun) announceURL() {
	s.runLog.Print(spacelog.Host, "RUNNING at "+s.url())
	s.host.log.Info("space ready", zap.String("space", s.space.Name), zap.String("url", s.url()))
	if !s.host.settings.ReadyJSON {
		s.host.screen.ready("* Running on local URL:  " + s.pageURL())
	}
}

func (s *spaceRun) builder() *build.Builder {
	h := s.host
	return build.New(build.Config{
		Dir: EnvironmentsIn(h.kept), Interpreter: s.settings.Python, Logger: h.log.Named("build"), Progress: h.buildProgress(),
		LogPath: spacelog.Path(h.kept, s.space.Name, spacelog.Build), Log: s.buildLog, Confine: s.confineBuild(),
	})
}

func (s *spaceRun) buildSpec() build.Spec {
	front := cmp.Or(s.edited.Load(), s.space)
	return build.Spec{Gradio: front.SDKVersion, Python: front.PythonVersion, Dir: s.space.Dir, Space: s.space.Name}
}

func (s *spaceRun) build(ctx context.Context) (*build.Environment, error) {
	h := s.host
	env, err := s.builder().Build(ctx, s.buildSpec(), h.settings.Rebuild && s.edited.Load() == nil)
	if err != nil {
		return nil, err
	}
	for _, warning := range env.Warnings {
		h.screen.note("warning: " + warning)
	}
	h.screen.note(fmt.Sprintf("Environment: Python %s, gradio %s, spaces %s", env.PythonVersion, env.Gradio, env.Spaces))
	return env, nil
}
