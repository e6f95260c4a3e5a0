package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Node is what the gauges show of a node.
type Node struct {
	Name, State string // a nodes.State
	// InService is false while the node is drained, or has left or is about to: no Space starts there.
	InService  bool
	RTTSeconds float64 // 0: not measured
}

var (
	nodeState     = describe("spacehost_node_state", "1 for the current state of a node: joined, connected, suspect, lost or revoked.", "node", "state")
	nodeInService = describe("spacehost_node_in_service", "1 if Spaces may start on a node; 0 if it is drained, or is about to be given back.", "node")
	nodeRTT       = describe("spacehost_node_round_trip_seconds", "Round trip of the latest beat of a node that is connected.", "node")
	spaceWaits    = describe("spacehost_space_waits_for_node", "1 while no machine may run a Space.", "space")
)

// NodeConnected counts a connection of a node. It does not block, and may be called concurrently.
func (m *Metrics) NodeConnected(node string) { m.connections.WithLabelValues(node).Inc() }

// nodes sends the gauges of all nodes.
func (s *machine) nodes(gauge gauges) {
	for _, n := range s.config.Nodes() {
		gauge(nodeState, 1, n.Name, n.State)
		gauge(nodeInService, oneIf(n.InService), n.Name)
		if n.RTTSeconds > 0 {
			gauge(nodeRTT, n.RTTSeconds, n.Name)
		}
	}
}

// nodeConnections is a counter of connections.
func nodeConnections() *prometheus.CounterVec {
	return counter("spacehost_node_connections_total", "Connections of a node to this host since its start: the first one, and each further one after a cut or a start of its agent.", "node")
}
