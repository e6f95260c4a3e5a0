package config

import (
	"testing"
	"time"
)

func TestParseKeep(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "36h": 36 * time.Hour, "forever": 0, "0": 0,
		"": -1, "d": -1, "-3d": -1, "12h": -1, "99999999999d": -1, "3 d": -1, "1.5d": -1, "soon": -1,
	} {
		if got, err := parseKeep(text); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}
