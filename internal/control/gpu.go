package console

import (
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/internal/lease"
)

// Drains takes Devices out of the line and puts them back. It is apart from Console, which changes nothing.
type Drains struct{ broker *lease.Broker }

// NewDrains returns Drains of the host's Devices.
func NewDrains(broker *lease.Broker) *Drains { return &Drains{broker} }

// Register mounts the routes for the CLI's socket, which no Space can reach.
func (d *Drains) Register(e *echo.Echo) {
	e.POST("/gpu/drain", d.drain)
	e.POST("/gpu/return", d.giveBack)
}

// DrainOrder says which Device, and to who reads it later why.
type DrainOrder struct {
	UUID   gpu.DeviceUUID `json:"uuid"`
	Reason string         `json:"reason,omitempty"`
}

// usualReason is an operator's who gives none.
const usualReason = "by an operator's command"

func (d *Drains) drain(c echo.Context) error {
	order, err := drainOrder(c)
	if err != nil {
		return err
	}
	if order.Reason = strings.TrimSpace(order.Reason); order.Reason == "" {
		order.Reason = usualReason
	}
	if err := checkReason(order.Reason); err != nil {
		return refuse(c, err)
	}
	return drained(c, order, d.broker.Drain(c.Request().Context(), order.UUID, order.Reason))
}

func (d *Drains) giveBack(c echo.Context) error {
	order, err := drainOrder(c)
	if err != nil {
		return err
	}
	order.Reason = ""
	return drained(c, order, d.broker.Return(c.Request().Context(), order.UUID))
}

func drainOrder(c echo.Context) (order DrainOrder, err error) {
	if err := c.Bind(&order); err != nil || order.UUID == "" {
		return order, echo.NewHTTPError(http.StatusBadRequest, `the order is not understood: want {"uuid": ...}`)
	}
	return order, nil
}

// drained answers with the order as it was carried out.
func drained(c echo.Context, order DrainOrder, err error) error {
	var unknown *gpu.UnknownDeviceError
	if errors.As(err, &unknown) {
		return echo.NewHTTPError(http.StatusNotFound, err.Error())
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, order)
}
