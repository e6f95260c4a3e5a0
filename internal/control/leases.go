package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/lease"
)

// quiet is how long a stream of changes may say nothing before it says that it lives.
const quiet = 15 * time.Second

// changes answers GET /lease/changes: a Server-Sent Event for each open Lease as it is, then for each Change, its
// state as the event's type. It ends with the host, or when its reader lags too far behind.
func (s *Console) changes(c echo.Context) error {
	w := c.Response()
	w.Header().Set(echo.HeaderContentType, "text/event-stream")
	w.Header().Set(echo.HeaderCacheControl, "no-store")
	w.WriteHeader(http.StatusOK)
	w.Flush()
	ctx := c.Request().Context()
	all := s.config.Broker.Watch(ctx)
	alive := time.NewTicker(quiet)
	defer alive.Stop()
	for {
		select {
		case change, more := <-all:
			if !more || writeChange(w, change) != nil {
				return nil // after the first byte there is nobody to tell
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
