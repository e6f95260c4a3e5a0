// Package hubapi answers the clients of the Hugging Face Hub with the part of its HTTP API that a host can serve: the GPU quota
// of the caller, and the lookup of a Space by name.
//
// With HF_ENDPOINT set to the console address, gradio_client connects to Client("owner/name"). The owner is ignored and
// repeated in the answer, because a host's Spaces have no owner.
//
// [API] is mounted on the console address by the host, which implements [Payers] and [Spaces]. Every other route of the Hub
// is answered with an error that names spacehost, in the header that huggingface_hub shows.
package hubapi

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/quota"
)

// Payers is the part of the host that knows callers. Its methods may read the database, and are called concurrently.
type Payers interface {
	// ConsoleIdentity returns the caller at the console address: *people.UnknownTokenError for an unknown bearer.
	ConsoleIdentity(*http.Request) (identity.Identity, error)
	// AccountReader is ConsoleIdentity for a request that reads the account: also *people.RightsError. The Spaces to which the bearer
	// is limited do not matter here, because the answer names none.
	AccountReader(*http.Request) (identity.Identity, people.SpaceLimit, error)
	// Allowance returns the tier named by payer.Tier, with the person's own overrides.
	Allowance(ctx context.Context, payer identity.Identity) (quota.Tier, error)
}

// Spaces is the part of the host that knows its Spaces. It does not block, and is called concurrently.
type Spaces interface {
	// HubSpace returns the Space of that name. ok is false if there is none, or if it is not visible to the caller.
	HubSpace(caller identity.Identity, name string) (space Space, ok bool)
}

// Config is what the API needs. All fields are required.
type Config struct {
	Ledger *quota.Ledger
	Payers Payers
	Spaces Spaces
	Now    func() time.Time // wall clock
}

// API answers Hub clients. It may be used concurrently.
type API struct{ config Config }

// New returns the API.
func New(config Config) *API { return &API{config} }

// Register mounts the routes.
func (a *API) Register(e *echo.Echo) {
	e.GET("/api/spaces/zero-gpu/quota", a.quota)
	a.registerSpaces(e)
}

// Quota has the fields of the Hub's answer (huggingface_hub#2842). Times are in seconds; ResetsAt is null before the first use.
// Runs is in the Hub's OpenAPI since 2026-06-25.
type Quota struct {
	Base          int        `json:"base"`
	Current       int        `json:"current"`
	ResetsAt      *time.Time `json:"resetsAt"`
	OverquotaUsed float64    `json:"overquotaUsed"`  // prepaid credits that were used in this window
	Runs          *Runs      `json:"runs,omitempty"` // absent without a limit
}

// Runs are the GPU calls of the caller in the last 24 hours. Used includes calls that wait for a GPU. ResetsAt is when the oldest
// run returns, null without one.
type Runs struct {
	Used      int        `json:"used"`
	Limit     int        `json:"limit"`
	Remaining int        `json:"remaining"`
	ResetsAt  *time.Time `json:"resetsAt"`
}

func (a *API) quota(c echo.Context) error {
	payer, _, err := a.config.Payers.AccountReader(c.Request())
	var unknown *people.UnknownTokenError
	if errors.As(err, &unknown) {
		return echo.NewHTTPError(http.StatusUnauthorized, unknown.Error())
	}
	if rights, ok := errors.AsType[*people.RightsError](err); ok {
		return echo.NewHTTPError(http.StatusForbidden, rights.Error())
	}
	if err != nil {
		return err
	}
	q, err := a.quotaOf(c.Request().Context(), payer)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, q)
}

func (a *API) quotaOf(ctx context.Context, payer identity.Identity) (Quota, error) {
	tier, err := a.config.Payers.Allowance(ctx, payer)
	if err != nil {
		return Quota{}, err
	}
	b, err := a.config.Ledger.Balance(ctx, payer.Key(), tier, a.config.Now())
	if err != nil {
		return Quota{}, err
	}
	q := Quota{Base: int(b.Base / time.Second), Current: int(b.Left / time.Second), OverquotaUsed: b.CreditCharged.Seconds()}
	if r := b.Runs; r != nil {
		q.Runs = &Runs{Used: r.Used + r.Reserved, Limit: r.Limit, Remaining: r.Left(), ResetsAt: r.ResetsAt}
	}
	if b.Unlimited { // the Hub has no unlimited quota: the largest number that its clients accept
		q.Base, q.Current = math.MaxInt32, math.MaxInt32
		return q, nil
	}
	if b.ResetsAt != nil {
		at := b.ResetsAt.UTC()
		q.ResetsAt = &at
	}
	return q, nil
}
