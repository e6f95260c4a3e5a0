package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spacehost/internal/cli"
	"spacehost/internal/people"
	"spacehost/internal/views"
)

// lab is a `spacehost serve` with three Spaces: leases is public, captured is protected and has a host name, hello-zerogpu is
// private.
type lab struct {
	*product
	open, hidden string // addresses of the public and the private one
	shared       string // address at which captured is reached by its host name
}

const protectedName = "captured.lab.example"

// serveLab starts a lab with these members of the private Space and these users.
func serveLab(t *testing.T, state, members, people string) *lab {
	t.Helper()
	folder := func(dir string) string {
		abs, err := filepath.Abs(dir)
		if err != nil {
			t.Fatal(err)
		}
		return abs
	}
	file := filepath.Join(state, "lab.yaml")
	text := strings.NewReplacer(
		"OPEN", folder(leasesDir), "NAMED", folder("testdata/spaces/captured"), "HIDDEN", folder(sampleDir),
		"PYTHON", environment(t), "HOST", protectedName, "MEMBERS", members, "PEOPLE", people,
	).Replace(`
gpus: {machine: mock:1xH200, large: 1}
quota: 2026-04
tiers: {student: {quota: 100, longest: 20}}
address: 127.0.0.1:0
console: 127.0.0.1:0
trusted_proxies: [127.0.0.1]
spaces:
  - {folder: OPEN, address: "127.0.0.1:0", python: PYTHON}
  - {folder: NAMED, host: HOST, visibility: protected, python: PYTHON}
  - {folder: HIDDEN, address: "127.0.0.1:0", visibility: private, members: MEMBERS, python: PYTHON}
people: PEOPLE
`)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startCommand(t, state, "serve", "--config", file)
	t.Cleanup(p.stop)
	p.awaitReady()
	_, port, _ := strings.Cut(strings.TrimPrefix(p.Spaces[1].URL, "http://"+protectedName), ":")
	return &lab{p, p.Spaces[0].URL, p.Spaces[2].URL, "http://127.0.0.1:" + port}
}

func bearer(token string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token}
}

// TestServeAccessControl checks the access rules of a lab before and after a change of its configuration.
func TestServeAccessControl(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	ada, adas := people.NewToken()
	ben, bens := people.NewToken()
	unknown, _ := people.NewToken()
	people := fmt.Sprintf(`[{name: ada, tier: pro, tokens: [%s]}, {name: ben, tier: student, tokens: [%s]}]`, adas, bens)

	l := serveLab(t, state, "[ada]", people)
	l.wantHiddenFrom(map[string]map[string]string{
		"no token": nil, "ben": bearer(ben), "an unknown token": bearer(unknown), "a saved token": bearer("hf_saved_by_the_client"),
		"a forged address": {"X-Forwarded-For": "127.0.0.1"},
	})
	l.wantOwnQuotas(ada, ben)
	l.wantVisitorsOfProxies()
	l.wantProtected()
	l.wantChangesRefused()
	l.stop()

	// ada is no longer a member, and ben's token is revoked because it leaked.
	l = serveLab(t, state, "[ben]", fmt.Sprintf(`[{name: ada, tokens: [%s]}, {name: ben, tier: student}]`, adas))
	l.wantHiddenFrom(map[string]map[string]string{"a former member": bearer(ada), "a revoked token": bearer(ben)})
	if status, body := request(t, http.MethodGet, l.open+"/config", "", bearer(ben)); status != http.StatusUnauthorized {
		t.Errorf("a revoked token at a public Space: got %d %s, want 401", status, body)
	}
	if status, _ := request(t, http.MethodGet, l.open+"/config", "", bearer(ada)); status != http.StatusOK {
		t.Errorf("ada at the public Space: got %d, want 200", status)
	}
}

// wantHiddenFrom requests every route of the private Space. Each response must equal the one for an unknown host name.
func (l *lab) wantHiddenFrom(visitors map[string]map[string]string) {
	l.t.Helper()
	t := l.t.(*testing.T)
	none, words := request(t, http.MethodGet, l.shared+"/config", "", map[string]string{"Host": "nobody.lab.example"})
	if none != http.StatusNotFound {
		t.Fatalf("an unknown host name: got %d %s, want 404", none, words)
	}
	for visitor, headers := range visitors {
		for _, requestLine := range []string{
			"GET /", "HEAD /", "OPTIONS /config", "GET /config", "GET /nothing", "GET /theme.css", "GET /gradio_api/info", "GET /gradio_api/startup-events",
			"POST /gradio_api/queue/join", "GET /gradio_api/queue/data?session_hash=s", "GET /gradio_api/queue/status", "GET /queue/join",
			"POST /gradio_api/call/greet", "GET /gradio_api/call/greet/e", "POST /gradio_api/run/greet", "GET /gradio_api/heartbeat/s",
			"POST /gradio_api/upload", "GET /gradio_api/file=app.py", "GET /file=app.py", "POST /gradio_api/cancel", "POST /gradio_api/reset",
		} {
			method, path, _ := strings.Cut(requestLine, " ")
			status, body := request(t, method, l.hidden+path, `{"data":["x"],"session_hash":"s"}`, headers)
			if status != none || body != words && method != http.MethodHead {
				t.Errorf("%s as %s: %d %s", requestLine, visitor, status, body)
			}
		}
		socket := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
		for name, value := range headers {
			socket[name] = value
		}
		if status, body := request(t, http.MethodGet, l.hidden+"/queue/join", "", socket); status != none || body != words {
			t.Errorf("a websocket as %s: %d %s", visitor, status, body)
		}
	}
}

