package gputest_test

import (
	"testing"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

func TestFakeInventory(t *testing.T) {
	gputest.TestInventory(t, func(*testing.T) gpu.Inventory {
		f := gputest.NewFakeInventory(gputest.Devices(3)...)
		f.SetProcesses("GPU-fake-1", gpu.Process{PID: 20, Memory: 2 << 30}, gpu.Process{PID: 10, Memory: 1 << 30})
		return f
	})
}
