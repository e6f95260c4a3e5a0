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

// callers is a host with the sample's two Spaces, and one that shows the tokens which it gets.
type callers struct {
	*product
	t            *testing.T
	b, c         string // addresses of space-b and callers
	visitor      *client
	signer       *token.Signer // of this host
	token        string        // of the visitor at callers
	onBehalf     map[string]string
	foreignToken string
}

// TestASpaceCallsAnother: one host for all, and each step begins with what the one before it has left.
func TestASpaceCallsAnother(t *testing.T) {
	first := twoPorts(t)
	p := runProduct(t, viaDir+"/space-a", viaDir+"/space-b", callersDir, "--addr", fmt.Sprint("127.0.0.1:", first),
		"--variable", fmt.Sprint("SPACE_B=http://127.0.0.1:", first+1))
	v := &callers{product: p, t: t, b: p.Spaces[1].URL, c: p.Spaces[2].URL, visitor: p.client()}
	v.theVisitorPays()
	v.theSpacePaysItself()
	v.takeTokens()
	v.tokensOfOthersAreRefused()
	v.aBearerBesideDoesNotPay()
	v.halfIsTheMost()
	v.theOperatorForbidsIt()
	if strings.Contains(p.log()+p.text(), v.token) {
		t.Error("a token stands in a log")
	}
}

// twoPorts are free, the first of a pair, and of none that the kernel gives away by itself.
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

// settled are the leases that an account was charged for, by what the ledger says, the last one first.
func (v *callers) settled(key string) (lines []views.Entry) {
	v.t.Helper()
	for _, e := range asked[[]views.Entry](v.t, v.product, "/ledger?identity="+key) {
		if e.Kind == "settle" && e.ChargedSeconds > 0 {
			lines = append(lines, e)
		}
	}
	return lines
}

// theVisitorPays for B's work, by the token that A took when they opened its page.
func (v *callers) theVisitorPays() {
	v.t.Helper()
	if r := v.visitor.call("/set_client_for_session"); r.Failed {
		v.t.Fatalf("page load: %s", r.Err)
	}
	if got := v.visitor.ok("/work", 1); got != "Space B had a GPU for 1 s" {
		v.t.Errorf("work: %q", got)
	}
	paid := v.settled("local")
	if len(paid) != 1 || paid[0].Space != "space-b" || paid[0].Via != "space-a" || paid[0].ChargedSeconds < 1 {
		v.t.Errorf("the visitor's ledger: %+v, want a second at space-b via space-a", paid)
	}
	if names := identities(v.t, v.product); len(names) != 1 {
		v.t.Errorf("accounts: %v, want the visitor's alone", names)
	}
	if shown := runCLI(v.t, v.product, "ledger", "local"); strings.Count(shown, "via space-a") != 2 {
		v.t.Errorf("spacehost ledger local shows\n%swant hold and settle via space-a", shown)
	}
}

// theSpacePaysItself for the same call without the header, from the same address as the visitor's.
func (v *callers) theSpacePaysItself() {
	v.t.Helper()
	v.visitor.ok("/work_on_own_account", 1)
	if paid := v.settled("space:space-a"); len(paid) != 1 || paid[0].Space != "space-b" || paid[0].Via != "" || paid[0].ChargedSeconds < 1 {
		v.t.Errorf("the Space's ledger: %+v, want a second at space-b", paid)
	}
	if paid := v.settled("local"); len(paid) != 1 {
		v.t.Errorf("the visitor's ledger: %+v, want no more than before", paid)
	}
	if got := callAt(v.t, v.b, "work", "[0.1]", nil); !strings.HasPrefix(got, "complete") {
		v.t.Errorf("the visitor at B: %s", got)
	}
	if paid := v.settled("local"); len(paid) != 2 || paid[0].Via != "" {
		v.t.Errorf("the visitor's ledger: %+v, want their own call on top", paid)
	}
}

