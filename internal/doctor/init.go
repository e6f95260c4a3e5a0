package doctor

import "context"

// processOne checks process 1, which inherits all orphans and must reap them.
func (c Config) processOne(context.Context) []Finding {
	name := c.machine.read("proc/1/comm")
	switch {
	case c.machine.pid == 1, name == "spacehost":
		return []Finding{{
			Level: Warning, Text: "spacehost is process 1 here: daemons of a Space remain as zombies when they exit, until pids run out",
			Do: "Start the container with an init process (Docker: --init; compose: init: true; else tini)",
		}}
	case name == "":
		return []Finding{{Level: Note, Text: "Process 1 cannot be read: /proc is not mounted, or hides other processes", Do: "Mount /proc: spacehost finds the processes of a Space there"}}
	}
	return []Finding{ok("Process 1 is %s, not spacehost", name)}
}
