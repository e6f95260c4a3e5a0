package deviceapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/quota"
)

var routes = []struct{ method, call string }{
	{http.MethodPost, "/startup-report"}, {http.MethodPost, "/schedule"}, {http.MethodPost, "/allow"},
	{http.MethodPost, "/release"}, {http.MethodGet, "/queue-size"},
}

func TestDoorNeedsItsSecret(t *testing.T) {
	h := listening(t)
	closed := h.open("demo", "run-2")
	h.api.Close("run-2")
	for _, r := range routes {
		for what, path := range map[string]string{
			"a wrong secret": "/d/0123456789abcdef0123456789abcdef", "a part of it": h.path[:len(h.path)-1],
			"no secret": "/d/", "no Door at all": "", "a closed Door": closed,
		} {
			if a := h.call(r.method, path+r.call, nil); a.status != http.StatusNotFound {
				t.Errorf("%s with %s: got %d, want 404", r.call, what, a.status)
			}
		}
	}
	if a := h.post("/startup-report"); a.status != http.StatusOK {
		t.Errorf("/startup-report: got %d, want 200", a.status)
	}
	if n := h.broker.Waiting() + len(h.broker.List()); n != 0 {
		t.Errorf("got %d leases from refused calls", n)
	}
}

func TestBrowsersAreRefused(t *testing.T) {
	h := listening(t)
	for _, r := range routes {
		for _, header := range [][2]string{
			{"Origin", "http://evil.test"}, {"Origin", "null"}, {"Origin", h.server.URL},
			{"Sec-Fetch-Mode", "no-cors"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "none"},
		} {
			a := h.call(r.method, h.path+r.call, nil, header[0], header[1])
			if a.status != http.StatusForbidden || a.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s with %s: got %d %v, want 403", r.call, header, a.status, a.header)
			}
		}
	}
	if n := len(h.broker.List()); n != 0 {
		t.Errorf("got %d leases from refused calls", n)
	}
}

var grantedAnswer = regexp.MustCompile(`^\{"idle":false,"nvidiaIndex":0,"nvidiaUUID":"GPU-fake-0","allowToken":"[0-9a-f]{32}"\}\n?$`)

