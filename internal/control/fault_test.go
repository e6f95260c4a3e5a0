package control

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

// faultInventory is a simulated inventory with one Device that takes faults.
type faultInventory struct {
	gpu.Inventory
	given []gpu.Fault
}

func (b *faultInventory) Fault(uuid gpu.DeviceUUID, f gpu.Fault) error {
	if uuid != "GPU-fake-0" {
		return &gpu.UnknownDeviceError{UUID: uuid}
	}
	b.given = append(b.given, f)
	return nil
}

func (b *faultInventory) Faults(gpu.DeviceUUID) []gpu.Fault { return b.given }

func postFault(inventory gpu.Inventory, body string) (status int, answer string) {
	e := echo.New()
	New(Config{Inventory: func() gpu.Inventory { return inventory }, Pool: onePool}).Register(e)
	r := httptest.NewRequest(http.MethodPost, "/gpu/fault", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// onePool has the Device GPU-fake-0.
func onePool() *gpu.Pool {
	pool, err := gpu.NewPool(context.Background(), gputest.NewFakeInventory(gputest.Devices(1)...), 1)
	if err != nil {
		panic(err)
	}
	return pool
}

func TestFaultGPU(t *testing.T) {
	const lost = `{"uuid": "GPU-fake-0", "fault": "lost"}`
	fake := gputest.NewFakeInventory(gputest.Devices(1)...) // real GPUs: no Faulter
	tests := []struct {
		inventory gpu.Inventory
		request   string
		status    int
		answer    string
	}{
		{&faultInventory{Inventory: fake}, lost, 200, `{"uuid":"GPU-fake-0","faults":["lost"]}`},
		{&faultInventory{Inventory: fake}, `{"uuid": "GPU-elsewhere", "fault": "lost"}`, 404, "no device GPU-elsewhere on this machine"},
		{&faultInventory{Inventory: fake}, `{"uuid": "GPU-fake-0", "fault": "burn"}`, 400, "the request is not understood"},
		{&faultInventory{Inventory: fake}, `{`, 400, "the request is not understood"},
		{fake, lost, 409, "faults are for simulated GPUs only"},
		{gpu.None{}, lost, 409, "faults are for simulated GPUs only"},
	}
	for _, tt := range tests {
		if status, answer := postFault(tt.inventory, tt.request); status != tt.status || !strings.Contains(answer, tt.answer) {
			t.Errorf("%s on %T: %d %s; want %d %s", tt.request, tt.inventory, status, answer, tt.status, tt.answer)
		}
	}
}
