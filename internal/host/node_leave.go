package host

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/link"
	"spacehost/internal/nodes"
	"spacehost/internal/space"
	"spacehost/worker"
)

// beginStart counts a start, and reports whether the node still takes one. The caller calls done at its end.
func (n *node) beginStart() (may bool, done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.starting++
	return !n.isLeft, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.starting--
	}
}

// leave refuses further starts.
func (n *node) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isLeft = true
}

// running returns the number of processes of Spaces, also of those that are being started.
func (n *node) running() int {
	n.mu.Lock()
	starting := n.starting // before Count, which has each of them later
	n.mu.Unlock()
	return max(starting, n.starts.Count())
}

// departure is when and why a node leaves its front, as its agent has reported it. The zero value: it stays.
type departure struct {
	at       time.Time // until which calls may run there, by time.Now
	why      string
	draining bool // no Space starts there, and those that run there leave
}

// newDeparture returns the zero value for an end that is too far away to be reported.
func newDeparture(l nodes.Leaving) departure {
	if l.Left() == nodes.MaxLeft {
		return departure{}
	}
	return departure{time.Now().Add(l.Left()), l.Why, l.Draining}
}

// departureOf returns that of the present or the last connection of a node.
func (c *cluster) departureOf(node string) departure { return c.connectionOf(node).departs }

func (h *Host) departureOf(node string) departure {
	if h.cluster == nil {
		return departure{}
	}
	return h.cluster.departureOf(node)
}

// leave answers nodes.OpLeave. When it returns, no further start begins on a node that is draining. A drain without time left is cut off.
func (c *cluster) leave(ctx context.Context, l *link.Link, body json.RawMessage) error {
	var leaving nodes.Leaving
	err := json.Unmarshal(body, &leaving)
	if err == nil {
		err = leaving.Check()
	}
	if err != nil {
		return &link.RemoteError{Code: link.CodeProtocol, Text: err.Error()}
	}
	node, departs := l.Peer(), newDeparture(leaving)
	if c.server.Link(node) != l {
		return &link.RemoteError{Code: link.CodeNoLink, Text: fmt.Sprintf("node %s has a newer link", node)}
	}
	if limit := c.connectionOf(node).reports; limit != nil { // each report places all Spaces again
		if err := limit.Wait(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	one := c.connections[node]
	one.departs = departs
	c.connections[node] = one
	c.mu.Unlock()
	c.log.Info("node leaves", zap.String("node", node), zap.String("why", departs.why), zap.Duration("left", leaving.Left()), zap.Bool("draining", departs.draining))
	select {
	case <-c.host.NodesChanged():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if departs.draining && leaving.Left() == 0 {
		c.host.hurryNode(node)
	}
	return nil
}

// causeToLeave is why a Space ends that may not stay on its node.
func (h *Host) causeToLeave(node string) error {
	departs := h.departureOf(node)
	if !departs.draining {
		return moveCause("The machine of this app is taken out of service, and the app starts on another one.", "host", false)
	}
	left := time.Until(departs.at)
	return &worker.StopCause{
		Reason: "This machine is being given back. The app starts on another one.", Ledger: space.EndedByLeaving, Again: true, Now: left <= 0, Drain: left, Cause: worker.CauseNode, By: "host",
	}
}

// hurryNode cuts off the drains of the Spaces on a node.
func (h *Host) hurryNode(node string) {
	for _, s := range h.all() {
		if s.isOnNode() && s.node() == node {
			h.hurrySpace(s)
		}
	}
}

// hurryDepartures cuts off the drains of all nodes that leave.
func (h *Host) hurryDepartures() {
	for _, s := range h.all() {
		if s.isOnNode() && h.departureOf(s.node()).draining {
			h.hurrySpace(s)
		}
	}
}
