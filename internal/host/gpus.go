package host

import (
	"context"
	"errors"
	"fmt"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
	"spacehost/internal/config"
	"spacehost/internal/lease"
)

// openGPUs opens the inventory that --gpus selects. `run` on a machine without a GPU simulates one.
func (h *Host) openGPUs() error {
	gpus := h.settings().GPUs
	h.gpuSpec = gpus.Value
	inventory, err := openInventory(h.gpuSpec)
	if needed := (*nvml.NoGPUError)(nil); errors.As(err, &needed) && !h.settings().IsServe() {
		h.screen.note("No NVIDIA GPU was found: GPUs are SIMULATED (1 x RTX PRO 6000). GPU functions run, on the CPU; see --gpus.")
		h.gpuSpec = "mock:" + config.SimulatedGPU
		inventory, err = openInventory(h.gpuSpec)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", gpus.Source, gpus.Value, err)
	}
	pool, err := gpu.NewPool(context.Background(), inventory, h.settings().Share, h.settings().OnlyGPUs...)
	if err != nil {
		return fmt.Errorf("%s: %w", gpus.Source, errors.Join(err, inventory.Close()))
	}
	h.pool.Store(pool)
	h.onClose(func() { _ = h.inventory().Close() })
	return h.showHardware()
}

// showHardware selects the GPU that Spaces see outside their GPU functions.
func (h *Host) showHardware() error {
	if !h.zeroGPU() {
		return nil
	}
	visible, err := h.selectHardware()
	h.visibleGPU = &visible
	return err
}

// inventory is that of the present Pool.
func (h *Host) inventory() gpu.Inventory { return h.pool.Load().Inventory() }

// machine is this machine with its present Pool, as the broker sees it.
func (h *Host) machine(nodes lease.Nodes) *lease.Local {
	m := &lease.Local{Pool: h.pool.Load(), Processes: h.processes, Nodes: nodes, Info: DescribeProcess}
	if h.agent != nil {
		m.Guard = h.agent
	}
	return m
}

// zeroGPU reports whether @spaces.GPU functions get a GPU at all.
func (h *Host) zeroGPU() bool { return h.settings().GPUs.Value != "none" }

// simulated reports whether the GPUs are simulated.
func (h *Host) simulated() bool {
	_, simulated := h.inventory().(gpu.Simulator)
	return simulated && h.zeroGPU()
}

// openInventory opens the GPUs of a spec: auto, none, mock:2xH200 or mock:2xH200-MIG-3g.71gb. The error of auto without a
// driver is a *nvml.NoGPUError.
func openInventory(spec string) (gpu.Inventory, error) { return nvml.OpenSpec(spec, "") }

// selectHardware returns the GPU of the setting `hardware`. With auto it is the first GPU or MIG instance of this machine.
// A simulated GPU counts as the ZeroGPU hardware of the same name, else as ZeroGPU's newest.
func (h *Host) selectHardware() (gpu.Hardware, error) {
	if chosen, known := gpu.KnownHardware[h.settings().Hardware.Value]; known {
		return chosen, nil
	}
	devices := h.pool.Load().Devices()
	if len(devices) == 0 {
		return gpu.KnownHardware[gpu.NewestHardware], nil
	}
	first := devices[0]
	described, ok := h.inventory().(*nvml.Inventory)
	if simulation, isSimulated := h.inventory().(*nvml.Simulation); isSimulated && first.UUID.IsInstance() {
		described, ok = simulation.Inventory, true
	}
	if !ok {
		for _, known := range gpu.KnownHardware {
			if known.Name == first.Name {
				return known, nil
			}
		}
		return gpu.KnownHardware[gpu.NewestHardware], nil
	}
	found, err := gpu.Hardware{Name: first.Name, Memory: first.MemoryTotal}, error(nil)
	if found.Architecture, err = described.Architecture(context.Background(), first.UUID); err != nil {
		return found, fmt.Errorf("%s: %w", h.settings().Hardware.Source, err)
	}
	return found, nil
}
