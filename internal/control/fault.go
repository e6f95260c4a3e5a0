package control

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
)

// FaultGPU injects a fault into a simulated Device, or clears its faults.
var FaultGPU = Endpoint[FaultRequest, DeviceFaults]{http.MethodPost, "/gpu/fault"}

// FaultRequest names a Device and the fault.
type FaultRequest struct {
	UUID  gpu.DeviceUUID `json:"uuid"`
	Fault gpu.Fault      `json:"fault"`
}

// DeviceFaults are the faults that a Device has now.
type DeviceFaults struct {
	UUID   gpu.DeviceUUID `json:"uuid"`
	Faults []gpu.Fault    `json:"faults"`
}

// onlySimulated refuses a fault on a host with real GPUs. Nothing was tried.
const onlySimulated = "faults are for simulated GPUs only, and this host has none; start one with `spacehost run --gpus mock:1xH200`"

func (a *API) faultGPU(c echo.Context) error {
	r, err := bind[FaultRequest](c, `{"uuid": ..., "fault": "lost"}`)
	if err != nil {
		return err
	}
	faulter, ok := a.config.Inventory().(gpu.Faulter)
	if !ok {
		return echo.NewHTTPError(http.StatusConflict, onlySimulated)
	}
	if r.UUID, err = a.findOwn(r.UUID); err != nil {
		return err
	}
	err = faulter.Fault(r.UUID, r.Fault)
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
	now := append([]gpu.Fault{}, faulter.Faults(r.UUID)...) // [] in JSON, never null
	return c.JSON(http.StatusOK, DeviceFaults{r.UUID, now})
}
