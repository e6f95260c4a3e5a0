package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"spacehost/internal/cli"
	"spacehost/internal/lease"
	"spacehost/internal/views"
)

// These tests replay quota cases that users of ZeroGPU report, with the real packages and the exact messages. Advancing the clock
// uses up each minute of GPU time at once.

// TestThreeCallsOfAMinuteLeaveThirtySeconds makes three calls of a minute with a quota of 210 s. A fourth is refused at once on any
// number of Devices, and still after the three have used their minutes.
func TestThreeCallsOfAMinuteLeaveThirtySeconds(t *testing.T) {
	t.Parallel()
	for _, devices := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(devices, " Devices"), func(t *testing.T) {
			p := runProduct(t, leasesDir, "--gpus", fmt.Sprintf("mock:%dxH200", devices), "--queue-timeout", "10m")
			c := p.client()
			calls := []call{c.submit("/minute", 300), c.submit("/minute", 300), c.submit("/minute", 300)}
			eventually(t, "three calls have a hold of a minute each", patience, func() bool { return len(p.leases().Open) == 3 })
			if q := p.hubQuota(); q.Base != 210 || q.Current != 30 {
				t.Errorf("quota during three calls: %+v, want 30 s of 210", q)
			}
			want := "You have exceeded your free ZeroGPU quota (60s requested vs. 30s left). Try again in 0:"
			if r := c.call("/minute", 0); !strings.HasPrefix(r.Err, want) || r.Title != "ZeroGPU quota exceeded" {
				t.Errorf("the fourth call: got %q (%q), want %q...", r.Err, r.Title, want)
			}
			for left := len(calls); left > 0; left -= min(left, devices) {
				eventually(t, "the required number of Devices is in use", patience, func() bool {
					return states(p.leases())[lease.Active] == min(left, devices)
				})
				if code, _, stderr := p.cli("clock", "advance", "63s"); code != 0 {
					t.Fatal(stderr)
				}
				eventually(t, "the leases of these calls have ended", patience, func() bool { return len(p.leases().Ended) == len(calls)-left+min(left, devices) })
			}
			for _, k := range calls {
				if r := k.wait(); r.Err != "GPU task aborted" {
					t.Errorf("a call after its minute: error %q, value %s; want it aborted", r.Err, r.Value)
				}
			}
			if b := p.balance(); b.ChargedSeconds != 180 || b.HeldSeconds != 0 || b.LeftSeconds != 30 {
				t.Errorf("balance after the calls: %+v, want 30 s left", b)
			}
			want = "You have exceeded your free ZeroGPU quota (60s requested vs. 30s left). Try again in 23:5"
			if r := c.call("/minute", 0); !strings.HasPrefix(r.Err, want) {
				t.Errorf("a call after them: got %q, want %q...", r.Err, want)
			}
		})
	}
}

// TestCostAndMaximumDuration checks that 45 s of xlarge cost 90 s, and that 300 s exceed a free user's maximum but not a pro user's.
// A refused user can read the reason with their own token.
func TestCostAndMaximumDuration(t *testing.T) {
	t.Parallel()
	p := runProduct(t, leasesDir)
	c := p.client()
	k := c.submit("/whole_45", 300)
	awaitActive(t, p)
	if b := p.balance(); b.HeldSeconds != 90 || b.LeftSeconds != 120 {
		t.Errorf("balance during 45 s of xlarge: %+v, want 90 s held", b)
	}
	p.advance("48s", "48s")
	if r := k.wait(); r.Err != "GPU task aborted" {
		t.Errorf("a call after its 45 s: error %q, value %s; want it aborted", r.Err, r.Value)
	}
	if b := p.balance(); b.ChargedSeconds != 90 || b.HeldSeconds != 0 {
		t.Errorf("balance after 45 s of xlarge: %+v, want 90 s charged", b)
	}

	illegal := c.call("/too_long")
	if want := "The requested GPU duration (300s) is larger than the maximum allowed"; !strings.HasPrefix(illegal.Err, want) || illegal.Title != "ZeroGPU illegal duration" {
		t.Errorf("300 s as a free user: got %q (%q), want %q...", illegal.Err, illegal.Title, want)
	}
	if want := "maximum allowed. Subscribe to Hugging Face PRO"; !strings.Contains(illegal.Err, want) {
		t.Errorf("300 s as free, by an API client: %q, want %q", illegal.Err, want)
	}
	runCLI(t, p, "user", "add", "pia", "--tier", "pro")
	pia := strings.TrimSpace(runCLI(t, p, "token", "create", "pia"))
	if got := p.clientAs(p.URL, pia).ok("/too_long"); got != "never" {
		t.Errorf("300 s as a pro user: got %q, want never", got)
	}
	checkOwnData(t, p, pia)
	checkAdjustments(t, p)
}

