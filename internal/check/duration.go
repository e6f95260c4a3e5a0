package check

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// DurationLimits are the numbers with which a declared duration is compared. The caller takes them from quota and from the
// hardware, which own them.
type DurationLimits struct {
	Preset   string      // the name of the quota preset
	Tiers    []TierLimit // in ascending order
	Tier     string      // the name of the tier of the check; its refusal is a warning, that of others a remark
	Hardware string      // the name of the GPU
	// Factor multiplies the seconds of all sizes except xlarge (spaces 0.51.3, zero/client.py, get_duration_seconds).
	Factor float64
	// SizeFactor returns the seconds of quota that one second of a size costs, 0 for an unknown size.
	SizeFactor func(size string) int
}

// TierLimit is the longest call of a tier in seconds of quota.
type TierLimit struct {
	Name      string
	Seconds   float64
	Unlimited bool
}

// DurationFacts returns a Fact for each GPU function whose declared duration a tier refuses: H401 for a number, H407 for a
// duration function at the bounds of its inputs. Functions whose duration is unknown have none.
func DurationFacts(functions []GPUFunction, limits DurationLimits) (facts []Fact) {
	for _, f := range functions {
		switch {
		case f.Duration == "fixed":
			facts = append(facts, limits.compare(f, f.Seconds, "H401", nil)...)
		case f.Longest != nil:
			facts = append(facts, limits.compare(f, f.Longest.Seconds, "H407", f.Longest.Inputs)...)
		}
	}
	return facts
}

// compare returns the Fact about one duration, or none if every tier accepts it.
func (l DurationLimits) compare(f GPUFunction, declared float64, rule string, inputs map[string]string) []Fact {
	requested, text := l.requested(declared, f.Size)
	refusing, names, accepted := TierLimit{}, []string{}, []string{}
	for _, tier := range l.Tiers {
		if tier.Unlimited || requested <= tier.Seconds {
			accepted = append(accepted, tier.Name)
			continue
		}
		names = append(names, fmt.Sprintf("%s (%g s)", tier.Name, tier.Seconds))
		if refusing.Name == "" || tier.Name == l.Tier {
			refusing = tier
		}
	}
	if refusing.Name == "" {
		return nil
	}
	fact := Fact{Rule: rule, Values: map[string]string{
		"function": f.Name, "seconds": trim(declared), "requested": trim(requested), "factor": text, "tier": refusing.Name,
		"limit": trim(refusing.Seconds), "preset": l.Preset, "refused": strings.Join(names, ", "),
		"accepted": cmp.Or(strings.Join(accepted, ", "), "no tier"), "inputs": cmp.Or(inputsText(inputs), "the usual inputs"),
	}}
	fact.File, fact.Line = f.Place()
	if refusing.Name != l.Tier {
		fact.Severity = Info
	}
	return []Fact{fact}
}

// requested returns what /schedule costs for a declared number of seconds, and how it comes about, with a space at its end.
func (l DurationLimits) requested(declared float64, size string) (seconds float64, text string) {
	whole := math.Mod(math.Floor(declared), 86400) // timedelta.seconds
	var parts []string
	if size != "xlarge" && l.Factor != 1 {
		whole = math.RoundToEven(whole * l.Factor)
		parts = append(parts, fmt.Sprintf("%g times the seconds on an %s", l.Factor, l.Hardware))
	}
	if factor := l.SizeFactor(size); factor > 1 {
		whole *= float64(factor)
		parts = append(parts, fmt.Sprintf("%d times the seconds for size %s", factor, size))
	}
	if len(parts) == 0 {
		return whole, ""
	}
	return whole, "with " + strings.Join(parts, " and ") + ", "
}

func trim(seconds float64) string { return fmt.Sprintf("%g", math.Round(seconds*100)/100) }

// inputsText lists inputs by name.
func inputsText(inputs map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		parts = append(parts, name+"="+inputs[name])
	}
	return strings.Join(parts, ", ")
}
