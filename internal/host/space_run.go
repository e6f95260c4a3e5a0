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

// run builds the environment and keeps the Space running until ctx ends.
func (s *spaceRun) run(ctx context.Context) error {
	if err := s.reread(); err != nil {
		return err
	}
	if s.onNodes != nil {
		s.configureNextStart() // its Place may be another one
	}
	ofHost := hostVars(s.space(), s.publicName(), s.host.visibleGPU != nil || s.isOnNode(), s.variables())
	if s.isOnNode() {
		if err := s.onNodes.prepare(ctx, s.node(), ofHost); err != nil {
			return err
		}
	} else {
		if s.onNodes != nil {
			s.onNodes.forget()
		}
		if err := s.prepareMachine(ctx, ofHost); err != nil {
			return err
		}
	}
	s.supervisor.Prepare(ofHost)
	starting := "Starting " + s.space().Name + "/" + s.space().AppFile + " ..."
	s.host.screen.note(starting)
	s.runLog.Print(spacelog.Host, starting)
	return s.supervisor.Run(ctx)
}

// prepareMachine builds the environment of the Space on this machine, and prepares what all its starts share. ofHost are the
// variables that do not depend on the machine.
func (s *spaceRun) prepareMachine(ctx context.Context, ofHost map[string]string) error {
	if err := s.build(ctx); err != nil {
		return err
	}
	env := s.env()
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
	ofMachine := machineVars(s.space(), env, s.home(), s.host.visibleGPU)
	environ := func(variables map[string]string) []string {
		return s.isolatedVariables(spaceEnviron(ofMachine, variables))
	}
	if err := s.preload(ctx, env, environ(ofHost)); err != nil {
		return err
	}
	s.place.Install(worker.Installation{Python: env.Python, Runner: runner, Environ: environ})
	return nil
}

// variables returns the Variables of the Space. With --by-name, HF_ENDPOINT leads to the other Spaces of this host.
func (s *spaceRun) variables() map[string]string {
	all := map[string]string{}
	if s.host.settings().ByName {
		all["HF_ENDPOINT"] = "http://" + dialAddr(s.host.console)
	}
	maps.Copy(all, s.settings().Variables)
	return all
}

// The pause before a failed start is retried. It doubles from firstRetry to lastRetry.
const (
	firstRetry = 10 * time.Second
	lastRetry  = 5 * time.Minute
)

// runWithRetries runs the Space until ctx ends, and retries a failed start with backoff. The other Spaces continue meanwhile.
// With `run --watch`, an error of the app is not retried before its code changes.
func (s *spaceRun) runWithRetries(ctx context.Context) error {
	var last reported
	for pause := firstRetry; ctx.Err() == nil; pause = min(2*pause, lastRetry) {
		attempt, end := s.begin(ctx)
		if s.host.shared.Load() != nil {
			s.host.releaseShared() // it may have left the shared address
		}
		if s.awaitResume(attempt) || s.awaitNode(attempt) {
			pause, last = firstRetry/2, reported{}
			end()
			continue
		}
		s.supervisor.NotRunning(worker.StageChange{Stage: space.Building, By: cmp.Or(s.paused.takeResumer(), s.location.takeMover())})
		if err := s.run(attempt); attempt.Err() == nil {
			retry, next := time.After(pause), fmt.Sprintf("The other Spaces continue. The next try of this one is in %s; to try now, run `spacehost space restart %s`.", pause, s.space().Name)
			if s.host.settings().WatchSource && CauseOf(err) == CauseRuntime {
				retry, next = nil, "It starts again when its code changes."
			}
			s.reportFailure(err, pause, next, &last)
			select {
			case <-retry:
			case <-s.supervisor.Restarts():
				pause, last = firstRetry/2, reported{}
				s.supervisor.ShowAgain()
			case <-attempt.Done():
			}
		}
		if attempt.Err() != nil { // new settings, or the end
			pause, last = firstRetry/2, reported{}
		}
		end()
	}
	return nil
}

// reportFailure reports why the Space does not run: to visitors in one sentence, and to the operator in full unless the
// previous try failed with the same error.
func (s *spaceRun) reportFailure(err error, pause time.Duration, next string, last *reported) {
	stage, reason := cmp.Or(stageOf(err), space.RuntimeFailed), err.Error()
	if built := (*build.Error)(nil); errors.As(err, &built) {
		reason = built.Problem // the rest of the error describes this machine
	}
	s.supervisor.NotRunning(worker.StageChange{Stage: stage, Reason: reason})
	s.host.log.Warn("space start failed", zap.String("space", s.space().Name), zap.Error(err), zap.Duration("pause", pause))
	if times := last.count(err); times > 1 {
		s.note(fmt.Sprintf("%s, same error as before (%d times). %s", stage, times, next))
	} else {
		var text strings.Builder
		Explain(&text, s.space().Name, err, true)
		s.host.screen.note(text.String() + "  " + next)
		s.runLog.Print(spacelog.Host, string(stage)+": "+err.Error())
	}
	s.markSettled()
}

// markSettled lets the host announce itself without this Space, which does not run now.
func (s *spaceRun) markSettled() {
	select {
	case <-s.failed:
	default:
		close(s.failed)
	}
}

// reported counts the same error in a row. The zero value has seen none.
type reported struct {
	text  string
	times int
}

// count returns how often err has occurred in a row. A start of the app is compared by what it printed, too.
func (r *reported) count(err error) int {
	start, ok := errors.AsType[*worker.StartError](err)
	switch {
	case ok && start.Times > 0:
		r.times = start.Times
	case err.Error() == r.text:
		r.times++
	default:
		r.times = 1
	}
	r.text = err.Error()
	return r.times
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
	s.host.log.Info("space ready", zap.String("space", s.space().Name), zap.String("url", s.url()))
	if !s.host.settings().ReadyJSON {
		s.host.screen.ready("* Running on local URL:  " + s.pageURL())
		if s.host.settings().IsHub() {
			s.note("identity mode hub: a browser's sign-in counts inside the page that stands for the Hub's, " + s.url() + "/__spacehost/hub")
		}
	}
}
