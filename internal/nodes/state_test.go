package nodes

import (
	"strings"
	"testing"
	"time"

	"spacehost/internal/link"
)

// TestStateAt covers each state, with and without a connection since the start of the host.
func TestStateAt(t *testing.T) {
	minute := noon.Add(time.Minute)
	for _, row := range []struct {
		what    string
		node    Node
		reached Reached
		now     time.Time
		want    State
		seen    time.Time
	}{
		{"before the first connection", Node{}, Reached{}, noon, Joined, time.Time{}},
		{"connected", Node{SeenAt: noon}, Reached{Connected, minute}, minute, Connected, minute},
		{"late", Node{SeenAt: noon}, Reached{Suspect, minute}, minute, Suspect, minute},
		{"lost", Node{SeenAt: noon}, Reached{Lost, minute}, minute.Add(time.Hour), Lost, minute},
		{"the host has just started", Node{SeenAt: noon}, Reached{}, noon.Add(link.LostAfter - 1), Suspect, noon},
		{"away since the start of the host", Node{SeenAt: noon}, Reached{}, noon.Add(link.LostAfter), Lost, noon},
		{"revoked", Node{SeenAt: noon, RevokedAt: noon}, Reached{Suspect, minute}, minute, Revoked, minute},
	} {
		if got, seen := row.node.StateAt(row.now, row.reached); got != row.want || !seen.Equal(row.seen) {
			t.Errorf("%s: %s, seen at %s; want %s, %s", row.what, got, seen, row.want, row.seen)
		}
	}
}

// TestLeavingCheck: what a node reports about its end is bounded.
func TestLeavingCheck(t *testing.T) {
	for _, row := range []struct {
		leaving Leaving
		want    bool
	}{
		{Leaving{LeftMillis: 60_000, Draining: true, Why: "job 4711 ends"}, true},
		{Leaving{}, true},
		{Leaving{LeftMillis: MaxLeft.Milliseconds()}, true},
		{Leaving{LeftMillis: -1}, false},
		{Leaving{LeftMillis: MaxLeft.Milliseconds() + 1}, false},
		{Leaving{Why: "a\x1b[2J"}, false},
		{Leaving{Why: "\xff"}, false},
		{Leaving{Why: strings.Repeat("x", maxText+1)}, false},
	} {
		if got := row.leaving.Check() == nil; got != row.want {
			t.Errorf("%+v: accepted %v, want %v", row.leaving, got, row.want)
		}
		if got := (Hello{Leaving: &row.leaving}).Check() == nil; got != row.want {
			t.Errorf("a hello with %+v: accepted %v, want %v", row.leaving, got, row.want)
		}
	}
}
