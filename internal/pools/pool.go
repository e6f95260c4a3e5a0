package pools

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/slurm"
)

// Scheduler is a batch scheduler. The jobs of a pool have one name. slurm.Client implements it.
type Scheduler interface {
	Submit(ctx context.Context, script string) (id string, err error)
	Jobs(ctx context.Context, name string) ([]slurm.Job, error)
	Cancel(ctx context.Context, id string) error
}

// Front is the host that a pool serves. Its methods are called by one goroutine.
type Front interface {
	// Rules returns the settings of this moment. ok is false once the pool was removed from the configuration.
	Rules() (r Rules, ok bool)
	// Nodes returns the nodes of the pool, also those whose jobs have ended, and since when one waits for a machine of it. UsedAt is zero
	// for a node that none has used.
	Nodes(ctx context.Context) (all []Node, demand time.Time, err error)
	// Script returns the script of the next job, with a new join token.
	Script(ctx context.Context) (string, error)
	// LogOf says where the log of a job is on its machine.
	LogOf(job string) string
	Drain(ctx context.Context, node, why string) error
	// Forget removes a node whose job has ended. It fails while the node has open leases.
	Forget(ctx context.Context, node string) error
}

// Config is what a Pool needs. All fields are required.
type Config struct {
	Name      string // of the pool
	JobName   string // of its jobs, which no other pool of this user has
	Scheduler Scheduler
	Front     Front
	Now       func() time.Time
	Logger    *zap.Logger
}

// Pool keeps the jobs of one pool. Status may be called concurrently with Run.
type Pool struct {
	Config
	seen     map[string]*record   // jobs, by ID
	used     map[string]time.Time // when each node was used last, by name
	wanted   time.Time            // when there was demand last
	listed   bool                 // the jobs have been listed once
	failures int                  // since a node of the pool connected last
	refused  bool                 // the last failure was that of a submission
	retryAt  time.Time            // no job is submitted before

	mu     sync.Mutex
	status Status
}

// record is what a Pool knows about a job.
type record struct {
	slurm.Job
	since     time.Time // of its state
	connected bool      // its agent was connected
	cancelled bool      // by the pool
}

// Status is a pool for operators.
type Status struct {
	Name     string
	Rules    Rules
	Removed  bool      // from the configuration
	Members  []Member  // by ID
	Trouble  string    // a sentence; empty: nothing is wrong
	RetryAt  time.Time // when the next job may be submitted; zero: now
	LookedAt time.Time // when the jobs were listed last; zero: they have not been
}

// The times between two rounds.
const (
	interval   = 10 * time.Second
	afterwards = time.Second // after a round that changed something
)

// The pauses after failures.
const (
	firstPause = 15 * time.Second
	lastPause  = 10 * time.Minute
)

// New returns a Pool that has not looked for its jobs yet.
func New(c Config) *Pool {
	return &Pool{Config: c, seen: map[string]*record{}, used: map[string]time.Time{}, status: Status{Name: c.Name}}
}