// wantOwnQuotas checks that each user pays from their own account, also at the private Space.
func (l *lab) wantOwnQuotas(ada, ben string) {
	l.t.Helper()
	t := l.t.(*testing.T)
	if got := l.clientAs(l.hidden, ada).ok("/greet", "ada"); !strings.HasPrefix(got, "Hello ada, from GPU-") {
		t.Errorf("a member's call: %s", got)
	}
	if got := quotaOf(t, l.product, bearer(ada)); got.Base != 1500 || got.ResetsAt == nil {
		t.Errorf("ada's quota: %+v, want the pro tier's, partly used", got)
	}
	if got := quotaOf(t, l.product, bearer(ben)); got.Base != 100 || got.ResetsAt != nil {
		t.Errorf("ben's quota: %+v, want the student tier's, unused", got)
	}
	bens := l.clientAs(l.open, ben)
	bens.ok("/five", 0)
	if r := bens.call("/minute", 0); !r.Failed || !strings.Contains(r.Err, "larger than the maximum allowed") {
		t.Errorf("60 s with a maximum of 20 s: got %s %s, want a refusal", r.Value, r.Err)
	}
	if got := quotaOf(t, l.product, bearer(ben)); got.ResetsAt == nil || got.Current >= 100 {
		t.Errorf("ben's quota: %+v, want it partly used", got)
	}
	if got := l.hubQuota(); got.Base != 120 || got.ResetsAt != nil {
		t.Errorf("the quota of this machine's address: %+v, want the unauthenticated tier's, unused", got)
	}
}

// wantVisitorsOfProxies checks that a visitor behind the trusted proxy pays by the address that the proxy forwards.
func (l *lab) wantVisitorsOfProxies() {
	l.t.Helper()
	t := l.t.(*testing.T)
	through := map[string]string{"X-Forwarded-For": "192.0.2.66, 203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": protectedName}
	if got := callFirstSpace(t, l.product, "five", "[0]", map[string]string{"X-Forwarded-For": through["X-Forwarded-For"]}); !strings.HasPrefix(got, "complete") {
		t.Errorf("through the proxy: %s", got)
	}
	if names := identities(t, l.product); !slices.Equal(names, []string{"ip:203.0.113.9", "user:ada", "user:ben"}) {
		t.Errorf("accounts in the ledger: %v", names)
	}
	if status, body := request(t, http.MethodGet, l.shared+"/config", "", through); status != http.StatusOK || !strings.Contains(body, `"root":"https://`+protectedName+`"`) {
		t.Errorf("config through the proxy: %d, want the visitor's scheme and name in it: %.300s", status, body)
	}
	if status, body := request(t, http.MethodGet, l.open+"/config", "", map[string]string{"X-Forwarded-For": "unknown"}); status != http.StatusBadRequest || !strings.Contains(body, "the proxy at 127.0.0.1") {
		t.Errorf("an invalid X-Forwarded-For: got %d %s, want 400 and the proxy's address", status, body)
	}
}

// wantProtected checks that the protected Space serves every visitor who uses its host name, and that only the operator sees it
// listed.
func (l *lab) wantProtected() {
	l.t.Helper()
	t := l.t.(*testing.T)
	if status, _ := request(t, http.MethodGet, l.shared+"/config", "", map[string]string{"Host": protectedName}); status != http.StatusOK {
		t.Errorf("the protected Space: %d", status)
	}
	names := func(h views.Health) (names []string) {
		for _, s := range h.Spaces {
			names = append(names, s.Name)
		}
		return names
	}
	if got := names(l.health()); !slices.Equal(got, []string{"leases"}) {
		t.Errorf("Spaces that /healthz shows to visitors: %v", got)
	}
	if got := names(controlJSON[views.Health](t, l.product, "/healthz")); len(got) != 3 {
		t.Errorf("Spaces that /healthz shows to the operator: %v", got)
	}
	for _, url := range []string{l.open, l.Console} {
		if status, body := request(t, http.MethodGet, url+"/config", "", map[string]string{"Host": "rebind.evil.test"}); status != http.StatusMisdirectedRequest {
			t.Errorf("an unknown host name at %s: got %d %s, want 421", url, status, body)
		}
	}
}

// wantChangesRefused checks that commands cannot change users of the configuration file.
func (l *lab) wantChangesRefused() {
	l.t.Helper()
	t := l.t.(*testing.T)
	for _, args := range [][]string{{"user", "tier", "ada", "free"}, {"user", "add", "ada"}, {"token", "create", "ben"}} {
		var out, stderr bytes.Buffer
		code := cli.Run(context.Background(), append(args, "--state", l.State), &out, &stderr)
		if code == 0 || !strings.Contains(stderr.String(), "comes from the configuration of `spacehost serve`") {
			t.Errorf("%v: exit code %d: %s", args, code, stderr.String())
		}
	}
}
