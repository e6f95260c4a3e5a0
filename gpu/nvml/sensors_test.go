package nvml

import (
	"os"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

// TestSensors reads simulated GPUs and instances, idle and with a process.
func TestSensors(t *testing.T) {
	for _, row := range []struct {
		spec           string
		hasUtilization bool
	}{{"H200", true}, {"H200-MIG-3g.71gb", false}} {
		inv, err := Simulated(row.spec)
		if err != nil {
			t.Fatal(err)
		}
		uuid := inv.devices[0].UUID
		idle, err := inv.Sensors(t.Context(), uuid)
		if err != nil || idle.Temperature == nil || *idle.Temperature != idleDegrees || idle.Power == nil || idle.PowerLimit == nil || *idle.PowerLimit != simulatedPowerLimit || idle.ECCErrors == nil {
			t.Errorf("%s, idle: %+v, %v", row.spec, idle, err)
		}
		if (idle.Utilization != nil) != row.hasUtilization {
			t.Errorf("%s: utilization %v", row.spec, idle.Utilization)
		}
		if err := inv.Occupy(uuid, os.Getpid()); err != nil {
			t.Fatal(err)
		}
		busy, err := inv.Sensors(t.Context(), uuid)
		if err != nil || *busy.Temperature != workingDegrees || *busy.Power <= *idle.Power {
			t.Errorf("%s, at work: %+v, %v", row.spec, busy, err)
		}
		if row.hasUtilization && *busy.Utilization != workingPercent {
			t.Errorf("%s, at work: %d %%", row.spec, *busy.Utilization)
		}
		if err := inv.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestMissingSensors reads a GPU whose driver reports only the temperature, then nothing because the GPU is lost.
func TestMissingSensors(t *testing.T) {
	m := newMachine(1)
	m.devices[0].GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED }
	m.devices[0].GetPowerUsageFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_NO_PERMISSION }
	m.devices[0].GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	m.devices[0].GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) {
		return 0, nvml.ERROR_NOT_SUPPORTED
	}
	temperature := nvml.SUCCESS
	m.devices[0].GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 40, temperature }
	inv := m.open(t)
	defer inv.Close()
	s, err := inv.Sensors(t.Context(), inv.devices[0].UUID)
	if err != nil || s.Temperature == nil || *s.Temperature != 40 || s.Utilization != nil || s.Power != nil || s.PowerLimit != nil || s.ECCErrors != nil {
		t.Errorf("%+v, %v; want the temperature only", s, err)
	}
	temperature = nvml.ERROR_GPU_IS_LOST
	if _, err := inv.Sensors(t.Context(), inv.devices[0].UUID); err == nil {
		t.Error("a lost GPU has sensors")
	}
	if _, err := inv.Sensors(t.Context(), gpu.DeviceUUID("GPU-none")); err == nil {
		t.Error("an unknown GPU has sensors")
	}
}
