package main

import "testing"

// TestShortRunOfNodesHasEveryNumber runs the rows of --nodes with 20 nodes: it checks counts, never speed.
func TestShortRunOfNodesHasEveryNumber(t *testing.T) {
	r, _ := shortRun(t, "--nodes")
	for _, record := range r.Rounds {
		if record.Error != "" {
			t.Errorf("%s: %s", record.Step, record.Error)
		}
	}
	for _, s := range nodeSteps() {
		for _, l := range s.lines {
			if _, ok := r.median(ours, s.name, l.key); !ok {
				t.Errorf("no number for %s", l.text)
			}
		}
	}
	if open, _ := r.median(ours, "load", "open"); open < 1 {
		t.Error("no lease was under way")
	}
	if grants, _ := r.median(ours, "load", "per_s"); grants <= 0 {
		t.Error("no GPU was granted")
	}
	if settled, _ := r.median(ours, "cut", "settled"); settled != 100 {
		t.Errorf("%v %% of the ended leases were settled once", settled)
	}
}
