package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/gpu"
)

var h100 = gpu.DeviceStatus{
	Device: gpu.Device{UUID: "GPU-1", Index: 0, Name: "NVIDIA H100", MemoryTotal: 80 << 30}, MemoryFree: 80 << 30, Processes: []gpu.Process{},
}

// allFiles returns the files of a loaded driver in /dev.
func allFiles(more ...string) map[string]string {
	files := map[string]string{"dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": "", "dev/nvidia-uvm-tools": "", "dev/nvidia-caps": ""}
	for i := 0; i < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	return files
}

func pci(vendor, class string) map[string]string {
	const dir = "sys/bus/pci/devices/0000:01:00.0/"
	return map[string]string{"sys/bus/pci/devices/0000:00:00.0/vendor": "0x8086\n", dir + "vendor": vendor + "\n", dir + "class": class + "\n"}
}

func TestGPUs(t *testing.T) {
	busy, faulty, missing := h100, h100, gpu.DeviceStatus{Device: gpu.Device{Index: 3}, Error: "no UUID"}
	busy.Processes, busy.MemoryUsed = []gpu.Process{{PID: 7}, {PID: 8}}, 3<<29
	noInstance := &gpu.NoInstanceError{UUID: "GPU-2", Index: 2}
	half := h100
	half.Device = gpu.Device{UUID: "MIG-1", Index: 1, Name: "NVIDIA H100 MIG 3g.40gb", MemoryTotal: 39 << 30}
	faulty.Error = (&gpu.LostError{UUID: "GPU-1"}).Error()
	rows := []struct {
		name  string
		rows  []gpu.DeviceStatus
		err   error
		files map[string]string
		want  []string
	}{
		{"good", []gpu.DeviceStatus{h100}, nil, allFiles(), []string{"ok | GPU 0 NVIDIA H100, 80 GiB: no process is on it (GPU-1)"}},
		{"busy", []gpu.DeviceStatus{busy}, nil, allFiles(), []string{"note | pid 7, 8 on it, 1.5 GiB in use | workers of a spacehost"}},
		{"faulty among others", []gpu.DeviceStatus{h100, faulty, missing}, nil, allFiles(), []string{
			"ok | no process", "problem | GPU 0 NVIDIA H100 cannot be used: device GPU-1 is lost | nvidia-smi -r -i 0", "problem | GPU 3 cannot be used: no UUID | nvidia-smi -r -i 3"}},
		{"in MIG mode", []gpu.DeviceStatus{half, {Device: gpu.Device{Index: 2}, Error: noInstance.Error(), Cause: noInstance}}, nil, allFiles(), []string{
			"ok | GPU 1 NVIDIA H100 MIG 3g.40gb, 39 GiB: no process is on it (MIG-1)", "problem | GPU 2 is in MIG mode without an instance | mig -i 2 -cgi SIZE"}},
		{"all in MIG mode without instances", nil, fmt.Errorf("list devices: %w", &gpu.MissingError{Reasons: map[int]error{0: &gpu.LostError{}, 2: noInstance}}), allFiles(), []string{
			"problem | GPU 0 cannot be used: device", "problem | GPU 2 is in MIG mode | -mig 0"}},
		{"of nodes", []gpu.DeviceStatus{h100, {Device: h100.Device, Node: "gpu2"}, {Device: h100.Device, Node: "gpu3", Error: "the machine cannot be reached"}}, nil, allFiles(), []string{
			"ok | GPU 0 NVIDIA H100, 80 GiB", "ok | GPU 0 of node gpu2 NVIDIA H100", "warning | GPU 0 of node gpu3 NVIDIA H100 cannot be used: the machine cannot be reached | On node gpu3"}},
		{"none listed", nil, nil, allFiles(), []string{"problem | lists no GPU | --gpus all"}},
		{"uvm not created yet", []gpu.DeviceStatus{h100}, nil, map[string]string{"dev/nvidia0": "", "dev/nvidiactl": ""}, []string{"ok | no process", "note | /dev/nvidia-uvm | nvidia-modprobe -u"}},
		{"WSL", []gpu.DeviceStatus{h100}, nil, map[string]string{"dev/dxg": ""}, []string{"ok | no process"}},

		{"no NVIDIA at all", nil, &gpu.NoLibraryError{}, pci("0x8086", "0x030000"), []string{"note | GPUs are simulated | mock:2xH200"}},
		{"NVIDIA's network card", nil, &gpu.NoLibraryError{}, pci("0x10de", "0x020000"), []string{"note | No NVIDIA GPU was found"}},
		{"no driver for the GPU", nil, &gpu.NoLibraryError{}, pci("0x10de", "0x030200"), []string{"warning | (PCI 0000:01:00.0) | Install the NVIDIA driver"}},
		{"driver not loaded", nil, &gpu.NoDriverError{}, pci("0x10de", "0x030000"), []string{"warning | The NVIDIA library is installed, and the driver does not answer | modprobe nvidia"}},
		{"library in an image, no GPU", nil, &gpu.NoDriverError{}, nil, []string{"note | simulated"}},
		{"container without the library", nil, &gpu.NoLibraryError{}, map[string]string{"proc/driver/nvidia/version": "NVRM version: 1"}, []string{"warning | libnvidia-ml.so.1 is not found | --gpus all"}},
		{"no permission", nil, &gpu.NoPermissionError{}, allFiles(), []string{"problem | may not access the NVIDIA driver | usermod"}},
		{"updated without a reboot", nil, &gpu.VersionMismatchError{}, allFiles(), []string{"problem | different versions | Reboot"}},
		{"hung", nil, fmt.Errorf("open: %w", &gpu.HungError{After: 30 * time.Second}), allFiles(), []string{"problem | did not answer within 30s | dmesg"}},
		{"all missing", nil, fmt.Errorf("list devices: %w", &gpu.MissingError{Reasons: map[int]error{0: &gpu.LostError{}}}), allFiles(), []string{"problem | GPU 0 cannot be used: device  is lost | nvidia-smi -r -i 0"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := Config{machine: fake(t, row.files), GPUs: func(context.Context) ([]gpu.DeviceStatus, error) { return row.rows, row.err }}
			expect(t, c.devices(t.Context()), row.want...)
		})
	}
}

