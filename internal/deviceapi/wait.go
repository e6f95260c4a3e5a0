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

// granted is the good answer (spaces/zero/api.py, ScheduleResponse). Idle says that the client's own worker is
// warm there; else whoever was on the Slot is gone by now.
type granted struct {
	Idle        bool   `json:"idle"`
	NvidiaIndex int    `json:"nvidiaIndex"`
	NvidiaUUID  string `json:"nvidiaUUID"`
	AllowToken  string `json:"allowToken"`
}

func newGranted(g lease.Grant) granted {
	return granted{Idle: g.Idle, NvidiaIndex: g.Slot, NvidiaUUID: string(g.Device), AllowToken: g.Lease}
}

// times of this API; a test has shorter ones.
type times struct {
	// soon is how long a plain answer may take, so that a Slot which is just being cleared after the last call
	// does not make the visitor read "Waiting for a GPU".
	soon time.Duration
	// ping is how often the client looks whether its visitor is still there: it does so only at a ping.
	ping time.Duration
	// news is how often a visitor who waits is told more than that at most.
	news time.Duration
	// hangUp is what a client gets to hang up after it was told that its visitor has left.
	hangUp time.Duration
	// settle is how long a release waits for the database; the client itself waits 60 s.
	settle time.Duration
}

var usualTimes = times{soon: 400 * time.Millisecond, ping: 2 * time.Second, news: 5 * time.Second, hangUp: 5 * time.Second, settle: 5 * time.Second}

func (a *API) answer(c echo.Context, t *lease.Ticket, r lease.Request) error {
	ctx := c.Request().Context()
	at, cancel := context.WithTimeout(ctx, a.times.soon)
	defer cancel()
	g, err := t.Wait(at)
	switch {
	case err == nil && ctx.Err() == nil:
		return c.JSON(http.StatusOK, newGranted(g))
	case ctx.Err() != nil:
		t.Leave()
		return nil
	}
	return a.stream(c, t, r, err)
}

// stream waits over SSE. One Write and one Flush per event, so that each is a chunk of its own: the client
// parses chunk by chunk and loses what follows the first event in one (spaces/zero/api.py, sse_stream).
func (a *API) stream(c echo.Context, t *lease.Ticket, r lease.Request, err error) error {
	c.Response().Header().Set(headerQueuingReason, string(t.Reason()))
	c.Response().Header().Set(echo.HeaderContentType, contentEventStream)
	c.Response().WriteHeader(http.StatusOK)
	said := news{every: a.times.news}
	for pings := 0; ; {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			if write(c, "event: ping\n\n") != nil {
				t.Leave()
				return nil
			}
			if pings++; pings > 1 { // at the first the client itself says that it waits
				a.inform(&said, t, r)
			}
		case errors.Is(err, lease.ErrTimedOut), errors.Is(err, lease.ErrGone):
			return write(c, "event: failed\n\n")
		default: // ErrLeft
			a.sendOff(c)
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

// inform tells the visitor what there is to expect, if that is news.
func (a *API) inform(said *news, t *lease.Ticket, r lease.Request) {
	if a.config.Waits == nil {
		return
	}
	if f, waits := t.Forecast(); waits && said.isNews(f, time.Now()) {
		a.config.Waits(r, f)
	}
}

// news is what a visitor was told last about their wait.
type news struct {
	every time.Duration
	last  lease.Forecast
	at    time.Time // zero: nothing yet
}

// isNews says whether to tell, and takes note of it:
//
//  1. what was never told is news;
//  2. not more often than every;
//  3. another rank, another reason, or a start that has moved by as much.
func (n *news) isNews(f lease.Forecast, now time.Time) bool {
	told := !n.at.IsZero()
	if told && (now.Sub(n.at) < n.every || n.says(f)) { // 2, 3
		return false
	}
	n.last, n.at = f, now // 1
	return true
}

// says reports whether what was told last is still true.
func (n *news) says(f lease.Forecast) bool {
	if f.Rank != n.last.Rank || f.Reason != n.last.Reason || f.Limit != n.last.Limit || (f.Start == nil) != (n.last.Start == nil) {
		return false
	}
	return f.Start == nil || f.Start.Sub(*n.last.Start).Abs() < n.every
}

func (a *API) succeed(c echo.Context, t *lease.Ticket, g lease.Grant) error {
	data, err := json.Marshal(newGranted(g))
	if err != nil {
		return err
	}
	if err := write(c, fmt.Sprintf("event: succeeded\ndata: %s\n\n", data)); err != nil {
		a.config.Logger.Warn("grant was not heard", zap.Error(err))
		t.Leave()
	}
	return nil
}

// sendOff pings until the client sees that its visitor has gone, and hangs up. It may come to know later than
// we do.
func (a *API) sendOff(c echo.Context) {
	ctx, cancel := context.WithTimeout(c.Request().Context(), a.times.hangUp)
	defer cancel()
	again := time.NewTicker(a.times.ping)
	defer again.Stop()
	for write(c, "event: ping\n\n") == nil {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// write goes past echo's Response to flush, since that one keeps the error to itself.
func write(c echo.Context, event string) error {
	if _, err := c.Response().Write([]byte(event)); err != nil {
		return err
	}
	return http.NewResponseController(c.Response().Writer).Flush()
}
