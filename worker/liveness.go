package worker

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/space"
)

// Liveness is when a running Space counts as UNRESPONSIVE, and when it starts again (docs/design/0029-liveness.md).
type Liveness struct {
	After        time.Duration // without an answer; 0: the Space is not probed
	RestartAfter time.Duration // UNRESPONSIVE; 0: never
}

// interval is the time between two probes, and thus the inaccuracy of After.
func (l Liveness) interval() time.Duration { return max(l.After/10, minProbe) }

const (
	minProbe = 50 * time.Millisecond
	// offProbe is the interval at which a Space that is not probed reads its settings again.
	offProbe = 5 * time.Second
)

// HangCause is what a Space lacks that does not answer.
type HangCause string

// The causes. Each is a label of a metric.
const (
	HangInterpreter HangCause = "interpreter" // no Python thread runs: the interpreter lock is held, or the process is stopped
	HangLoop        HangCause = "loop"        // the event loop of the server does not run its callbacks
	HangServer      HangCause = "server"      // the event loop has ended without close()
	HangDescriptors HangCause = "descriptors" // the app has closed the channel to the host; the process has ended
)

// Hang describes a Space that has become UNRESPONSIVE, for the operator.
type Hang struct {
	Cause  HangCause
	Text   string // one sentence
	Place  string // the line of the app, such as "app.py:12 in spin"; "": none is known
	Stacks string // of all threads; "": Text gives the reason
}

// liveness decides from the answers of one start whether it is unresponsive. Only watch uses it, with the lock of answers.
type liveness struct {
	sent         int // number of the last probe; 0: none
	thread, loop answerer
	server       string // as the runner names its state: none, runs or ended
	unresponsive bool
	hung         time.Duration // since it is unresponsive
	total        time.Duration // since its last answer
}

// answerer is one of the two that answer a probe.
type answerer struct {
	last   int           // number of the last probe that it has answered
	silent time.Duration // with an unanswered probe
}

func (a *answerer) answer(number int) {
	if number > a.last {
		a.last, a.silent = number, 0
	}
}

// wait adds a step of time, if a probe is unanswered.
func (a *answerer) wait(sent int, step time.Duration) {
	if a.last < sent {
		a.silent += step
	} else {
		a.silent = 0
	}
}

// verdict is what follows from a step.
type verdict int

const (
	noChange verdict = iota
	becameUnresponsive
	mustRestart
)

// onStep adds the time since the last step. A step counts for two intervals at most: if it took longer, then this host was
// suspended or starved, and so were its Spaces.
func (l *liveness) onStep(step time.Duration, c Liveness) verdict {
	step = min(step, 2*c.interval())
	l.thread.wait(l.sent, step)
	l.loop.wait(l.sent, step)
	if l.unresponsive {
		l.hung += step
		l.total += step
		if c.RestartAfter > 0 && l.hung >= c.RestartAfter {
			return mustRestart
		}
		return noChange
	}
	if silent := max(l.thread.silent, l.loop.silent); silent >= c.After {
		l.unresponsive, l.hung, l.total = true, 0, silent
		return becameUnresponsive
	}
	return noChange
}

// next returns the number of the next probe. It returns false while the last one is unanswered: the channel loses no frame, and
// a stopped process must not fill it. The loop may lag: its next answer is about the last probe.
func (l *liveness) next() (number int, ok bool) {
	if l.thread.last < l.sent {
		return 0, false
	}
	l.sent++
	return l.sent, true
}

// answersAgain reports whether an unresponsive start has answered its last probe.
func (l *liveness) answersAgain() bool {
	return l.unresponsive && l.thread.last == l.sent && l.loop.last == l.sent
}

func (l *liveness) recovered() (after time.Duration) {
	after = l.total
	l.unresponsive, l.hung, l.total = false, 0, 0
	return after
}

func (l *liveness) cause() HangCause {
	switch {
	case l.thread.silent >= l.loop.silent && l.thread.last < l.sent:
		return HangInterpreter
	case l.server == "ended":
		return HangServer
	}
	return HangLoop
}

// answers are those of one start. report writes them, and watch reads them.
type answers struct {
	arrived chan struct{} // receives a value after an answer

	mu         sync.Mutex
	liveness   liveness
	loopThread string // that runs the event loop, in hexadecimal digits
}

func newAnswers() *answers { return &answers{arrived: make(chan struct{}, 1)} }

