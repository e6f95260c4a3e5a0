package gpu_test

import (
	"testing"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

// TestRenew: the Slots of a Device that stays keep their numbers and its idle memory; those of a new Device get numbers that none had.
func TestRenew(t *testing.T) {
	devices := gputest.Devices(3)
	first, err := gpu.NewPool(t.Context(), gputest.NewFakeInventory(devices[0], devices[1]), 2)
	if err != nil {
		t.Fatal(err)
	}
	inventory := gputest.NewFakeInventory(devices[2], devices[1])
	inventory.SetHeld(devices[1].UUID, 20<<30) // a worker that the driver does not list
	second, err := first.Renew(t.Context(), inventory, 2)
	if err != nil {
		t.Fatal(err)
	}
	third, err := second.Renew(t.Context(), gputest.NewFakeInventory(devices...), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		pool *gpu.Pool
		want map[int]gpu.DeviceUUID
	}{
		{first, map[int]gpu.DeviceUUID{0: devices[0].UUID, 1: devices[0].UUID, 2: devices[1].UUID, 3: devices[1].UUID}},
		{second, map[int]gpu.DeviceUUID{2: devices[1].UUID, 3: devices[1].UUID, 4: devices[2].UUID, 5: devices[2].UUID}},
		{third, map[int]gpu.DeviceUUID{2: devices[1].UUID, 3: devices[1].UUID, 4: devices[2].UUID, 5: devices[2].UUID, 6: devices[0].UUID, 7: devices[0].UUID}},
	} {
		slots := tt.pool.Slots()
		if len(slots) != len(tt.want) {
			t.Errorf("slots %+v, want %v", slots, tt.want)
		}
		for i, s := range slots {
			if tt.want[s.Index] != s.Device.UUID || i > 0 && slots[i-1].Index >= s.Index {
				t.Errorf("slots %+v, want %v", slots, tt.want)
			}
		}
	}
	mustBeBusy(t, second, gpu.BusyError{UUID: devices[1].UUID, PIDs: []int{}, Used: 20 << 30, Limit: limit})
}
