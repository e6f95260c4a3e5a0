package host

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/control"
	"spacehost/internal/lease"
	"spacehost/internal/link"
	"spacehost/internal/metrics"
	"spacehost/internal/nodes"
	"spacehost/internal/version"
	"spacehost/migrations"
)

var _ control.Nodes = (*Host)(nil)

// Nodes implements control.Nodes.
func (h *Host) Nodes(ctx context.Context) (all []control.Node, err error) {
	stored, err := h.nodeStore.List(ctx)
	now := h.clock.Now()
	used, reached := h.usedByNodes(), h.reachedNodes(now)
	for _, n := range stored {
		all = append(all, h.nodeViewOf(n, now, used[n.Name], reached[n.Name]))
	}
	return all, err
}

// nodeGauges returns what /metrics shows of the nodes.
func (h *Host) nodeGauges() (all []metrics.Node) {
	if h.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), dbTimeout)
	defer cancel()
	stored, err := h.cluster.storedNodes(ctx)
	if err != nil {
		h.log.Warn("nodes not read for the metrics", zap.Error(err))
	}
	now := h.clock.Now()
	reached := h.reachedNodes(now)
	for _, n := range stored {
		state, _ := n.StateAt(now, reached[n.Name])
		one := metrics.Node{Name: n.Name, State: string(state), InService: h.isInService(n)}
		if l := h.cluster.server.Link(n.Name); l != nil {
			one.RTTSeconds = l.RTT().Seconds()
		}
		all = append(all, one)
	}
	return all
}

// waitingSpaces lists the Spaces that wait for a machine and that somebody needs.
func (h *Host) waitingSpaces() (names []string) {
	now := h.clock.Now()
	for _, s := range h.all() {
		if _, waits := s.waitsSince(now, 0); waits {
			names = append(names, s.space().Name)
		}
	}
	return names
}

// isInService reports whether Spaces may start on a node once it is connected.
func (h *Host) isInService(n nodes.Node) bool {
	return n.Drain == nil && n.RevokedAt.IsZero() && !h.departureOf(n.Name).draining
}

func (h *Host) nodeView(n nodes.Node) control.Node {
	now := h.clock.Now()
	return h.nodeViewOf(n, now, h.usedByNodes()[n.Name], h.reachedNodes(now)[n.Name])
}

// nodeUse is what the broker has of one machine.
type nodeUse struct {
	devices   int
	freeSlots int
	leases    int
}

// usedByNodes reads the broker once for all nodes. The key "" is the host's own machine.
func (h *Host) usedByNodes() map[string]nodeUse {
	all := h.slotsOfNodes()
	for _, l := range h.broker.List() {
		use := all[l.Machine]
		use.leases++
		all[l.Machine] = use
	}
	return all
}

// slotsOfNodes is usedByNodes without the leases.
func (h *Host) slotsOfNodes() map[string]nodeUse {
	all := map[string]nodeUse{}
	var last lease.SlotView // the Slots of a Device are adjacent
	for _, slot := range h.broker.Slots() {
		use := all[slot.Machine]
		if slot.Device != last.Device || slot.Machine != last.Machine {
			use.devices++
		}
		if slot.Lease == "" && slot.Phase != lease.PhaseBusy {
			use.freeSlots++
		}
		all[slot.Machine], last = use, slot
	}
	return all
}

// reachedNodes returns what the front knows about the connections of its nodes, by the clock of the host.
func (h *Host) reachedNodes(now time.Time) map[string]nodes.Reached {
	if h.cluster == nil {
		return nil
	}
	all := map[string]nodes.Reached{}
	for _, v := range h.cluster.fleet.Nodes() {
		all[v.Name] = nodes.Reached{State: nodes.State(v.State), Beat: now.Add(-time.Since(v.Beat))}
	}
	return all
}

