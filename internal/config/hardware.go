package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"spacehost/gpu"
)

// Hardware is the GPU that a Space's code sees outside of its GPU functions: the emulation of torch shows it.
type Hardware struct {
	Name   string
	Memory uint64 // bytes
	gpu.Architecture
}

// KnownHardware are ZeroGPU's (spaces/zero/configs.json, 0.51.3), by what one chooses.
var KnownHardware = map[string]Hardware{
	"h200":         {"NVIDIA H200", 74625056768, gpu.Architecture{Major: 9, Multiprocessors: 60}}, // half of one, as `large` gets on the Hub
	"rtx-pro-6000": {"NVIDIA RTX PRO 6000 Blackwell Server Edition", 101973950464, gpu.Architecture{Major: 12, Multiprocessors: 188}},
}

const AutoHardware = "auto"

func CheckHardware(word string) error {
	if _, known := KnownHardware[word]; known || word == AutoHardware {
		return nil
	}
	return fmt.Errorf("%.40s is not known here: say auto, %s", word, strings.Join(slices.Sorted(maps.Keys(KnownHardware)), " or "))
}

// Variables are what `spaces` reads at its import (spaces/config.py). What nobody knows is left to its own default.
func (w Hardware) Variables() map[string]string {
	vars := map[string]string{
		"ZEROGPU_CUDA_DEVICE_NAME":      w.Name,
		"ZEROGPU_CUDA_TOTAL_MEMORY":     strconv.FormatUint(w.Memory, 10),
		"ZEROGPU_CUDA_CAPABILITY_MAJOR": strconv.Itoa(w.Major),
		"ZEROGPU_CUDA_CAPABILITY_MINOR": strconv.Itoa(w.Minor),
	}
	if w.Multiprocessors > 0 {
		vars["ZEROGPU_CUDA_MULTI_PROCESSOR_COUNT"] = strconv.Itoa(w.Multiprocessors)
	}
	return vars
}