// checkOwnData checks that users can read their own account and no other.
func checkOwnData(t *testing.T, p *product, pia string) {
	t.Helper()
	var local views.Explanation
	if err := json.Unmarshal([]byte(runCLI(t, p, "explain", "local", "--function", "whole_45", "--json")), &local); err != nil {
		t.Fatal(err)
	}
	if len(local.Refusals) != 1 || local.Refusals[0].Identity != "local" || local.Refusals[0].Space != "leases" || local.Refusals[0].Function != "too_long" ||
		local.Refusals[0].Again != nil || local.Refusals[0].Text != "300 s requested, the maximum per call is 210 s; only the calls that a Space makes itself while it starts may be longer, up to 1,500 s on ZeroGPU" {
		t.Errorf("explanation of the refusal of local: %+v", local.Refusals)
	}
	if len(local.Functions) != 1 || *local.Functions[0].Calls != 1 || local.Functions[0].CostSeconds != 90 || !local.Calls[0].Fits {
		t.Errorf("calls that local can still make of whole_45: %+v %+v, want one call of 90 s", local.Functions, local.Calls)
	}
	if len(local.Charges) != 1 || local.Charges[0].Function != "whole_45" || local.Charges[0].DeclaredSeconds != 45 || local.Charges[0].UsedSeconds != 45 || local.Charges[0].ChargedSeconds != 90 {
		t.Errorf("charges of local: %+v", local.Charges)
	}
	hers := readAs[views.Account](t, p.Console+"/api/spacehost/quota", pia)
	if hers.Identity != "user:pia" || hers.BaseSeconds != 1500 || hers.LongestSeconds != 1500 || len(hers.Charges) != 1 || hers.Charges[0].Function != "too_long" || len(hers.Functions) != 8 {
		t.Errorf("account read by pia: %+v", hers)
	}
	for _, line := range readAs[[]views.Entry](t, p.Console+"/api/spacehost/ledger?identity=local", pia) {
		if line.Identity != "user:pia" {
			t.Errorf("pia can read a ledger line of %s", line.Identity)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.Console+"/api/spacehost/ledger", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer sph_"+strings.Repeat("0", 64))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("an unknown token: got %s, want 401", answer.Status)
	}
}

func readAs[T any](t *testing.T, url, token string) T {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return fetchJSON[T](t, r)
}

// checkAdjustments grants and resets quota, and checks that invalid adjustments are refused.
func checkAdjustments(t *testing.T, p *product) {
	t.Helper()
	runCLI(t, p, "quota", "grant", "local", "2m", "--reason", "demo day")
	if b := p.balance(); b.BaseSeconds != 330 || b.LeftSeconds != 240 {
		t.Errorf("balance after a grant of two minutes: %+v", b)
	}
	runCLI(t, p, "quota", "reset", "local")
	if b := p.balance(); b.ChargedSeconds != 0 || b.LeftSeconds != 330 {
		t.Errorf("balance after a reset: %+v", b)
	}
	for _, nonsense := range [][]string{
		{"quota", "reset", "local"}, {"quota", "grant", "local", "0s"}, {"quota", "grant", "local", "20000h"}, {"quota", "grant", "", "5s"},
	} {
		if code, out, stderr := p.cli(nonsense...); code != cli.ExitUsage {
			t.Errorf("%q: exit code %d %s%s", nonsense, code, out, stderr)
		}
	}
	runCLI(t, p, "user", "set", "pia", "--quota", "100s")
	shown := runCLI(t, p, "quota", "pia")
	if !strings.Contains(shown, `left of 100 s in 24 hours`) || !strings.Contains(shown, "One call may declare 100 s at most") {
		t.Errorf("quota of pia after an override:\n%s", shown)
	}
	lines := controlJSON[[]views.Entry](t, p, "/ledger?identity=local")
	if len(lines) != 4 || lines[0].Kind != "reset" || lines[0].ReturnedSeconds != 90 || lines[1].Kind != "grant" || lines[1].Reason != "demo day" || lines[1].By == "" {
		t.Errorf("ledger lines of local: %+v", lines)
	}
}
