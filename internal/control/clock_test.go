package control

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/clock"
)

// simulator is an inventory of simulated GPUs.
type simulator struct{ gpu.Inventory }

func (simulator) Occupy(gpu.DeviceUUID, int) error { return nil }

func TestAdvanceClock(t *testing.T) {
	fake := gputest.NewFakeInventory(gputest.Devices(1)...) // real GPUs: no Simulator
	for _, tt := range []struct {
		inventory gpu.Inventory
		request   string
		status    int
		answer    string
		moved     int
	}{
		{simulator{fake}, `{"by": "24h"}`, 200, `"advancedSeconds":86400`, 1},
		{simulator{fake}, `{"by": "-1h"}`, 400, "the advance must be positive", 0},
		{simulator{fake}, `{"by": "0s"}`, 400, "the advance must be positive", 0},
		{simulator{fake}, `{"by": "9000h"}`, 400, "the maximum is", 0},
		{simulator{fake}, `{"by": "tomorrow"}`, 400, "the request is not understood", 0},
		{simulator{fake}, `{`, 400, "the request is not understood", 0},
		{fake, `{"by": "24h"}`, 409, "with simulated GPUs only", 0},
		{gpu.None{}, `{"by": "24h"}`, 409, "with simulated GPUs only", 0},
	} {
		host, e := &fakeHost{}, echo.New()
		New(Config{Host: host, Clock: &clock.Clock{}, Inventory: func() gpu.Inventory { return tt.inventory }}).Register(e)
		r := httptest.NewRequest(http.MethodPost, "/clock/advance", strings.NewReader(tt.request))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) || host.moves != tt.moved {
			t.Errorf("%s on %T: %d %s, moved %d times; want %d %s, %d", tt.request, tt.inventory, w.Code, w.Body, host.moves, tt.status, tt.answer, tt.moved)
		}
	}
}
