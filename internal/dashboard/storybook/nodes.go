package main

import (
	"fmt"
	"time"

	"spacehost/internal/control"
	"spacehost/internal/nodes"
	"spacehost/internal/pools"
)

// nodes has a node in each state. The third one is drained, and the fourth one leaves.
func (v values) nodes() []control.Node {
	states := []nodes.State{nodes.Connected, nodes.Connected, nodes.Connected, nodes.Connected, nodes.Suspect, nodes.Lost, nodes.Revoked, nodes.Joined}
	return list(min(v.rows, len(states)), func(i int) control.Node {
		n := control.Node{
			Name: v.text(fmt.Sprintf("gpu-%02d", i+1)), State: string(states[i]), GPUs: []int{8, 8, 4, 2, 8, 8, 1, 0}[i], Leases: []int{5, 2, 1, 0, 1, 2, 0, 0}[i],
			Labels: []string{}, Version: "1.4.0", Address: fmt.Sprintf("10.20.0.%d:41522", i+11), JoinedAt: v.ago(40 * 24 * time.Hour), JoinedBy: v.payer(i),
		}
		if i < 2 {
			n.Labels = []string{v.text("h200"), v.text("rack-7")}
		}
		seen := v.ago([]time.Duration{0, 0, 0, 0, 4 * time.Second, 26 * time.Minute, 9 * 24 * time.Hour, 0}[i])
		switch states[i] {
		case nodes.Connected:
			connected := v.ago(76 * time.Hour)
			n.ConnectedAt, n.SeenAt, n.RTTSeconds, n.SkewSeconds = &connected, &seen, 0.0004*float64(i+1), 0.012
		case nodes.Joined:
			n.Version, n.Address = "", ""
		case nodes.Revoked:
			n.SeenAt, n.RevokedAt = &seen, &seen
		default:
			n.SeenAt = &seen
		}
		switch i {
		case 1:
			n.Leaves = &control.NodeEnd{At: v.now.Add(5*time.Hour + 40*time.Minute), Why: v.text("the job reaches its time limit")}
		case 2:
			n.Drained = &control.NodeDrain{At: v.ago(3 * time.Hour), By: v.payer(0), Reason: v.text("new fan")}
		case 3:
			n.Leaves = &control.NodeEnd{At: v.now.Add(9*time.Minute + 12*time.Second), Draining: true, Why: v.text("the job reaches its time limit")}
		}
		return n
	})
}

// nodeExplanation is that of a node which is drained.
func (v values) nodeExplanation() control.NodeExplanation {
	e := control.NodeExplanation{Reasons: []string{}, Notes: []string{}}
	if all := v.nodes(); len(all) > 2 {
		e.Node = all[2]
		e.Reasons = []string{v.text("ada") + " has drained it: " + v.text("new fan") + ". `spacehost node return` puts it back into service."}
		e.Notes = []string{"Its agent is version 1.4.0, and this host is 1.5.0.", "It runs the Space " + v.text("sana-sprint") + "."}
	}
	return e
}

// pools has a pool with a job in each phase, and one that Slurm refuses.
func (v values) pools() []control.Pool {
	if v.rows == 0 {
		return []control.Pool{}
	}
	listed, again := v.ago(4*time.Second), v.now.Add(2*time.Minute)
	phases := []pools.Phase{pools.Pending, pools.Starting, pools.Serving, pools.Lost, pools.Leaving, pools.Ending}
	return []control.Pool{
		{Name: v.text("lab"), Min: 1, Max: 8, ListedAt: &listed, Jobs: list(len(phases), func(i int) control.PoolJob {
			job := control.PoolJob{ID: fmt.Sprint(88120 + i), State: string(phases[i]), Since: v.ago(time.Duration(i*7+1) * time.Minute)}
			if phases[i] == pools.Pending {
				job.Reason = "Priority"
				return job
			}
			job.Machine = v.text(fmt.Sprintf("compute-%d", i))
			if phases[i] != pools.Starting {
				job.Node = v.text("lab-" + job.ID)
			}
			return job
		})},
		{Name: v.text("night"), Max: 2, Trouble: "Slurm refuses jobs of this pool: " + v.text("sbatch: error: invalid account or account/partition combination specified"), RetryAt: &again, Jobs: []control.PoolJob{}},
	}
}
