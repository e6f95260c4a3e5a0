package nvml

import (
	"errors"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"

	"spacehost/gpu"
)

func TestArchitecture(t *testing.T) {
	for name, row := range map[string]struct {
		major, minor, cores int
		old                 bool // driver
		ret                 nvml.Return
		want                gpu.Architecture
	}{
		"T4":           {7, 5, 2560, false, nvml.SUCCESS, gpu.Architecture{Major: 7, Minor: 5, Multiprocessors: 40}},
		"A100":         {8, 0, 6912, false, nvml.SUCCESS, gpu.Architecture{Major: 8, Multiprocessors: 108}},
		"L40S":         {8, 9, 18176, false, nvml.SUCCESS, gpu.Architecture{Major: 8, Minor: 9, Multiprocessors: 142}},
		"H200":         {9, 0, 16896, false, nvml.SUCCESS, gpu.Architecture{Major: 9, Multiprocessors: 132}},
		"RTX PRO 6000": {12, 0, 24064, false, nvml.SUCCESS, gpu.Architecture{Major: 12, Multiprocessors: 188}},
		"old driver":   {9, 0, 16896, true, nvml.SUCCESS, gpu.Architecture{Major: 9}},
		"vGPU":         {9, 0, 0, false, nvml.ERROR_NOT_SUPPORTED, gpu.Architecture{Major: 9}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(1)
			m.devices[0].GetCudaComputeCapabilityFunc = func() (int, int, nvml.Return) { return row.major, row.minor, nvml.SUCCESS }
			m.ExtensionsFunc = func() nvml.ExtendedInterface {
				return &mock.ExtendedInterface{LookupSymbolFunc: func(string) error {
					if row.old {
						return errors.New("no such symbol")
					}
					return nil
				}}
			}
			if !row.old { // on an old driver the mock ends the program, as a driver would
				m.devices[0].GetNumGpuCoresFunc = func() (int, nvml.Return) { return row.cores, row.ret }
			}
			got, err := m.open(t).Architecture(t.Context(), t4[0])
			if err != nil || got != row.want {
				t.Errorf("got %+v (%v), want %+v", got, err, row.want)
			}
		})
	}
}

func TestArchitectureOfLostDevice(t *testing.T) {
	m := newMachine(1)
	m.devices[0].GetCudaComputeCapabilityFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_GPU_IS_LOST }
	_, err := m.open(t).Architecture(t.Context(), t4[0])
	if _, lost := errors.AsType[*gpu.LostError](err); !lost {
		t.Errorf("got %v, want LostError", err)
	}
}
