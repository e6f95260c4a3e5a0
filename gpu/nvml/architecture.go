package nvml

import (
	"context"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

// Architecture queries the driver, so it may block; errors as for Memory. Among simulated Devices only MIG instances
// implement the call: for whole GPUs use it only with an Inventory that Open returned.
func (i *Inventory) Architecture(ctx context.Context, uuid gpu.DeviceUUID) (gpu.Architecture, error) {
	d, err := i.device(uuid)
	if err != nil {
		return gpu.Architecture{}, err
	}
	return do(ctx, d.guard, func() (a gpu.Architecture, err error) {
		if d.instance != nil {
			return d.architecture()
		}
		var ret nvml.Return
		a.Major, a.Minor, ret = d.handle.GetCudaComputeCapability()
		if err := check(uuid, "read compute capability", ret); err != nil {
			return a, err
		}
		if i.lib.Extensions().LookupSymbol("nvmlDeviceGetNumGpuCores") != nil { // drivers before R510: calling it would end the program
			return a, nil
		}
		cores, ret := d.handle.GetNumGpuCores()
		if ret != nvml.SUCCESS { // vGPUs have none; the other values are still valid
			return a, nil
		}
		a.Multiprocessors = cores / coresPerMultiprocessor(a.Major, a.Minor)
		return a, nil
	})
}

// coresPerMultiprocessor returns the cores of one multiprocessor. NVML counts only cores (CUDA C Programming Guide,
// "Compute Capabilities").
func coresPerMultiprocessor(major, minor int) int {
	if major == 7 || minor == 0 && (major == 6 || major == 8) {
		return 64
	}
	return 128
}
