package queue

// stoppedTitle is the title of an Event that ended with its Space.
const stoppedTitle = "Space stopped"

// hostStopped is the sentence for Events of a host that stops without a drain.
const hostStopped = "The host has stopped. Send the call again when it answers."

// pausedTitle is the title of the message about a Space that does not answer.
const pausedTitle = "Space does not answer"

// drainState is the state of a Space that is about to end: running Events continue, and no waiting one starts. Events that the
// Space has admitted start all the same if the next start cannot have them.
type drainState struct {
	keep   bool   // a next start follows, which gets the waiting Events
	paused bool   // Resume ends it
	text   string // for visitors
}

// Drain lets no further Event start until the next start of the Space attaches. With keep, waiting and new Events wait for
// it, and the waiting ones receive text as a log message. Without keep, they end at once with text. It returns when that is
// decided; Busy tells when the running Events have ended.
func (q *Queue) Drain(keep bool, text string) {
	query(q, func(s *scheduler) struct{} { s.onDrain(keep, text); return struct{}{} })
}

// Pause is Drain with keep for a Space that does not answer: Resume ends it, and so does the next start. A Drain that has begun
// stays in force.
func (q *Queue) Pause(text string) {
	query(q, func(s *scheduler) struct{} { s.onPause(text); return struct{}{} })
}

// Resume lets Events start again after Pause.
func (q *Queue) Resume() {
	query(q, func(s *scheduler) struct{} { s.onResume(); return struct{}{} })
}

// Reopen ends a Drain without keep: the Space, which was to end, starts again.
func (q *Queue) Reopen() {
	query(q, func(s *scheduler) struct{} { s.onReopen(); return struct{}{} })
}

// Busy returns the number of Events and direct calls that a drain waits for. Direct calls that only read do not count.
func (q *Queue) Busy() int {
	return q.direct.busy() + query(q, func(s *scheduler) int {
		n := len(s.running)
		for _, e := range s.waiting {
			if e.Admitted {
				n++
			}
		}
		return n
	})
}

func (sc *scheduler) onDrain(keep bool, text string) {
	sc.draining = &drainState{keep: keep, text: text}
	sc.notifyWaiting("Space restarts")
}

func (sc *scheduler) onPause(text string) {
	if sc.draining == nil {
		sc.draining = &drainState{keep: true, paused: true, text: text}
		sc.notifyWaiting(pausedTitle)
	}
}

func (sc *scheduler) onResume() {
	if sc.draining != nil && sc.draining.paused {
		sc.draining = nil
		sc.dispatch()
	}
}

func (sc *scheduler) onReopen() {
	if sc.draining != nil && !sc.draining.keep {
		sc.draining = nil
	}
}

// notifyWaiting reports the drain to the waiting Events, or ends them.
func (sc *scheduler) notifyWaiting(title string) {
	for _, e := range inOrder(sc.waiting, "") {
		switch {
		case e.Admitted: // only the running process has its body
		case sc.draining.keep:
			sc.notify(e, title)
		default:
			sc.withdraw(e)
			sc.fail(e, sc.draining.text)
		}
	}
	sc.dispatch()
}

// notify shows the visitor of a waiting Event why it does not start.
func (sc *scheduler) notify(e *Event, title string) {
	sc.deliver(e, Message{Kind: Log, Event: e.ID, Level: Info, Title: title, Text: sc.draining.text})
}

// refusesNew reports whether a new Event would wait for a start that does not follow.
func (sc *scheduler) refusesNew() bool { return sc.draining != nil && !sc.draining.keep }

// mayStart reports whether a waiting Event may start in the running process.
func (sc *scheduler) mayStart(e *Event) bool { return sc.draining == nil || e.Admitted }

// stopText returns the sentence for Events that end with the Space.
func (sc *scheduler) stopText() string {
	if sc.refusesNew() {
		return sc.draining.text
	}
	return hostStopped
}
