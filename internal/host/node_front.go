package host

import (
	"context"
	"encoding/json"
	"net"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/agent"
	"spacehost/internal/link"
	"spacehost/internal/machine"
	"spacehost/internal/nodes"
	"spacehost/internal/placement"
	"spacehost/worker"
)

// frontHandler answers the nodes: the Fleet about Devices, and the host about Spaces.
type frontHandler struct {
	*machine.Fleet
	host *Host
}

var _ link.Handler = frontHandler{}

// Stream implements link.Handler.
func (f frontHandler) Stream(l *link.Link, hello json.RawMessage, conn net.Conn) {
	if !f.host.nodeStream(l.Peer(), hello, conn) {
		f.Fleet.Stream(l, hello, conn)
	}
}

// Call implements link.Handler.
func (f frontHandler) Call(ctx context.Context, l *link.Link, op string, body json.RawMessage) (any, error) {
	if op == nodes.OpLeave {
		return nil, f.host.cluster.leave(ctx, l, body)
	}
	return f.Fleet.Call(ctx, l, op, body)
}

// replaceAfter is how long a lost node may come back before its Spaces start on another one, and giveUpAfter how long after the end of its
// link, or after the start of the host.
const (
	replaceAfter = time.Minute
	giveUpAfter  = link.LostAfter + replaceAfter
)

// nodeCame starts the Spaces of a node that has connected, and places those that wait for a node. It ends what the node still runs of
// Spaces that were removed or moved meanwhile.
func (h *Host) nodeCame(l *link.Link) {
	node := l.Peer()
	for _, s := range h.all() {
		if s.isOnNode() && s.node() == node && !s.supervisor.Status().Stage.IsUp() {
			s.supervisor.Restart(worker.Restart{By: "host"})
		}
	}
	h.NodesChanged()
	ctx, cancel := context.WithTimeout(context.Background(), launchTime)
	defer cancel()
	all, err := (&agent.Remote{Link: l, Logger: h.log}).Kept(ctx, "")
	if err != nil {
		h.log.Warn("starts on the node not listed", zap.String("node", node), zap.Error(err))
		return
	}
	for _, kept := range all {
		if s := h.find(kept.Space); s == nil || s.nodeOrNext() != node || s.isPaused() {
			h.log.Info("space does not run on this node any more", zap.String("space", kept.Space), zap.String("node", node))
			h.forgetOnNode(node, kept.Space)
		}
	}
}

// nodeWent is called when the link to a node has ended. The Spaces of the node are prepared again on its next link, which takes over
// those that still run. After replaceAfter they are placed elsewhere.
func (h *Host) nodeWent(ctx context.Context, node string) {
	if ctx.Err() != nil { // the host ends
		return
	}
	for _, s := range h.all() {
		if s.isOnNode() && s.node() == node {
			s.endAttempt(worker.Unreachable())
		}
	}
	select {
	case <-time.After(giveUpAfter):
		h.NodesChanged()
	case <-ctx.Done():
	}
}

// isAwaited reports whether a node that was connected before the start of the host may still connect to it.
func (c *cluster) isAwaited(state nodes.State, reached nodes.Reached) bool {
	return reached.State == "" && (state == nodes.Suspect || state == nodes.Lost) && time.Since(c.opened) < giveUpAfter
}

// hasJustGone reports whether the last link of a node has ended less than giveUpAfter ago. A connection that was refused is none.
func (c *cluster) hasJustGone(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.gone[node]
	return ok && time.Since(at) < giveUpAfter
}

// noteGone records the end of the last link of a node.
func (c *cluster) noteGone(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone[node] = time.Now()
}

// storedNodes lists the nodes of the database. After an error it returns them as they were before: otherwise all Spaces would leave their
// nodes.
func (c *cluster) storedNodes(ctx context.Context) ([]nodes.Node, error) {
	stored, err := c.host.nodeStore.List(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.stored = stored
	}
	return c.stored, err
}

// placementNodes lists the nodes that have joined, for package placement.
func (c *cluster) placementNodes() (all []placement.Node) {
	ctx, cancel := context.WithTimeout(context.Background(), dbTimeout)
	defer cancel()
	stored, err := c.storedNodes(ctx)
	if err != nil {
		c.log.Warn("nodes not listed", zap.Error(err))
	}
	now := c.host.clock.Now()
	used, reached := c.host.slotsOfNodes(), c.host.reachedNodes(now)
	for _, n := range stored {
		state, seen := n.StateAt(now, reached[n.Name])
		one := placement.Node{Name: n.Name, Labels: n.Labels, State: placement.State(state), Since: seen, Drained: n.Drain != nil}
		if c.isAwaited(state, reached[n.Name]) || state == nodes.Lost && c.hasJustGone(n.Name) {
			one.State = placement.Awaited
		}
		leaves := c.departureOf(n.Name)
		switch {
		case n.Drain != nil:
			one.Reason = n.Drain.Reason
		case leaves.draining:
			one.Drained, one.Reason = true, leaves.why
		case !leaves.at.IsZero():
			one.Leaves = time.Until(leaves.at)
		}
		one.Devices, one.FreeSlots = used[n.Name].devices, used[n.Name].freeSlots
		all = append(all, one)
	}
	return all
}
