package control

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
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
	Digest  string         `json:"digest"` // of the file's configuration, as the host's log and `serve --check` show it
	Changes []ConfigChange `json:"changes"`
	// Refused is why a dry run would not be applied; empty: it would.
	Refused  string   `json:"refused,omitempty"`
	Warnings []string `json:"warnings"`
	// Failed are the Spaces whose own files are wrong, such as README.md. They do not block the other changes.
	Failed []FailedSpace `json:"failed"`
}

// FailedSpace is a Space of the file that could not be opened.
type FailedSpace struct {
	Space  string   `json:"space"`
	Reason string   `json:"reason"`
	Kept   bool     `json:"kept"`           // its former files stay in force; false: it is new, and is tried again
	Keys   []string `json:"keys,omitempty"` // keys of a kept Space that the file changes and that keep their former values
}

func (f FailedSpace) String() string {
	next := "It is added, and tried again like a Space that does not start."
	if f.Kept {
		next = "It keeps its former files: correct them and run `spacehost reload` again."
		if len(f.Keys) > 0 {
			next = "It keeps its former files and its former values of " + strings.Join(f.Keys, ", ") + ": correct the files and run `spacehost reload` again."
		}
	}
	return fmt.Sprintf("space %s: %s. %s", f.Space, f.Reason, next)
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

func (a *API) reload(c echo.Context, r ReloadRequest) (ReloadAnswer, error) {
	if r.DryRun {
		NoteUnchanged(c)
	}
	answer, err := a.config.Host.Reload(c.Request().Context(), r.DryRun)
	return answer, asRefusal(err)
}

// asRefusal turns a *ReloadRefusedError into its answer.
func asRefusal(err error) error {
	if refused, ok := errors.AsType[*ReloadRefusedError](err); ok {
		return echo.NewHTTPError(http.StatusUnprocessableEntity, refused.Error())
	}
	return err
}