// alive accepts an answer to a probe.
func (s *session) alive(r report) error {
	a := s.answers
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Number < 1 || r.Number > a.liveness.sent {
		return &FrameError{fmt.Sprintf("alive with the number %d, and %d probes were sent", r.Number, a.liveness.sent)}
	}
	if r.Loop {
		a.liveness.loop.answer(r.Number)
	} else {
		a.liveness.thread.answer(r.Number)
		a.liveness.server, a.loopThread = r.Server, r.Thread
		if r.Server == "none" { // the app has closed its server, and may launch again
			a.liveness.loop.answer(r.Number)
		}
	}
	select {
	case a.arrived <- struct{}{}:
	default:
	}
	return nil
}

// hangs is what watch requests. Supervisor implements it for one start.
type hangs interface {
	// settings returns the configuration in force.
	settings() Liveness
	// isUp reports whether the app has attached: nothing is expected of it before.
	isUp() bool
	// isStopped reports whether the process cannot run at all. It may have answered in the moment for which inspect let it run.
	isStopped() bool
	probe(number int)
	// unresponsive may take seconds.
	unresponsive(ctx context.Context, cause HangCause, silent time.Duration)
	responsive(after time.Duration)
	// mayRestart reports whether the start may be ended.
	mayRestart() bool
}

// watch probes one start until ctx ends. It sends the time without an answer to restart once the start must be ended, and returns.
func watch(ctx context.Context, a *answers, do hangs, restart chan<- time.Duration) {
	last := time.Now()
	timer := time.NewTimer(do.settings().pause())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.arrived:
			a.settle(do)
			continue
		case <-timer.C:
		}
		c := do.settings()
		timer.Reset(c.pause())
		step := time.Since(last) // without the time for which this machine was suspended (CLOCK_MONOTONIC)
		last = time.Now()
		if !do.isUp() {
			continue
		}
		if a.step(ctx, do, c, step) {
			restart <- a.total()
			return
		}
	}
}

func (l Liveness) pause() time.Duration {
	if l.After == 0 {
		return offProbe
	}
	return l.interval()
}

// step returns true if the start must be ended.
func (a *answers) step(ctx context.Context, do hangs, c Liveness, step time.Duration) bool {
	a.mu.Lock()
	if c.After == 0 { // a reload has ended the probes
		again := a.liveness.unresponsive
		after := a.liveness.recovered()
		a.liveness.thread.answer(a.liveness.sent)
		a.liveness.loop.answer(a.liveness.sent)
		a.mu.Unlock()
		if again {
			do.responsive(after)
		}
		return false
	}
	v, cause, silent := a.liveness.onStep(step, c), a.liveness.cause(), a.liveness.total
	number, ok := a.liveness.next()
	a.mu.Unlock()
	switch v {
	case mustRestart:
		if do.mayRestart() {
			return true
		}
	case becameUnresponsive:
		do.unresponsive(ctx, cause, silent)
	}
	if ok {
		do.probe(number)
	}
	return false
}

// settle ends the state UNRESPONSIVE after an answer.
func (a *answers) settle(do hangs) {
	a.mu.Lock()
	again := a.liveness.answersAgain()
	a.mu.Unlock()
	if !again || do.isStopped() {
		return
	}
	a.mu.Lock()
	after := a.liveness.recovered()
	a.mu.Unlock()
	do.responsive(after)
}

func (a *answers) total() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.liveness.total
}

// hangsOf implements hangs for one start.
type hangsOf struct {
	*Supervisor
	p Start
	h *session
}

var _ hangs = hangsOf{}

