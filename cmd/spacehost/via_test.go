package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"

	"spacehost/internal/token"
	"spacehost/internal/views"
)

const (
	viaDir     = "../../examples/space-a-calls-space-b"
	callersDir = "testdata/spaces/callers"
)

// callers is a host with the sample's two Spaces and a third one, callers, that shows its X-IP-Tokens.
type callers struct {
	*product
	t            *testing.T
	b, c         string // addresses of space-b and callers
	visitor      *client
	signer       *token.Signer // of this host
	token        string        // the visitor's token at callers
	onBehalf     map[string]string
	foreignToken string
}

// TestSpaceCallsAnotherSpace runs its steps on one host. Each step relies on the ledger that the step before has left.
func TestSpaceCallsAnotherSpace(t *testing.T) {
	t.Parallel()
	first := twoPorts(t)
	p := runProduct(t, viaDir+"/space-a", viaDir+"/space-b", callersDir, "--addr", fmt.Sprint("127.0.0.1:", first),
		"--variable", fmt.Sprint("SPACE_B=http://127.0.0.1:", first+1))
	v := &callers{product: p, t: t, b: p.Spaces[1].URL, c: p.Spaces[2].URL, visitor: p.client()}
	v.visitorPays()
	v.spacePaysItself()
	v.collectTokens()
	v.foreignTokensAreRefused()
	v.bearerBesideDoesNotPay()
	v.delegationIsLimited()
	v.operatorForbidsDelegation()
	if strings.Contains(p.log()+p.text(), v.token) {
		t.Error("a token is in a log")
	}
}

// twoPorts returns the first of two consecutive free ports outside the kernel's range of ephemeral ports.
func twoPorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000)
		one, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			continue
		}
		other, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port+1))
		one.Close()
		if err == nil {
			other.Close()
			return port
		}
	}
	t.Fatal("no two ports are free")
	return 0
}

// settled returns the charged settlements of an account from the ledger, newest first.
func (v *callers) settled(key string) (lines []views.Entry) {
	v.t.Helper()
	for _, e := range controlJSON[[]views.Entry](v.t, v.product, "/ledger?identity="+key) {
		if e.Kind == "settle" && e.ChargedSeconds > 0 {
			lines = append(lines, e)
		}
	}
	return lines
}

// visitorPays checks that the visitor pays for B's work, by the token that A received when the visitor opened its page.
func (v *callers) visitorPays() {
	v.t.Helper()
	if r := v.visitor.call("/set_client_for_session"); r.Failed {
		v.t.Fatalf("page load: %s", r.Err)
	}
	if got := v.visitor.ok("/work", 1); got != "Space B had a GPU for 1 s" {
		v.t.Errorf("work: %q", got)
	}
	paid := v.settled("local")
	if len(paid) != 1 || paid[0].Space != "space-b" || paid[0].Via != "space-a" || paid[0].ChargedSeconds < 1 {
		v.t.Errorf("the visitor's ledger: %+v, want one second at space-b via space-a", paid)
	}
	if names := identities(v.t, v.product); len(names) != 1 {
		v.t.Errorf("accounts: %v, want only the visitor's", names)
	}
	if shown := runCLI(v.t, v.product, "ledger", "local"); strings.Count(shown, "via space-a") != 2 {
		v.t.Errorf("spacehost ledger local shows\n%swant hold and settle via space-a", shown)
	}
}

// spacePaysItself checks that the Space pays for the same call without the header, from the same address as the visitor's.
func (v *callers) spacePaysItself() {
	v.t.Helper()
	v.visitor.ok("/work_on_own_account", 1)
	if paid := v.settled("space:space-a"); len(paid) != 1 || paid[0].Space != "space-b" || paid[0].Via != "" || paid[0].ChargedSeconds < 1 {
		v.t.Errorf("the Space's ledger: %+v, want one second at space-b", paid)
	}
	if paid := v.settled("local"); len(paid) != 1 {
		v.t.Errorf("the visitor's ledger: %+v, want no new line", paid)
	}
	if got := callAt(v.t, v.b, "work", "[0.1]", nil); !strings.HasPrefix(got, "complete") {
		v.t.Errorf("the visitor's own call at B: %s", got)
	}
	if paid := v.settled("local"); len(paid) != 2 || paid[0].Via != "" {
		v.t.Errorf("the visitor's ledger: %+v, want their own call as the newest line", paid)
	}
}

// collectTokens gets the visitor's token at callers, and checks the token that B receives instead of it.
func (v *callers) collectTokens() {
	v.t.Helper()
	v.token = v.clientAt(v.c).ok("/token")
	v.onBehalf = map[string]string{"X-IP-Token": v.token}
	var err error
	if v.signer, err = token.OpenSigner(v.State); err != nil {
		v.t.Fatal(err)
	}
	stream := callAt(v.t, v.c, "token", "[]", v.onBehalf)
	atB, _, _ := strings.Cut(strings.TrimPrefix(stream, `complete ["`), `"`)
	claims, err := v.signer.VerifyFor(atB, "callers")
	if err != nil || atB == v.token || claims.Act != "callers" || claims.Sub != "local" {
		v.t.Errorf("B's app receives %s: %+v (%v), want its own token for local, delegated by callers", stream, claims, err)
	}
	otherHost, err := token.OpenSigner(v.t.TempDir())
	if err != nil {
		v.t.Fatal(err)
	}
	own, err := v.signer.Parse(v.token)
	if err != nil {
		v.t.Fatal(err)
	}
	if v.foreignToken, err = otherHost.Sign(own); err != nil {
		v.t.Fatal(err)
	}
}

