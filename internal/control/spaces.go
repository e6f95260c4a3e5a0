package control

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/internal/views"
)

// The Spaces of the host.
var (
	ShowHealth   = Endpoint[NoBody, views.Health]{http.MethodGet, "/healthz"}
	RestartSpace = Endpoint[RestartRequest, RestartAnswer]{http.MethodPost, "/restart"}
)

// RestartRequest names the Space. Now ends its running calls at once.
type RestartRequest struct {
	Space string `json:"space"`
	Now   bool   `json:"now,omitempty"`
}

// RestartAnswer is sent once the restart has begun. Running calls may continue for DrainSeconds at most.
type RestartAnswer struct {
	Space        string  `json:"space"`
	DrainSeconds float64 `json:"drainSeconds"`
}

func (a *API) showHealth(echo.Context, NoBody) (views.Health, error) {
	return views.NewHealth(a.config.Host.SpaceViews()), nil
}

func (a *API) restartSpace(c echo.Context, r RestartRequest) (RestartAnswer, error) {
	if err := views.CheckSpace(r.Space, a.config.Host.SpaceNames(nil)); err != nil {
		return RestartAnswer{}, err
	}
	drain := a.config.Host.RestartSpace(r.Space, a.config.Host.Operator(c.Request().Context()), r.Now)
	return RestartAnswer{r.Space, drain.Seconds()}, nil
}
