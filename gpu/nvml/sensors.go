package nvml

import (
	"context"
	"math"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"

	"spacehost/gpu"
)

var _ gpu.SensorReader = (*Inventory)(nil)

// Sensors implements gpu.SensorReader. Every call exists in the oldest driver that the host supports, since an absent symbol would
// end the program. A GPU that lacks a sensor answers "not supported", and one in a virtual machine often "no permission".
func (i *Inventory) Sensors(ctx context.Context, uuid gpu.DeviceUUID) (gpu.Sensors, error) {
	d, err := i.device(uuid)
	if err != nil {
		return gpu.Sensors{}, err
	}
	return do(ctx, d.guard, func() (s gpu.Sensors, err error) {
		whole, _ := d.reporter() // an instance has no sensors of its own
		if rates, ret := whole.GetUtilizationRates(); ret == nvml.SUCCESS && d.instance == nil {
			s.Utilization = ptr(int(rates.Gpu))
		}
		degrees, ret := whole.GetTemperature(nvml.TEMPERATURE_GPU)
		if ret == nvml.ERROR_GPU_IS_LOST {
			return s, check(uuid, "read temperature", ret)
		}
		if ret == nvml.SUCCESS {
			s.Temperature = ptr(int(degrees))
		}
		if milliwatts, ret := whole.GetPowerUsage(); ret == nvml.SUCCESS {
			s.Power = ptr(watts(milliwatts))
		}
		if milliwatts, ret := whole.GetEnforcedPowerLimit(); ret == nvml.SUCCESS {
			s.PowerLimit = ptr(watts(milliwatts))
		}
		if errors, ret := whole.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC); ret == nvml.SUCCESS {
			s.ECCErrors = &errors
		}
		return s, nil
	})
}

// watts rounds to whole watts: the noise below would send the GPUs to each open page of the console every two seconds.
func watts(milliwatts uint32) float64 { return math.Round(float64(milliwatts) / 1000) }

func ptr[T any](v T) *T { return &v }

// Measurements of a simulated GPU: idle, and at work while a process is on it.
const (
	idleDegrees, workingDegrees = 31, 58
	idleShare, workingShare     = 0.12, 0.62 // of the power limit
	workingPercent              = 87
	simulatedPowerLimit         = 700 // watts
)

// simulatedGPU adds sensors to a simulated whole GPU, or to the parent of instances. The mock would keep the arguments of each call
// forever, and these are called every two seconds.
type simulatedGPU struct {
	*mock.Device
	occupants []*occupants // of the GPU, or of all its instances
}

// answer waits while the GPU hangs, and reports whether a process is on it.
func (g *simulatedGPU) answer() (isWorking bool, ret nvml.Return) {
	if len(g.occupants) == 1 { // a fault of one instance is not one of its GPU
		ret = g.occupants[0].faults.wait()
	}
	for _, o := range g.occupants {
		isWorking = isWorking || len(o.alive()) > 0
	}
	return isWorking, ret
}

// GetUtilizationRates implements nvml.Device.
func (g *simulatedGPU) GetUtilizationRates() (nvml.Utilization, nvml.Return) {
	isWorking, ret := g.answer()
	if !isWorking {
		return nvml.Utilization{}, ret
	}
	return nvml.Utilization{Gpu: workingPercent, Memory: workingPercent / 2}, ret
}

// GetTemperature implements nvml.Device.
func (g *simulatedGPU) GetTemperature(nvml.TemperatureSensors) (uint32, nvml.Return) {
	isWorking, ret := g.answer()
	if isWorking {
		return workingDegrees, ret
	}
	return idleDegrees, ret
}

// GetPowerUsage implements nvml.Device.
func (g *simulatedGPU) GetPowerUsage() (uint32, nvml.Return) {
	isWorking, ret := g.answer()
	if isWorking {
		return workingShare * simulatedPowerLimit * 1000, ret
	}
	return idleShare * simulatedPowerLimit * 1000, ret
}

// GetEnforcedPowerLimit implements nvml.Device.
func (g *simulatedGPU) GetEnforcedPowerLimit() (uint32, nvml.Return) {
	_, ret := g.answer()
	return simulatedPowerLimit * 1000, ret
}

// GetTotalEccErrors implements nvml.Device.
func (g *simulatedGPU) GetTotalEccErrors(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) {
	_, ret := g.answer()
	return 0, ret
}
