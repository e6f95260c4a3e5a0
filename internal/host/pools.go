package host

import (
	"context"
	"encoding/hex"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"spacehost/internal/audit"
	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/lease"
	"spacehost/internal/nodes"
	"spacehost/internal/pools"
	"spacehost/internal/slurm"
	"spacehost/internal/space"
)

// poolSet runs a pools.Pool for each pool of the configuration. Its methods may be called concurrently.
type poolSet struct {
	mu  sync.Mutex
	all map[string]*pools.Pool
}

// poolsInterval is how often the configuration is compared with the running pools.
const poolsInterval = 2 * time.Second

// runPools runs the pools until ctx ends. Their jobs go on then.
func (h *Host) runPools(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		for _, p := range h.settings().Pools {
			h.startPool(ctx, p, &running)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(poolsInterval):
		}
	}
}

// startPool runs a pool, unless it runs already.
func (h *Host) startPool(ctx context.Context, p config.Pool, running *sync.WaitGroup) {
	h.pools.mu.Lock()
	defer h.pools.mu.Unlock()
	if h.pools.all[p.Name] != nil {
		return
	}
	front := &poolFront{host: h, pool: p}
	one := pools.New(pools.Config{
		Name: p.Name, JobName: h.cluster.jobName(p.Name), Scheduler: slurm.Client{}, Front: front, Now: h.clock.Now, Logger: h.log.Named("pools"),
	})
	if h.pools.all == nil {
		h.pools.all = map[string]*pools.Pool{}
	}
	h.pools.all[p.Name] = one
	running.Go(func() {
		one.Run(ctx)
		h.pools.mu.Lock()
		defer h.pools.mu.Unlock()
		delete(h.pools.all, p.Name)
	})
}

// jobName contains the authority of the cluster, so that two fronts of one user never take each other's jobs for their own.
func (c *cluster) jobName(pool string) string {
	pin := c.authority.Pin()
	return "spacehost-" + pool + "-" + hex.EncodeToString(pin[:4])
}

// poolFront implements pools.Front. Its methods are called by the goroutine of the pool.
type poolFront struct {
	host *Host
	pool config.Pool // as the configuration had it last
}

var _ pools.Front = (*poolFront)(nil)

// Rules implements pools.Front.
func (f *poolFront) Rules() (pools.Rules, bool) {
	all := f.host.settings().Pools
	at := slices.IndexFunc(all, func(p config.Pool) bool { return p.Name == f.pool.Name })
	if at >= 0 {
		f.pool = all[at]
	}
	return pools.Rules{Min: f.pool.Min, Max: f.pool.Max, Idle: f.pool.Idle, Wait: f.pool.Wait}, at >= 0
}

// actor is the operator of what the pool does.
func (f *poolFront) actor() string { return "pool " + f.pool.Name }

// Nodes implements pools.Front.
func (f *poolFront) Nodes(ctx context.Context) (all []pools.Node, demand time.Time, err error) {
	h := f.host
	stored, err := h.nodeStore.List(ctx)
	now, leases := h.clock.Now(), h.broker.List()
	reached := h.reachedNodes(now)
	for _, n := range stored {
		if n.JoinedBy == f.actor() && strings.HasPrefix(n.Name, f.pool.Name+"-") {
			all = append(all, f.node(n, reached[n.Name], leases, now))
		}
	}
	return all, f.demand(all, leases, now), err
}

func (f *poolFront) node(n nodes.Node, reached nodes.Reached, leases []lease.Snapshot, now time.Time) pools.Node {
	state, seen := n.StateAt(now, reached)
	one := pools.Node{
		Name: n.Name, Seen: !seen.IsZero(), Connected: state == nodes.Connected || state == nodes.Suspect || f.host.cluster.isAwaited(state, reached),
		InService: f.host.isInService(n), Given: n.Drain != nil && n.Drain.By == f.actor(),
	}
	if n.Drain != nil {
		one.Why = n.Drain.Reason
	}
	for _, l := range leases {
		if l.Machine == n.Name {
			one.Leases++
		}
	}
	for _, s := range f.host.all() {
		if s.node() != n.Name {
			continue
		}
		one.Spaces++
		used := s.usedAt(now)
		if stage := s.supervisor.Status().Stage; stage != space.Running && !stage.IsFailed() { // a start is no idleness
			used = now
		}
		if used.After(one.UsedAt) {
			one.UsedAt = used
		}
	}
	return one
}

