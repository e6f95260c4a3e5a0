package nvml

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

func TestNodes(t *testing.T) {
	m := newMixedMachine(2)
	m.devices[0].GetMinorNumberFunc = func() (int, nvml.Return) { return 3, nvml.SUCCESS }
	m.parent.GetMinorNumberFunc = func() (int, nvml.Return) { return 5, nvml.SUCCESS }
	inv := m.open(t)
	defer mustClose(t, inv)
	folder := t.TempDir()
	for path, text := range map[string]string{
		"gpu5/mig/gi2/access":     "DeviceFileMinor: 21\nDeviceFileMode: 292\nDeviceFileModify: 1\n",
		"gpu5/mig/gi2/ci0/access": "DeviceFileMode: 292\nDeviceFileMinor: 22\n",
		"gpu5/mig/gi1/access":     "no number\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(folder, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	half := inv.devices[1]
	half.instance.gi, half.instance.ci = 2, 0
	want := []string{"/dev/nvidia5", "/dev/nvidia-caps/nvidia-cap21", "/dev/nvidia-caps/nvidia-cap22"}
	if got, err := half.nodes(folder); err != nil || !slices.Equal(got, want) {
		t.Errorf("nodes of a MIG instance: %q, %v, want %q", got, err, want)
	}
	half.instance.gi = 1
	if got, err := half.nodes(folder); err == nil {
		t.Errorf("a file without the number gives %q", got)
	}
	half.instance.gi = 7
	if _, err := half.nodes(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an instance that the driver does not list: %v", err)
	}
	if got, err := inv.Nodes(t.Context(), t4[0]); err != nil || !slices.Equal(got, []string{"/dev/nvidia3"}) {
		t.Errorf("nodes of a whole GPU: %q, %v", got, err)
	}
	m.devices[0].GetMinorNumberFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_GPU_IS_LOST }
	if _, err := inv.Nodes(t.Context(), t4[0]); !errors.As(err, new(*gpu.LostError)) {
		t.Errorf("nodes of a lost GPU: %v", err)
	}
	if _, err := inv.Nodes(t.Context(), "GPU-0"); !errors.As(err, new(*gpu.UnknownDeviceError)) {
		t.Errorf("nodes of an unknown device: %v", err)
	}
}
