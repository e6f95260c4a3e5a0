// Package hubapi speaks to Hub clients: what they ask about quota, and to connect to a Space by its name.
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

// Config is what the API needs.
type Config struct {
	Ledger   *quota.Ledger
	TierOf   func(context.Context, identity.Identity) (quota.Tier, error)
	Identify func(*http.Request) (identity.Identity, error)
	// Find returns the Space of that name, if who may see it.
	Find func(who identity.Identity, name string) (Space, bool)
	Now  func() time.Time // wall clock
}

// API answers Hub clients.
type API struct{ config Config }

// New returns the API.
func New(config Config) *API { return &API{config} }

// Register mounts the routes.
func (a *API) Register(e *echo.Echo) {
	e.GET("/api/spaces/zero-gpu/quota", a.quota)
	a.registerSpaces(e)
}

// Quota is the Hub's shape (huggingface_hub#2842). Seconds; ResetsAt is null before the first use.
type Quota struct {
	Base          int        `json:"base"`
	Current       int        `json:"current"`
	ResetsAt      *time.Time `json:"resetsAt"`
	OverquotaUsed float64    `json:"overquotaUsed"` // paid credits: there are none here
}

func (a *API) quota(c echo.Context) error {
	payer, err := a.config.Identify(c.Request())
	var unknown *people.UnknownTokenError
	if errors.As(err, &unknown) {
		return echo.NewHTTPError(http.StatusUnauthorized, unknown.Error())
	}
	if err != nil {
		return err
	}
	q, err := a.of(c.Request().Context(), payer)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, q)
}

func (a *API) of(ctx context.Context, payer identity.Identity) (Quota, error) {
	tier, err := a.config.TierOf(ctx, payer)
	if err != nil {
		return Quota{}, err
	}
	b, err := a.config.Ledger.Balance(ctx, payer.Key(), tier, a.config.Now())
	if err != nil {
		return Quota{}, err
	}
	if b.Unlimited { // the Hub has no such thing: as much as its numbers hold
		return Quota{Base: math.MaxInt32, Current: math.MaxInt32}, nil
	}
	q := Quota{Base: int(b.Base / time.Second), Current: int(b.Left / time.Second)}
	if b.ResetsAt != nil {
		at := b.ResetsAt.UTC()
		q.ResetsAt = &at
	}
	return q, nil
}
