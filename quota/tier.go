// Package quota keeps the account: Tier presets, Windows, Holds, Charges.
package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"spacehost/internal/people"
)

// Tier is a class of allowance.
type Tier struct {
	Name          string
	Quota         time.Duration // GPU time in one Window
	Longest       time.Duration // of one call; 0 means the whole quota
	Unlimited     bool          // never refused, recorded all the same
	Authenticated string        // the word for X-Authenticated: "", "regular" or "pro"
	Priority      int           // in the line for a Device, higher first
	Concurrency   int           // Leases at once of one identity, over all Spaces; 0: as many as there are places
}

// For is the tier as a person has it of whom something else was said than of the others in it.
func (t Tier) For(own people.Overrides) Tier {
	if own.Quota != nil {
		t.Quota, t.Unlimited = *own.Quota, false
	}
	if own.Longest != nil {
		t.Longest = *own.Longest
	}
	if own.Priority != nil {
		t.Priority = *own.Priority
	}
	if own.Concurrency != nil {
		t.Concurrency = *own.Concurrency
	}
	return t
}

// LongestCall is what one call may ask for, size factor included.
func (t Tier) LongestCall() time.Duration {
	if t.Longest == 0 {
		return t.Quota
	}
	return min(t.Longest, t.Quota)
}

// Tiers are the tiers of one host.
type Tiers struct {
	Preset string // the name of the preset that they come from
	All    []Tier
}

// Get returns the tier of that name; the error lists those that there are.
func (ts Tiers) Get(name string) (Tier, error) {
	i := slices.IndexFunc(ts.All, func(t Tier) bool { return t.Name == name })
	if i < 0 {
		return Tier{}, fmt.Errorf("no tier %q in quota %s, which has: %s", name, ts.Preset, strings.Join(ts.names(), ", "))
	}
	return ts.All[i], nil
}

// Priorities are those of all tiers, some of them more than once.
func (ts Tiers) Priorities() (all []int) {
	for _, t := range ts.All {
		all = append(all, t.Priority)
	}
	return all
}

func (ts Tiers) names() (names []string) {
	for _, t := range ts.All {
		names = append(names, t.Name)
	}
	return names
}

// presets are Hugging Face's tiers by the month in which they were read, since upstream changes them.
var presets = map[string][]Tier{
	"2026-04": {
		{Name: "unauthenticated", Quota: 120 * time.Second},
		{Name: "free", Quota: 210 * time.Second, Authenticated: "regular", Priority: 1},
		{Name: "pro", Quota: 1500 * time.Second, Authenticated: "pro", Priority: 2},
		unlimited,
	},
	"2026-08": {
		{Name: "unauthenticated", Quota: 120 * time.Second},
		{Name: "free", Quota: 300 * time.Second, Authenticated: "regular", Priority: 1},
		{Name: "pro", Quota: 2400 * time.Second, Authenticated: "pro", Priority: 2},
		{Name: "team", Quota: 2400 * time.Second, Authenticated: "pro", Priority: 2},
		{Name: "enterprise", Quota: 3600 * time.Second, Authenticated: "pro", Priority: 2},
		unlimited,
	},
}

// unlimited is ours: upstream has nothing like it. It is as early in the line as those who pay.
var unlimited = Tier{Name: "unlimited", Unlimited: true, Authenticated: "pro", Priority: 2}

// Presets returns a copy of the preset of that name, for the caller to alter; the error lists those that there are.
func Presets(name string) (Tiers, error) {
	tiers, ok := presets[name]
	if !ok {
		known := slices.Sorted(maps.Keys(presets))
		return Tiers{}, fmt.Errorf("no quota preset %q, known are: %s", name, strings.Join(known, ", "))
	}
	return Tiers{Preset: name, All: slices.Clone(tiers)}, nil
}

// With returns ts with own tiers beside them; one of the same name stands in the place of the preset's.
func (ts Tiers) With(own ...Tier) Tiers {
	ts.All = slices.Clone(ts.All)
	for _, tier := range own {
		if i := slices.IndexFunc(ts.All, func(t Tier) bool { return t.Name == tier.Name }); i >= 0 {
			ts.All[i] = tier
		} else {
			ts.All = append(ts.All, tier)
		}
	}
	return ts
}

// Factor is how many seconds of quota a second of that size costs. A size that it does not know has 0, which Hold
// refuses. A call that names no size asks for large.
func Factor(size string) int {
	switch size {
	case "", "large":
		return 1
	case "xlarge":
		return 2
	}
	return 0
}
