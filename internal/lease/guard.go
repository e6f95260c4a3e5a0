package lease

import "time"

// maxArmedAhead is how much earlier than the Lease its Guard may begin to count. Machines are told the deadline during the commit.
const maxArmedAhead = 50 * time.Millisecond

// Guard keeps the deadlines of active Leases while no host runs. An agent that outlasts the host implements it, on the machine of
// the workers. Its methods do not block, and may be called from any goroutine.
type Guard interface {
	// Arm is called when a Lease has become active, or is about to, before its client has an answer. left is the declared time that is left; it is
	// below 0 once the deadline has passed. It is called again if the client has replaced an idle worker by another one, and
	// by each host that adopts the Lease. The last call counts.
	Arm(lease string, w Worker, left time.Duration)
	// Disarm is called when a Lease is no longer active. A Lease that the agent has reported to this host (MachineReport) and that
	// has not been armed since is disarmed once its settlement is in the database. Until then the agent has to report it to the
	// next host, too. An unknown Lease is no error.
	Disarm(lease string)
}

// updateGuard passes a new State of the Lease to the Guard of its machine. An unreachable Lease stays armed.
func (l *Lease) updateGuard(g Guard, now time.Time) {
	switch {
	case l.State == Active:
		isArmed := now.Sub(l.armedAhead) < maxArmedAhead
		if !isArmed && !l.armedAhead.IsZero() && !l.armed {
			g.Disarm(l.ID) // a Lease that is armed again keeps its beginning, which was too early
		}
		l.armed, l.restored, l.armedAhead = true, false, time.Time{}
		if !isArmed {
			g.Arm(l.ID, l.Worker, l.deadline().Sub(now))
		}
	case l.armed && l.State != Unreachable:
		l.armed = false
		g.Disarm(l.ID)
	}
}