func (v *callers) foreignTokensAreRefused() {
	v.t.Helper()
	const words = "Expired ZeroGPU proxy token" // spaces/zero/client.py
	forB, err := v.signer.Sign(token.Claims{Aud: "space-b", Sub: "local", Tier: "free", ID: "event"})
	if err != nil {
		v.t.Fatal(err)
	}
	altered := v.token[:len(v.token)-6] + "AAAAAA"
	for what, token := range map[string]string{"of another host": v.foreignToken, "altered": altered, "empty": ""} {
		status, body := request(v.t, http.MethodPost, v.b+"/gradio_api/call/work", `{"data":[0]}`, map[string]string{"X-IP-Token": token})
		if status != http.StatusUnauthorized || !strings.Contains(body, words) {
			v.t.Errorf("at B, a token %s: %d %s", what, status, body)
		}
	}
	c := v.clientAt(v.c)
	for what, token := range map[string]string{"of another host": v.foreignToken, "altered": altered, "for another Space": forB, "of an ended event": v.token} {
		if got := c.ok("/schedule", token); !strings.Contains(got, words) {
			v.t.Errorf("at /schedule, a token %s: %q, want %q", what, got, words)
		}
	}
}

// bearerBesideDoesNotPay checks that a bearer token beside an X-IP-Token does not select the payer, but must be valid.
func (v *callers) bearerBesideDoesNotPay() {
	v.t.Helper()
	runCLI(v.t, v.product, "user", "add", "ada")
	bearer := strings.TrimSpace(runCLI(v.t, v.product, "token", "create", "ada"))
	both := map[string]string{"X-IP-Token": v.token, "Authorization": "Bearer " + bearer}
	if got := callAt(v.t, v.b, "work", "[0.1]", both); !strings.HasPrefix(got, "complete") {
		v.t.Errorf("with both tokens: %s", got)
	}
	if paid := v.settled("local"); len(paid) != 3 || paid[0].Via != "callers" {
		v.t.Errorf("the visitor's ledger: %+v, want a call via callers as the newest line", paid)
	}
	runCLI(v.t, v.product, "token", "revoke", tokenID(v.t, v.product))
	if status, body := request(v.t, http.MethodGet, v.b+"/config", "", both); status != http.StatusUnauthorized || !strings.Contains(body, "revoked") {
		v.t.Errorf("with a revoked bearer token beside it: got %d %s, want 401", status, body)
	}
}

// delegationIsLimited checks that Spaces can spend at most half of a visitor's 210 s: 120 s are refused via a Space and granted to
// the visitor.
func (v *callers) delegationIsLimited() {
	v.t.Helper()
	if got := v.clientAt(v.c).ok("/long"); got != "had a GPU" {
		v.t.Errorf("the visitor's own call: got %q", got)
	}
	if got := callAt(v.t, v.c, "long", "[]", v.onBehalf); !strings.Contains(got, "exceeded your free ZeroGPU quota (120s requested vs. 10") {
		v.t.Errorf("120 s via a Space: got %s, want the quota exceeded", got)
	}
	join := `{"data":[],"fn_index":0,"session_hash":"whose"}`
	if status, body := request(v.t, http.MethodPost, v.c+"/gradio_api/queue/join", join, v.onBehalf); status != http.StatusOK {
		v.t.Fatalf("join: %d %s", status, body)
	}
	_, stream := request(v.t, http.MethodGet, v.c+"/gradio_api/queue/data?session_hash=whose", "", v.onBehalf)
	if want := "the Space callers refused this call because of the ZeroGPU quota of local, which the Space callers spends by delegation: 120 s requested, 10"; !strings.Contains(stream, want) {
		v.t.Errorf("the message does not name the payer:\n%s", stream)
	}
	if log := v.log(); !strings.Contains(log, "delegation limit exceeded: 2m0s requested via callers") {
		v.t.Error("the log does not name the delegation limit")
	}
}

// operatorForbidsDelegation forbids delegation to one Space, checks that it stops at once, and allows it again.
func (v *callers) operatorForbidsDelegation() {
	v.t.Helper()
	call := func(want string) {
		v.t.Helper()
		status, body := request(v.t, http.MethodPost, v.b+"/gradio_api/call/work", `{"data":[0]}`, v.onBehalf)
		if !strings.Contains(fmt.Sprint(status, " ", body), want) {
			v.t.Errorf("at B: %d %s, want %s", status, body, want)
		}
	}
	call("200 ")
	runCLI(v.t, v.product, "space", "via", "callers", "--off")
	call("403 " + `{"detail":"The operator has forbidden the Space callers`)
	if got := v.visitor.ok("/work", 0); got != "Space B had a GPU for 0 s" {
		v.t.Errorf("another Space after the ban: got %q", got)
	}
	if shown := runCLI(v.t, v.product, "space", "via"); !strings.Contains(shown, "callers  all accounts") {
		v.t.Errorf("spacehost space via shows %q", shown)
	}
	runCLI(v.t, v.product, "space", "via", "callers", "--on")
	call("200 ")
	runCLI(v.t, v.product, "space", "via", "space-a", "--off", "--identity", "local")
	if r := v.visitor.call("/work", 0); !r.Failed {
		v.t.Errorf("A without permission to delegate for local: got %s, want an error", r.Value)
	}
}
