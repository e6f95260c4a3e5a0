package console

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
)

// Faults gives simulated Devices a trouble. It is apart from Console, which changes nothing.
type Faults struct{ inventory gpu.Inventory }

// NewFaults returns Faults of the host's GPUs; with true ones, every order is refused.
func NewFaults(inventory gpu.Inventory) *Faults { return &Faults{inventory} }

// Register mounts the route for the CLI's socket, which no Space can reach.
func (f *Faults) Register(e *echo.Echo) { e.POST("/gpu/fault", f.fault) }

// FaultOrder says what to do to which Device.
type FaultOrder struct {
	UUID  gpu.DeviceUUID `json:"uuid"`
	Fault gpu.Fault      `json:"fault"`
}

// Faulted is what the Device has now.
type Faulted struct {
	UUID   gpu.DeviceUUID `json:"uuid"`
	Faults []gpu.Fault    `json:"faults"`
}

// onlySimulated is for people: nothing was tried.
const onlySimulated = "faults are for simulated GPUs only, and this host has none: start one with `spacehost run --gpus mock:1xH200`"

func (f *Faults) fault(c echo.Context) error {
	var order FaultOrder
	if err := c.Bind(&order); err != nil {
		return echo.NewHTTPError(http.StatusBadRequest, `the order is not understood: want {"uuid": ..., "fault": "lost"}`)
	}
	faulter, ok := f.inventory.(gpu.Faulter)
	if !ok {
		return echo.NewHTTPError(http.StatusConflict, onlySimulated)
	}
	err := faulter.Fault(order.UUID, order.Fault)
	var unknown *gpu.UnknownDeviceError
	if errors.As(err, &unknown) {
		return echo.NewHTTPError(http.StatusNotFound, err.Error())
	}
	var gone *gpu.GoneError
	if errors.As(err, &gone) {
		return echo.NewHTTPError(http.StatusConflict, err.Error())
	}
	if err != nil {
		return err
	}
	now := append([]gpu.Fault{}, faulter.Faults(order.UUID)...) // [] in JSON, never null
	return c.JSON(http.StatusOK, Faulted{order.UUID, now})
}
