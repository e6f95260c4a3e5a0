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
	headerApproveResult = "X-Approve-Result" // one of the results below
	resultApproved      = "approved"
	resultQuota         = "quota-exceeded"
	resultIllegal       = "illegal-duration"
	resultRuns          = "runs-exceeded"
	resultCredits       = "pending-overquota-exceeded" // "You have too many ZeroGPU credits allocated to running tasks."
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

// refusal is the body of a 429. The sign of Wait is its meaning: negative for an illegal duration, positive for an exceeded quota,
// 0 for an exceeded number of runs. If the result is pending-overquota-exceeded, the client does not read it
// (spaces/zero/client.py, schedule).
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
	if refused, ok := quota.AsRefused(err); ok {
		a.config.Notifier.LeaseRefused(r, refused)
		result, body := wireRefusal(refused)
		h.Set(headerApproveResult, result)
		return c.JSON(http.StatusTooManyRequests, body)
	}
	if storage, ok := errors.AsType[*lease.StorageError](err); ok {
		h.Set(echo.HeaderRetryAfter, retryAfter)
		if r.Event != "" { // the client has no message for it
			a.config.Notifier.WarnVisitor(r.Space, r.Event, "This host cannot write its ledger now, because "+storage.Cause+". Nothing was charged; try again in a minute.")
		}
	}
	return c.NoContent(statusOf(err))
}

// wireRefusal returns the header and the body for which the client shows the message of a refusal.
func wireRefusal(err quota.Refused) (result string, body refusal) {
	switch e := err.(type) {
	case *quota.IllegalDurationError:
		return resultIllegal, refusal{int(e.Longest.Seconds()), -1}
	case *quota.RunsExceededError:
		return resultRuns, refusal{int(e.Left.Seconds()), 0}
	case *quota.CreditsPendingError:
		return resultCredits, refusal{e.LeftSeconds(), e.WaitSeconds()}
	case *quota.ExceededError:
		return resultQuota, refusal{e.LeftSeconds(), e.WaitSeconds()}
	}
	return resultQuota, refusal{0, 1} // not reached: package quota has no other refusal
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
