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
	retryAfter          = "10" // seconds; the client says "No GPU was available" and does not try again by itself
)

// setAuthenticated chooses the client's words about signing up or subscribing.
func setAuthenticated(c echo.Context, r lease.Request) {
	if r.Tier.Authenticated != "" {
		c.Response().Header().Set(headerAuthenticated, r.Tier.Authenticated)
	}
}

type argumentError struct{ name string }

func (e *argumentError) Error() string { return "bad argument " + e.name }

// endedError: the token is ours, but the Event that it was made for is over.
type endedError struct{ event string }

func (e *endedError) Error() string { return "the event of this token has ended" }

// refusal is the body of a 429. The sign of Wait is the meaning: below 0 the duration is illegal, above it
// the quota is exceeded (0 would mean that runs are).
type refusal struct {
	Left int `json:"left"`
	Wait int `json:"wait"`
}

// refuse turns errors into what makes the client show Hugging Face's words.
func (a *API) refuse(c echo.Context, r lease.Request, err error) error {
	h := c.Response().Header()
	setAuthenticated(c, r)
	a.config.Logger.Info("lease refused", zap.String("space", r.Space), zap.String("identity", r.Payer.Key()),
		zap.String("tier", r.Tier.Name), zap.Duration("declared", r.Declared), zap.Error(err))
	var exceeded *quota.ExceededError
	var illegal *quota.IllegalDurationError
	if a.config.Refused != nil && (errors.As(err, &exceeded) || errors.As(err, &illegal)) {
		a.config.Refused(r, err)
	}
	switch {
	case errors.As(err, &exceeded):
		h.Set(headerApproveResult, resultQuota)
		return c.JSON(http.StatusTooManyRequests, refusal{exceeded.LeftSeconds(), exceeded.WaitSeconds()})
	case errors.As(err, &illegal):
		h.Set(headerApproveResult, resultIllegal)
		return c.JSON(http.StatusTooManyRequests, refusal{int(illegal.Longest.Seconds()), -1})
	}
	if trouble, ok := errors.AsType[*lease.StorageError](err); ok {
		h.Set(echo.HeaderRetryAfter, retryAfter)
		a.tell(r, "This host cannot write its ledger now, since "+trouble.Cause+". Nothing was charged; try again in a minute.")
	}
	return c.NoContent(statusOf(err))
}

// tell gives the visitor the words that the client has none for.
func (a *API) tell(r lease.Request, text string) {
	if a.config.Tell != nil && r.Event != "" {
		a.config.Tell(r.Space, r.Event, text)
	}
}

// statusOf is the table from errors to statuses. All else is "no GPU": the cause is in the log.
func statusOf(err error) int {
	var token *token.Error
	var ended *endedError
	var stopped *people.DelegationDeniedError
	var argument *argumentError
	var notOwned *lease.NotOwnedError
	switch {
	case errors.As(err, &token), errors.As(err, &ended), errors.As(err, &stopped): // of 4xx the client has words for this one alone
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
