package deviceapi

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/quota"
)

// Headers of the device API (spaces/zero/api.py).
const (
	headerAuthenticated = "X-Authenticated"  // regular, pro; absent: not signed in
	headerQueuingReason = "X-Queuing-Reason" // node: "Waiting for a GPU to become available", concurrency: "... for a GPU slot on this Space"
	headerApproveResult = "X-Approve-Result" // approved, quota-exceeded, illegal-duration ...
	resultApproved      = "approved"
	resultQuota         = "quota-exceeded"
	resultIllegal       = "illegal-duration"
	contentEventStream  = "text/event-stream"
	retryAfter          = "10" // seconds; the client reports "No GPU was available" and does not retry by itself
)

// setAuthenticated selects the client's message about signing up or subscribing.
func setAuthenticated(c echo.Context, r lease.Request) {
	if r.Tier.Authenticated != "" {
		c.Response().Header().Set(headerAuthenticated, r.Tier.Authenticated)
	}
}

// argumentError reports an invalid query parameter.
type argumentError struct{ name string }

func (e *argumentError) Error() string { return "invalid argument " + e.name }

// endedError reports a valid token whose Event has ended.
type endedError struct{ event string }

func (e *endedError) Error() string { return "the event of this token has ended" }

// refusal is the body of a 429. The sign of Wait is its meaning: negative for an illegal duration, positive for an exceeded quota.
// (0 would mean that the number of runs is exceeded.)
type refusal struct {
	Left int `json:"left"`
	Wait int `json:"wait"`
}

// refuse answers with the status, headers and body for which the client shows Hugging Face's message.
func (a *API) refuse(c echo.Context, r lease.Request, err error) error {
	h := c.Response().Header()
	setAuthenticated(c, r)
	a.config.Logger.Info("lease refused", zap.String("space", r.Space), zap.String("identity", r.Payer.Key()),
		zap.String("tier", r.Tier.Name), zap.Duration("declared", r.Declared), zap.Error(err))
	var exceeded *quota.ExceededError
	var illegal *quota.IllegalDurationError
	if errors.As(err, &exceeded) || errors.As(err, &illegal) {
		a.config.Notifier.LeaseRefused(r, err)
	}
	switch {
	case errors.As(err, &exceeded):
		h.Set(headerApproveResult, resultQuota)
		return c.JSON(http.StatusTooManyRequests, refusal{exceeded.LeftSeconds(), exceeded.WaitSeconds()})
	case errors.As(err, &illegal):
		h.Set(headerApproveResult, resultIllegal)
		return c.JSON(http.StatusTooManyRequests, refusal{int(illegal.Longest.Seconds()), -1})
	}
	if storage, ok := errors.AsType[*lease.StorageError](err); ok {
		h.Set(echo.HeaderRetryAfter, retryAfter)
		if r.Event != "" { // the client has no message for it
			a.config.Notifier.WarnVisitor(r.Space, r.Event, "This host cannot write its ledger now, because "+storage.Cause+". Nothing was charged; try again in a minute.")
		}
	}
	return c.NoContent(statusOf(err))
}

// statusOf maps errors to statuses. Every other error is 503, which the client reports as "no GPU"; the cause is in the log.
func statusOf(err error) int {
	var token *token.Error
	var ended *endedError
	var denied *people.DelegationDeniedError
	var argument *argumentError
	var notOwned *lease.NotOwnedError
	switch {
	case errors.As(err, &token), errors.As(err, &ended), errors.As(err, &denied): // the only 4xx for which the client has a message
		return http.StatusUnauthorized
	case errors.As(err, &argument):
		return http.StatusBadRequest
	case errors.As(err, &notOwned):
		return http.StatusForbidden
	case errors.Is(err, lease.ErrUnknown):
		return http.StatusNotFound
	}
	return http.StatusServiceUnavailable
}
