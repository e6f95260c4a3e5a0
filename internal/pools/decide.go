package pools

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"spacehost/internal/slurm"
)

// Rules are the settings of a pool.
type Rules struct {
	Min, Max int           // jobs
	Idle     time.Duration // after which a node is given back
	Wait     time.Duration // of the demand, after which a job is added
}

// Node is a node of a pool. The zero value: its agent has not joined.
type Node struct {
	Name      string
	Connected bool
	Seen      bool   // it has been connected at some time
	InService bool   // Spaces may start on it
	Given     bool   // the pool has drained it
	Spaces    int    // that are placed on it
	Leases    int    // open ones
	Why       string // it is out of service; empty: it is in service

	UsedAt time.Time // when a visitor or a lease last used a Space on it; the time of the decision: one does now
}

func (n Node) isEmpty() bool { return n.Spaces == 0 && n.Leases == 0 }

// Member is a job that has not ended, with its node.
type Member struct {
	Job   slurm.Job
	Since time.Time // since when it has its state
	Node  Node
}

// isStarting reports whether the job may become a node by itself.
func (m Member) isStarting() bool { return m.Job.State == slurm.Pending || !m.Node.Seen }

// isLeaving reports whether the job adds nothing from now on.
func (m Member) isLeaving() bool {
	return m.Job.State == slurm.Ending || m.Node.Connected && !m.Node.InService || m.Node.Given
}

// Phase is where a job is on its way, for operators.
type Phase string

// The Phases.
const (
	Pending  Phase = "pending"
	Starting Phase = "starting" // its agent has not connected yet
	Serving  Phase = "serving"
	Lost     Phase = "lost"    // its node does not answer
	Leaving  Phase = "leaving" // no Space starts on its node any more
	Ending   Phase = "ending"
)

// Phase returns the Phase of a member.
func (m Member) Phase() Phase {
	switch {
	case m.Job.State == slurm.Pending:
		return Pending
	case m.Job.State == slurm.Ending:
		return Ending
	case !m.Node.Seen:
		return Starting
	case m.isLeaving():
		return Leaving
	case !m.Node.Connected:
		return Lost
	}
	return Serving
}

// View is what a decision is made from.
type View struct {
	Members []Member
	Demand  time.Time // since when the one that has waited longest waits; zero: none waits
	Wanted  time.Time // when there was demand last
	Backoff bool      // no job may be submitted now
}

// Decision is the result of a decision. Each field may be empty.
type Decision struct {
	Submit bool     // one job
	Cancel []Action // of jobs
	Drain  []Action // of nodes
}

// Action names a job or a node, and the reason for operators.
type Action struct{ Name, Why string }

// startTimeout is how long the agent of a running job may take to connect. Slurm may boot a machine for it, and the agent needs some
// seconds.
const startTimeout = 10 * time.Minute

// Decide applies the rules of the package comment.
func Decide(r Rules, v View, now time.Time) (p Decision) {
	var live []Member // without those that the plan cancels
	for _, m := range v.Members {
		switch {
		case m.Job.State == slurm.Ending:
		case m.Job.State == slurm.Running && !m.Node.Seen && now.Sub(m.Since) >= startTimeout:
			p.Cancel = append(p.Cancel, Action{m.Job.ID, fmt.Sprintf("its agent has not connected in %s", startTimeout)})
		case m.Node.Given && (m.Node.isEmpty() || !m.Node.Connected):
			p.Cancel = append(p.Cancel, Action{m.Job.ID, "its node is drained and empty"})
		default:
			live = append(live, m)
		}
	}
	serving := slices.DeleteFunc(slices.Clone(live), Member.isLeaving)
	switch {
	case len(serving) > r.Max:
		p.drop(leastUsed(serving)[:len(serving)-r.Max], fmt.Sprintf("the pool has at most %d jobs now", r.Max))
	case len(live) >= r.Max || v.Backoff:
	case len(serving) < r.Min:
		p.Submit = true
	case v.isWanting(r, now) && !slices.ContainsFunc(serving, Member.isStarting) && !slices.ContainsFunc(serving, isSpare):
		p.Submit = true
	}
	if v.Demand.IsZero() && len(serving) > r.Min && len(serving) <= r.Max {
		p.shrink(r, v, serving, now)
	}
	return p
}

func (v View) isWanting(r Rules, now time.Time) bool {
	return !v.Demand.IsZero() && now.Sub(v.Demand) >= r.Wait
}

// isSpare reports whether a Space that waits for a machine could start on the node.
func isSpare(m Member) bool { return m.Node.Connected && m.Node.InService && m.Node.isEmpty() }

// leastUsed sorts members: first those without a node, then by leases, Spaces and age.
func leastUsed(all []Member) []Member {
	return slices.SortedFunc(slices.Values(all), func(a, b Member) int {
		return cmp.Or(rank(a)-rank(b), a.Node.Leases-b.Node.Leases, a.Node.Spaces-b.Node.Spaces, compareIDs(b.Job.ID, a.Job.ID))
	})
}

func rank(m Member) int {
	switch {
	case m.Job.State == slurm.Pending:
		return 0
	case !m.Node.Connected:
		return 1
	}
	return 2
}

// compareIDs compares two IDs of jobs, which are numbers.
func compareIDs(a, b string) int {
	first, _ := strconv.ParseUint(a, 10, 64) // the list of jobs has numbers only
	second, _ := strconv.ParseUint(b, 10, 64)
	return cmp.Compare(first, second)
}

// drop gives members back.
func (p *Decision) drop(all []Member, why string) {
	for _, m := range all {
		if m.Node.Connected {
			p.Drain = append(p.Drain, Action{m.Node.Name, why})
		} else {
			p.Cancel = append(p.Cancel, Action{m.Job.ID, why})
		}
	}
}

// shrink gives one member back that nobody needs.
func (p *Decision) shrink(r Rules, v View, serving []Member, now time.Time) {
	var idlest *Member
	for i, m := range serving {
		switch {
		case m.Job.State == slurm.Pending && now.Sub(m.Since) >= r.Idle && now.Sub(v.Wanted) >= r.Idle:
			p.Cancel = append(p.Cancel, Action{m.Job.ID, fmt.Sprintf("it was pending, and nobody has waited for a machine for %s", r.Idle)})
			return
		case m.Node.Connected && m.Node.Leases == 0 && now.Sub(m.Node.UsedAt) >= r.Idle:
			if idlest == nil || m.Node.UsedAt.Before(idlest.Node.UsedAt) {
				idlest = &serving[i]
			}
		}
	}
	if idlest != nil {
		p.Drain = append(p.Drain, Action{idlest.Node.Name, fmt.Sprintf("nobody has used it for %s", r.Idle)})
	}
}
