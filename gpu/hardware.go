package gpu

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Hardware is the GPU that the emulation of torch shows to a Space's code outside of its GPU functions.
type Hardware struct {
	Name   string
	Memory uint64 // bytes
	Architecture
	// DurationFactor is the number of seconds that the spaces package requests for one that a function declares; 0 means 1.
	DurationFactor float64
}

// KnownHardware holds ZeroGPU's hardware (spaces/zero/configs.json, 0.51.3) by the word that selects it.
var KnownHardware = map[string]Hardware{
	"h200":         {"NVIDIA H200", 74625056768, Architecture{Major: 9, Multiprocessors: 60}, 1}, // half of an H200, which a call of size large gets on the Hub
	"rtx-pro-6000": {"NVIDIA RTX PRO 6000 Blackwell Server Edition", 101973950464, Architecture{Major: 12, Multiprocessors: 188}, 1.5},
}

// NewestHardware is the word for ZeroGPU's hardware of the newest month (hub-docs, spaces-zerogpu.md, July 2026).
const NewestHardware = "rtx-pro-6000"

// AutoHardware selects the hardware by the machine's GPUs.
const AutoHardware = "auto"

// CheckHardware checks the word for --hardware or `gpus.hardware`.
func CheckHardware(word string) error {
	if _, known := KnownHardware[word]; known || word == AutoHardware {
		return nil
	}
	return fmt.Errorf("unknown hardware %.40q; use auto, %s", word, strings.Join(slices.Sorted(maps.Keys(KnownHardware)), " or "))
}

// Variables returns the environment variables that the spaces package reads at import (spaces/config.py). An unknown
// property has no variable, so that spaces uses its own default.
func (h Hardware) Variables() map[string]string {
	vars := map[string]string{
		"ZEROGPU_CUDA_DEVICE_NAME":      h.Name,
		"ZEROGPU_CUDA_TOTAL_MEMORY":     strconv.FormatUint(h.Memory, 10),
		"ZEROGPU_CUDA_CAPABILITY_MAJOR": strconv.Itoa(h.Major),
		"ZEROGPU_CUDA_CAPABILITY_MINOR": strconv.Itoa(h.Minor),
	}
	if h.Multiprocessors > 0 {
		vars["ZEROGPU_CUDA_MULTI_PROCESSOR_COUNT"] = strconv.Itoa(h.Multiprocessors)
	}
	return vars
}
