package host

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/egress"
	"spacehost/internal/printable"
)

// startUse is what one start of a Space on a node uses.
type startUse struct {
	Space     string        `json:"space"`
	Instance  string        `json:"instance"`
	Memory    int64         `json:"memory"` // bytes
	Processes int           `json:"processes"`
	CPU       time.Duration `json:"cpuNanoseconds"` // of this start
	Disk      int64         `json:"disk"`           // bytes of the folders of the Space on the node; -1: not measured yet
	Traffic   egress.Stats  `json:"traffic"`
	Refusal   string        `json:"refusal,omitempty"` // of a destination, the last one
}

// usage measures what runs on the node. The walks through folders are not part of it (sampler.runWalks).
func (n *node) usage() (all []startUse) {
	for _, kept := range n.starts.Kept() {
		tree := n.host.processes.Tree(kept.Facts.Instance)
		use := startUse{
			Space: kept.Space, Instance: kept.Facts.Instance,
			Memory: tree.Memory(false), Processes: tree.Threads(0), CPU: tree.CPU(), Disk: n.host.sampler.lastDisk(kept.Space),
		}
		if s := n.host.find(kept.Space); s != nil {
			use.Traffic, _ = s.traffic()
			use.Refusal = s.lastRefusal()
		}
		all = append(all, use)
	}
	return all
}

// instance returns the start of the Space that runs on this node; "" if none does.
func (o *nodeSide) instance() string {
	for _, kept := range o.node.starts.Kept() {
		if kept.Space == o.space.space().Name {
			return kept.Facts.Instance
		}
	}
	return ""
}

const (
	// nodeUseTimeout bounds the call of a node. It is below sampleInterval, so that no two calls of a node overlap.
	nodeUseTimeout = 5 * time.Second
	// nodeUseAge is the age up to which an answer replaces that of a node that does not answer.
	nodeUseAge = 3 * sampleInterval
)

// startUses are the last answers of the nodes. The zero value is ready.
type startUses struct {
	mu   sync.Mutex
	last map[useKey]timedUse
}

// useKey keeps the answer of one node about a Space apart from the claims of others.
type useKey struct{ space, node string }

type timedUse struct {
	startUse
	at time.Time
}

// measureNodes asks each node what the Spaces use that run there, with one call for all of them.
func (h *Host) measureNodes(ctx context.Context) {
	running := map[string]bool{}
	for _, s := range h.all() {
		if s.isOnNode() && s.start() != "" {
			running[s.node()] = true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, nodeUseTimeout)
	defer cancel()
	var asked sync.WaitGroup
	for node := range running {
		asked.Go(func() {
			l, err := h.linkTo(node)
			if err != nil {
				return
			}
			var all []startUse
			if err := l.Call(ctx, opUsage, nil, &all); err != nil {
				h.log.Debug("usage of spaces on the node not measured", zap.String("node", node), zap.Error(err))
				return
			}
			h.startUses.note(node, all, time.Now())
		})
	}
	asked.Wait()
}

// note keeps an answer. useOf decides which parts of it count.
func (u *startUses) note(node string, all []startUse, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	kept := map[useKey]timedUse{}
	for key, one := range u.last {
		if at.Sub(one.at) < nodeUseAge && key.node != node {
			kept[key] = one
		}
	}
	for _, one := range all {
		kept[useKey{one.Space, node}] = timedUse{one, at}
	}
	u.last = kept
}

// of returns the last answer about a start. An answer counts for the node on which the Space runs only.
func (u *startUses) of(space, node, instance string, now time.Time) startUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	one, known := u.last[useKey{space, node}]
	if !known || instance == "" || one.Instance != instance || now.Sub(one.at) >= nodeUseAge {
		return startUse{Disk: -1}
	}
	one.Memory, one.Processes, one.CPU = max(0, one.Memory), max(0, one.Processes), max(0, one.CPU)
	one.Traffic, one.Refusal = one.Traffic.AtLeastZero(), printable.Reason(one.Refusal)
	return one.startUse
}

// nodeUse returns what the start of a Space on a node uses, as its node has measured it.
func (s *spaceRun) nodeUse() startUse {
	return s.host.startUses.of(s.name(), s.node(), s.start(), time.Now())
}

// sampledOnNode is a Space on a node, as its node has measured it.
type sampledOnNode struct {
	*spaceRun
	use startUse // the zero Instance: it does not run, or the node does not answer
}

var _ sampledSpace = sampledOnNode{}

func (s sampledOnNode) start() string      { return s.use.Instance }
func (s sampledOnNode) memory(bool) int64  { return s.use.Memory }
func (s sampledOnNode) threads(int) int    { return s.use.Processes }
func (s sampledOnNode) cpu() time.Duration { return s.use.CPU }

func (s sampledOnNode) measureDisk(context.Context) (int64, error) { return s.use.Disk, nil }

func (s sampledOnNode) watchedDisk() (bytes int64, at time.Time, err error) {
	if s.use.Disk < 0 {
		return 0, time.Time{}, nil
	}
	return s.use.Disk, time.Now(), nil
}
