package deviceapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/lease"
)

// granted is the JSON of a grant (spaces/zero/api.py, ScheduleResponse). Idle is true if the client's own idle worker holds the
// Slot. Else the previous worker has exited by now.
type granted struct {
	Idle        bool   `json:"idle"`
	NvidiaIndex int    `json:"nvidiaIndex"`
	NvidiaUUID  string `json:"nvidiaUUID"`
	AllowToken  string `json:"allowToken"`
}

func newGranted(g lease.Grant) granted {
	return granted{Idle: g.Idle, NvidiaIndex: g.Slot, NvidiaUUID: string(g.Device), AllowToken: g.Lease}
}

// timings of the API. Tests use shorter ones.
type timings struct {
	// soon is the time after which a plain answer becomes a stream. A Slot that is being cleared after the previous call comes
	// free within it, and the visitor does not see "Waiting for a GPU".
	soon time.Duration
	// ping is the interval of pings. The client checks for a disconnected visitor at pings only.
	ping time.Duration
	// news is the shortest interval between two forecasts for a waiting visitor.
	news time.Duration
	// hangUp is the time for the client to close the connection after its visitor has left.
	hangUp time.Duration
	// settle is the time that a release waits for the database. The client's own timeout is 60 s.
	settle time.Duration
}

var defaultTimings = timings{soon: 400 * time.Millisecond, ping: 2 * time.Second, news: 5 * time.Second, hangUp: 5 * time.Second, settle: 5 * time.Second}

// answer sends the grant if it arrives soon, and else streams.
func (a *API) answer(c echo.Context, t *lease.Ticket, r lease.Request) error {
	ctx := c.Request().Context()
	soon, cancel := context.WithTimeout(ctx, a.times.soon)
	defer cancel()
	g, err := t.Wait(soon)
	switch {
	case err == nil && ctx.Err() == nil:
		return c.JSON(http.StatusOK, newGranted(g))
	case ctx.Err() != nil:
		t.Leave()
		return nil
	}
	return a.stream(c, t, r, err)
}

// stream waits over SSE, with one Write and one Flush per event. Each event is then its own chunk: the client parses chunk by
// chunk and drops everything after the first event of a chunk (spaces/zero/api.py, sse_stream).
func (a *API) stream(c echo.Context, t *lease.Ticket, r lease.Request, err error) error {
	c.Response().Header().Set(headerQueuingReason, string(t.Reason()))
	if a.config.Broker.Maintenance(r.Declared) != nil {
		// With another value, the client ends its message with an advertisement: "Subscribe to Pro to get the highest priority".
		// With this one it writes "Retry later" (spaces/zero/client.py, _toast_action).
		c.Response().Header().Set(headerAuthenticated, "pro")
	}
	c.Response().Header().Set(echo.HeaderContentType, contentEventStream)
	c.Response().WriteHeader(http.StatusOK)
	sent := forecastDebounce{every: a.times.news}
	for pings := 0; ; {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			if write(c, "event: ping\n\n") != nil {
				t.Leave()
				return nil
			}
			if pings++; pings > 1 { // at the first ping the client itself reports that it waits
				a.notify(&sent, t, r)
			}
		case errors.Is(err, lease.ErrTimedOut), errors.Is(err, lease.ErrGone):
			if errors.Is(err, lease.ErrTimedOut) {
				a.config.Notifier.LeaseTimedOut(r)
			}
			return write(c, "event: failed\n\n")
		default: // ErrLeft
			a.pingUntilClosed(c)
			return nil
		}
		ctx, cancel := context.WithTimeout(c.Request().Context(), a.times.ping)
		var g lease.Grant
		g, err = t.Wait(ctx)
		cancel()
		if c.Request().Context().Err() != nil {
			t.Leave()
			return nil
		}
		if err == nil {
			return a.succeed(c, t, g)
		}
	}
}

// notify sends the forecast to the visitor, if it is new.
func (a *API) notify(sent *forecastDebounce, t *lease.Ticket, r lease.Request) {
	if f, waits := t.Forecast(); waits && sent.isDue(f, time.Now()) {
		a.config.Notifier.LeaseWaits(r, f)
	}
}

// forecastDebounce remembers the forecast that a visitor has received last.
type forecastDebounce struct {
	every time.Duration
	last  lease.Forecast
	at    time.Time // zero: none was sent
}

// isDue reports whether to send a forecast, and records it:
//
//  1. The first forecast is always sent.
//  2. The interval between two is at least every.
//  3. A later one is sent if the rank, the reason or the limit differs, or the start has moved by at least every.
func (d *forecastDebounce) isDue(f lease.Forecast, now time.Time) bool {
	sent := !d.at.IsZero()
	if sent && (now.Sub(d.at) < d.every || d.matches(f)) { // 2, 3
		return false
	}
	d.last, d.at = f, now // 1
	return true
}

// matches reports whether the last forecast still holds.
func (d *forecastDebounce) matches(f lease.Forecast) bool {
	if f.Rank != d.last.Rank || f.Reason != d.last.Reason || f.Limit != d.last.Limit || (f.Start == nil) != (d.last.Start == nil) {
		return false
	}
	return f.Start == nil || f.Start.Sub(*d.last.Start).Abs() < d.every
}

// succeed sends the grant. A Lease whose grant cannot be delivered is given up.
func (a *API) succeed(c echo.Context, t *lease.Ticket, g lease.Grant) error {
	data, err := json.Marshal(newGranted(g))
	if err != nil {
		return err
	}
	if err := write(c, fmt.Sprintf("event: succeeded\ndata: %s\n\n", data)); err != nil {
		a.config.Logger.Warn("grant not delivered", zap.Error(err))
		t.Leave()
	}
	return nil
}

// pingUntilClosed pings until the client notices that its visitor has left and closes the connection. The client may notice
// later than the host.
func (a *API) pingUntilClosed(c echo.Context) {
	ctx, cancel := context.WithTimeout(c.Request().Context(), a.times.hangUp)
	defer cancel()
	ticker := time.NewTicker(a.times.ping)
	defer ticker.Stop()
	for write(c, "event: ping\n\n") == nil {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// write flushes past echo's Response, whose Flush drops the error.
func write(c echo.Context, event string) error {
	if _, err := c.Response().Write([]byte(event)); err != nil {
		return err
	}
	return http.NewResponseController(c.Response().Writer).Flush()
}
