package nvml

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"spacehost/gpu"
)

// capabilities is where the driver lists the device nodes of MIG instances (NVIDIA MIG User Guide, "Device Nodes and
// Capabilities").
const capabilities = "/proc/driver/nvidia/capabilities"

var _ gpu.NodeLister = (*Inventory)(nil)

// Nodes returns the node of the GPU. For a MIG instance it adds those of its GPU instance and of its compute instance:
// access to these is the permission to use the instance.
func (i *Inventory) Nodes(ctx context.Context, uuid gpu.DeviceUUID) ([]string, error) {
	d, err := i.device(uuid)
	if err != nil {
		return nil, err
	}
	return do(ctx, d.guard, func() ([]string, error) { return d.nodes(capabilities) })
}

func (d *device) nodes(capabilities string) ([]string, error) {
	whole := d.handle
	if d.instance != nil {
		whole = d.instance.parent
	}
	minor, ret := whole.GetMinorNumber()
	if err := check(d.UUID, "read minor number", ret); err != nil {
		return nil, err
	}
	all := []string{fmt.Sprintf("/dev/nvidia%d", minor)}
	if d.instance == nil {
		return all, nil
	}
	gi := filepath.Join(capabilities, fmt.Sprintf("gpu%d", minor), "mig", fmt.Sprintf("gi%d", d.instance.gi))
	for _, folder := range []string{gi, filepath.Join(gi, fmt.Sprintf("ci%d", d.instance.ci))} {
		node, err := capabilityNode(filepath.Join(folder, "access"))
		if err != nil {
			return nil, fmt.Errorf("find the nodes of %s: %w", d.UUID, err)
		}
		all = append(all, node)
	}
	return all, nil
}

// capabilityNode returns the node of a file of capabilities, whose first line is "DeviceFileMinor: 12".
func capabilityNode(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		var minor uint
		if _, err := fmt.Sscanf(line, "DeviceFileMinor: %d", &minor); err == nil {
			return fmt.Sprintf("/dev/nvidia-caps/nvidia-cap%d", minor), nil
		}
	}
	return "", fmt.Errorf("%s has no DeviceFileMinor", path)
}

// Nodes names the node that a real driver would have created. There is none on a simulated machine.
func (s *Simulation) Nodes(_ context.Context, uuid gpu.DeviceUUID) ([]string, error) {
	d, err := s.device(uuid)
	if err != nil {
		return nil, err
	}
	return []string{fmt.Sprintf("/dev/nvidia%d", d.Index)}, nil
}
