package views

import (
	"testing"
	"time"

	"spacehost/internal/lease"
)

func TestMaintenance(t *testing.T) {
	now := time.Date(2026, 11, 20, 15, 30, 0, 0, time.FixedZone("CET", 3600))
	at := func(day, hour int) time.Time { return time.Date(2026, 11, day, hour, 0, 0, 0, time.UTC) }
	for want, drains := range map[string][]lease.Drain{
		"": nil,
		"The GPUs of this host are out of service: new fan":                                                   {{Reason: "new fan"}},
		"The GPUs of this host are out of service until 17:00 CET: new fan":                                   {{Reason: "new fan", From: at(20, 14), Until: at(20, 16)}},
		"The GPUs of this host are out of service from 16:00 CET until Nov 21 17:00 CET: new fan;: new power": {{Reason: "new fan", From: at(20, 15), Until: at(21, 16)}, {Reason: "new power"}},
	} {
		if got := Maintenance(drains, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