// beginWatch watches a start until stop, which returns when the watch has ended.
func (s *Supervisor) beginWatch(p Start) (restart <-chan time.Duration, stop func()) {
	_, h := s.process()
	if s.config.Liveness == nil || h == nil {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	hung := make(chan time.Duration, 1)
	var watching sync.WaitGroup
	watching.Go(func() { watch(ctx, h.answers, hangsOf{s, p, h}, hung) })
	return hung, func() { cancel(); watching.Wait() }
}

func (o hangsOf) settings() Liveness { return o.config.Liveness() }

func (o hangsOf) isUp() bool { return o.Status().Stage.IsUp() }

func (o hangsOf) isStopped() bool {
	status, ok := o.p.Status()
	return ok && status.IsStopped()
}

func (o hangsOf) mayRestart() bool {
	status, ok := o.p.Status()
	return !ok || status.Tracer == 0 // a debugger has it
}

func (o hangsOf) probe(number int) { o.p.Send(newFrame(probeOrder{"probe", number}, nil)) }

// notAnswering is the sentence for visitors.
const notAnswering = "The Space does not answer at the moment. Your call waits until it does, or until it has started again."

func (o hangsOf) unresponsive(ctx context.Context, cause HangCause, silent time.Duration) {
	if _, runs := o.p.Status(); !runs { // its exit is reported
		return
	}
	if !o.stageFrom(o.p, space.Running, space.Unresponsive, "The Space does not answer at the moment.") {
		return
	}
	o.queue.Pause(notAnswering)
	o.h.answers.mu.Lock()
	loop := o.h.answers.loopThread
	o.h.answers.mu.Unlock()
	f := o.p.Inspect(ctx, cause != HangInterpreter)
	if cause != HangLoop {
		loop = ""
	}
	hang, noStacks := describe(cause, silent, f, o.p.Facts().Dir, loop)
	o.detail(o.p, hang.Text)
	o.config.Logger.Warn("space unresponsive", zap.String("instance", o.p.Facts().Instance), zap.String("cause", string(cause)), zap.String("place", hang.Place),
		zap.String("state", f.State), zap.Duration("silent", silent), zap.String("noStacks", noStacks))
	next := "It is not started again: a debugger holds it."
	if again := o.settings().RestartAfter; !f.Traced && again > 0 {
		next = fmt.Sprintf("It is started again if it does not answer within %s.", shortly(again))
	} else if !f.Traced {
		next = fmt.Sprintf("To start it again, run `spacehost space restart %s --now`.", o.config.Space)
	}
	o.hung(hang, next)
}

func (o hangsOf) responsive(after time.Duration) {
	if !o.stageFrom(o.p, space.Unresponsive, space.Running, "") {
		return
	}
	o.queue.Resume()
	after = after.Round(time.Second / 10)
	o.config.Logger.Info("space answers again", zap.String("instance", o.p.Facts().Instance), zap.Duration("took", after))
	o.config.Note(fmt.Sprintf("RUNNING again: it answers after %s.", after))
}

// hung reports a Hang to the operator.
func (s *Supervisor) hung(hang Hang, next string) {
	s.config.Note(fmt.Sprintf("%s: %s %s", space.Unresponsive, hang.Text, next))
	if s.config.Hung != nil {
		s.config.Hung(hang)
	}
}

// describe returns the sentence about a start that does not answer, and why there are no stacks.
func describe(cause HangCause, silent time.Duration, f Inspection, dir, loop string) (hang Hang, noStacks string) {
	threads := parseStacks(f.Stacks)
	hang = Hang{Cause: cause, Place: placeOf(threads, dir, loop), Stacks: stacksText(threads)}
	what := map[HangCause]string{
		HangInterpreter: "no Python thread of it runs, because one thread holds the interpreter lock (GIL)", HangLoop: "its event loop is blocked",
		HangServer: "the event loop of its server has ended", HangDescriptors: "the app has closed the descriptors of its process",
	}[cause]
	if f.State != "" {
		what = "its process is " + f.State
	}
	hang.Text = fmt.Sprintf("It has not answered for %s: %s", silent.Round(time.Second/10), what)
	if cause == HangDescriptors {
		hang.Text = "It cannot answer any more: " + what
	}
	if hang.Place != "" {
		hang.Text += ", at " + hang.Place
	}
	hang.Text += "."
	if hang.Stacks == "" {
		noStacks = cmp.Or(f.Why, "the process did not write them")
		hang.Text += " No stacks: " + noStacks + "."
	}
	return hang, noStacks
}

// closedDescriptors reports an exit that followed from a channel that the app has closed.
func (s *Supervisor) closedDescriptors(p Start) {
	hang, _ := describe(HangDescriptors, 0, Inspection{Stacks: p.Exit().Stacks}, p.Facts().Dir, "")
	s.config.Logger.Warn("space unresponsive", zap.String("instance", p.Facts().Instance), zap.String("cause", string(hang.Cause)), zap.String("place", hang.Place))
	s.hung(hang, "Its process has ended.")
}

// hangCause is why a start ends that has not answered for too long.
func hangCause(after time.Duration) *StopCause {
	return &StopCause{
		Reason: fmt.Sprintf("The Space did not answer for %s, so the host has restarted it.", after.Round(time.Second)),
		Ledger: space.EndedByHang, Again: true, Cause: CauseHung,
	}
}

// shortly returns a duration without the zero seconds of Duration.String.
func shortly(d time.Duration) string {
	if text, whole := strings.CutSuffix(d.String(), "m0s"); whole {
		return text + "m"
	}
	return d.String()
}

// stageFrom changes the stage of a start that is current and has the stage from.
func (s *Supervisor) stageFrom(p Start, from, to space.Stage, reason string) bool {
	s.mu.Lock()
	if s.current != p || s.stage != from {
		s.mu.Unlock()
		return false
	}
	s.stage, s.reason, s.hint = to, reason, ""
	staged := s.config.Staged
	s.mu.Unlock()
	if staged != nil {
		staged(StageChange{Stage: to, Reason: reason})
	}
	return true
}

// detail sets what the operator reads in place of the reason for visitors.
func (s *Supervisor) detail(p Start, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == p {
		s.hint = text
	}
}
