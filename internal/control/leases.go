package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/lease"
	"spacehost/internal/views"
)

// The Leases of the host. ListLeases takes the query `limit`, the number of ended ones. WatchLeases answers with a stream of
// Server-Sent Events, each a lease.Change. ShowTimeline takes the queries `from` and `to`,
// times of RFC 3339, and `step`, the level of detail in seconds (lease.Timeline); 0 shows each call.
var (
	ShowTimeline = Endpoint[NoBody, *lease.Timeline]{http.MethodGet, "/lease/timeline"}
	ListLeases   = Endpoint[NoBody, Leases]{http.MethodGet, "/lease"}
	EndLease     = Endpoint[EndLeaseRequest, lease.Ended]{http.MethodPost, "/lease/end"}
	WatchLeases  = Endpoint[NoBody, lease.Change]{http.MethodGet, "/lease/changes"}
)

// EndLeaseRequest names an open Lease by the first digits of its ID, and the reason for the visitor and the ledger.
type EndLeaseRequest struct {
	Lease  string `json:"lease"`
	Reason string `json:"reason,omitempty"`
}

// fewestDigits is the least number of digits that name a Lease: fewer may be a typing error that hits another Lease.
const fewestDigits = 4

// endLease ends one call. The operator's name is in the reason, so the ledger names both.
func (a *API) endLease(c echo.Context, r EndLeaseRequest) (lease.Ended, error) {
	r.Lease, r.Reason = strings.ToLower(strings.TrimSpace(r.Lease)), strings.TrimSpace(r.Reason)
	if len(r.Lease) < fewestDigits {
		return lease.Ended{}, views.BadRequest("lease %q: at least %d digits are needed; `spacehost lease` lists them", r.Lease, fewestDigits)
	}
	if err := checkReason(r.Reason); err != nil {
		return lease.Ended{}, err
	}
	reason := lease.OperatorReason + a.config.Host.Operator(c.Request().Context())
	if r.Reason != "" {
		reason += ": " + r.Reason
	}
	ended, err := a.config.Broker.EndLease(r.Lease, reason, func(ending lease.Ended) { a.config.Host.LeaseEnding(ending, r.Reason) })
	ambiguous := (*lease.AmbiguousLeaseError)(nil)
	switch {
	case errors.Is(err, lease.ErrUnknown):
		return ended, echo.NewHTTPError(http.StatusNotFound, fmt.Sprintf("no open lease begins with %.40q: it may have ended; `spacehost lease` lists the open ones", r.Lease))
	case errors.As(err, &ambiguous):
		return ended, echo.NewHTTPError(http.StatusConflict, err.Error())
	}
	return ended, err
}

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
	return a.Leases(c.Request().Context(), limit)
}

// Leases returns the open Leases and the latest ended ones, at most ended of them. It reads the database.
func (a *API) Leases(ctx context.Context, ended int) (Leases, error) {
	past, err := a.config.Broker.Past(ctx, ended)
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
	beginEvents(w)
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

func (a *API) showTimeline(c echo.Context) error {
	from, err := queryTime(c, "from")
	if err != nil {
		return views.Refuse(c, err)
	}
	to, err := queryTime(c, "to")
	if err != nil {
		return views.Refuse(c, err)
	}
	step := lease.AutomaticStep
	if text := c.QueryParam("step"); text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		step = time.Duration(seconds * float64(time.Second))
		if err != nil || !(seconds >= 0 && seconds <= maxStepSeconds) {
			return views.Refuse(c, views.BadRequest("step=%.40q is not a number of seconds from 0 to %d", text, maxStepSeconds))
		}
	}
	timeline, err := a.timeline(c.Request().Context(), from, to, step)
	if long := (*lease.TimelineSizeError)(nil); errors.As(err, &long) {
		return views.Refuse(c, views.BadRequest("%v", err))
	}
	return views.Answer(c, http.StatusOK, timeline, err)
}

// timeline returns a lease.Timeline with the calls that the quota refused. Errors: *lease.TimelineSizeError, or of the database.
func (a *API) timeline(ctx context.Context, from, to time.Time, step time.Duration) (*lease.Timeline, error) {
	timeline, err := a.config.Broker.Timeline(ctx, from, to, step)
	if err != nil {
		return nil, err
	}
	refused, err := a.config.Ledger.RefusalTimes(ctx, from, to, time.Duration(timeline.StepSeconds*float64(time.Second)))
	for _, r := range refused {
		timeline.AddMissed(lease.MissedRefused, r.At, r.Calls)
	}
	return timeline, err
}

// maxStepSeconds is a day.
const maxStepSeconds = 86400

func queryTime(c echo.Context, name string) (time.Time, error) {
	return views.Time(name, c.QueryParam(name))
}
