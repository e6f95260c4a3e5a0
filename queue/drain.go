package queue

// stoppedTitle is the title of an Event that ended with its Space.
const stoppedTitle = "Space stopped"

// hostStopped is the sentence for Events of a host that stops without a drain.
const hostStopped = "The host has stopped. Send the call again when it answers."

// drainState is the state of a Space that is about to end: running Events continue, and no waiting one starts. Events that the
// Space has admitted start all the same if the next start cannot have them.
type drainState struct {
	keep bool   // a next start follows, which gets the waiting Events
	text string // for visitors
}

// Drain lets no further Event start until the next start of the Space attaches. With keep, waiting and new Events wait for
// it, and the waiting ones receive text as a log message. Without keep, they end at once with text. It returns when that is
// decided; Busy tells when the running Events have ended.
func (q *Queue) Drain(keep bool, text string) {
	query(q, func(s *scheduler) struct{} { s.onDrain(keep, text); return struct{}{} })
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
	sc.draining = &drainState{keep, text}
	for _, e := range inOrder(sc.waiting, "") {
		switch {
		case e.Admitted: // only the running process has its body
		case keep:
			sc.deliver(e, Message{Kind: Log, Event: e.ID, Level: Info, Title: "Space restarts", Text: text})
		default:
			sc.withdraw(e)
			sc.fail(e, text)
		}
	}
	sc.dispatch()
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
