package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
)

// hardware is the GPU that a Space's code sees outside of its GPU functions: the emulation of torch shows it.
type hardware struct {
	name   string
	memory uint64 // bytes
	gpu.Architecture
}

// hardwares are ZeroGPU's (spaces/zero/configs.json, 0.51.3), by what one chooses.
var hardwares = map[string]hardware{
	"h200":         {"NVIDIA H200", 74625056768, gpu.Architecture{Major: 9, Multiprocessors: 60}}, // half of one, as `large` gets on the Hub
	"rtx-pro-6000": {"NVIDIA RTX PRO 6000 Blackwell Server Edition", 101973950464, gpu.Architecture{Major: 12, Multiprocessors: 188}},
}

const autoHardware = "auto"

func checkHardware(word string) error {
	if _, known := hardwares[word]; known || word == autoHardware {
		return nil
	}
	return fmt.Errorf("%.40s is not known here: say auto, %s", word, strings.Join(slices.Sorted(maps.Keys(hardwares)), " or "))
}

// hardware is the one that was chosen. auto is the machine's first GPU, or MIG instance; of simulated GPUs, ZeroGPU's of that name, else
// the H200.
func (h *Host) hardware() (hardware, error) {
	if chosen, known := hardwares[h.settings.hardware.value]; known {
		return chosen, nil
	}
	devices, err := h.inventory.Devices(context.Background())
	if missing := (*gpu.MissingError)(nil); err != nil && !errors.As(err, &missing) || len(devices) == 0 {
		return hardwares["h200"], err
	}
	first := devices[0]
	described, ok := h.inventory.(*nvml.Inventory)
	if simulation, isSimulated := h.inventory.(*nvml.Simulation); isSimulated && first.UUID.IsInstance() {
		described, ok = simulation.Inventory, true
	}
	if !ok {
		for _, known := range hardwares {
			if known.name == first.Name {
				return known, nil
			}
		}
		return hardwares["h200"], nil
	}
	found := hardware{name: first.Name, memory: first.MemoryTotal}
	if found.Architecture, err = described.Architecture(context.Background(), first.UUID); err != nil {
		return found, fmt.Errorf("%s: %w", h.settings.hardware.source, err)
	}
	return found, nil
}

// variables are what `spaces` reads at its import (spaces/config.py). What nobody knows is left to its own default.
func (w hardware) variables() map[string]string {
	vars := map[string]string{
		"ZEROGPU_CUDA_DEVICE_NAME":      w.name,
		"ZEROGPU_CUDA_TOTAL_MEMORY":     strconv.FormatUint(w.memory, 10),
		"ZEROGPU_CUDA_CAPABILITY_MAJOR": strconv.Itoa(w.Major),
		"ZEROGPU_CUDA_CAPABILITY_MINOR": strconv.Itoa(w.Minor),
	}
	if w.Multiprocessors > 0 {
		vars["ZEROGPU_CUDA_MULTI_PROCESSOR_COUNT"] = strconv.Itoa(w.Multiprocessors)
	}
	return vars
}
