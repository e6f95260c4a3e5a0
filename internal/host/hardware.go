package host

import (
	"context"
	"errors"
	"fmt"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
	"spacehost/internal/config"
)

// hardware is the one that was chosen. auto is the machine's first GPU, or MIG instance; of simulated GPUs, ZeroGPU's of that name, else
// the H200.
func (h *Host) hardware() (config.Hardware, error) {
	if chosen, known := config.KnownHardware[h.settings.Hardware.Value]; known {
		return chosen, nil
	}
	devices, err := h.inventory.Devices(context.Background())
	if missing := (*gpu.MissingError)(nil); err != nil && !errors.As(err, &missing) || len(devices) == 0 {
		return config.KnownHardware["h200"], err
	}
	first := devices[0]
	described, ok := h.inventory.(*nvml.Inventory)
	if simulation, isSimulated := h.inventory.(*nvml.Simulation); isSimulated && first.UUID.IsInstance() {
		described, ok = simulation.Inventory, true
	}
	if !ok {
		for _, known := range config.KnownHardware {
			if known.Name == first.Name {
				return known, nil
			}
		}
		return config.KnownHardware["h200"], nil
	}
	found := config.Hardware{Name: first.Name, Memory: first.MemoryTotal}
	if found.Architecture, err = described.Architecture(context.Background(), first.UUID); err != nil {
		return found, fmt.Errorf("%s: %w", h.settings.Hardware.Source, err)
	}
	return found, nil
}
