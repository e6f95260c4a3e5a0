package main

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"spacehost/internal/cli"
	"spacehost/internal/control"
	"spacehost/internal/hubapi"
)

// TestTokenOwnerPays checks that a spacehost bearer token selects the payer, that a revoked one is refused, and that a foreign token
// is ignored.
func TestTokenOwnerPays(t *testing.T) { eachLine(t, tokenOwnerPays) }

func tokenOwnerPays(t *testing.T, line string) {
	p := runOn(t, line, leasesDir)
	runCLI(t, p, "user", "add", "ada", "--tier", "pro")
	token := strings.TrimSpace(runCLI(t, p, "token", "create", "ada"))
	if !strings.HasPrefix(token, "sph_") {
		t.Fatalf("token create prints %q", token)
	}
	ada := map[string]string{"Authorization": "Bearer " + token}
	if got := callFirstSpace(t, p, "five", "[0]", ada); !strings.HasPrefix(got, "complete") {
		t.Errorf("with a token: %s", got)
	}
	if got := quotaOf(t, p, ada); got.Base != 1500 || got.ResetsAt == nil {
		t.Errorf("ada's quota: %+v, want the pro tier's, partly used", got)
	}
	if got := p.hubQuota(); got.Base != 210 || got.ResetsAt != nil {
		t.Errorf("the local visitor's quota: %+v, want it unused", got)
	}
	if got := callFirstSpace(t, p, "five", "[0]", map[string]string{"Authorization": "Bearer hf_saved_by_the_client"}); !strings.HasPrefix(got, "complete") {
		t.Errorf("with a foreign token: %s", got)
	}
	if names := identities(t, p); !slices.Equal(names, []string{"local", "user:ada"}) {
		t.Errorf("accounts in the ledger: %v", names)
	}
	runCLI(t, p, "token", "revoke", tokenID(t, p))
	if status, body := joinWith(t, p, ada); status != http.StatusUnauthorized || !strings.Contains(body, "token") {
		t.Errorf("with a revoked token: got %d %s, want 401", status, body)
	}
	if strings.Contains(p.log()+p.text(), token) {
		t.Error("the token is in a log")
	}
}

// runCLI runs a subcommand against the product's host, in this process, and returns its stdout.
func runCLI(t *testing.T, p *product, args ...string) string {
	t.Helper()
	var out, stderr bytes.Buffer
	if code := cli.Run(context.Background(), append(args, "--state", p.State), &out, &stderr); code != 0 {
		t.Fatalf("spacehost %v: exit code %d: %s", args, code, stderr.String())
	}
	return out.String()
}

func tokenID(t *testing.T, p *product) string {
	t.Helper()
	tokens := controlJSON[[]control.Token](t, p, "/tokens")
	if len(tokens) != 1 {
		t.Fatalf("tokens: %+v", tokens)
	}
	return tokens[0].ID
}

func identities(t *testing.T, p *product) (names []string) {
	t.Helper()
	for _, b := range controlJSON[[]control.Balance](t, p, "/quota") {
		names = append(names, b.Identity)
	}
	return names
}

func request(t *testing.T, method, url, body string, headers map[string]string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	r.Host = headers["Host"] // "" means the host of the address
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(answer.Body); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, text.String()
}

func joinWith(t *testing.T, p *product, headers map[string]string) (int, string) {
	t.Helper()
	return request(t, http.MethodPost, p.URL+"/gradio_api/queue/join", `{"data":[0],"fn_index":1,"session_hash":"s"}`, headers)
}

func quotaOf(t *testing.T, p *product, headers map[string]string) hubapi.Quota {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.Console+"/api/spaces/zero-gpu/quota", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	return fetchJSON[hubapi.Quota](t, r)
}

func callFirstSpace(t *testing.T, p *product, api, data string, headers map[string]string) string {
	t.Helper()
	return callAt(t, p.URL, api, data, headers)
}

// callAt makes a call as with curl: POST /call, then read its stream. It returns the last event's name and data.
func callAt(t *testing.T, url, api, data string, headers map[string]string) string {
	t.Helper()
	status, body := request(t, http.MethodPost, url+"/gradio_api/call/"+api, `{"data":`+data+`}`, headers)
	event, _, ok := strings.Cut(strings.TrimPrefix(body, `{"event_id":"`), `"`)
	if status != http.StatusOK || !ok {
		t.Fatalf("POST call/%s: %d %s", api, status, body)
	}
	_, text := request(t, http.MethodGet, url+"/gradio_api/call/"+api+"/"+event, "", headers)
	frames := strings.Split(strings.TrimSpace(text), "\n\n")
	return strings.ReplaceAll(strings.TrimPrefix(frames[len(frames)-1], "event: "), "\ndata: ", " ")
}
