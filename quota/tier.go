package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"spacehost/internal/people"
)

// Tier is a class of users with the same quota and priority.
type Tier struct {
	Name          string
	Quota         time.Duration // GPU time in one Window
	Longest       time.Duration // maximum of one call; 0: the whole quota
	Unlimited     bool          // seconds are never refused; charges are recorded all the same
	Runs          int           // maximum calls that are granted a GPU in any Span; 0: no maximum
	RunsAdvisory  bool          // Runs is reported, and no call is refused by it
	Authenticated string        // value of X-Authenticated: "", "regular" or "pro"
	Priority      int           // of waiting Leases, higher first
	Concurrency   int           // maximum concurrent Leases of one identity in all Spaces; 0: no maximum
}

// For returns the tier with a person's overrides.
func (t Tier) For(own people.Overrides) Tier {
	if own.Quota != nil {
		t.Quota, t.Unlimited = *own.Quota, false
	}
	if own.Longest != nil {
		t.Longest = *own.Longest
	}
	if own.Runs != nil {
		t.Runs = *own.Runs
	}
	if own.Priority != nil {
		t.Priority = *own.Priority
	}
	if own.Concurrency != nil {
		t.Concurrency = *own.Concurrency
	}
	return t
}

// LongestCall returns the maximum of one call, with the size factor included.
func (t Tier) LongestCall() time.Duration {
	if t.Longest == 0 {
		return t.Quota
	}
	return min(t.Longest, t.Quota)
}

// Tiers are the tiers of one host.
type Tiers struct {
	Preset string // the name of their preset
	All    []Tier
}

// Get returns the tier of that name. The error lists the existing tiers.
func (ts Tiers) Get(name string) (Tier, error) {
	i := slices.IndexFunc(ts.All, func(t Tier) bool { return t.Name == name })
	if i < 0 {
		return Tier{}, fmt.Errorf("no tier %q in quota %s, which has: %s", name, ts.Preset, strings.Join(ts.names(), ", "))
	}
	return ts.All[i], nil
}

// Priorities returns the priorities of all tiers, with duplicates.
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

// NewestPreset is the preset of the newest month, the default.
const NewestPreset = "2026-10"

// presets are Hugging Face's tiers by the month in which they were read, because upstream changes them.
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
	// Seconds: the documentation of 2026-07-21 (huggingface.co/docs/hub/spaces-zerogpu). Runs: the Hub's quota answer has them
	// since 2026-06-25 (OpenAPI), without documented numbers, and omits them for callers without a limit.
	"2026-10": {
		{Name: "unauthenticated", Quota: 120 * time.Second, Runs: 2},                             // runs: measured by users
		{Name: "free", Quota: 300 * time.Second, Runs: 8, Authenticated: "regular", Priority: 1}, // runs: measured by users ("8 runs is the binding limit")
		{Name: "pro", Quota: 2400 * time.Second, Authenticated: "pro", Priority: 2},              // runs: no report of a limit, here and below
		{Name: "team", Quota: 2400 * time.Second, Authenticated: "pro", Priority: 2},
		{Name: "enterprise", Quota: 3600 * time.Second, Authenticated: "pro", Priority: 2},
		unlimited,
	},
}

// unlimited is a tier of spacehost, without a counterpart upstream. Its priority is that of paying users.
var unlimited = Tier{Name: "unlimited", Unlimited: true, Authenticated: "pro", Priority: 2}

// Presets returns a copy of the preset of that name, which the caller may change. The error lists the existing presets.
func Presets(name string) (Tiers, error) {
	tiers, ok := presets[name]
	if !ok {
		known := slices.Sorted(maps.Keys(presets))
		return Tiers{}, fmt.Errorf("no quota preset %q, known are: %s", name, strings.Join(known, ", "))
	}
	return Tiers{Preset: name, All: slices.Clone(tiers)}, nil
}

// With returns ts with additional tiers. A tier of the same name replaces that of the preset.
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

// Factor returns the seconds of quota that one second of a size costs. An unknown size has factor 0, which Hold refuses.
// An empty size means large.
func Factor(size string) int {
	switch size {
	case "", "large":
		return 1
	case "xlarge":
		return 2
	}
	return 0
}
