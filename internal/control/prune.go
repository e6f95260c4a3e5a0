package control

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// Prune removes what no Space refers to. The answer comes when everything is removed, which may take minutes.
var Prune = Endpoint[PruneRequest, PruneAnswer]{http.MethodPost, "/prune"}

// PruneRequest says what to remove.
type PruneRequest struct {
	DryRun      bool    `json:"dryRun"`      // remove nothing
	KeepSeconds float64 `json:"keepSeconds"` // what was used within this time stays
	Data        bool    `json:"data"`        // remove the persistent storage of removed Spaces, too
	// Node is the node whose state folder is pruned; empty: that of the host.
	Node string `json:"node,omitempty"`
}

// PruneAnswer lists what was removed, or would be.
type PruneAnswer struct {
	DryRun bool         `json:"dryRun"`
	Bytes  int64        `json:"bytes"` // without the items that could not be removed
	Items  []PrunedItem `json:"items"`
	Kept   []PrunedItem `json:"kept"` // clones that no Space has as its folder, but in which their user has changed something
}

// PrunedItem is one environment, folder of a Space, folder of uploads, log or clone.
type PrunedItem struct {
	Kind     string     `json:"kind"`
	Path     string     `json:"path"`
	Bytes    int64      `json:"bytes"`
	LastUsed *time.Time `json:"lastUsed"` // null: not known
	Why      string     `json:"why"`
	Error    string     `json:"error,omitempty"` // it could not be removed
}

// PruneRefusedError is the state of a host, starting or stopping, in which it prunes nothing, or no more, or that of a node that is not
// connected. The answer has status 503.
type PruneRefusedError struct{ Reason string }

func (e *PruneRefusedError) Error() string { return e.Reason }

func (a *API) prune(c echo.Context, r PruneRequest) (PruneAnswer, error) {
	if r.DryRun {
		NoteUnchanged(c)
	}
	if r.KeepSeconds < 0 {
		return PruneAnswer{}, echo.NewHTTPError(http.StatusBadRequest, "keepSeconds is negative; give 0 or more")
	}
	answer, err := a.config.Host.Prune(c.Request().Context(), r)
	if refused, ok := errors.AsType[*PruneRefusedError](err); ok {
		err = echo.NewHTTPError(http.StatusServiceUnavailable, refused.Reason)
	}
	return answer, err
}
