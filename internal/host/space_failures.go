package host

import (
	"go.uber.org/zap"

	"spacehost/internal/check"
	"spacehost/internal/identity"
	"spacehost/worker"
)

// This file turns failures that a runner has recognized into the sentences of package check.

// sentenceOf returns the line about a failure; "" if this program has no words for it.
func sentenceOf(f worker.Failure) string {
	return check.Explain(check.Fact{Rule: f.Rule, File: f.File, Line: f.Line, Values: f.Values})
}

// warnAuthor implements worker.SupervisorConfig.Failed: it shows the sentence to the visitor, where Gradio shows "Error" or the
// class of the exception. Only the author of a Space that `run` has started is shown what is inside: the local visitor.
func (s *spaceRun) warnAuthor(f worker.Failure) {
	s.host.log.Info("space failure", zap.String("space", s.space().Name), zap.String("rule", f.Rule))
	text := sentenceOf(f)
	if text == "" || s.host.settings().IsServe() {
		return
	}
	for _, event := range f.Events {
		if payer, ok := s.queue.PayerOf(event); ok && payer.Kind == identity.Local && payer.Via == "" {
			s.queue.Warn(event, "spacehost", text)
		}
	}
}

// showFailure implements worker.SupervisorConfig.ShowFailure.
func (s *spaceRun) showFailure(f worker.Failure) {
	if text := sentenceOf(f); text != "" {
		s.note(text)
	}
}
