package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spacehost/internal/control"
	"spacehost/internal/views"
	"spacehost/migrations"
)

// hubCLI returns what the real `hf spaces zero-gpu quota` of huggingface_hub prints, with the host as its Hub.
func (p *product) hubCLI(token string) (q struct {
	Remaining     float64    `json:"remaining"`
	Base          float64    `json:"base"`
	ResetsAt      *time.Time `json:"resets_at"`
	OverquotaUsed float64    `json:"overquota_used"`
}) {
	p.t.Helper()
	hf := filepath.Join(filepath.Dir(environment(p.t)), "hf")
	cmd := exec.Command(hf, "spaces", "zero-gpu", "quota", "--format", "json")
	cmd.Env = append(os.Environ(), "HF_ENDPOINT="+p.Console, "HF_HOME="+p.t.TempDir(), "HF_HUB_DISABLE_UPDATE_CHECK=1", "HF_TOKEN="+token)
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &q)
	}
	if err != nil {
		p.t.Fatalf("hf spaces zero-gpu quota: %v\n%s", err, out)
	}
	return q
}

// countedRuns returns the times of the runs in the database, oldest first.
func countedRuns(t *testing.T, state string) (all []time.Time) {
	t.Helper()
	path := filepath.Join(state, "spacehost.db")
	db, err := migrations.OpenReads(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), `SELECT at FROM runs ORDER BY at`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var at int64
		if err := rows.Scan(&at); err != nil {
			t.Fatal(err)
		}
		all = append(all, time.UnixMilli(at))
	}
	if err := migrations.Check(t.Context(), path); err != nil {
		t.Error(err)
	}
	return all
}

const (
	runsExceeded = "You have exceeded your ZeroGPU runs limit. "
	hintForFree  = "Subscribe to Hugging Face PRO to get 40 min of ZeroGPU quota a day - https://huggingface.co/subscribe/pro?from=ZeroGPU"
)

// TestRunsLimit is the case that users report: 300 s of quota, calls of 0.2 s, and the ninth is refused. Every view of the
// account agrees, and each run returns a day after it was counted.
func TestRunsLimit(t *testing.T) { eachLine(t, runsLimit) }

func runsLimit(t *testing.T, line string) {
	p := runOn(t, line, leasesDir, "--quota", "2026-10", "--tier", "free", "--hardware", "h200")
	c := p.client()
	for i := range 8 {
		if i == 3 { // a failed run counts
			if r := c.call("/sometimes", true); r.Err != "as asked for" {
				t.Errorf("a call that fails: %+v", r)
			}
			continue
		}
		if r := c.call("/five", 0.2); r.Failed {
			t.Fatalf("call %d: %s", i+1, r.Err)
		}
	}
	for range 2 { // a refusal counts nothing
		if r := c.call("/five", 0.2); r.Err != runsExceeded+hintForFree || r.Title != "ZeroGPU quota exceeded" {
			t.Errorf("the ninth call reads %q (%q)", r.Err, r.Title)
		}
	}
	at := countedRuns(t, p.State)
	if len(at) != 8 {
		t.Fatalf("%d runs were counted, want 8", len(at))
	}
	p.wantRunsInEveryView(at)
	p.wantEighthRun(at)
}

