package nodes

import (
	"time"

	"spacehost/internal/link"
)

// State is whether a node may be used, as far as its connection shows.
type State string

// The states. Only Connected nodes get new work.
const (
	Joined    State = "joined"    // its agent has not connected yet
	Connected State = "connected" // beats arrive on time
	Suspect   State = "suspect"   // beats are late, or the connection has just ended
	Lost      State = "lost"      // no beat for link.LostAfter
	Revoked   State = "revoked"
)

// Reached is what the front knows about the connection of a node. The zero value: none since the start of the host.
type Reached struct {
	State State     // Connected, Suspect or Lost
	Beat  time.Time // the last one
}

// StateAt returns the state of a node at a time, and when it was seen last; the zero time: never.
func (n Node) StateAt(now time.Time, r Reached) (s State, seen time.Time) {
	if seen = n.SeenAt; r.Beat.After(seen) {
		seen = r.Beat
	}
	switch {
	case !n.RevokedAt.IsZero():
		return Revoked, seen
	case r.State != "":
		return r.State, seen
	case seen.IsZero():
		return Joined, seen
	case now.Sub(seen) < link.LostAfter: // the host has just started, and the agent is about to connect again
		return Suspect, seen
	}
	return Lost, seen
}