// Run keeps the jobs until ctx ends, or until a pool that was removed from the configuration has no jobs and nodes any more. It ends no job at its end.
func (p *Pool) Run(ctx context.Context) {
	for {
		changed, done := p.round(ctx)
		if done {
			return
		}
		pause := interval
		if changed {
			pause = afterwards
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Status returns the state of the last round.
func (p *Pool) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// round looks at jobs and nodes once and acts.
func (p *Pool) round(ctx context.Context) (changed, done bool) {
	rules, ok := p.Front.Rules()
	nodes, demand, err := p.Front.Nodes(ctx)
	if !ok { // everything is given back
		rules.Min, rules.Max, demand = 0, 0, time.Time{}
	}
	now := p.Now()
	if !demand.IsZero() {
		p.wanted = now
	}
	if err == nil && p.isQuiet(rules, nodes, demand) {
		p.publish(Status{Name: p.Name, Rules: rules, Removed: !ok, LookedAt: p.Status().LookedAt})
		return false, !ok
	}
	var jobs []slurm.Job
	if err == nil {
		jobs, err = p.Scheduler.Jobs(ctx, p.JobName)
	}
	if ctx.Err() != nil {
		return false, true
	}
	if err != nil {
		p.Logger.Warn("jobs of pool not listed", zap.String("pool", p.Name), zap.Error(err))
		p.fail(fmt.Sprintf("The jobs of the pool %s are not known: %v.", p.Name, err))
		return false, false
	}
	trouble := p.record(jobs, nodes, now)
	v := View{Members: p.members(nodes, now), Demand: demand, Wanted: p.wanted, Backoff: now.Before(p.retryAt)}
	if trouble == "" && p.failures > 0 { // it stays until a node connects
		trouble = p.Status().Trouble
	}
	p.listed = true
	p.publish(Status{p.Name, rules, !ok, v.Members, trouble, p.retryAt, now})
	forgotten := p.forget(ctx, nodes)
	return p.act(ctx, Decide(rules, v, now)) || forgotten, false
}

// isQuiet reports whether the scheduler need not be asked.
func (p *Pool) isQuiet(r Rules, nodes []Node, demand time.Time) bool {
	return p.listed && len(p.seen) == 0 && len(nodes) == 0 && demand.IsZero() && r.Min == 0
}

func (p *Pool) publish(s Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = s
}

// fail shows a sentence beside what was known before.
func (p *Pool) fail(trouble string) {
	s := p.Status()
	s.Trouble, s.RetryAt = trouble, p.retryAt
	p.publish(s)
}

// record notes the jobs that are listed. It returns a sentence about a job that has ended before its agent had connected.
func (p *Pool) record(jobs []slurm.Job, nodes []Node, now time.Time) (trouble string) {
	listed := map[string]slurm.Job{}
	for _, job := range jobs {
		listed[job.ID] = job
		known := p.seen[job.ID]
		if known == nil && job.State == slurm.Ended {
			continue // of an earlier time
		}
		if known == nil {
			known = &record{since: now}
			p.seen[job.ID] = known
		}
		if known.State != job.State && known.State != "" {
			known.since = now
		}
		known.Job = job
	}
	for _, n := range nodes {
		if known := p.seen[p.jobOf(n.Name)]; known != nil && n.Seen && !known.connected {
			known.connected = true
			p.failures, p.retryAt = 0, time.Time{}
		}
	}
	for id, known := range p.seen {
		if job, isListed := listed[id]; isListed && job.State != slurm.Ended {
			continue
		}
		delete(p.seen, id)
		p.Logger.Info("job of pool has ended", zap.String("pool", p.Name), zap.String("job", id), zap.String("state", known.Word), zap.String("reason", known.Reason))
		if !known.connected && !known.cancelled && known.Word != "CANCELLED" {
			trouble = p.endedEarly(known.Job)
			p.refused = false
			p.backOff(now)
		}
	}
	return trouble
}

func (p *Pool) endedEarly(job slurm.Job) string {
	how := []string{}
	for _, word := range []string{job.Word, job.Reason} {
		if word != "" && word != "None" {
			how = append(how, word)
		}
	}
	on, why := "", ""
	if job.Machine != "" {
		on = " on " + job.Machine
	}
	if len(how) > 0 {
		why = " (" + strings.Join(how, ", ") + ")"
	}
	return fmt.Sprintf("Job %s of the pool %s has ended%s before its agent was connected%s; its log there is %s.", job.ID, p.Name, on, why, p.Front.LogOf(job.ID))
}

func (p *Pool) backOff(now time.Time) {
	pause := lastPause
	if p.failures < 10 {
		pause = min(firstPause<<p.failures, lastPause)
	}
	p.failures++
	p.retryAt = now.Add(pause)
}

// jobOf returns the ID of the job of a node.
func (p *Pool) jobOf(node string) string { return strings.TrimPrefix(node, p.Name+"-") }

// members joins jobs with nodes.
func (p *Pool) members(nodes []Node, now time.Time) (all []Member) {
	for name := range p.used {
		if !slices.ContainsFunc(nodes, func(n Node) bool { return n.Name == name }) {
			delete(p.used, name)
		}
	}
	byJob := map[string]Node{}
	for _, n := range nodes {
		last, known := p.used[n.Name]
		if !known {
			last = now // its time begins
		}
		if n.UsedAt.After(last) {
			last = n.UsedAt
		}
		if n.Leases > 0 {
			last = now
		}
		p.used[n.Name], n.UsedAt = last, last
		byJob[p.jobOf(n.Name)] = n
	}
	for id, known := range p.seen {
		job := known.Job
		if known.cancelled {
			job.State = slurm.Ending // Slurm takes a moment
		}
		all = append(all, Member{job, known.since, byJob[id]})
	}
	slices.SortFunc(all, func(a, b Member) int { return compareIDs(a.Job.ID, b.Job.ID) })
	return all
}

// forget removes the nodes whose jobs have ended.
func (p *Pool) forget(ctx context.Context, nodes []Node) (forgotten bool) {
	for _, n := range nodes {
		if p.seen[p.jobOf(n.Name)] != nil || n.Connected {
			continue
		}
		if err := p.Front.Forget(ctx, n.Name); err != nil {
			p.Logger.Info("node of ended job not forgotten yet", zap.String("node", n.Name), zap.Error(err))
			continue
		}
		p.Logger.Info("node of ended job forgotten", zap.String("node", n.Name))
		forgotten = true
	}
	return forgotten
}

// act carries a decision out.
func (p *Pool) act(ctx context.Context, plan Decision) (changed bool) {
	for _, a := range plan.Drain {
		p.Logger.Info("pool drains node", zap.String("node", a.Name), zap.String("why", a.Why))
		changed = p.done(p.Front.Drain(ctx, a.Name, a.Why), "drain node "+a.Name) || changed
	}
	for _, a := range plan.Cancel {
		p.Logger.Info("pool cancels job", zap.String("pool", p.Name), zap.String("job", a.Name), zap.String("why", a.Why))
		err := p.Scheduler.Cancel(ctx, a.Name)
		if known := p.seen[a.Name]; known != nil && err == nil {
			p.noteCancelled(known, a)
		}
		changed = p.done(err, "cancel job "+a.Name) || changed
	}
	if plan.Submit {
		changed = p.submit(ctx) || changed
	}
	return changed
}

// noteCancelled handles the cancellation of a job. One whose agent never came is a failure of the machine or the configuration.
func (p *Pool) noteCancelled(known *record, a Action) {
	if known.State == slurm.Running && !known.connected && !known.cancelled && p.Now().Sub(known.since) >= startTimeout {
		p.backOff(p.Now())
		p.fail(fmt.Sprintf("Job %s of the pool %s was cancelled, because %s; its log on %s is %s.", known.ID, p.Name, a.Why, known.Machine, p.Front.LogOf(known.ID)))
	}
	known.cancelled = true
}

func (p *Pool) done(err error, what string) bool {
	if err == nil {
		return true
	}
	p.Logger.Warn("pool: step failed", zap.String("pool", p.Name), zap.String("step", what), zap.Error(err))
	p.fail(fmt.Sprintf("The pool %s cannot %s: %v.", p.Name, what, err))
	return false
}

// submit submits one job. If the command fails although the job was accepted, the next list has it.
func (p *Pool) submit(ctx context.Context) bool {
	script, err := p.Front.Script(ctx)
	id := ""
	if err == nil {
		id, err = p.Scheduler.Submit(ctx, script)
	}
	if err != nil {
		p.backOff(p.Now())
		p.refused = true
		return p.done(err, "submit a job")
	}
	if p.refused {
		p.failures, p.refused = 0, false
	}
	p.Logger.Info("pool has submitted job", zap.String("pool", p.Name), zap.String("job", id))
	p.seen[id] = &record{Job: slurm.Job{ID: id, State: slurm.Pending}, since: p.Now()}
	return true
}
