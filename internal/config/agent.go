package config

import "time"

// Agent selects the process that starts the Spaces of `serve`.
type Agent string

const (
	NoAgent    Agent = ""      // the host itself: its end is the end of the Spaces
	LocalAgent Agent = "local" // an agent on the same machine, with which the Spaces outlast the host (internal/agent)
)

const (
	// DefaultOrphanAfter is longer than a restart of the host takes, an upgrade by hand included.
	DefaultOrphanAfter = 10 * time.Minute
	// MinOrphanAfter is longer than a restart of the host by its service manager takes.
	MinOrphanAfter = 10 * time.Second
	// MaxOrphanAfter is the longest time for which an agent keeps Spaces without a host.
	MaxOrphanAfter = 24 * time.Hour
)

func (l *loader) agent(n node) {
	l.agentAt = n
	switch text, ok := n.scalar(); {
	case !ok:
	case Agent(text) == LocalAgent:
		l.settings.Agent = LocalAgent
	default:
		n.fail("unknown value %.40q; use local, or remove the key to start the Spaces without an agent", text)
	}
}

func (l *loader) orphanAfter(n node) {
	set(&l.settings.OrphanAfter)(n.duration(MinOrphanAfter, MaxOrphanAfter))
	l.orphanAfterAt = n
}

// checkAgent completes the settings of the agent. orphan_after without an agent would have no effect.
func (l *loader) checkAgent() {
	switch {
	case l.orphanAfterAt.isPresent() && !l.agentAt.isPresent():
		l.orphanAfterAt.fail("has no effect without an agent; add `agent: local`, or remove `orphan_after`")
	case l.settings.Agent != NoAgent && l.settings.OrphanAfter == 0:
		l.settings.OrphanAfter = DefaultOrphanAfter
	}
}

// orphanAfterText returns a value of orphan_after as the file has it; empty without an agent.
func orphanAfterText(s Settings) string {
	if s.Agent == NoAgent {
		return ""
	}
	return durationText(s.OrphanAfter)
}
