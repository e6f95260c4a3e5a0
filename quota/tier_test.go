package quota

import (
	"strings"
	"testing"
	"time"
)

func TestPresets(t *testing.T) {
	for preset, seconds := range map[string]map[string]int{
		"2026-04": {"unauthenticated": 120, "free": 210, "pro": 1500},
		"2026-08": {"unauthenticated": 120, "free": 300, "pro": 2400, "team": 2400, "enterprise": 3600},
		"2026-10": {"unauthenticated": 120, "free": 300, "pro": 2400, "team": 2400, "enterprise": 3600},
	} {
		tiers, err := Presets(preset)
		if err != nil || len(tiers.All) != len(seconds)+1 {
			t.Fatalf("Presets(%s): got %v (%v), want %d tiers and unlimited", preset, tiers, err, len(seconds))
		}
		for name, want := range seconds {
			tier, err := tiers.Get(name)
			runs := 0
			if preset == "2026-10" {
				runs = map[string]int{"unauthenticated": 2, "free": 8}[name]
			}
			if err != nil || tier.Quota != time.Duration(want)*time.Second || tier.Unlimited || tier.Runs != runs {
				t.Errorf("%s in %s: got %+v (%v), want %d s and %d runs", name, preset, tier, err, want, runs)
			}
		}
		if tier, err := tiers.Get("unlimited"); err != nil || !tier.Unlimited {
			t.Errorf("unlimited in %s: got %+v (%v)", preset, tier, err)
		}
	}
}

func TestPresetsAreCopies(t *testing.T) {
	mine, _ := Presets("2026-04")
	mine.All[0].Quota = time.Hour
	fresh, _ := Presets("2026-04")
	if fresh.All[0].Quota != 120*time.Second {
		t.Errorf("a caller's change reached the preset: %v", fresh.All[0])
	}
}

func TestOwnTiersReplacePresets(t *testing.T) {
	preset, _ := Presets("2026-04")
	mine := preset.With(Tier{Name: "student", Quota: time.Minute}, Tier{Name: "free", Quota: time.Hour})
	student, err := mine.Get("student")
	free, _ := mine.Get("free")
	if err != nil || student.Quota != time.Minute || free.Quota != time.Hour || len(mine.All) != len(preset.All)+1 {
		t.Errorf("got %+v (%v)", mine.All, err)
	}
	if was, _ := preset.Get("free"); was.Quota != 210*time.Second {
		t.Errorf("the preset was changed: %+v", was)
	}
}

func TestUnknownNamesListKnownOnes(t *testing.T) {
	if _, err := Presets("2025"); err == nil || !strings.Contains(err.Error(), "2026-04, 2026-08, 2026-10") {
		t.Errorf("Presets: got %v, want the known ones", err)
	}
	tiers, _ := Presets("2026-04")
	if _, err := tiers.Get("team"); err == nil || !strings.Contains(err.Error(), "unauthenticated, free, pro, unlimited") {
		t.Errorf("Get: got %v, want the tiers of 2026-04", err)
	}
}

func TestLongestCall(t *testing.T) {
	for _, row := range []struct {
		tier Tier
		want time.Duration
	}{
		{Tier{Quota: 210 * time.Second}, 210 * time.Second},
		{Tier{Quota: 210 * time.Second, Longest: 60 * time.Second}, 60 * time.Second},
		{Tier{Quota: 210 * time.Second, Longest: time.Hour}, 210 * time.Second},
	} {
		if got := row.tier.LongestCall(); got != row.want {
			t.Errorf("%+v: got %v, want %v", row.tier, got, row.want)
		}
	}
}

func TestFactor(t *testing.T) {
	for size, want := range map[string]int{"": 1, "large": 1, "xlarge": 2, "huge": 0, "XLARGE": 0} {
		if got := Factor(size); got != want {
			t.Errorf("Factor(%q): got %d, want %d", size, got, want)
		}
	}
}