// demand returns since when one waits for a machine of the pool; the zero time: none does.
func (f *poolFront) demand(all []pools.Node, leases []lease.Snapshot, now time.Time) (oldest time.Time) {
	add := func(since time.Time) {
		if oldest.IsZero() || since.Before(oldest) {
			oldest = since
		}
	}
	for _, s := range f.host.all() {
		if since, waits := s.waitsSince(now, f.pool.Idle); waits && f.pool.Provides(*s.settings()) {
			add(since)
		}
	}
	for _, l := range leases {
		shared := func(n pools.Node) bool { return n.Name == l.Machine && n.Spaces > 1 } // a Space that is alone there gains nothing by another node
		if l.State == lease.Waiting && slices.ContainsFunc(all, shared) {
			add(l.Admitted)
		}
	}
	return oldest
}

// waitsSince returns since when the Space waits for a node that somebody needs: it has not run yet, or visitors have used it lately, or since
// then. Otherwise a pool would give a node back and request the next one at once.
func (s *spaceRun) waitsSince(now time.Time, lately time.Duration) (since time.Time, waits bool) {
	if s.waitsForNode() == "" {
		return since, false
	}
	last, since := s.location.waiting()
	used := s.usedAt(now)
	return since, last == "" || used.After(since) || !used.IsZero() && now.Sub(used) < lately
}

// Script implements pools.Front. The token is for one node, and the script is the only place that has it.
func (f *poolFront) Script(ctx context.Context) (string, error) {
	token, err := f.host.CreateJoinToken(ctx, nodes.JoinSpec{Names: nodes.Pattern(f.pool.Name + "-*"), Uses: 1, Life: poolTokenLife, By: f.actor()})
	if err != nil {
		return "", err
	}
	script, err := PoolScript(f.pool, token.Front)
	if err != nil {
		return "", err
	}
	script.JobName, script.Token = f.host.cluster.jobName(f.pool.Name), token.Text
	return script.Text(), nil
}

// poolTokenLife is how long a job may be pending.
const poolTokenLife = 30 * 24 * time.Hour

// PoolScript returns the script of a pool's jobs, without a token. front is the address for agents if the pool names none.
func PoolScript(p config.Pool, front string) (s slurm.Script, err error) {
	s = slurm.Script{
		JobName: "spacehost-" + p.Name, Node: p.Name, Partition: p.Partition, Account: p.Account, Gres: p.Gres, Options: p.Options, Time: p.Time, Drain: p.Drain,
		Front: front, Program: p.Program, State: p.State, GPUs: p.GPUs, Labels: []string{p.Name},
	}
	for _, label := range p.Labels {
		if label != p.Name {
			s.Labels = append(s.Labels, label)
		}
	}
	if p.Front != "" {
		s.Front = p.Front
	}
	if p.Program == "" {
		s.Program, err = os.Executable()
	}
	return s, err
}

// LogOf implements pools.Front.
func (f *poolFront) LogOf(job string) string { return slurm.Script{State: f.pool.State}.LogOf(job) }

// Drain implements pools.Front.
func (f *poolFront) Drain(ctx context.Context, node, why string) error {
	_, err := f.host.DrainNode(ctx, node, why, f.actor())
	f.record("POST "+control.DrainNode.Path, node, map[string]any{"reason": why}, err)
	return err
}

// Forget implements pools.Front.
func (f *poolFront) Forget(ctx context.Context, node string) error {
	_, err := f.host.ForgetNode(ctx, node)
	if err == nil {
		f.record("DELETE "+control.ForgetNode.Path, node, nil, nil)
	}
	return err
}

func (f *poolFront) record(route, node string, fields map[string]any, err error) {
	a := control.Action{Actor: f.actor(), Origin: audit.Host, Route: route, Params: map[string]string{"name": node}, Fields: fields, Status: http.StatusOK}
	if err != nil {
		a.Status, a.Refusal = http.StatusInternalServerError, err.Error()
	}
	f.host.recordAction(a)
}

// Pools implements control.Nodes.
func (h *Host) Pools() (all []control.Pool) {
	h.pools.mu.Lock()
	defer h.pools.mu.Unlock()
	for _, p := range h.pools.all {
		all = append(all, poolView(p.Status()))
	}
	slices.SortFunc(all, func(a, b control.Pool) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func poolView(s pools.Status) control.Pool {
	v := control.Pool{Name: s.Name, Min: s.Rules.Min, Max: s.Rules.Max, Removed: s.Removed, Trouble: s.Trouble, RetryAt: timeOrNil(s.RetryAt), ListedAt: timeOrNil(s.LookedAt), Jobs: []control.PoolJob{}}
	for _, m := range s.Members {
		job := control.PoolJob{ID: m.Job.ID, State: string(m.Phase()), Machine: m.Job.Machine, Node: m.Node.Name, Since: m.Since}
		if m.Job.Reason != "None" {
			job.Reason = m.Job.Reason
		}
		v.Jobs = append(v.Jobs, job)
	}
	return v
}
