package control

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/internal/views"
)

// Reload applies the configuration file of `spacehost serve` again.
var Reload = Endpoint[ReloadRequest, ReloadAnswer]{http.MethodPost, "/reload"}

// ReloadRequest asks for the difference only if DryRun is set.
type ReloadRequest struct {
	DryRun bool `json:"dryRun"`
}

// ReloadAnswer is the difference between the running configuration and its file.
type ReloadAnswer struct {
	File    string         `json:"file"`
	Applied bool           `json:"applied"`
	Changes []ConfigChange `json:"changes"`
	// Refused is why a dry run would not be applied; empty: it would.
	Refused  string   `json:"refused,omitempty"`
	Warnings []string `json:"warnings"`
}

// ConfigChange is one difference, without the values of Secrets, Variables and tokens.
type ConfigChange struct {
	Subject string `json:"subject"` // space, person, tier or host
	Name    string `json:"name,omitempty"`
	Change  string `json:"change"` // added, removed or changed
	Key     string `json:"key,omitempty"`
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Effect  string `json:"effect"` // at once, restart (of the Space) or host (restart of the host, so the reload is refused)
	Text    string `json:"text"`   // the change as a line
}

// ReloadRefusedError is a configuration that was not applied. Nothing of it is in force. The answer has status 422.
type ReloadRefusedError struct{ Err error }

func (e *ReloadRefusedError) Error() string { return e.Err.Error() }

func (e *ReloadRefusedError) Unwrap() error { return e.Err }

func (a *API) reload(c echo.Context) error {
	r, err := views.Read[ReloadRequest](c)
	if err != nil {
		return views.Refuse(c, err)
	}
	answer, err := a.config.Host.Reload(c.Request().Context(), r.DryRun)
	if refused, ok := errors.AsType[*ReloadRefusedError](err); ok {
		return c.JSON(http.StatusUnprocessableEntity, map[string]string{"detail": refused.Error()})
	}
	return views.Answer(c, http.StatusOK, answer, err)
}