func (h *Host) nodeViewOf(n nodes.Node, now time.Time, used nodeUse, reached nodes.Reached) control.Node {
	v := control.Node{
		GPUs: used.devices, Leases: used.leases,
		Name: n.Name, Labels: append([]string{}, n.Labels...), Version: n.Version, JoinedAt: n.JoinedAt, JoinedBy: n.JoinedBy, RevokedAt: timeOrNil(n.RevokedAt),
	}
	if n.Drain != nil {
		v.Drained = &control.NodeDrain{At: n.Drain.At, By: n.Drain.By, Reason: n.Drain.Reason}
	}
	if c := h.cluster; c != nil {
		connection := c.connectionOf(n.Name)
		v.Address, v.SkewSeconds = connection.address, connection.skew.Seconds()
		if departs := connection.departs; !departs.at.IsZero() {
			v.Leaves = &control.NodeEnd{At: now.Add(time.Until(departs.at)).UTC(), Draining: departs.draining, Why: departs.why}
		}
		l := c.server.Link(n.Name)
		if l != nil {
			v.RTTSeconds = l.RTT().Seconds()
		}
		if l != nil || reached.State == nodes.Connected { // there is no RTT before the welcome
			v.ConnectedAt = timeOrNil(connection.at)
		}
	}
	state, seen := n.StateAt(now, reached)
	v.State, v.SeenAt = string(state), timeOrNil(seen)
	return v
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// CreateJoinToken implements control.Nodes.
func (h *Host) CreateJoinToken(ctx context.Context, spec nodes.JoinSpec) (control.JoinToken, error) {
	if h.cluster == nil {
		return control.JoinToken{}, &control.NoFrontError{}
	}
	token := h.cluster.authority.NewToken()
	spec.ID, spec.Hash = token.ID, token.Hash()
	expires, err := h.nodeStore.CreateJoin(ctx, spec)
	if err != nil {
		return control.JoinToken{}, err
	}
	return control.JoinToken{Text: token.String(), ID: token.ID, Names: string(spec.Names), Uses: spec.Uses, ExpiresAt: expires, Front: h.cluster.address()}, nil
}

func (c *cluster) address() string { return AgentAddress(c.listener.Addr().String()) }

// AgentAddress returns where an agent on another machine reaches a front that listens at an address of this machine: with the name of the
// machine if it listens on every interface.
func AgentAddress(listen string) string {
	ip, port, err := net.SplitHostPort(listen)
	name, unnamed := os.Hostname()
	if address := net.ParseIP(ip); err != nil || unnamed != nil || ip != "" && !address.IsUnspecified() {
		return listen
	}
	return net.JoinHostPort(name, port)
}

// DrainNode implements control.Nodes.
func (h *Host) DrainNode(ctx context.Context, name, reason, by string) (control.Node, error) {
	return h.viewAfter(h.nodeStore.Drain(ctx, name, reason, by))
}

// ReturnNode implements control.Nodes.
func (h *Host) ReturnNode(ctx context.Context, name string) (control.Node, error) {
	return h.viewAfter(h.nodeStore.Return(ctx, name))
}

// RevokeNode implements control.Nodes.
func (h *Host) RevokeNode(ctx context.Context, name string) (control.Node, error) {
	n, err := h.nodeStore.Revoke(ctx, name)
	if err == nil && h.cluster != nil {
		h.cluster.forget(ctx, name)
	}
	return h.viewAfter(n, err)
}

// ForgetNode implements control.Nodes.
func (h *Host) ForgetNode(ctx context.Context, name string) (control.Node, error) {
	n, err := h.nodeStore.Forget(ctx, name)
	v, err := h.viewAfter(n, err)
	if err == nil && h.cluster != nil {
		h.cluster.forget(ctx, name)
	}
	return v, err
}

// viewAfter returns a node after a command that may decide which Spaces it runs.
func (h *Host) viewAfter(n nodes.Node, err error) (control.Node, error) {
	if err != nil {
		return control.Node{}, err
	}
	h.NodesChanged()
	return h.nodeView(n), nil
}

// maxSkew is the difference of clocks that `node explain` mentions. Times of day do not decide anything between a front and its nodes, but
// logs are hard to compare.
const maxSkew = 5 * time.Second

// ExplainNode implements control.Nodes.
func (h *Host) ExplainNode(ctx context.Context, name string) (control.NodeExplanation, error) {
	n, err := h.nodeStore.Get(ctx, name)
	if err != nil {
		return control.NodeExplanation{}, err
	}
	v := h.nodeView(n)
	e := control.NodeExplanation{Node: v}
	reason := func(format string, args ...any) { e.Reasons = append(e.Reasons, fmt.Sprintf(format, args...)) }
	note := func(format string, args ...any) { e.Notes = append(e.Notes, fmt.Sprintf(format, args...)) }
	switch nodes.State(v.State) {
	case nodes.Revoked:
		reason("It was revoked at %s. To let the machine join again, run `spacehost node forget %s`, and join with a new token.", minuteOf(*v.RevokedAt), name)
	case nodes.Joined:
		reason("Its agent has joined, and has not connected yet. Check its log on the node.")
	case nodes.Suspect:
		reason("No beat has arrived for 3 s, or its connection has just ended. It is lost after %s.", link.LostAfter)
	case nodes.Lost:
		reason("It is not connected; the last beat arrived at %s. Check that its agent runs, and that it reaches the front.", minuteOf(*v.SeenAt))
	}
	if h.cluster == nil {
		reason("This host accepts no nodes. Add `cluster: {listen: ADDRESS}` to its configuration file and restart it.")
	}
	if v.Drained != nil {
		reason("%s has drained it at %s: %s. `spacehost node return %s` puts it back into service.", v.Drained.By, minuteOf(v.Drained.At), v.Drained.Reason, name)
	}
	switch {
	case v.Leaves == nil:
	case !v.Leaves.At.After(h.clock.Now()):
		reason("It has left: %s. It is back in service when its agent is started again.", v.Leaves.Why)
	case v.Leaves.Draining:
		reason("It leaves at %s: %s. Its Spaces end after their running calls. It is back in service when its agent is started again.", minuteOf(v.Leaves.At), v.Leaves.Why)
	default:
		note("It leaves at %s: %s. Before that, its Spaces end after their running calls.", minuteOf(v.Leaves.At), v.Leaves.Why)
	}
	if v.GPUs == 0 && v.ConnectedAt != nil {
		reason("Its agent lends no GPUs. Run `spacehost doctor` on the node, and look at its flag --gpus.")
	}
	for _, slot := range h.broker.Slots() {
		if slot.Machine == name && slot.Reason != "" {
			reason("Slot %d of %s is %s: %s.", slot.Slot, slot.Device, slot.Phase, slot.Reason)
		}
	}
	if own := version.Current(migrations.SQLiteVersion()).Version; v.Version != "" && v.Version != own {
		note("Its agent has version %s, and the front has %s.", v.Version, own)
	}
	if skew := time.Duration(v.SkewSeconds * float64(time.Second)); skew.Abs() > maxSkew {
		note("Its clock differs from that of the front by %s. Set it, so that logs can be compared and certificates are valid.", skew.Round(time.Second))
	}
	if spaces := h.spacesOn(name); len(spaces) > 0 {
		note("Spaces that run on it: %s.", strings.Join(spaces, ", "))
	} else {
		note("No Space runs on it. A Space may run on it if the key `on` of the Space has its name or one of its labels.")
	}
	return e, nil
}

// spacesOn returns the names of the Spaces that run on a node.
func (h *Host) spacesOn(node string) (names []string) {
	for _, s := range h.all() {
		if s.node() == node {
			names = append(names, s.space().Name)
		}
	}
	return names
}

func minuteOf(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }
