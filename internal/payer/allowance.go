package payer

import (
	"context"

	"spacehost/internal/identity"
	"spacehost/quota"
)

// Allowance returns the allowance of a payer whose Tier is known: the tier, with the user's overrides applied. Runs are limited
// for visitors only: no report names a limit for what a Space does outside of requests.
func (r *Rule) Allowance(ctx context.Context, payer identity.Identity) (quota.Tier, error) {
	tier, err := r.tiers.Load().Get(payer.Tier)
	if err != nil {
		return tier, err
	}
	own, err := r.config.People.OverridesOf(ctx, payer)
	tier = tier.For(own)
	switch {
	case payer.Kind == identity.Space:
		tier.Runs = 0
	case payer.Kind == identity.Local:
		tier.RunsAdvisory = r.config.AdvisoryRuns
	}
	return tier, err
}

// CurrentAllowance returns the allowance that an account has now, whichever tier the Identity names.
func (r *Rule) CurrentAllowance(ctx context.Context, payer identity.Identity) (quota.Tier, error) {
	tier, err := r.currentTier(ctx, payer)
	if err != nil {
		return tier, err
	}
	payer.Tier = tier.Name
	return r.Allowance(ctx, payer)
}

// currentTier returns the tier that an account has now. Tiers are not stored with accounts of addresses and Spaces.
func (r *Rule) currentTier(ctx context.Context, payer identity.Identity) (quota.Tier, error) {
	switch payer.Kind {
	case identity.Local:
		return r.tiers.Load().Get(r.config.LocalTier)
	case identity.Address:
		return r.tiers.Load().Get("unauthenticated")
	case identity.User:
		person, err := r.config.People.Get(ctx, payer.Name)
		return r.knownTier(person.Tier), err
	}
	return r.tiers.Load().Get("free")
}

// CheckTier returns an error that lists the known tiers if none has that name.
func (r *Rule) CheckTier(name string) error {
	_, err := r.tiers.Load().Get(name)
	return err
}

// knownTier returns a user's tier in the preset of this start. A tier that only the preset of an earlier start had
// counts as free.
func (r *Rule) knownTier(name string) quota.Tier {
	tier, err := r.tiers.Load().Get(name)
	if err != nil {
		tier, _ = r.tiers.Load().Get("free") // every preset has it
	}
	return tier
}

// withTier sets the tier that a signed-in user has now.
func (r *Rule) withTier(user identity.Identity) identity.Identity {
	if user.Kind == identity.Local {
		user.Tier = r.config.LocalTier
		return user
	}
	user.Tier = r.knownTier(user.Tier).Name
	return user
}
