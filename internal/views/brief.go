package views

import (
	"context"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/people"
)

// Brief is what the page of one Space may know of its payer: what a refusal of a call would tell it too, and the payer's open calls of
// that Space. Calls of other Spaces are left out.
type Brief struct {
	Unlimited     bool       `json:"unlimited"`
	BaseSeconds   float64    `json:"baseSeconds"`   // total of the window, grants included
	LeftSeconds   float64    `json:"leftSeconds"`   // without CreditSeconds
	CreditSeconds float64    `json:"creditSeconds"` // prepaid
	ResetsAt      *time.Time `json:"resetsAt"`      // null before the first use
	Runs          *Runs      `json:"runs,omitempty"`
	Calls         []Open     `json:"calls"`
	Maintenance   string     `json:"maintenance,omitempty"` // as in Account
	Now           time.Time  `json:"now"`
}

// Brief returns the Brief of a payer at a Space. Errors: *people.UnknownPersonError, or of the database.
func (a *Accounts) Brief(ctx context.Context, payer identity.Identity, space string) (Brief, error) {
	now := a.config.Now()
	tier, err := a.config.Payers.CurrentAllowance(ctx, payer)
	if err != nil {
		return Brief{}, err
	}
	b, err := a.config.Ledger.Balance(ctx, payer.Key(), tier, now)
	if err != nil {
		return Brief{}, err
	}
	view := Brief{
		Unlimited: b.Unlimited, BaseSeconds: b.Base.Seconds(), LeftSeconds: b.Left.Seconds(), CreditSeconds: b.Credits.Seconds(), Runs: NewRuns(b.Runs, now),
		Calls:       a.open(Subject{Identity: payer, Limit: people.SpaceLimit{space}}),
		Maintenance: Maintenance(a.config.Broker.Maintenance(0), now), Now: now.UTC(),
	}
	if b.ResetsAt != nil {
		at := b.ResetsAt.UTC()
		view.ResetsAt = &at
	}
	return view, nil
}
