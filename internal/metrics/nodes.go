package metrics

// Node is what the gauges show of a node.
type Node struct {
	Name, State string // a nodes.State
	// InService is false while the node is drained, leaves or is revoked: no Space starts there.
	InService  bool
	RTTSeconds float64 // 0: not measured
}

var (
	nodeState     = describe("spacehost_node_state", "1 for the current state of a node: joined, connected, suspect, lost or revoked.", "node", "state")
	nodeInService = describe("spacehost_node_in_service", "1 if Spaces may start on a node; 0 if it is drained, is given back or was revoked.", "node")
	nodeRTT       = describe("spacehost_node_round_trip_seconds", "Round trip of the latest beat of a node that is connected.", "node")
)

// NodeConnected counts a connection of a node. It does not block, and may be called concurrently.
func (m *Metrics) NodeConnected(node string) { m.connections.WithLabelValues(node).Inc() }

// NodeForgotten removes the counter of a node.
func (m *Metrics) NodeForgotten(node string) { m.connections.DeleteLabelValues(node) }

// nodes sends the gauges of all nodes, and those of the Spaces that need one.
func (s *machine) nodes(gauge gauges) {
	for _, n := range s.config.Nodes() {
		gauge(nodeState, 1, n.Name, n.State)
		gauge(nodeInService, oneIf(n.InService), n.Name)
		if n.RTTSeconds > 0 {
			gauge(nodeRTT, n.RTTSeconds, n.Name)
		}
	}
	for _, space := range s.config.Waiting() {
		gauge(spaceWaits, 1, space)
	}
}
