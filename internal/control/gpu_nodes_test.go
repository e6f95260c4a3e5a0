package control

import (
	"errors"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/lease"
	"spacehost/internal/lease/brokertest"
	"spacehost/migrations"
	"spacehost/quota"
)

// TestGPUsOfNodes lists, drains and returns a Device of a node.
func TestGPUsOfNodes(t *testing.T) {
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	broker := brokertest.WithoutGPU(t, lease.Config{DB: db, Ledger: quota.New(db, quota.Config{})})
	own, err := gpu.NewPool(t.Context(), gpu.None{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	brokertest.Join(t, broker, "gpu2", gputest.NewFakeInventory(gputest.Devices(2)...))
	a := New(Config{Broker: broker, Pool: func() *gpu.Pool { return own }})
	all := a.GPUs(t.Context(), 0)
	if len(all) != 2 || all[1].Node != "gpu2" || len(all[1].Slots) != 1 || all[1].Slots[0].Machine != "gpu2" {
		t.Fatalf("GPUs %+v", all)
	}
	if uuid, err := a.find("gpu-FAKE-1"); err != nil || uuid != "GPU-fake-1" {
		t.Errorf("found %q, %v", uuid, err)
	}
	for name, status := range map[gpu.DeviceUUID]int{"GPU-fake": http.StatusBadRequest, "GPU-9": http.StatusNotFound, "0": http.StatusNotFound} {
		_, err := a.find(name)
		if refused := (*echo.HTTPError)(nil); !errors.As(err, &refused) || refused.Code != status {
			t.Errorf("%s: %v, want %d", name, err, status)
		}
	}
	if err := broker.Drain(t.Context(), "GPU-fake-1", lease.Drain{Reason: "new fan"}); err != nil {
		t.Fatal(err)
	}
	if got := a.GPUs(t.Context(), 0); got[1].Drained == nil || got[1].Slots[0].Phase != "drained" || got[0].Drained != nil {
		t.Errorf("after a drain: %+v", got)
	}
	brokertest.Join(t, broker, "", gputest.NewFakeInventory(gpu.Device{UUID: "GPU-own"})) // as after a rescan
	if got := a.GPUs(t.Context(), 0); len(got) != 3 || got[0].UUID != "GPU-own" || got[0].Node != "" {
		t.Errorf("the host's own GPU is not the first: %+v", got)
	}
	answer := a.drainAnswer("GPU-fake-1", lease.Drain{})
	if answer.Node != "gpu2" || len(answer.Slots) != 1 || answer.Slots[0] != 1 {
		t.Errorf("answer %+v", answer)
	}
}
