package host

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"go.uber.org/zap"

	"spacehost/internal/control"
	"spacehost/internal/printable"
	"spacehost/internal/space"
	"spacehost/internal/stages"
	"spacehost/worker"
)

// pauseState is whether operators have paused a Space. The zero value: they have not.
type pauseState struct {
	changing sync.Mutex // held by a command until its commit
	mu       sync.Mutex
	now      *stages.Pause
	over     chan struct{} // closed by resume; nil: not paused
	resumer  string        // the operator of the last resume, until the Space starts again
}

func (p *pauseState) get() (*stages.Pause, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, p.over
}

func (p *pauseState) begin(now stages.Pause) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = &now
	if p.over == nil {
		p.over = make(chan struct{})
	}
}

// end returns false if the Space is not paused.
func (p *pauseState) end(by string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		return false
	}
	close(p.over)
	p.now, p.over, p.resumer = nil, nil, by
	return true
}

// takeResumer returns the operator who has ended a pause since the last start; "" if none has.
func (p *pauseState) takeResumer() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	by := p.resumer
	p.resumer = ""
	return by
}

// pauseText is the sentence for visitors of a paused Space, on its page and for their calls.
func pauseText(p stages.Pause) string {
	if p.Reason == "" {
		return "The operator has paused this Space."
	}
	return "The operator has paused this Space: " + strings.TrimRight(p.Reason, ".") + "."
}

// PauseSpace implements control.Host.
func (h *Host) PauseSpace(ctx context.Context, name, reason, by string, now bool) (control.PauseAnswer, error) {
	answer := control.PauseAnswer{Space: name}
	s := h.find(name)
	if s == nil {
		return answer, fmt.Errorf("the Space %s was removed by a reload", name)
	}
	s.paused.changing.Lock()
	defer s.paused.changing.Unlock()
	stored, err := h.stages.Pause(ctx, name, printable.Reason(reason), by)
	if err != nil {
		return answer, err
	}
	answer.Pause = stored
	if !now && s.supervisor.Status().Stage == space.Running {
		answer.DrainSeconds = h.settings().Drain.Seconds()
	}
	h.log.Info("space paused", zap.String("space", name), zap.String("by", by), zap.String("reason", stored.Reason))
	s.note(fmt.Sprintf("paused by %s; `spacehost space resume %s` starts it again.", by, name))
	s.paused.begin(stored)
	s.endAttempt(&worker.StopCause{Reason: pauseText(stored), Ledger: space.EndedByPause + by, Now: now, Stage: space.Paused, Cause: worker.CausePause, By: by})
	if now { // also in a drain that has begun
		h.hurrySpace(s)
	}
	return answer, nil
}

// ResumeSpace implements control.Host.
func (h *Host) ResumeSpace(ctx context.Context, name, by string) error {
	s := h.find(name)
	if s == nil {
		return fmt.Errorf("the Space %s was removed by a reload", name)
	}
	s.paused.changing.Lock()
	defer s.paused.changing.Unlock()
	if err := h.stages.Resume(ctx, name); err != nil {
		return err
	}
	if s.paused.end(by) {
		h.log.Info("space resumed", zap.String("space", name), zap.String("by", by))
		s.note(fmt.Sprintf("resumed by %s.", by))
	}
	return nil
}

// loadPause reads the pause that an earlier start of the host has stored. `run` begins with every Space: its user has just started
// them.
func (s *spaceRun) loadPause() error {
	if !s.host.settings().IsServe() {
		return s.host.stages.Resume(context.Background(), s.space().Name)
	}
	stored, err := s.host.stages.Paused(context.Background(), s.space().Name)
	if err == nil && stored != nil {
		s.paused.begin(*stored)
	}
	return err
}

// awaitResume waits while the Space is paused, and returns true if it was. It returns early when ctx ends: with the host, or with a
// reload, whose settings the caller applies. After false, the queue takes calls.
func (s *spaceRun) awaitResume(ctx context.Context) bool {
	now, over := s.paused.get()
	if now == nil {
		s.queue.Reopen() // a pause may have begun and ended during the end of the last start
		return false
	}
	text := pauseText(*now)
	s.supervisor.NotRunning(worker.StageChange{Stage: space.Paused, Reason: text, Cause: worker.CausePause, By: now.By})
	s.queue.Drain(false, text)
	s.markSettled()
	select {
	case <-over:
		s.discardRestart()
	case <-ctx.Done():
	}
	return true
}

// discardRestart drops a request that came while the Space was paused: its next start is due anyway.
func (s *spaceRun) discardRestart() {
	select {
	case <-s.supervisor.Restarts():
	default:
	}
}

// runUntilFailure is the way of `spacehost run`: the Space runs until ctx ends or its start fails, and waits while it is paused.
func (s *spaceRun) runUntilFailure(ctx context.Context) error {
	for ctx.Err() == nil {
		attempt, end := s.begin(ctx)
		var err error
		if !s.awaitResume(attempt) {
			if by := s.paused.takeResumer(); by != "" {
				s.supervisor.NotRunning(worker.StageChange{Stage: space.Building, By: by})
			}
			err = s.run(attempt)
		}
		failed := err != nil && attempt.Err() == nil
		end()
		if failed {
			return err
		}
	}
	return nil
}

// endAttempt ends the current start of the Space, and a build or a pause before the next try.
func (s *spaceRun) endAttempt(cause error) {
	s.nextMu.Lock()
	defer s.nextMu.Unlock()
	if s.cancelAttempt != nil {
		s.cancelAttempt(cause)
	}
}

// hurrySpace ends a drain of the Space that has begun.
func (h *Host) hurrySpace(s *spaceRun) {
	if s.supervisor.Status().Stage.IsUp() {
		s.supervisor.Restart(worker.Restart{Now: true})
	}
}
