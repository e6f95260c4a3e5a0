package console

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/internal/clock"
)

// Clock shows the host's clock, and moves it where GPUs are simulated. It is apart from Console, which changes nothing.
type Clock struct{ config ClockConfig }

// ClockConfig is what Clock needs. All fields are required.
type ClockConfig struct {
	Clock     *clock.Clock
	Inventory gpu.Inventory
	// Moved is called after each advance: whoever waits for a moment looks again.
	Moved func()
}

// NewClock returns the Clock.
func NewClock(config ClockConfig) *Clock { return &Clock{config} }

// Register mounts the routes for the CLI's socket, which no Space can reach.
func (k *Clock) Register(e *echo.Echo) {
	e.GET("/clock", k.show)
	e.POST("/clock/advance", k.advance)
}

// Time is what the clock says, and by how many seconds it is ahead of this machine's.
type Time struct {
	Now             time.Time `json:"now"`
	AdvancedSeconds float64   `json:"advancedSeconds"`
}

func (k *Clock) now() Time {
	return Time{Now: k.config.Clock.Now().UTC(), AdvancedSeconds: k.config.Clock.Advanced().Seconds()}
}

func (k *Clock) show(c echo.Context) error { return c.JSON(http.StatusOK, k.now()) }

// AdvanceOrder says by how much, as Go writes durations: "24h".
type AdvanceOrder struct {
	By string `json:"by"`
}

// onlySimulatedClock is for people: nothing was moved.
const onlySimulatedClock = "the clock can be advanced with simulated GPUs only, and this host has none: the seconds of true ones are charged by it; " +
	"start one with `spacehost run --gpus mock:1xH200`"

func (k *Clock) advance(c echo.Context) error {
	var order AdvanceOrder
	if err := c.Bind(&order); err != nil {
		return echo.NewHTTPError(http.StatusBadRequest, `the order is not understood: want {"by": "24h"}`)
	}
	by, err := time.ParseDuration(order.By)
	if err != nil {
		return echo.NewHTTPError(http.StatusBadRequest, `the order is not understood: want {"by": "24h"}`)
	}
	if _, ok := k.config.Inventory.(gpu.Simulator); !ok {
		return echo.NewHTTPError(http.StatusConflict, onlySimulatedClock)
	}
	err = k.config.Clock.Advance(by)
	var refused *clock.AdvanceError
	if errors.As(err, &refused) {
		return echo.NewHTTPError(http.StatusBadRequest, refused.Error())
	}
	k.config.Moved()
	return c.JSON(http.StatusOK, k.now())
}
