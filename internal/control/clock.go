package control

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/internal/clock"
)

// The clock of the host. It can be advanced if the GPUs are simulated.
var (
	ShowClock    = Endpoint[NoBody, Time]{http.MethodGet, "/clock"}
	AdvanceClock = Endpoint[AdvanceRequest, Time]{http.MethodPost, "/clock/advance"}
)

// Time is the time of the host's clock, and its lead over this machine's clock.
type Time struct {
	Now             time.Time `json:"now"`
	AdvancedSeconds float64   `json:"advancedSeconds"`
}

// AdvanceRequest moves the clock ahead by a Go duration, such as "24h".
type AdvanceRequest struct {
	By string `json:"by"`
}

const advanceJSON = `{"by": "24h"}`

// onlySimulatedClock refuses an advance on a host with real GPUs.
const onlySimulatedClock = "the clock can be advanced with simulated GPUs only: this host charges the seconds of real ones by it; " +
	"start a host with `spacehost run --gpus mock:1xH200`"

func (a *API) now() Time {
	return Time{Now: a.config.Clock.Now().UTC(), AdvancedSeconds: a.config.Clock.Advanced().Seconds()}
}

func (a *API) showClock(echo.Context, NoBody) (Time, error) { return a.now(), nil }

func (a *API) advanceClock(c echo.Context) error {
	r, err := bind[AdvanceRequest](c, advanceJSON)
	if err != nil {
		return err
	}
	by, err := time.ParseDuration(r.By)
	if err != nil {
		return notUnderstood(advanceJSON)
	}
	if _, ok := a.config.Inventory().(gpu.Simulator); !ok {
		return echo.NewHTTPError(http.StatusConflict, onlySimulatedClock)
	}
	err = a.config.Clock.Advance(by)
	var refused *clock.AdvanceError
	if errors.As(err, &refused) {
		return echo.NewHTTPError(http.StatusBadRequest, refused.Error())
	}
	a.config.Host.ClockMoved()
	return c.JSON(http.StatusOK, a.now())
}