// takeTokens gets the visitor's at callers, and looks what B is given instead of it.
func (v *callers) takeTokens() {
	v.t.Helper()
	v.token = v.clientAt(v.c).ok("/token")
	v.onBehalf = map[string]string{"X-IP-Token": v.token}
	var err error
	if v.signer, err = token.OpenSigner(v.State); err != nil {
		v.t.Fatal(err)
	}
	said := callAt(v.t, v.c, "token", "[]", v.onBehalf)
	atB, _, _ := strings.Cut(strings.TrimPrefix(said, `complete ["`), `"`)
	claims, err := v.signer.VerifyFor(atB, "callers")
	if err != nil || atB == v.token || claims.Act != "callers" || claims.Sub != "local" {
		v.t.Errorf("B's app reads %s: %+v (%v), want a token of its own for local by callers", said, claims, err)
	}
	stranger, err := token.OpenSigner(v.t.TempDir())
	if err != nil {
		v.t.Fatal(err)
	}
	own, err := v.signer.Parse(v.token)
	if err != nil {
		v.t.Fatal(err)
	}
	if v.foreignToken, err = stranger.Sign(own); err != nil {
		v.t.Fatal(err)
	}
}

func (v *callers) tokensOfOthersAreRefused() {
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

// aBearerBesideDoesNotPay, but must be good.
func (v *callers) aBearerBesideDoesNotPay() {
	v.t.Helper()
	runCLI(v.t, v.product, "user", "add", "ada")
	bearer := strings.TrimSpace(runCLI(v.t, v.product, "token", "create", "ada"))
	both := map[string]string{"X-IP-Token": v.token, "Authorization": "Bearer " + bearer}
	if got := callAt(v.t, v.b, "work", "[0.1]", both); !strings.HasPrefix(got, "complete") {
		v.t.Errorf("with both: %s", got)
	}
	if paid := v.settled("local"); len(paid) != 3 || paid[0].Via != "callers" {
		v.t.Errorf("the visitor's ledger: %+v, want a call via callers on top", paid)
	}
	runCLI(v.t, v.product, "token", "revoke", tokenID(v.t, v.product))
	if status, body := request(v.t, http.MethodGet, v.b+"/config", "", both); status != http.StatusUnauthorized || !strings.Contains(body, "revoked") {
		v.t.Errorf("with a revoked bearer beside: %d %s", status, body)
	}
}

// halfIsTheMost: 120 s are more than half of 210 s, and the visitor themselves may have them.
func (v *callers) halfIsTheMost() {
	v.t.Helper()
	if got := v.clientAt(v.c).ok("/long"); got != "had a GPU" {
		v.t.Errorf("the visitor themselves: %q", got)
	}
	if got := callAt(v.t, v.c, "long", "[]", v.onBehalf); !strings.Contains(got, "exceeded your free ZeroGPU quota (120s requested vs. 10") {
		v.t.Errorf("120 s via a Space: %s, want to read that the quota is exceeded", got)
	}
	join := `{"data":[],"fn_index":0,"session_hash":"whose"}`
	if status, body := request(v.t, http.MethodPost, v.c+"/gradio_api/queue/join", join, v.onBehalf); status != http.StatusOK {
		v.t.Fatalf("join: %d %s", status, body)
	}
	_, told := request(v.t, http.MethodGet, v.c+"/gradio_api/queue/data?session_hash=whose", "", v.onBehalf)
	if want := "the Space callers refused this call by the ZeroGPU quota of local, which callers spends on their behalf: 120 s requested, 10"; !strings.Contains(told, want) {
		v.t.Errorf("the message does not name whose quota it was:\n%s", told)
	}
	if log := v.log(); !strings.Contains(log, "delegation limit exceeded: 2m0s requested via callers") {
		v.t.Error("the log does not name the cap")
	}
}

// theOperatorForbidsIt to one Space, at once, and allows it again.
func (v *callers) theOperatorForbidsIt() {
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
		v.t.Errorf("another Space: %q", got)
	}
	if shown := runCLI(v.t, v.product, "space", "via"); !strings.Contains(shown, "callers  everybody") {
		v.t.Errorf("spacehost space via shows %q", shown)
	}
	runCLI(v.t, v.product, "space", "via", "callers", "--on")
	call("200 ")
	runCLI(v.t, v.product, "space", "via", "space-a", "--off", "--identity", "local")
	if r := v.visitor.call("/work", 0); !r.Failed {
		v.t.Errorf("A with B closed to it: got %s", r.Value)
	}
}
