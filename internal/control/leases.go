package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/lease"
	"spacehost/internal/views"
)

// The Leases of the host. ListLeases takes the query `limit`, the number of ended ones. WatchLeases answers with a stream of
// Server-Sent Events, each a lease.Change.
var (
	ListLeases  = Endpoint[NoBody, Leases]{http.MethodGet, "/lease"}
	WatchLeases = Endpoint[NoBody, lease.Change]{http.MethodGet, "/lease/changes"}
)

// Leases are the open Leases and the latest ended ones, by the host's clock.
type Leases struct {
	Now   time.Time        `json:"now"`
	Open  []lease.Snapshot `json:"open"`
	Ended []lease.Past     `json:"ended"`
}

func (a *API) listLeases(c echo.Context, _ NoBody) (Leases, error) {
	limit, err := views.Limit(c.QueryParam("limit"), 20)
	if err != nil {
		return Leases{}, err
	}
	past, err := a.config.Broker.Past(c.Request().Context(), limit)
	if err != nil {
		return Leases{}, err
	}
	return Leases{Now: a.config.Now().UTC(), Open: a.config.Broker.List(), Ended: past}, nil
}

// keepAlive is the longest silence of a stream of changes. A comment line then shows that the connection works.
const keepAlive = 15 * time.Second

// watchLeases sends one event for each open Lease, then one for each Change. The type of an event is the Lease's state. The
// stream ends with the host, or when its reader lags too far behind.
func (a *API) watchLeases(c echo.Context) error {
	w := c.Response()
	w.Header().Set(echo.HeaderContentType, "text/event-stream")
	w.Header().Set(echo.HeaderCacheControl, "no-store")
	w.WriteHeader(http.StatusOK)
	w.Flush()
	ctx := c.Request().Context()
	changes := a.config.Broker.Watch(ctx)
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for {
		select {
		case change, more := <-changes:
			if !more || writeChange(w, change) != nil {
				return nil // the status was sent: an error has no receiver
			}
		case <-alive.C:
			if _, err := w.Write([]byte(": alive\n\n")); err != nil {
				return nil
			}
			w.Flush()
		case <-ctx.Done():
			return nil
		}
	}
}

func writeChange(w *echo.Response, change lease.Change) error {
	line, err := json.Marshal(change)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", change.State, line); err != nil {
		return err
	}
	w.Flush()
	return nil
}
