package main

import (
	"strings"
	"testing"

	"spacehost/internal/lease"
)

// TestTwoSpacesShareCallersAndGPUs runs two Spaces at their own addresses. A caller has one balance, and the host one scheduler.
func TestTwoSpacesShareCallersAndGPUs(t *testing.T) {
	t.Parallel()
	p := runProduct(t, leasesDir, sampleDir)
	if len(p.Spaces) != 2 || p.Spaces[0].Name != "leases" || p.Spaces[1].Name != "hello-zerogpu" || p.Spaces[0].URL != p.URL {
		t.Fatalf("ready line: %+v", p.ReadyLine)
	}
	first, second := p.client(), p.clientAt(p.Spaces[1].URL)
	k := first.submit("/five", 2)
	awaitActive(t, p)
	waits := second.submit("/greet", "two")
	eventually(t, "the other Space's call waits for the one GPU", patience, func() bool { return states(p.leases())[lease.Waiting] == 1 })
	if r := k.wait(); r.Failed {
		t.Errorf("first Space: %s", r.Err)
	}
	if r := waits.wait(); r.Failed || !strings.HasPrefix(text(r.Value), "Hello two, from GPU-") {
		t.Errorf("second Space: %s %s", r.Value, r.Err)
	}
	ended := p.leases().Ended
	if len(ended) != 2 || ended[0].Space != "hello-zerogpu" || ended[1].Space != "leases" || ended[0].Identity != ended[1].Identity {
		t.Errorf("ended leases: %+v", ended)
	}
	if b := p.balance(); b.ChargedSeconds < 2 || b.ChargedSeconds > 30 || b.HeldSeconds != 0 {
		t.Errorf("balance: %+v", b)
	}
	if spaces := p.health().Spaces; len(spaces) != 2 || spaces[0].PID == spaces[1].PID {
		t.Errorf("health: %+v", spaces)
	}
}
