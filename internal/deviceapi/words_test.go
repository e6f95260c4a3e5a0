package deviceapi

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/lease"
	"spacehost/quota"
)

// withRuns has four Slots, and gives the tiers of 2026-10 other limits of runs.
func withRuns(t *testing.T) *harness {
	t.Helper()
	h := newHarness(t, func(c *lease.Config) {
		pool, err := gpu.NewPool(t.Context(), gputest.NewFakeInventory(gputest.Devices(8)...), 1)
		if err != nil {
			t.Fatal(err)
		}
		c.Machine.(*lease.Local).Pool = pool
	})
	tiers, err := quota.Presets("2026-10")
	if err != nil {
		t.Fatal(err)
	}
	h.host.tiers = tiers.With(quota.Tier{Name: "free", Quota: 300 * time.Second, Runs: 2, Authenticated: "regular"})
	h.api.times = shortTimings
	h.listen()
	return h
}

const (
	toPro   = "Subscribe to Hugging Face PRO to get 40 min of ZeroGPU quota a day - https://huggingface.co/subscribe/pro?from=ZeroGPU"
	toLogin = "Authenticate with a Hugging Face token for more quota - https://huggingface.co/settings/tokens"
	runsOut = "ZeroGPU quota exceeded: You have exceeded your ZeroGPU runs limit. "
)

// TestWordsOfRunsAndCredits: the headers select the words of the real client.
func TestWordsOfRunsAndCredits(t *testing.T) {
	interpreter := interpreter(t)
	h := withRuns(t)
	ada, cy, pro := h.token("ada", "free", "event-ada"), h.token("cy", "unauthenticated", "event-cy"), h.token("pia", "pro", "event-pia")
	if err := quota.New(h.db, quota.Config{}).Credit(t.Context(), quota.Adjustment{Identity: "user:pia", Amount: 100 * time.Second, By: "operator"}); err != nil {
		t.Fatal(err)
	}
	requests := []struct{ seconds, token, want string }{
		{"60", ada, "granted"}, {"300", ada, "ZeroGPU quota exceeded: You have exceeded your free ZeroGPU quota (300s requested vs. 240s left). Try again in "},
		{"60", ada, "granted"}, {"1", ada, runsOut + toPro},
		{"10", cy, "granted"}, {"10", cy, "granted"}, {"1", cy, runsOut + toLogin},
		{"2400", pro, "granted"}, {"90", pro, "granted"},
		{"20", pro, "ZeroGPU pending credits exceeded: You have too many ZeroGPU credits allocated to running tasks. Try again once some of those tasks have completed."},
		{"300", pro, "ZeroGPU quota exceeded: You have exceeded your Pro ZeroGPU quota (300s requested vs. 10s left). Try again in "},
	}
	args := []string{"testdata/words.py"}
	for _, r := range requests {
		args = append(args, r.seconds, r.token)
	}
	command := python(t, interpreter, "", args...)
	command.Env = append(command.Env, "SPACES_ZERO_DEVICE_API_URL="+h.server.URL+h.path)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	if len(lines) != len(requests) {
		t.Fatalf("got %d lines, want %d:\n%s", len(lines), len(requests), output)
	}
	for i, r := range requests {
		if !strings.HasPrefix(lines[i], r.want) {
			t.Errorf("request %d for %s s: got %q, want %q", i, r.seconds, lines[i], r.want)
		}
	}
}

// TestRunsOnTheWire: a refusal counts nothing, an advisory limit refuses nothing, and a Space without a token has its own account.
func TestRunsOnTheWire(t *testing.T) {
	h := withRuns(t)
	free, err := h.host.tiers.Get("free")
	if err != nil {
		t.Fatal(err)
	}
	ask := func() answer {
		return h.post("/schedule", "token", h.token("ada", "free", "event-ada"), "durationSeconds", "10")
	}
	h.wantRefusal(h.post("/schedule", "token", h.token("ada", "free", "event-ada"), "durationSeconds", "301"), free, "illegal-duration", `{"left":300,"wait":-1}`)
	for range 2 {
		if a := ask(); a.status != http.StatusOK {
			t.Fatalf("got %d %s, want a grant", a.status, a.body)
		}
	}
	for range 3 {
		h.wantRefusal(ask(), free, "runs-exceeded", fmt.Sprintf(`{"left":%d,"wait":0}`, 280))
	}
	free.RunsAdvisory = true
	h.host.tiers = h.host.tiers.With(free)
	if a := ask(); a.status != http.StatusOK || h.host.runsOver.Load() != 1 {
		t.Errorf("an advisory limit: got %d, and %d reports", a.status, h.host.runsOver.Load())
	}
}
