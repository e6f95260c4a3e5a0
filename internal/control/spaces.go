package control

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/internal/views"
)

// The Spaces of the host.
var (
	ShowHealth   = Endpoint[NoBody, views.Health]{http.MethodGet, "/healthz"}
	RestartSpace = Endpoint[RestartRequest, RestartRequest]{http.MethodPost, "/restart"}
)

// RestartRequest names the Space. The answer repeats it, once the restart has begun.
type RestartRequest struct {
	Space string `json:"space"`
}

func (a *API) showHealth(echo.Context, NoBody) (views.Health, error) {
	return views.NewHealth(a.config.Host.SpaceViews()), nil
}

func (a *API) restartSpace(_ echo.Context, r RestartRequest) (RestartRequest, error) {
	if err := views.CheckSpace(r.Space, a.config.Host.SpaceNames(nil)); err != nil {
		return r, err
	}
	a.config.Host.RestartSpace(r.Space)
	return r, nil
}
