package main

import (
	"strings"
	"testing"

	"spacehost/internal/feature/featuretest"
)

// TestShortComparisonOfAgentsHasEveryNumber runs the comparison with little of everything: it checks answers, never speed.
func TestShortComparisonOfAgentsHasEveryNumber(t *testing.T) {
	r, progress := shortRun(t, "--agent")
	if strings.Contains(progress, "SKIPPED") {
		featuretest.Missing(t, "this machine lacks what the comparison needs:\n%s", progress)
	}
	for _, record := range r.Rounds {
		if record.Error != "" {
			t.Errorf("%s, %s: %s", record.Target, record.Step, record.Error)
		}
	}
	for _, s := range agentSteps(true) {
		for _, l := range s.lines {
			for _, host := range []string{withoutAgent, withAgent, withNode} {
				if _, ok := r.median(host, s.name, l.key); !ok {
					t.Errorf("no number for %s: %s", host, l.text)
				}
			}
		}
	}
	if used, _ := r.median(withoutAgent, "noop-16", "agent_us"); used > 0 {
		t.Errorf("%v us of an agent without one", used)
	}
}