func TestScheduleAtOnce(t *testing.T) {
	h := newHarness(t)
	h.api.times.soon = 10 * time.Second
	h.listen()
	a := h.post("/schedule", "token", h.token("ada", "free", "event-1"), "cgroupPath", "/spacehost/demo/1",
		"taskId", "140000000000001", "enableQueue", "true", "tokenVersion", "2", "durationSeconds", "60", "gpuSize", "large")
	if a.status != http.StatusOK || !grantedAnswer.MatchString(a.body) {
		t.Errorf("got %d %q", a.status, a.body)
	}
	for header, want := range map[string]string{
		"Content-Type": "application/json", headerApproveResult: "approved", headerAuthenticated: "regular", headerQueuingReason: "",
	} {
		if got := a.header.Get(header); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	if open := h.broker.List(); len(open) != 1 || open[0].Identity != "user:ada" || open[0].Event != "event-1" || open[0].DeclaredSeconds != 60 {
		t.Errorf("got %+v, want a minute for Ada's event", open)
	}
}

// TestTokens: a token that is not valid for this Space is refused. It is never treated as a request without a token.
func TestTokens(t *testing.T) {
	h := listening(t)
	sign := func(alter func(*token.Claims)) string {
		c := token.Claims{Aud: "demo", Sub: "user:ada", Tier: "free", ID: "event-1"}
		alter(&c)
		token, err := h.signer.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := sign(func(*token.Claims) {})
	stranger, err := token.OpenSigner(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.Sign(token.Claims{Aud: "demo", Sub: "user:ada", Tier: "free", ID: "event-1"})
	if err != nil {
		t.Fatal(err)
	}
	h.host.end("event-2")
	h.host.denied = func(payer identity.Identity) error {
		if payer.Via == "front" {
			return &people.DelegationDeniedError{Space: payer.Via}
		}
		return nil
	}
	head, rest, _ := strings.Cut(good, ".")
	for what, token := range map[string]string{
		"altered":            good[:len(good)-4] + "AAAA",
		"unsigned":           "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + strings.SplitN(rest, ".", 2)[0] + ".",
		"garbage":            head,
		"of another host":    foreign,
		"for another Space":  sign(func(c *token.Claims) { c.Aud = "other" }),
		"of an ended event":  sign(func(c *token.Claims) { c.ID = "event-2" }),
		"of no event at all": sign(func(c *token.Claims) { c.ID = "" }),
		"via a denied Space": sign(func(c *token.Claims) { c.Act = "front" }),
		"of two days ago":    sign(func(c *token.Claims) { c.IssuedAt = time.Now().Add(-48 * time.Hour) }),
	} {
		if a := h.post("/schedule", "token", token); a.status != http.StatusUnauthorized {
			t.Errorf("a token %s: got %d %s, want 401", what, a.status, a.body)
		}
	}
	if n := len(h.broker.List()); n != 0 {
		t.Errorf("got %d leases from refused tokens", n)
	}
	if a := h.post("/schedule", "token", good); a.status != http.StatusOK {
		t.Errorf("the valid token: got %d, want 200", a.status)
	}
}

// TestDelegatedQuotaIsHalf: a Space may spend half of the remaining quota on the payer's behalf. The refusal is one that the client
// has a message for.
func TestDelegatedQuotaIsHalf(t *testing.T) {
	h := listening(t)
	token, err := h.signer.Sign(token.Claims{Aud: "demo", Sub: "user:ada", Tier: "free", ID: "event-1", Act: "front"})
	if err != nil {
		t.Fatal(err)
	}
	a := h.post("/schedule", "token", token, "durationSeconds", "106")
	if a.status != http.StatusTooManyRequests || a.header.Get("X-Approve-Result") != "quota-exceeded" || strings.TrimSpace(a.body) != `{"left":105,"wait":86399}` {
		t.Errorf("106 of 210 s: got %d %s", a.status, a.body)
	}
	if a := h.post("/schedule", "token", token, "durationSeconds", "105"); a.status != http.StatusOK {
		t.Errorf("half: got %d %s", a.status, a.body)
	}
}

func TestWithoutATokenTheSpacePays(t *testing.T) {
	h := listening(t)
	if a := h.post("/schedule"); a.status != http.StatusOK {
		t.Fatalf("got %d, want 200", a.status)
	}
	if open := h.broker.List(); len(open) != 1 || open[0].Identity != "space:demo" || open[0].Event != "" {
		t.Errorf("got %+v, want the Space's own account", open)
	}
}

// TestEventEndsDuringSchedule: the end of the Event did not cancel the new Lease, so the API must.
func TestEventEndsDuringSchedule(t *testing.T) {
	h := newHarness(t)
	checks := 0
	h.host.beforeAlive = func(event string) {
		if checks++; checks == 2 {
			h.host.end(event)
		}
	}
	h.listen()
	if a := h.post("/schedule", "token", h.token("ada", "free", "event-1")); a.status != http.StatusUnauthorized {
		t.Errorf("got %d %s, want 401", a.status, a.body)
	}
	until(t, "its hold is returned", func() bool { return h.last().Reason == "connection lost" && len(h.broker.List()) == 0 })
}

func TestDurations(t *testing.T) {
	for _, row := range []struct {
		text   string
		status int
		want   float64
	}{
		{"", 200, 60}, {"0", 200, 1}, {"1", 200, 1}, {"210", 200, 210},
		{"-1", 400, 0}, {"1.5", 400, 0}, {"NaN", 400, 0}, {"1e3", 400, 0}, {"1 ", 400, 0}, {"99999999999999999999", 400, 0},
		{"211", 429, 0}, {"86398", 429, 0}, {"86399", 429, 0}, {"86400", 429, 0}, {"1000000000000", 429, 0},
	} {
		t.Run(row.text, func(t *testing.T) {
			h := listening(t)
			pairs := []string{"token", h.token("ada", "free", "event-1")}
			if row.text != "" {
				pairs = append(pairs, "durationSeconds", row.text)
			}
			a := h.post("/schedule", pairs...)
			open := h.broker.List()
			if a.status != row.status || len(open) != 0 != (row.want > 0) {
				t.Fatalf("got %d %s and %+v, want %d", a.status, a.body, open, row.status)
			}
			if row.want > 0 && open[0].DeclaredSeconds != row.want {
				t.Errorf("got %g s declared, want %g", open[0].DeclaredSeconds, row.want)
			}
			if row.status == 429 && (!strings.Contains(a.body, `"wait":-1}`) || a.header.Get(headerApproveResult) != "illegal-duration") {
				t.Errorf("got %s %s, want an illegal duration", a.header.Get(headerApproveResult), a.body)
			}
		})
	}
}

// TestNegativeDurationAtUnlimitedTier: -1 arrives as 86399, or as that times the duration_factor of the GPU (129598). No quota
// would refuse it.
func TestNegativeDurationAtUnlimitedTier(t *testing.T) {
	h := listening(t)
	token := h.token("ada", "unlimited", "event-1")
	for text, want := range map[string]int{"86399": 429, "129598": 429, "1000000000000": 429, "86398": 200} {
		if a := h.post("/schedule", "token", token, "durationSeconds", text); a.status != want {
			t.Errorf("%s s: got %d %s, want %d", text, a.status, a.body, want)
		}
	}
}

func TestInvalidArguments(t *testing.T) {
	h := listening(t)
	for _, pairs := range [][]string{{"gpuSize", "huge"}, {"gpuSize", "Large"}, {"taskId", strings.Repeat("1", 65)}} {
		if a := h.post("/schedule", pairs...); a.status != http.StatusBadRequest {
			t.Errorf("%s=%.10s: got %d, want 400", pairs[0], pairs[1], a.status)
		}
	}
	if a := h.post("/schedule", "token", h.token("ada", "no such tier", "event-1")); a.status != http.StatusServiceUnavailable {
		t.Errorf("a tier that was removed: got %d, want 503", a.status)
	}
}

// TestRefusalsOfEveryTier: Authenticated selects the client's message, the sign of wait its meaning.
func TestRefusalsOfEveryTier(t *testing.T) {
	for _, preset := range []string{"2026-04", "2026-08", "2026-10"} {
		tiers, err := quota.Presets(preset)
		if err != nil {
			t.Fatal(err)
		}
		for _, tier := range tiers.All {
			if tier.Unlimited {
				continue
			}
			t.Run(preset+"/"+tier.Name, func(t *testing.T) {
				h := newHarness(t)
				h.host.tiers = tiers
				h.listen()
				h.wantRefusals(tier)
			})
		}
	}
}

func (h *harness) wantRefusals(tier quota.Tier) {
	h.t.Helper()
	token, all := h.token("ada", tier.Name, "event-1"), int(tier.Quota.Seconds())
	seconds := func(n int) []string { return []string{"token", token, "durationSeconds", fmt.Sprint(n)} }

	h.wantRefusal(h.post("/schedule", seconds(all+1)...), tier, "illegal-duration", fmt.Sprintf(`{"left":%d,"wait":-1}`, all))
	h.wantRefusal(h.post("/schedule", append(seconds(all/2+1), "gpuSize", "xlarge")...), tier, "illegal-duration", fmt.Sprintf(`{"left":%d,"wait":-1}`, all))
	a := h.post("/schedule", seconds(all-10)...)
	if a.status != http.StatusOK || a.header.Get(headerAuthenticated) != tier.Authenticated || a.header.Get(headerApproveResult) != "approved" {
		h.t.Errorf("all but 10 s: got %d %v", a.status, a.header)
	}
	// The lease is granted and not yet allowed. It ends at the latest after its whole wait and its whole duration.
	wait := all - 10 + 60
	h.wantRefusal(h.post("/schedule", seconds(11)...), tier, "quota-exceeded", fmt.Sprintf(`{"left":10,"wait":%d}`, wait))
}

func (h *harness) wantRefusal(a answer, tier quota.Tier, result, body string) {
	h.t.Helper()
	if a.status != http.StatusTooManyRequests || strings.TrimSpace(a.body) != body {
		h.t.Errorf("got %d %s, want 429 %s", a.status, a.body, body)
	}
	for header, want := range map[string]string{headerApproveResult: result, headerAuthenticated: tier.Authenticated, headerQueuingReason: ""} {
		if got := a.header.Get(header); got != want {
			h.t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		h.t.Errorf("Content-Type: got %q", got)
	}
}

func TestAllow(t *testing.T) {
	h := listening(t)
	token := h.grant()
	h.processes.Start("demo", 100)
	h.processes.Start("other", 200)
	other := h.open("other", "run-2")
	for what, row := range map[string]struct {
		path, token, pid string
		want             int
	}{
		"a foreign pid":         {h.path, token, "200", http.StatusForbidden},
		"an unknown pid":        {h.path, token, "300", http.StatusForbidden},
		"a negative pid":        {h.path, token, "-100", http.StatusForbidden},
		"no number":             {h.path, token, "self", http.StatusBadRequest},
		"no pid":                {h.path, token, "", http.StatusBadRequest},
		"an unknown lease":      {h.path, "nonsense", "100", http.StatusNotFound},
		"another Space's lease": {other, token, "200", http.StatusNotFound},
	} {
		if a := h.call(http.MethodPost, row.path+"/allow", values("allowToken", row.token, "pid", row.pid)); a.status != row.want {
			t.Errorf("%s: got %d, want %d", what, a.status, row.want)
		}
	}
	if a := h.post("/allow", "allowToken", token, "pid", "100"); a.status != http.StatusOK {
		t.Errorf("its own worker: got %d, want 200", a.status)
	}
	if open := h.broker.List(); len(open) != 1 || open[0].Worker != 100 || open[0].State != "active" {
		t.Errorf("got %+v, want it active with worker 100", open)
	}
}

func TestRelease(t *testing.T) {
	h := listening(t)
	token := h.grant()
	if a := h.call(http.MethodPost, h.open("other", "run-2")+"/release", values("allowToken", token)); a.status != http.StatusNotFound {
		t.Errorf("by another Space: got %d, want 404", a.status)
	}
	if a := h.post("/release", "allowToken", token, "fail", "true"); a.status != http.StatusOK {
		t.Errorf("got %d, want 200", a.status)
	}
	if l := h.last(); l.Reason != "failed" || l.State != "released" { // settled before the answer
		t.Errorf("got %+v, want it settled as failed", l)
	}
	for _, pairs := range [][]string{{"allowToken", token}, {"allowToken", token, "fail", "perhaps"}, {"allowToken", "nonsense"}, nil} {
		if a := h.post("/release", pairs...); a.status != http.StatusNotFound {
			t.Errorf("release of %v afterwards: got %d, want 404", pairs, a.status)
		}
	}
}

func TestReleaseOfWaitingLease(t *testing.T) {
	h := listening(t)
	h.grant()
	w := h.wait()
	open := h.broker.List()
	for _, o := range open { // List shows only the start of an ID, which is no credential
		if a := h.post("/release", "allowToken", o.Lease); a.status != http.StatusNotFound {
			t.Errorf("release by the short ID: got %d, want 404", a.status)
		}
	}
	w.want(ping)
}

func TestQueueSize(t *testing.T) {
	h := listening(t)
	size := func(want string) {
		t.Helper()
		a := h.call(http.MethodGet, h.path+"/queue-size", nil)
		if a.status != http.StatusOK || strings.TrimSpace(a.body) != want || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("got %d %q %s, want %s", a.status, a.body, a.header.Get("Content-Type"), want)
		}
	}
	size("0")
	h.grant()
	size("0")
	h.wait()
	size("1")
}

// TestLogHasNoCredentials: the URLs of this API contain the secret, tokens and allowTokens.
func TestLogHasNoCredentials(t *testing.T) {
	h := listening(t)
	token := h.token("ada", "free", "event-1")
	allow := h.grant()
	h.post("/startup-report")
	h.post("/schedule", "token", token, "durationSeconds", "211")
	h.post("/schedule", "token", token+"x")
	h.post("/allow", "allowToken", allow, "pid", "300")
	h.post("/release", "allowToken", allow)
	h.post("/release", "allowToken", allow)
	all := h.journal.String()
	for what, credential := range map[string]string{"secret": h.path[len("/d/"):], "token": token, "allowToken": allow} {
		if strings.Contains(all, credential) {
			t.Errorf("the log has the %s: %s", what, all)
		}
	}
	if n := strings.Count(all, `refused","space"`); n != 4 {
		t.Errorf("got %d refusals, want 4: %s", n, all)
	}
}

// TestFullDatabaseWarnsTheVisitor: the client itself reports only that no GPU was available.
func TestFullDatabaseWarnsTheVisitor(t *testing.T) {
	h := listening(t)
	warned := ""
	h.host.warned = func(space, event, text string) { warned = space + " " + event + ": " + text }
	for _, statement := range []string{`PRAGMA max_page_count = 1`, `CREATE TABLE ballast (x BLOB)`} {
		_, _ = h.db.Exec(statement) // the second fails if there is no page for it
	}
	a := h.post("/schedule", "token", h.token("ada", "free", "event-1"), "durationSeconds", "1")
	for range 200 {
		if a.status != http.StatusOK {
			break
		}
		h.post("/release", "allowToken", allowTokenIn(t, a.body))
		a = h.post("/schedule", "token", h.token("ada", "free", "event-1"), "durationSeconds", "1")
	}
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d with %v, want 503 and Retry-After", a.status, a.header)
	}
	if want := "demo event-1: This host cannot write its ledger now, because its disk is full. Nothing was charged; try again in a minute."; warned != want {
		t.Errorf("warned %q, want %q", warned, want)
	}
}

func allowTokenIn(t *testing.T, body string) string {
	t.Helper()
	var g granted
	if err := json.Unmarshal([]byte(body), &g); err != nil {
		t.Fatal(err)
	}
	return g.AllowToken
}