// wantRunsInEveryView compares the ledger, the account, the list, the Hub's answer and the real CLI of the Hub.
func (p *product) wantRunsInEveryView(at []time.Time) {
	p.t.Helper()
	back := at[0].Add(24 * time.Hour)
	var e views.Explanation
	if err := json.Unmarshal([]byte(runCLI(p.t.(*testing.T), p, "explain", "local", "--function", "five", "--json")), &e); err != nil {
		p.t.Fatal(err)
	}
	if r := e.Runs; r == nil || r.Used != 8 || r.Limit != 8 || r.Remaining != 0 || !r.ResetsAt.Equal(back) || !r.Enforced {
		p.t.Errorf("explain: %+v, want 8 of 8 used, the next back at %s", e.Runs, back)
	}
	if v := e.Calls[0]; v.Fits || !v.At.Equal(back) || v.Why != "8 of 8 runs in 24 hours are used" || *e.Functions[0].Calls != 0 {
		p.t.Errorf("verdict: %+v, %d calls left; want the return of the first run", v, *e.Functions[0].Calls)
	}
	if r := e.Refusals; len(r) != 2 || r[0].Text != "8 of 8 runs in 24 hours are used" {
		p.t.Errorf("refusals: %+v", r)
	}
	runs, charged := 0, 0.0
	for _, line := range controlJSON[[]views.Entry](p.t, p, "/ledger?identity=local") {
		runs, charged = runs+line.Runs, charged+line.ChargedSeconds
	}
	q, cli, b := p.hubQuota(), p.hubCLI(""), p.balance()
	if runs != 8 || q.Runs == nil || q.Runs.Used != 8 || q.Runs.Limit != 8 || q.Runs.Remaining != 0 || !q.Runs.ResetsAt.Equal(back) || b.Runs.Used != 8 {
		p.t.Errorf("the ledger has %d runs, the Hub's answer %+v, the list %+v; want 8 until %s", runs, q.Runs, b.Runs, back)
	}
	if left := int(300 - charged); q.Base != 300 || q.Current != left || cli.Base != 300 || int(cli.Remaining) != left || !cli.ResetsAt.Equal(*q.ResetsAt) || math.Abs(b.LeftSeconds-(300-charged)) > 0.001 {
		p.t.Errorf("%v s charged: the Hub's answer %+v, hf %+v, the list %+v", charged, q, cli, b)
	}
	shown := runCLI(p.t.(*testing.T), p, "quota", "local")
	if want := "0 of 8 runs left in 24 hours; the next returns at " + back.Local().Format("Jan 2 15:04:05.000") + ", in 2"; !strings.Contains(shown, want) {
		p.t.Errorf("quota local: want %q in\n%s", want, shown)
	}
}

// wantEighthRun advances the clock until the last runs return, and watches them: each returns a day after it was counted.
func (p *product) wantEighthRun(at []time.Time) {
	p.t.Helper()
	back := at[7].Add(24 * time.Hour)
	ahead := time.Until(back) - 3*time.Second
	runCLI(p.t.(*testing.T), p, "clock", "advance", ahead.Truncate(time.Millisecond).String())
	now := func() time.Time { return controlJSON[control.Time](p.t, p, "/clock").Now }
	used := func(now time.Time) (n int) {
		for _, counted := range at {
			if counted.Add(24 * time.Hour).After(now) {
				n++
			}
		}
		return n
	}
	if used(now()) == 0 {
		p.t.Errorf("the clock was advanced too far, to %s", now())
	}
	eventually(p.t, "the eighth run returns", 10*time.Second, func() bool {
		before := now()
		q := p.hubQuota()
		if after := now(); q.Runs.Used > used(before) || q.Runs.Used < used(after) || q.Runs.Used > 0 && !q.Runs.ResetsAt.Equal(at[8-q.Runs.Used].Add(24*time.Hour)) {
			p.t.Errorf("between %s and %s: %+v, and runs were counted at %v", before, after, q.Runs, at)
		}
		return q.Runs.Used == 0
	})
	if q := p.hubQuota(); q.Runs.ResetsAt != nil || q.Runs.Remaining != 8 || now().Before(back) {
		p.t.Errorf("after the return of all runs: %+v", q.Runs)
	}
}

// TestAdvisoryRunsWithoutTier: without --tier, one line reports the limit, and calls go on.
func TestAdvisoryRunsWithoutTier(t *testing.T) {
	t.Parallel()
	p := runProduct(t, leasesDir, "--quota", "2026-10")
	c := p.client()
	for i := range 10 {
		if r := c.call("/five", 0); r.Failed {
			t.Fatalf("call %d: %s", i+1, r.Err)
		}
	}
	note := `note: 8 runs in 24 hours are used: a visitor with tier "free" would be refused now (quota preset 2026-10). Calls go on; --tier free refuses them.`
	if n := strings.Count(p.text(), note); n != 1 {
		t.Errorf("the note was printed %d times:\n%s", n, p.text())
	}
	if r := p.balance().Runs; r == nil || r.Used != 10 || r.Remaining != 0 || r.Enforced {
		t.Errorf("runs: %+v", r)
	}
	ben := member(t, p, "ben", "free") // people are not the author
	runCLI(t, p, "user", "set", "ben", "--runs", "1")
	bens := p.clientAs(p.URL, ben)
	bens.ok("/five", 0)
	if r := bens.call("/five", 0); r.Err != runsExceeded+hintForFree {
		t.Errorf("ben's second call: %q", r.Err)
	}
	runCLI(t, p, "quota", "grant", "ben", "--runs", "1")
	bens.ok("/five", 0)
	if r := bens.call("/five", 0); r.Err != runsExceeded+hintForFree {
		t.Errorf("after the grant: %q", r.Err)
	}
	runCLI(t, p, "quota", "reset", "ben")
	bens.ok("/five", 0)
}

