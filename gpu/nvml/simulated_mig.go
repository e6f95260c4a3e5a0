package nvml

import (
	"maps"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"

	"spacehost/gpu"
)

// profile is an instance size of a GPU in MIG mode.
type profile struct {
	gpu             string // a key of models
	size            string // as `nvidia-smi mig -lgip` writes it
	mib             uint64
	multiprocessors int
	each            int // how many fit on one GPU
	major, minor    int
}

const migInfix = "-MIG-"

// profiles lists instance sizes by the key that follows "mock:2x". The `spaces` package assumes that its GPU is a
// 3g.71gb of an H200 (spaces/config.py).
var profiles = byKey(
	profile{"A100", "1g.10gb", 9728, 14, 7, 8, 0},
	profile{"A100", "2g.20gb", 19968, 28, 3, 8, 0},
	profile{"A100", "3g.40gb", 40192, 42, 2, 8, 0},
	profile{"A100", "4g.40gb", 40192, 56, 1, 8, 0},
	profile{"H100", "1g.10gb", 9984, 16, 7, 9, 0},
	profile{"H100", "1g.20gb", 20096, 26, 4, 9, 0},
	profile{"H100", "2g.20gb", 20096, 32, 3, 9, 0},
	profile{"H100", "3g.40gb", 40448, 60, 2, 9, 0},
	profile{"H100", "4g.40gb", 40448, 64, 1, 9, 0},
	profile{"H200", "1g.18gb", 16384, 16, 7, 9, 0},
	profile{"H200", "2g.35gb", 33280, 32, 3, 9, 0},
	profile{"H200", "3g.71gb", 71168, 60, 2, 9, 0},
	profile{"H200", "4g.71gb", 71168, 64, 1, 9, 0},
)

func byKey(all ...profile) map[string]profile {
	byKey := make(map[string]profile)
	for _, p := range all {
		byKey[strings.ToUpper(p.gpu+migInfix+p.size)] = p
	}
	return byKey
}

// profilesOf lists the instance sizes of the model that a spec names before its "-MIG-".
func profilesOf(spec string) (sizes []string) {
	parts := specPattern.FindStringSubmatch(spec)
	for _, p := range profiles {
		if parts != nil && p.gpu == parts[2] {
			sizes = append(sizes, p.size)
		}
	}
	slices.Sort(sizes)
	return sizes
}

func migModels() []string {
	models := make(map[string]bool)
	for _, p := range profiles {
		models[p.gpu] = true
	}
	return slices.Sorted(maps.Keys(models))
}

// simulatedParents puts the instances on as few GPUs as fit them.
func simulatedParents(seed string, p profile, instances []nvml.Device, all []*occupants) (handles []nvml.Device) {
	for chunk := range slices.Chunk(instances, p.each) {
		first := len(handles) * p.each
		handles = append(handles, &simulatedGPU{simulatedParent(stableUUID(seed, len(handles)), p, chunk), all[first : first+len(chunk)]})
	}
	return handles
}

// simulatedParent implements the queries that a GPU in MIG mode answers without root permission: memory and processes
// are not among them.
func simulatedParent(uuid gpu.DeviceUUID, p profile, instances []nvml.Device) *mock.Device {
	return &mock.Device{
		GetUUIDFunc:                  func() (string, nvml.Return) { return string(uuid), nvml.SUCCESS },
		GetMigModeFunc:               func() (int, int, nvml.Return) { return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS },
		GetMaxMigDeviceCountFunc:     func() (int, nvml.Return) { return 7, nvml.SUCCESS },
		RegisterEventsFunc:           func(uint64, nvml.EventSet) nvml.Return { return nvml.SUCCESS },
		GetCudaComputeCapabilityFunc: func() (int, int, nvml.Return) { return p.major, p.minor, nvml.SUCCESS },
		GetMigDeviceHandleByIndexFunc: func(n int) (nvml.Device, nvml.Return) {
			if n >= len(instances) {
				return nil, nvml.ERROR_NOT_FOUND
			}
			return instances[n], nvml.SUCCESS
		},
	}
}

func simulatedInstance(uuid gpu.DeviceUUID, p profile, index int, o *occupants) *mock.Device {
	name := models[p.gpu].name + " MIG " + p.size
	d := simulatedDevice(uuid, model{name, p.mib}, o)
	gi := 1 + index%p.each // 0 is the id of an instance as large as the GPU
	d.GetGpuInstanceIdFunc = func() (int, nvml.Return) { return gi, nvml.SUCCESS }
	d.GetComputeInstanceIdFunc = func() (int, nvml.Return) { return 0, nvml.SUCCESS }
	d.GetAttributesFunc = func() (nvml.DeviceAttributes, nvml.Return) {
		return nvml.DeviceAttributes{MultiprocessorCount: uint32(p.multiprocessors), MemorySizeMB: p.mib}, nvml.SUCCESS
	}
	usual := d.GetComputeRunningProcessesFunc
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		infos, ret := usual()
		for n := range infos {
			infos[n].GpuInstanceId = uint32(gi)
		}
		return infos, ret
	}
	return d
}
