package host

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
	"spacehost/internal/config"
)

// openGPUs opens the inventory that --gpus selects. `run` on a machine without a GPU simulates one.
func (h *Host) openGPUs() (err error) {
	gpus := h.settings().GPUs
	h.inventory, err = openInventory(gpus.Value)
	if needed := (*noGPUError)(nil); errors.As(err, &needed) && !h.settings().IsServe() {
		h.screen.note("No NVIDIA GPU was found: GPUs are SIMULATED (1 x RTX PRO 6000). GPU functions run, on the CPU; see --gpus.")
		h.inventory, err = nvml.Simulated(config.SimulatedGPU)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", gpus.Source, gpus.Value, err)
	}
	h.onClose(func() { _ = h.inventory.Close() })
	if h.pool, err = gpu.NewPool(context.Background(), h.inventory, h.settings().Share); err != nil || !h.zeroGPU() {
		return err
	}
	visible, err := h.selectHardware()
	h.visibleGPU = &visible
	return err
}

// zeroGPU reports whether @spaces.GPU functions get a GPU at all.
func (h *Host) zeroGPU() bool { return h.settings().GPUs.Value != "none" }

// simulated reports whether the GPUs are simulated.
func (h *Host) simulated() bool {
	_, simulated := h.inventory.(gpu.Simulator)
	return simulated && h.zeroGPU()
}

// noGPUError reports that `auto` has found no driver.
type noGPUError struct{ err error }

func (e *noGPUError) Error() string {
	return "no NVIDIA GPU was found; run `spacehost doctor` to see what is missing, or set `gpus: mock:1xH200` to serve with simulated GPUs, or `gpus: none` to serve without ZeroGPU"
}

func (e *noGPUError) Unwrap() error { return e.err }

// openInventory opens the GPUs of a spec: auto, none, mock:2xH200 or mock:2xH200-MIG-3g.71gb. The error of auto without a
// driver is a *noGPUError.
func openInventory(spec string) (gpu.Inventory, error) {
	kind, machine, _ := strings.Cut(spec, ":")
	switch kind {
	case "none":
		return gpu.None{}, nil
	case "mock":
		return nvml.Simulated(machine)
	case "auto":
		inventory, err := nvml.Open()
		var noLibrary *gpu.NoLibraryError
		var noDriver *gpu.NoDriverError
		if errors.As(err, &noLibrary) || errors.As(err, &noDriver) {
			return nil, &noGPUError{err}
		}
		if err != nil {
			return nil, err
		}
		return inventory, nil
	}
	return nil, errors.New("unknown value; use auto, none, or mock:2xH200")
}

// selectHardware returns the GPU of the setting `hardware`. With auto it is the first GPU or MIG instance of this machine.
// A simulated GPU counts as the ZeroGPU hardware of the same name, else as ZeroGPU's newest.
func (h *Host) selectHardware() (gpu.Hardware, error) {
	if chosen, known := gpu.KnownHardware[h.settings().Hardware.Value]; known {
		return chosen, nil
	}
	devices, err := h.inventory.Devices(context.Background())
	if missing := (*gpu.MissingError)(nil); err != nil && !errors.As(err, &missing) || len(devices) == 0 {
		return gpu.KnownHardware[gpu.NewestHardware], err
	}
	first := devices[0]
	described, ok := h.inventory.(*nvml.Inventory)
	if simulation, isSimulated := h.inventory.(*nvml.Simulation); isSimulated && first.UUID.IsInstance() {
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
	found := gpu.Hardware{Name: first.Name, Memory: first.MemoryTotal}
	if found.Architecture, err = described.Architecture(context.Background(), first.UUID); err != nil {
		return found, fmt.Errorf("%s: %w", h.settings().Hardware.Source, err)
	}
	return found, nil
}
