package worker

// Restart is a request of an operator.
type Restart struct {
	By  string // for the ledger; empty: the operator
	Now bool   // running calls end at once
}

// Restart requests a restart and returns at once. While Run is not running, Restarts delivers the request to its caller.
func (s *Supervisor) Restart(r Restart) {
	for {
		select {
		case s.again <- r:
			return
		default: // a request is already pending
		}
		if !r.Now {
			return
		}
		select { // this one replaces it
		case <-s.again:
		default:
		}
	}
}

// Restarts delivers each Restart that no process has handled.
func (s *Supervisor) Restarts() <-chan Restart { return s.again }

// ShowAgain lets the next failed start be shown in full, even if it prints the same as the one before: the operator has asked for
// it. After a change of the code, "same error as before" is the news. The caller of Run calls it after a value of Restarts.
func (s *Supervisor) ShowAgain() {
	if !s.config.AwaitChange {
		s.repeats.forget()
	}
}
