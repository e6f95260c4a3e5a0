package worker

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/sandbox"
)

// standby is a process that has executed the first imports of the app and waits for goOrder (runner, standby.py). It has a
// session, a key, a run folder and a device door of its own, like every start.
type standby struct {
	process Start
	session *session
	held    heldOutput
}

// staleExit is the exit code of a standby that differs from a new process: the app begins with other imports now, or they
// fail (runner, standby.py).
const staleExit = 75

// isStale reports whether the current start was a standby, and has ended without a line of its app. It is valid after Done.
func (s *Supervisor) isStale(p Start) bool {
	_, h := s.process()
	return h.wasStandby && p.Exit().Exit == sandbox.Exit{Code: staleExit}
}

// Begin implements Start.
func (p *Process) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun = true; p.configured {
		p.Send(newFrame(goOrder{"go"}, nil))
	}
}

// prepareStandby starts a standby. A standby that cannot be started costs the next restart some seconds, so the error is only
// logged.
func (s *Supervisor) prepareStandby(ctx context.Context) {
	if !s.config.Standby {
		return
	}
	s.discardStandby()
	waiting, err := s.open(ctx, true)
	if err == nil {
		s.standby = waiting
		return
	}
	s.config.Logger.Warn("no standby", zap.Error(err))
	if waiting != nil {
		s.endStandby(waiting)
	}
}

// takeStandby makes the standby the current start, and lets its app begin. nil: there is none.
func (s *Supervisor) takeStandby() Start {
	waiting := s.standby
	if waiting == nil {
		return nil
	}
	select {
	case <-waiting.process.Done():
		s.discardStandby()
		return nil
	default:
	}
	if s.permit() != nil { // the start that follows reports the error
		s.discardStandby()
		return nil
	}
	s.standby = nil
	waiting.session.began = time.Now()
	waiting.held.release()
	s.mu.Lock()
	s.makeCurrent(waiting)
	s.mu.Unlock()
	waiting.process.Begin()
	return waiting.process
}

// discardStandby ends the standby, if there is one.
func (s *Supervisor) discardStandby() {
	if s.standby == nil {
		return
	}
	waiting := s.standby
	s.standby = nil
	s.endStandby(waiting)
}

func (s *Supervisor) endStandby(waiting *standby) {
	waiting.process.End(context.Background(), 0)
	waiting.session.failures.flush()     // into held, which is not shown
	waiting.session.comparison.release() // likewise
	s.close(waiting.process)
}

func (s *Supervisor) drainLaunched() {
	select {
	case <-s.launched:
	default:
	}
}

// heldLines bounds the output of imports that is kept for the screen.
const heldLines = 1000

// heldOutput keeps what a standby prints until it is the current start.
type heldOutput struct {
	show func(stream, line string)

	mu       sync.Mutex
	released bool
	lines    [][2]string // stream and text
}

func (h *heldOutput) print(stream, line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.released:
		h.show(stream, line)
	case len(h.lines) < heldLines:
		h.lines = append(h.lines, [2]string{stream, line})
	}
}

func (h *heldOutput) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = true
	for _, line := range h.lines {
		h.show(line[0], line[1])
	}
	h.lines = nil
}
