package check

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
)

func limits(preset, tier string, factor float64) DurationLimits {
	tiers := map[string][]TierLimit{
		"2026-04": {{Name: "unauthenticated", Seconds: 120}, {Name: "free", Seconds: 210}, {Name: "pro", Seconds: 1500}, {Name: "unlimited", Unlimited: true}},
		"2026-08": {{Name: "unauthenticated", Seconds: 120}, {Name: "free", Seconds: 300}, {Name: "pro", Seconds: 2400}, {Name: "unlimited", Unlimited: true}},
	}
	return DurationLimits{Preset: preset, Tiers: tiers[preset], Tier: tier, Hardware: "RTX PRO 6000", Factor: factor, SizeFactor: func(size string) int {
		return map[string]int{"": 1, "large": 1, "xlarge": 2}[size]
	}}
}

func TestDurationFacts(t *testing.T) {
	for _, row := range []struct {
		space  string
		limits DurationLimits
		want   string // rule, line, severity, seconds, requested, tier, refused, accepted, inputs
	}{
		{"H-300-free", limits("2026-04", "free", 1), "H401 4  300 300 free [unauthenticated (120 s), free (210 s)] [pro, unlimited] "},
		{"H-300-free", limits("2026-04", "pro", 1), "H401 4 info 300 300 unauthenticated [unauthenticated (120 s), free (210 s)] [pro, unlimited] "},
		{"H-300-free", limits("2026-08", "free", 1), "H401 4 info 300 300 unauthenticated [unauthenticated (120 s)] [free, pro, unlimited] "},
		{"H-300-free", limits("2026-08", "free", 1.5), "H401 4  300 450 free [unauthenticated (120 s), free (300 s)] [pro, unlimited] "},
		{"H-xlarge-180", limits("2026-04", "free", 1.5), "H401 4  180 360 free [unauthenticated (120 s), free (210 s)] [pro, unlimited] "},
		{"H-dynamic-too-long", limits("2026-04", "free", 1), "H407 7  375 375 free [unauthenticated (120 s), free (210 s)] [pro, unlimited] steps=100"},
		{"C-three-images", limits("2026-04", "free", 1.5), ""},
		{"H-string-duration", limits("2026-04", "free", 1), ""},
	} {
		out := read(t, filepath.Join("testdata", "spaces", row.space))
		got := ""
		for _, f := range DurationFacts(out.Inventory.GPUFunctions, row.limits) {
			v := f.Values
			if f.Rule == "H401" {
				v["inputs"] = "" // a fixed duration depends on none
			}
			got += fmt.Sprintf("%s %d %s %s %s %s [%s] [%s] %s", f.Rule, f.Line, f.Severity, v["seconds"], v["requested"], v["tier"], v["refused"], v["accepted"], v["inputs"])
		}
		if got != row.want {
			t.Errorf("%s, %s: got %q, want %q", row.space, row.limits.Preset, got, row.want)
		}
	}
}

// TestDurationWords checks the sentence of H-300-free.
func TestDurationWords(t *testing.T) {
	out := read(t, filepath.Join("testdata", "spaces", "H-300-free"))
	var report Report
	if err := report.Add(StageRead, DurationFacts(out.Inventory.GPUFunctions, limits("2026-04", "free", 1.5))...); err != nil {
		t.Fatal(err)
	}
	want := `run declares 300 s; with 1.5 times the seconds on an RTX PRO 6000, that is 450 s of quota. ZeroGPU refuses the call for these tiers: unauthenticated (120 s), free (210 s) (quota 2026-04): "The requested GPU duration is larger than the maximum allowed". Accepted for: pro, unlimited.`
	if len(report.Findings) != 1 || report.Findings[0].Text != want || report.Findings[0].Severity != Warning {
		t.Errorf("got %+v, want %s", report.Findings, want)
	}
	if rules := Rules(); !slices.ContainsFunc(rules, func(r Rule) bool { return r.ID == "H401" }) {
		t.Error("no page of H401")
	}
}
