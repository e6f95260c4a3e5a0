package nvml

import (
	"errors"
	"strings"

	"spacehost/gpu"
)

// NoGPUError reports that `auto` has found no driver.
type NoGPUError struct{ err error }

func (e *NoGPUError) Error() string {
	return "no NVIDIA GPU was found; run `spacehost doctor` to see what is missing, or set `gpus: mock:1xH200` to serve with simulated GPUs, or `gpus: none` to serve without ZeroGPU"
}

func (e *NoGPUError) Unwrap() error { return e.err }

// OpenSpec opens the GPUs of a spec: auto, none, mock:2xH200 or mock:2xH200-MIG-3g.71gb. machine distinguishes the simulated GPUs of
// several machines, as in SimulatedOn. The error of auto without a driver is a *NoGPUError.
func OpenSpec(spec, machine string) (gpu.Inventory, error) {
	kind, simulated, _ := strings.Cut(spec, ":")
	switch kind {
	case "none":
		return gpu.None{}, nil
	case "mock":
		return SimulatedOn(machine, simulated)
	case "auto":
		inventory, err := Open()
		var noLibrary *gpu.NoLibraryError
		var noDriver *gpu.NoDriverError
		if errors.As(err, &noLibrary) || errors.As(err, &noDriver) {
			return nil, &NoGPUError{err}
		}
		if err != nil {
			return nil, err
		}
		return inventory, nil
	}
	return nil, errors.New("unknown value; use auto, none, or mock:2xH200")
}
