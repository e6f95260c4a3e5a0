package nvml

import (
	"context"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

// Architecture asks the driver, so it may block; errors as for Memory. Of simulated Devices MIG instances alone have one to
// tell of: of whole ones ask only what Open has returned.
func (i *Inventory) Architecture(ctx context.Context, uuid gpu.DeviceUUID) (gpu.Architecture, error) {
	d, err := i.device(uuid)
	if err != nil {
		return gpu.Architecture{}, err
	}
	return ask(ctx, d.guard, func() (a gpu.Architecture, err error) {
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
		if ret != nvml.SUCCESS { // vGPUs have none: no reason to do without the rest
			return a, nil
		}
		a.Multiprocessors = cores / coresEach(a.Major, a.Minor)
		return a, nil
	})
}

// coresEach is how many cores a multiprocessor has. NVML counts cores only (CUDA C Programming Guide, "Compute Capabilities").
func coresEach(major, minor int) int {
	if major == 7 || minor == 0 && (major == 6 || major == 8) {
		return 64
	}
	return 128
}
