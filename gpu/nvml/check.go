package nvml

import (
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

// check maps an NVML return code to the errors of package gpu. Errors that an operator or the host can act on have
// their own type. Call it behind the guard: the text of other errors is read from the library.
func check(uuid gpu.DeviceUUID, tried string, ret nvml.Return) error {
	switch ret {
	case nvml.SUCCESS:
		return nil
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return &gpu.NoLibraryError{}
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return &gpu.NoDriverError{}
	case nvml.ERROR_NO_PERMISSION:
		return &gpu.NoPermissionError{}
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return &gpu.VersionMismatchError{}
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED:
		return &gpu.LostError{UUID: uuid}
	case nvml.ERROR_NOT_SUPPORTED:
		return &gpu.NotSupportedError{UUID: uuid, Tried: tried}
	}
	if uuid != "" {
		tried += " of " + string(uuid)
	}
	return &gpu.DriverError{Tried: tried, Reason: ret.Error()}
}