// TestCreditsPayBeyondTheQuota with the real clients of Gradio and of the Hub.
func TestCreditsPayBeyondTheQuota(t *testing.T) {
	t.Parallel()
	p := runProduct(t, leasesDir, "--quota", "2026-10", "--hardware", "h200", "--gpus", "mock:2xH200")
	ada := member(t, p, "ada", "pro")
	runCLI(t, p, "user", "set", "ada", "--quota", "6s")
	c := p.clientAs(p.URL, ada)
	c.ok("/five", 2)
	if r := c.call("/five", 0); !strings.HasPrefix(r.Err, "You have exceeded your Pro ZeroGPU quota (5s requested vs. 3s left)") {
		t.Errorf("without credits: %q", r.Err)
	}
	if said := runCLI(t, p, "quota", "credit", "ada", "7s", "--reason", "paid"); said != "user:ada has 7.0 s (7 s) of credits left now.\n" {
		t.Errorf("quota credit: %q", said)
	}
	k := c.submit("/five", 4.5)
	awaitActive(t, p)
	k2 := c.submit("/five", 0.2) // the first holds 2 s of the credits, and this holds 5 s
	k.wait()
	k2.wait()
	k = c.submit("/five", 3)
	awaitActive(t, p)
	if r := c.call("/five", 0); !strings.HasPrefix(r.Err, "You have too many ZeroGPU credits allocated to running tasks.") || r.Title != "ZeroGPU pending credits exceeded" {
		t.Errorf("while credits are held: %q (%q)", r.Err, r.Title)
	}
	k.wait()
	p.wantCredits(ada)
}

// wantCredits compares ada's ledger, account, the Hub's answer and the real CLI of the Hub.
func (p *product) wantCredits(token string) {
	p.t.Helper()
	used, bought := 0.0, 0.0
	for _, line := range controlJSON[[]views.Entry](p.t, p, "/ledger?identity=ada") {
		used += line.CreditChargedSeconds
		if line.Kind == "credit" {
			bought += line.ReturnedSeconds
		}
	}
	r, a := p.hubCLI(token), controlJSON[views.Account](p.t, p, "/account?identity=ada")
	if used <= 0 || bought != 7 || math.Abs(r.OverquotaUsed-used) > 0.0005 || math.Abs(a.CreditSeconds-(bought-used)) > 0.0005 || a.CreditHeldSeconds != 0 {
		p.t.Errorf("%v s of %v used in the ledger; hf: %+v, account: %+v", used, bought, r, a)
	}
	if shown := runCLI(p.t.(*testing.T), p, "quota", "ada"); !strings.Contains(shown, fmt.Sprintf("Credits beyond the quota: %.1f s", bought-used)) {
		p.t.Errorf("quota ada:\n%s", shown)
	}
}

// TestRunsSurviveAKill: the host is killed while a call runs. The run is neither lost nor counted twice.
func TestRunsSurviveAKill(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	args := []string{"--quota", "2026-10", "--tier", "unauthenticated"}
	p := startProduct(t, state, leasesDir, args...)
	p.awaitReady()
	c := p.client()
	c.ok("/five", 0)
	c.submit("/five", 4)
	awaitActive(t, p)
	before := countedRuns(t, state)
	p.kill()
	p = startProduct(t, state, leasesDir, args...)
	defer p.stop()
	p.awaitReady()
	after := countedRuns(t, state)
	if len(before) != 2 || len(after) != 2 || !after[0].Equal(before[0]) || !after[1].Equal(before[1]) {
		t.Errorf("runs before the kill %v, after it %v; want the same two", before, after)
	}
	if r := p.client().call("/five", 0); !strings.HasPrefix(r.Err, runsExceeded+"Authenticate with a Hugging Face token for more quota - ") {
		t.Errorf("the third call: %q", r.Err)
	}
}