func TestDeviceFilesWithoutPermission(t *testing.T) {
	m := fake(t, allFiles("dev/nvidia12", ""))
	m.access = func(path string, mode uint32) error {
		if mode != unix.R_OK|unix.W_OK {
			t.Errorf("checked mode %o, want reading and writing", mode)
		}
		if strings.HasSuffix(path, "/nvidia0") || strings.HasSuffix(path, "-uvm") {
			return fs.ErrPermission
		}
		return nil
	}
	expect(t, m.deviceFiles(), "problem | This user may not open /dev/nvidia0, /dev/nvidia-uvm: CUDA fails | group")
}

func TestLateFindings(t *testing.T) {
	want := map[string]string{"gpu": "problem | driver did not answer within 35s | mock:1xH200", "disk": "problem | did not answer within 5s | --state"}
	for _, c := range Checks(Config{}) {
		row, own := want[c.Name]
		if !own {
			row = "warning | did not end within " + c.limit().String() + " | again"
		}
		expect(t, []Finding{c.late()}, row)
		if !strings.Contains(c.late().Text, c.limit().String()) {
			t.Errorf("%s: %q does not name its limit, %s", c.Name, c.late().Text, c.limit())
		}
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0 MiB", 1<<30 - 1: "1023 MiB", 1 << 30: "1 GiB", 3 << 29: "1.5 GiB", 80 << 30: "80 GiB"} {
		if got := size(bytes); got != want {
			t.Errorf("size(%d) = %s, want %s", bytes, got, want)
		}
	}
}
