package control

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/doctor"
	"spacehost/internal/version"
)

// The settings and the process of the host. RunDoctor and MeasureState take seconds: they read the machine anew.
var (
	ShowHost      = Endpoint[NoBody, HostInfo]{http.MethodGet, "/host"}
	ShowSettings  = Endpoint[NoBody, []ConfigValue]{http.MethodGet, "/settings"}
	PreviewReload = Endpoint[NoBody, ReloadAnswer]{http.MethodGet, "/reload"}
	RunDoctor     = Endpoint[NoBody, []doctor.Finding]{http.MethodGet, "/doctor"}
	MeasureState  = Endpoint[NoBody, []FolderSize]{http.MethodGet, "/state"}
)

// HostInfo describes the process of the host.
type HostInfo struct {
	Build     version.Build `json:"build"`
	Command   string        `json:"command"`        // run or serve
	File      string        `json:"file,omitempty"` // of the configuration; empty for `run`
	Digest    string        `json:"digest"`         // of the configuration in force
	PID       int           `json:"pid"`
	User      string        `json:"user"`
	Machine   string        `json:"machine"` // its host name
	StartedAt time.Time     `json:"startedAt"`
	Now       time.Time     `json:"now"`
	State     string        `json:"state"`     // the state folder
	FreeBytes uint64        `json:"freeBytes"` // on the disk of the state folder; 0: not known
	Database  int64         `json:"databaseBytes"`
}

// ConfigValue is one key of the configuration in force, defaults included. It never contains the value of a Secret, of a Variable, of a
// token or of a URL of a webhook.
type ConfigValue struct {
	Subject string `json:"subject"` // host, tier, person, webhook or space
	Name    string `json:"name,omitempty"`
	Key     string `json:"key"`
	Value   string `json:"value"`  // empty: not set
	Hidden  bool   `json:"hidden"` // the key is set, and its value is not shown
}

// FolderSize is the size on the disk of a folder or file in the state folder.
type FolderSize struct {
	Name  string `json:"name"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Error string `json:"error,omitempty"` // why the size is not known, or not whole
}

func (a *API) showHost(echo.Context, NoBody) (HostInfo, error) { return a.config.Host.Info(), nil }

func (a *API) showSettings(echo.Context, NoBody) ([]ConfigValue, error) {
	return a.config.Host.ConfigValues(), nil
}

func (a *API) previewReload(c echo.Context, _ NoBody) (ReloadAnswer, error) {
	answer, err := a.config.Host.Reload(c.Request().Context(), true)
	return answer, asRefusal(err)
}

// runDoctor takes as long as the slowest check.
func (a *API) runDoctor(c echo.Context, _ NoBody) ([]doctor.Finding, error) {
	return a.config.Host.Doctor(c.Request().Context())
}

func (a *API) measureState(c echo.Context, _ NoBody) ([]FolderSize, error) {
	return a.config.Host.StateSizes(c.Request().Context())
}
