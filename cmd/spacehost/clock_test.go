package main

import (
	"strings"
	"testing"
	"time"

	"spacehost/internal/cli"
	"spacehost/internal/lease"
)

func (p *product) advance(by, want string) {
	p.t.Helper()
	if code, out, stderr := p.cli("clock", "advance", by); code != 0 || !strings.HasSuffix(out, ", "+want+" ahead of the true time\n") {
		p.t.Fatalf("clock advance %s: exit code %d, %q, %q; want %s ahead", by, code, out, stderr, want)
	}
}

// TestClockAdvance uses up a day's quota in seconds and advances the clock to the next day.
func TestClockAdvance(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	p := startProduct(t, state, leasesDir, "--tier", "unauthenticated") // 120 s
	p.awaitReady()
	defer p.stop()
	c := p.client()
	for _, ahead := range []string{"1m3s", "2m6s"} { // past the deadline and its grace period
		k := c.submit("/minute", 300)
		awaitActive(t, p)
		p.advance("63s", ahead)
		if r := k.wait(); r.Err != "GPU task aborted" {
			t.Errorf("a call of one minute, a minute later: error %q, value %s; want it aborted", r.Err, r.Value)
		}
	}
	if ended := p.leases().Ended; len(ended) != 2 || ended[0].State != lease.Expired || ended[0].ChargedSeconds != 60 {
		t.Errorf("ended leases: %+v, want two expired ones, charged in full", ended)
	}
	want := "You have exceeded your ZeroGPU quota (60s requested vs. 0s left). Try again in 23:5"
	if r := c.call("/minute", 0); !strings.HasPrefix(r.Err, want) {
		t.Errorf("a call without quota left: got %q, want %q...", r.Err, want)
	}
	p.advance("24h", "24h2m6s")
	if q := p.hubQuota(); q.Current != 120 || q.ResetsAt != nil {
		t.Errorf("quota on the next day: %+v", q)
	}
	if r := c.call("/minute", 0); r.Failed {
		t.Errorf("a call on the next day: %s", r.Err)
	}
	if code, out, _ := p.cli("clock", "--json"); code != 0 || !strings.Contains(out, `"advancedSeconds":86526}`) {
		t.Errorf("spacehost clock --json: exit code %d, %s", code, out)
	}
	if code, out, _ := p.cli("lease"); code != 0 || strings.Contains(out, " in 2") || !strings.Contains(out, "24h0m") {
		t.Errorf("spacehost lease: exit code %d, want ages by the host's clock\n%s", code, out)
	}
	p.stop()
	checkTrueTimeAgain(t, state)
}

// checkTrueTimeAgain starts a host with the true time on a state folder that was written under an advanced clock.
func checkTrueTimeAgain(t *testing.T, state string) {
	t.Helper()
	p := startProduct(t, state, leasesDir, "--tier", "unauthenticated")
	defer p.stop()
	p.awaitReady()
	if !strings.Contains(p.text(), "warning: 1 quota windows started in the future of this clock") {
		t.Error("the start does not warn of quota windows in the future")
	}
	q := p.hubQuota()
	if q.Current < 110 || q.ResetsAt == nil || time.Until(*q.ResetsAt) > 24*time.Hour {
		t.Errorf("quota after the restart: %+v, want what the last call left, and a reset within 24 h", q)
	}
	if code, out, _ := p.cli("clock"); code != 0 || !strings.HasSuffix(out, ", the true time\n") {
		t.Errorf("spacehost clock: exit code %d, %s", code, out)
	}
	p.client().ok("/minute", 0)
}

func TestClockAdvanceRefusals(t *testing.T) {
	p := sample(t)
	for _, tt := range []struct {
		by     string
		stderr string
	}{
		{"tomorrow", `"tomorrow" is not a duration; use a value such as 24h, 90m or 30s`},
		{"-24h", "-24h: negative values are not allowed"},
		{"0s", "the clock only moves ahead"},
		{"9000h", "is not between 1ns and 8784h0m0s"},
		{"", `"" is not a duration`},
	} {
		if code, _, stderr := p.cli("clock", "advance", tt.by); code != cli.ExitUsage || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("clock advance %s: exit code %d, %q; want %d, %q", tt.by, code, stderr, cli.ExitUsage, tt.stderr)
		}
	}
	if code, out, _ := p.cli("clock"); code != 0 || !strings.HasSuffix(out, "the true time\n") {
		t.Errorf("after refusals: exit code %d, %s", code, out)
	}
}
