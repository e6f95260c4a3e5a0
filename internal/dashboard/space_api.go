package dashboard

import (
	"github.com/labstack/echo/v4"

	"spacehost/gradioapi"
	"spacehost/internal/control"
)

// SpaceAPI is how clients call a Space.
type SpaceAPI struct {
	URL string `json:"url"`
	gradioapi.Info
	Unknown string `json:"unknown,omitempty"` // why the endpoints are not known, in a sentence
}

// spaceAPI answers 404 for a Space that the person may not see or the token does not allow, as for one that does not exist.
func (a *API) spaceAPI(c echo.Context, person caller, _ control.NoBody) (SpaceAPI, error) {
	if !person.allows(c.Param("name")) {
		return SpaceAPI{}, echo.ErrNotFound
	}
	found, ok := a.config.Host.SpaceAPI(c.Request().Context(), person.viewer(), c.Param("name"))
	if !ok {
		return SpaceAPI{}, echo.ErrNotFound
	}
	return found, nil
}
