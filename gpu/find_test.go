package gpu_test

import (
	"errors"
	"strings"
	"testing"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

func TestFindDevice(t *testing.T) {
	devices := gputest.Devices(3)
	devices[2].UUID = "MIG-9a"
	pool, err := gpu.NewPool(t.Context(), gputest.NewFakeInventory(devices...), 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]gpu.DeviceUUID{"0": first, "1": first, "3": second, "5": "MIG-9a", "GPU-fake-1": second, "mig": "MIG-9a"} {
		if got, err := pool.Find(name); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"6", "-1", "GPU-other", ""} {
		if got, err := pool.Find(name); !errors.As(err, new(*gpu.UnknownDeviceError)) {
			t.Errorf("%q: %s, %v; want it unknown", name, got, err)
		}
	}
	if _, err := pool.Find("GPU-fake"); !errors.As(err, new(*gpu.AmbiguousDeviceError)) || err.Error() != "GPU-fake is the beginning of 2 UUIDs (GPU-fake-0, GPU-fake-1); give more digits" {
		t.Errorf("a prefix of two: %v", err)
	}
}

// TestSelectedDevices: a Pool has the Devices of the list alone. Its Slots are numbered without gaps.
func TestSelectedDevices(t *testing.T) {
	devices := gputest.Devices(4)
	devices[2].Index, devices[3].Index = 2, 2 // two MIG instances of one GPU
	for _, tt := range []struct {
		only []string
		want string
		err  string
	}{
		{nil, "GPU-fake-0 GPU-fake-1 GPU-fake-2 GPU-fake-3", ""},
		{[]string{"2", "0"}, "GPU-fake-0 GPU-fake-2 GPU-fake-3", ""},
		{[]string{"GPU-fake-1"}, "GPU-fake-1", ""},
		{[]string{"1", "GPU-fake-1"}, "GPU-fake-1", ""},
		{[]string{"0", "3"}, "", "this machine has no GPU 3; its GPUs are 0 (GPU-fake-0), 1 (GPU-fake-1), 2 (GPU-fake-2), 2 (GPU-fake-3)"},
		{[]string{"GPU-other"}, "", "this machine has no GPU GPU-other; its GPUs are"},
		{[]string{"GPU-fake"}, "", "is the beginning of 4 UUIDs"},
	} {
		pool, err := gpu.NewPool(t.Context(), gputest.NewFakeInventory(devices...), 1, tt.only...)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v: error %v, want %q", tt.only, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, slot := range pool.Slots() {
			got = append(got, string(slot.Device.UUID))
			if slot.Index != i {
				t.Errorf("%v: slot %d has the index %d", tt.only, i, slot.Index)
			}
		}
		if strings.Join(got, " ") != tt.want || len(pool.Status(t.Context())) != len(got) {
			t.Errorf("%v: %v, want %s", tt.only, got, tt.want)
		}
	}
}
