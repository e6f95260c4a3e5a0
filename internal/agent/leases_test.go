package agent

import (
	"testing"
	"time"

	"spacehost/internal/guard"
	"spacehost/internal/lease"
	"spacehost/internal/proctree"
	"spacehost/internal/proctree/proctreetest"
	"spacehost/quota"
)

// TestLeasesAreReported arms leases of real workers, and connects the next host.
func TestLeasesAreReported(t *testing.T) {
	r := begin(t)
	first := r.connect()
	p, to := r.launch(first, "one")
	var workers []lease.Worker
	for range 3 {
		order(p, "a", "worker")
		w := processOf(t, to.next("worker").Number)
		to.next("done")
		workers = append(workers, lease.Worker{PID: w.PID, Start: w.Start})
	}
	first.Arm("open", workers[0], time.Hour)
	first.Arm("late", workers[1], 200*time.Millisecond)
	first.Arm("exits", workers[2], time.Hour)
	first.Arm("disarmed", workers[2], time.Hour)
	first.Disarm("disarmed")
	p.Leave()
	first.Close()
	if w := (proctree.Process{PID: workers[2].PID, Start: workers[2].Start}); w.Signal(9) != nil {
		t.Error("a worker has exited")
	}
	late := proctree.Process{PID: workers[1].PID, Start: workers[1].Start}
	proctreetest.Eventually(t, "the agent has ended the worker that overstays", func() bool { return !late.Alive() })
	var report lease.MachineReport
	proctreetest.Eventually(t, "the agent reports three leases", func() bool {
		c := r.connect()
		defer c.Close()
		report = c.Report()
		return len(report.Ended) == 2
	})
	if len(report.Open) != 1 || report.Open[0] != (lease.OpenLease{Lease: "open", Worker: workers[0]}) {
		t.Errorf("open %+v", report.Open)
	}
	for _, e := range report.Ended {
		switch {
		case e.Lease == "late" && e.State == lease.Expired && e.Reason == quota.ReasonDeadline && e.Used == guard.WholeTime:
		case e.Lease == "exits" && e.State == lease.Released && e.Reason == "worker died" && e.Used < time.Minute:
		default:
			t.Errorf("ended %+v", e)
		}
	}
}
