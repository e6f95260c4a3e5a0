package host

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/feature"
	"spacehost/internal/lazyregexp"
	"spacehost/internal/lease"
	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
)

// gpuNodes lists the device nodes of the driver.
func gpuNodes() (all []string) {
	for _, pattern := range []string{"/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/dxg"} {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeCharDevice != 0 {
				all = append(all, path)
			}
		}
	}
	return all
}

// ownNode matches the nodes of one GPU or MIG instance. Every program with CUDA needs the others.
var ownNode = lazyregexp.New(`^/dev/(nvidia\d+|nvidia-caps/.*)$`)

// nodeMounts returns the device nodes for a sandbox.
func (h *Host) nodeMounts() (all []sandbox.Mount) {
	if !h.simulated() {
		mayShow := h.selectedNodes()
		for _, path := range gpuNodes() {
			if !mayShow(path) {
				continue
			}
			all = append(all, sandbox.Mount{Kind: sandbox.Device, Source: path, Target: path})
		}
		return all
	}
	if source := os.Getenv(feature.SimulatedNode); source != "" {
		for _, slot := range h.pool.Load().Slots() {
			target := fmt.Sprintf("/dev/nvidia%d", slot.Device.Index)
			if !slices.ContainsFunc(all, func(m sandbox.Mount) bool { return m.Target == target }) {
				all = append(all, sandbox.Mount{Kind: sandbox.Device, Source: source, Target: target})
			}
		}
	}
	return all
}

// selectedNodes returns which nodes belong to the GPUs that the configuration selects, or to none.
func (h *Host) selectedNodes() func(path string) bool {
	lister, ok := h.inventory().(gpu.NodeLister)
	if len(h.settings().OnlyGPUs) == 0 || !ok {
		return func(string) bool { return true }
	}
	var own []string
	for _, d := range h.pool.Load().Devices() {
		nodes, err := lister.Nodes(context.Background(), d.UUID)
		if err != nil {
			h.log.Warn("nodes of device not found", zap.String("device", string(d.UUID)), zap.Error(err))
		}
		own = append(own, nodes...)
	}
	return func(path string) bool { return !ownNode.MatchString(path) || slices.Contains(own, path) }
}

// leasedNodes implements lease.Nodes for the Spaces with `gpu_nodes: lease`.
type leasedNodes struct {
	host      *Host
	common    []string                         // targets that belong to no Device; a Space with any Device sees them
	own       map[gpu.DeviceUUID][]string      // targets of each Device
	devices   map[proctree.Node]gpu.DeviceUUID // by the node whose use is a use of the Device
	processes *proctree.Processes
}

// leaseNodes returns nil if no Space has `gpu_nodes: lease`.
func (h *Host) leaseNodes() (lease.Nodes, error) {
	n := &leasedNodes{host: h, own: map[gpu.DeviceUUID][]string{}, devices: map[proctree.Node]gpu.DeviceUUID{}, processes: h.processes}
	spaces := n.spaces()
	lister, ok := h.inventory().(gpu.NodeLister)
	if len(spaces) == 0 || !ok {
		return nil, nil
	}
	mounts := h.nodeMounts()
	for _, m := range mounts {
		if !ownNode.MatchString(m.Target) {
			n.common = append(n.common, m.Target)
		}
	}
	for _, slot := range h.pool.Load().Slots() {
		if n.own[slot.Device.UUID] != nil {
			continue // several Slots share a Device
		}
		if err := n.add(lister, slot.Device.UUID, mounts); err != nil {
			return nil, spaces[0].settings().Places["gpu_nodes"].Mistake("%w; check that the driver's nodes exist (nvidia-modprobe, or nvidia-smi as root, creates them), or set `gpu_nodes: always`", err)
		}
	}
	h.nodes = n
	return n, nil
}

// spaces returns the Spaces that see a node only while they have a lease of its Device.
func (n *leasedNodes) spaces() (all []*spaceRun) {
	for _, s := range n.host.all() {
		if s.settings().NodesByLease && s.isSandboxed() {
			all = append(all, s)
		}
	}
	return all
}

// add finds the nodes of a Device. Those that the machine does not have are left out on a simulated one only.
func (n *leasedNodes) add(lister gpu.NodeLister, uuid gpu.DeviceUUID, mounts []sandbox.Mount) error {
	targets, err := lister.Nodes(context.Background(), uuid)
	if err != nil {
		return err
	}
	var node proctree.Node
	for _, target := range targets {
		at := slices.IndexFunc(mounts, func(m sandbox.Mount) bool { return m.Target == target })
		if at < 0 && len(mounts) == 0 {
			return nil // a simulated machine
		} else if at < 0 {
			return fmt.Errorf("the node %s of %s does not exist", target, uuid)
		}
		if node, err = proctree.NodeAt(mounts[at].Source); err != nil {
			return err
		}
	}
	n.own[uuid] = targets
	n.devices[node] = uuid // the last one is that of the smallest unit: several instances have the node of their GPU
	return nil
}

// Show implements lease.Nodes.
func (n *leasedNodes) Show(ctx context.Context, space string, devices []gpu.DeviceUUID) error {
	spaces := n.spaces()
	at := slices.IndexFunc(spaces, func(s *spaceRun) bool { return s.space().Name == space })
	if at < 0 {
		return nil
	}
	var targets []string
	for _, uuid := range devices {
		for _, target := range n.own[uuid] {
			if !slices.Contains(targets, target) {
				targets = append(targets, target)
			}
		}
	}
	if len(targets) > 0 {
		targets = append(targets, n.common...)
	}
	return spaces[at].place.ShowNodes(ctx, spaces[at].supervisor.Instance(), targets)
}

// Holders implements lease.Nodes.
func (n *leasedNodes) Holders() map[gpu.DeviceUUID][]int {
	all := map[gpu.DeviceUUID][]int{}
	nodes := slices.Collect(maps.Keys(n.devices))
	for _, s := range n.spaces() {
		for node, pids := range n.processes.Holders(s.space().Name, nodes) {
			all[n.devices[node]] = append(all[n.devices[node]], pids...)
		}
	}
	return all
}
