package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"spacehost/internal/console"
	"spacehost/internal/people"
)

const gateDir = "testdata/spaces/gate"

// cookieVisit sends requests as a browser does: it keeps cookies and follows no redirects.
type cookieVisit struct {
	*http.Client
	t *testing.T
}

func newVisit(t *testing.T) cookieVisit {
	jar, _ := cookiejar.New(nil) // never fails
	return cookieVisit{&http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, t}
}

// do sends a request. headers are pairs of name and value.
func (v cookieVisit) do(method, address, body string, headers ...string) (*http.Response, string) {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Add(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	answer, err := v.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return answer, string(text)
}

func (v cookieVisit) identity(address string, headers ...string) string {
	v.t.Helper()
	answer, body := v.do("GET", address+"/__spacehost/whoami", "", headers...)
	var identity console.WhoAmI
	if json.Unmarshal([]byte(body), &identity) != nil {
		return fmt.Sprintf("%d %s", answer.StatusCode, body)
	}
	return identity.Identity
}

// call makes a /call and returns its stream.
func (v cookieVisit) call(at, api, data string, headers ...string) string {
	v.t.Helper()
	return v.callBelow(at+"/gradio_api", api, data, headers...)
}

func (v cookieVisit) callBelow(at, api, data string, headers ...string) string {
	v.t.Helper()
	answer, body := v.do("POST", at+"/call/"+api, `{"data":`+data+`}`, append(headers, "Content-Type", "application/json")...)
	var reply struct {
		EventID string `json:"event_id"`
	}
	if err := json.Unmarshal([]byte(body), &reply); err != nil || answer.StatusCode != http.StatusOK {
		v.t.Fatalf("POST call/%s: %d %s", api, answer.StatusCode, body)
	}
	_, stream := v.do("GET", at+"/call/"+api+"/"+reply.EventID, "", headers...)
	return stream
}

// signIn signs in as the pages do: from the Space to the console, and back with a form.
func (v cookieVisit) signIn(p *product, space, address, token string) {
	v.t.Helper()
	answer, _ := v.do("GET", address+"/__spacehost/login?to=/x%3Fy=z", "")
	at, err := url.Parse(answer.Header.Get("Location"))
	if err != nil || answer.StatusCode != http.StatusSeeOther || "http://"+at.Host != p.Console || at.Query().Get("space") != space || at.Query().Get("origin") != address {
		v.t.Fatalf("redirect to the console: got %d %q", answer.StatusCode, answer.Header.Get("Location"))
	}
	action, code := v.code(p, space, address, token)
	answer, body := v.redeem(action, code, p.Console, at.Query().Get("to"))
	if answer.StatusCode != http.StatusOK || !strings.Contains(body, `content="0;url=/x?y=z"`) {
		v.t.Fatalf("redeeming the code: %d %s", answer.StatusCode, body)
	}
}

func (v cookieVisit) code(p *product, space, address, token string) (action, code string) {
	v.t.Helper()
	answer, body := v.do("POST", p.Console+"/login/code", fmt.Sprintf(`{"space":%q,"origin":%q}`, space, address),
		"Content-Type", "application/json", "X-Hf-Authorization", "Bearer "+token, "Origin", p.Console)
	var reply struct{ Action, Code string }
	if err := json.Unmarshal([]byte(body), &reply); err != nil || answer.StatusCode != http.StatusOK {
		v.t.Fatalf("issuing a code: %d %s", answer.StatusCode, body)
	}
	return reply.Action, reply.Code
}

func (v cookieVisit) redeem(action, code, origin, to string) (*http.Response, string) {
	v.t.Helper()
	return v.do("POST", action, url.Values{"code": {code}, "to": {to}}.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Origin", origin, "Sec-Fetch-Site", "same-site")
}

// member adds a user and returns a new token of theirs.
func member(t *testing.T, p *product, name, tier string) (token string) {
	t.Helper()
	runCLI(t, p, "user", "add", name, "--tier", tier)
	return strings.TrimSpace(runCLI(t, p, "token", "create", name))
}

// TestSignInAtOneSpace checks that a sign-in counts at one Space and for its own pages only, and that the Space's code cannot read it.
func TestSignInAtOneSpace(t *testing.T) {
	t.Parallel()
	other := filepath.Join(t.TempDir(), "other")
	if err := os.CopyFS(other, os.DirFS(gateDir)); err != nil {
		t.Fatal(err)
	}
	p := startProduct(t, t.TempDir(), gateDir, other)
	t.Cleanup(p.stop)
	p.awaitReady()
	at, elsewhere := p.URL, p.Spaces[1].URL
	token := member(t, p, "ada", "pro")
	v := newVisit(t)
	v.signIn(p, "gate", at, token)
	if got := v.identity(at); got != "user:ada" {
		t.Errorf("signed in as %s, want user:ada", got)
	}
	if got := v.identity(elsewhere); got != "local" { // cookies ignore ports, so the browser sent it there
		t.Errorf("at the other Space: got %s, want local", got)
	}
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", elsewhere}} {
		if answer, _ := v.do("GET", at+"/__spacehost/whoami", "", header...); answer.StatusCode != http.StatusForbidden {
			t.Errorf("whoami for %v: got %d, want 403", header, answer.StatusCode)
		}
	}
	pay := func(want string, headers ...string) {
		t.Helper()
		before := identities(t, p)
		v.call(at, "greet", `["x"]`, headers...)
		if after := identities(t, p); !slices.Contains(after, want) || slices.Contains(before, want) {
			t.Errorf("%v: accounts in the ledger: %v, before: %v; want %s added", headers, after, before, want)
		}
	}
	pay("local", "Origin", elsewhere, "Sec-Fetch-Site", "same-site") // Gradio accepts the page, but the sign-in does not count
	pay("user:ada", "Origin", at, "Sec-Fetch-Site", "same-origin")

	jar, _ := v.Jar.(*cookiejar.Jar)
	u, _ := url.Parse(at)
	jar.SetCookies(u, []*http.Cookie{{Name: "theirs", Value: "x"}})
	if stream := v.call(at, "whoami", `[]`); !strings.Contains(stream, `["theirs=x"]`) {
		t.Errorf("the Space's code reads the cookies %s, want only its own", stream)
	}
	v.signOut(at, elsewhere)
	v.signIn(p, "gate", at, token)
	runCLI(t, p, "token", "revoke", tokenID(t, p))
	if got := v.identity(at); got != "local" {
		t.Errorf("after the token's revocation: got %s, want local", got)
	}
	if strings.Contains(p.log()+p.text(), token) {
		t.Error("the token is in a log")
	}
}

// signOut checks that only a POST from the Space's own page signs ada out, and that her old cookie stops working.
func (v cookieVisit) signOut(at, elsewhere string) {
	t := v.t
	t.Helper()
	jar, _ := v.Jar.(*cookiejar.Jar)
	u, _ := url.Parse(at)
	if answer, _ := v.do("POST", at+"/__spacehost/logout", "", "Origin", elsewhere); answer.StatusCode != http.StatusForbidden {
		t.Errorf("sign-out by another Space's page: got %d, want 403", answer.StatusCode)
	}
	if answer, _ := v.do("GET", at+"/__spacehost/logout", ""); answer.StatusCode != http.StatusOK || v.identity(at) != "user:ada" {
		t.Errorf("sign-out by GET: got %d, then signed in as %s; want user:ada still", answer.StatusCode, v.identity(at))
	}
	kept := slices.Clone(jar.Cookies(u))
	if answer, _ := v.do("POST", at+"/__spacehost/logout", "", "Origin", at); answer.StatusCode != http.StatusSeeOther || v.identity(at) != "local" {
		t.Errorf("sign-out: got %d, then signed in as %s; want local", answer.StatusCode, v.identity(at))
	}
	jar.SetCookies(u, kept)
	if got := v.identity(at); got != "local" {
		t.Errorf("the old cookie after the sign-out: got %s, want local", got)
	}
}

// TestSignInCodesAreBound checks that a code works once, only from the console, and only at the Space and address of its request.
func TestSignInCodesAreBound(t *testing.T) {
	t.Parallel()
	other := filepath.Join(t.TempDir(), "other")
	if err := os.CopyFS(other, os.DirFS(gateDir)); err != nil {
		t.Fatal(err)
	}
	p := startProduct(t, t.TempDir(), gateDir, other, "--host", "demo.lab.example")
	t.Cleanup(p.stop)
	p.awaitReady()
	at, elsewhere := p.URL, p.Spaces[1].URL
	token, v := member(t, p, "ada", "pro"), newVisit(t)
	refused := func(what string, answer *http.Response, body string) {
		t.Helper()
		if answer.StatusCode < 400 || len(answer.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: %d %v %.200s", what, answer.StatusCode, answer.Header, body)
		}
	}
	for _, origin := range []string{"http://evil.test", "http://evil.test:" + port(at), elsewhere, "http://127.0.0.1:9", at + "/", "http://evil@127.0.0.1:" + port(at), "https://demo.lab.example:9", "null", "javascript:alert(1)//", "http://192.0.2.7:" + port(at)} {
		answer, body := v.do("POST", p.Console+"/login/code", fmt.Sprintf(`{"space":"gate","origin":%q}`, origin), "Content-Type", "application/json", "X-Hf-Authorization", "Bearer "+token)
		refused("a code for origin "+origin, answer, body)
	}
	for _, origin := range []string{"http://localhost:" + port(at), "https://demo.lab.example", "http://demo.lab.example:" + port(at)} {
		if action, _ := v.code(p, "gate", origin, token); action != origin+"/__spacehost/session" {
			t.Errorf("a code for %s leads to %s, want its own address", origin, action)
		}
	}
	action, code := v.code(p, "gate", at, token)
	answer, body := v.redeem(strings.Replace(action, at, elsewhere, 1), code, p.Console, "/")
	refused("a code redeemed at another Space", answer, body)
	answer, body = v.redeem(action, code, p.Console, "/")
	refused("a code after a refused attempt", answer, body)
	for _, origin := range []string{"http://evil.test", "null", at, elsewhere, "http://127.0.0.1:9", ""} {
		action, code = v.code(p, "gate", at, token)
		answer, body = v.redeem(action, code, origin, "/")
		refused("a code redeemed from "+origin, answer, body)
	}
	action, code = v.code(p, "gate", at, token)
	if answer, body := v.redeem(action, code, p.Console, "//evil.test"); answer.StatusCode != http.StatusOK || strings.Contains(body, "evil") {
		t.Errorf("redirect to another site after the sign-in: %d %s", answer.StatusCode, body)
	}
	answer, body = v.redeem(action, code, p.Console, "/")
	refused("a code redeemed twice", answer, body)
	for range 25 {
		answer, body = v.redeem(action, strings.Repeat("0", 64), p.Console, "/")
	}
	if answer.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "Too many wrong") {
		t.Errorf("after 25 invalid codes: got %d %s, want 429", answer.StatusCode, body)
	}
}

// TestSignInOfMembers checks that members of a private Space can sign in by the console, and that other users get 404. Through a
// proxy with plain http, sign-in is refused.
func TestSignInOfMembers(t *testing.T) {
	t.Parallel()
	ada, adas := people.NewToken()
	ben, bens := people.NewToken()
	l := serveLab(t, t.TempDir(), "[ada]", fmt.Sprintf(`[{name: ada, tier: pro, tokens: [%s]}, {name: ben, tier: student, tokens: [%s]}]`, adas, bens))
	const space = "hello-zerogpu"
	v := newVisit(t)
	if answer, body := v.do("GET", l.hidden+"/__spacehost/login", ""); answer.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown visitor's sign-in at the private Space: got %d %s, want 404", answer.StatusCode, body)
	}
	codeStatus := func(token, space, origin string) int {
		answer, _ := v.do("POST", l.Console+"/login/code", fmt.Sprintf(`{"space":%q,"origin":%q}`, space, origin), "Content-Type", "application/json", "X-Hf-Authorization", "Bearer "+token)
		return answer.StatusCode
	}
	if bens, unknown := codeStatus(ben, space, l.hidden), codeStatus(ben, "nosuch", l.hidden); bens != http.StatusNotFound || unknown != bens {
		t.Errorf("a code for ben: got %d, and %d for an unknown Space; want 404 for both", bens, unknown)
	}
	if answer, body := v.redeem(l.hidden+"/__spacehost/session", "made up", l.Console, "/"); answer.StatusCode != http.StatusNotFound || body != `{"detail":"Not Found"}`+"\n" {
		t.Errorf("an invalid code: got %d %s, want 404", answer.StatusCode, body)
	}
	action, code := v.code(l.product, space, l.hidden, ada)
	if answer, body := v.redeem(action, code, l.Console, "/"); answer.StatusCode != http.StatusOK {
		t.Fatalf("ada's code: got %d %s, want 200", answer.StatusCode, body)
	}
	link := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	for _, row := range []struct {
		headers []string
		status  int
		has     string
	}{
		{nil, 200, "gradio_config"}, {[]string{"Sec-Fetch-Site", "same-origin"}, 200, "gradio_config"}, {link, 200, `content="0;url=/"`},
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 404, ""}, {[]string{"Sec-Fetch-Site", "same-site"}, 404, ""},
	} {
		if answer, body := v.do("GET", l.hidden+"/", "", row.headers...); answer.StatusCode != row.status || !strings.Contains(body, row.has) {
			t.Errorf("ada's browser with %v: got %d %.300s", row.headers, answer.StatusCode, body)
		}
	}
	if answer, body := v.do("GET", l.hidden+"//evil.example/", "", link...); answer.StatusCode != http.StatusOK || !strings.Contains(body, `content="0;url=/"`) {
		t.Errorf("a link whose path names another site: %d %.300s", answer.StatusCode, body)
	}
	if answer, body := newVisit(t).do("GET", l.hidden+"/", "", link...); answer.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown visitor who follows a link: got %d %s, want 404", answer.StatusCode, body)
	}
	v.signInThroughProxy(l, ada)
}

// signInThroughProxy checks that the sign-in is refused over plain http, and with a console that visitors cannot reach.
func (v cookieVisit) signInThroughProxy(l *lab, ada string) {
	t := v.t
	t.Helper()
	far := []string{"X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "http"}
	answer, body := v.do("GET", l.open+"/__spacehost/login", "", far...)
	if answer.StatusCode != http.StatusForbidden || !strings.Contains(body, "plain http") || !strings.Contains(body, "--insecure-login") {
		t.Errorf("a remote sign-in over plain http: got %d %s, want 403", answer.StatusCode, body)
	}
	answer, body = v.do("GET", l.Console+"/login/me", "", append(far, "Authorization", "Bearer "+ada)...)
	if answer.StatusCode != http.StatusForbidden || !strings.Contains(body, "plain http") {
		t.Errorf("a remote token over plain http: got %d %s, want 403", answer.StatusCode, body)
	}
	answer, body = v.do("GET", l.shared+"/__spacehost/login", "", "Host", protectedName, "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "https")
	if answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "--console-url") {
		t.Errorf("a sign-in with an unreachable console: got %d %s, want 503", answer.StatusCode, body)
	}
}

// TestTwoUsersInTwoBrowsers signs two users in with the real pages. Each pays for their own call.
func TestTwoUsersInTwoBrowsers(t *testing.T) {
	t.Parallel()
	p := runProduct(t, gateDir)
	tokens := map[string]string{"ada": member(t, p, "ada", "pro"), "ben": member(t, p, "ben", "free")}
	for name, token := range tokens {
		ctx, exceptions := browser(t)
		err := chromedp.Do(ctx, chromedp.Navigate(p.URL+"/__spacehost/login"), chromedp.WaitVisible(chromedp.CSS("#token")))
		screenshot(t, ctx, "sign-in-"+name+"-1-form.png")
		if err == nil {
			err = chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS("#token"), token+"\r"), chromedp.WaitVisible(chromedp.CSS("#spaces button")))
		}
		screenshot(t, ctx, "sign-in-"+name+"-2-choice.png")
		if err == nil {
			err = chromedp.Do(ctx, chromedp.Click(chromedp.CSS("#spaces button")), chromedp.WaitVisible(greetButton))
		}
		if err != nil {
			t.Fatalf("%s signs in: %v; uncaught exceptions: %q", name, err, exceptions())
		}
		if greeting, err := greet(ctx, p.URL, name); err != nil || greeting != "Hello "+name {
			t.Fatalf("%s calls greet: %q, %v", name, greeting, err)
		}
		if err := chromedp.Do(ctx, chromedp.Navigate(p.URL+"/__spacehost/"), chromedp.WaitVisible(chromedp.CSS("main form button"))); err != nil {
			t.Fatal(err)
		}
		screenshot(t, ctx, "sign-in-"+name+"-3-known.png")
		if cookies, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.cookie")); err != nil || strings.Contains(cookies, "spacehost") {
			t.Errorf("the page's code can read the cookies %q (%v)", cookies, err)
		}
		if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS("main form button")), chromedp.WaitVisible(chromedp.CSS(`a[href="/__spacehost/login"]`))); err != nil {
			t.Errorf("%s signs out: %v", name, err)
		}
		if thrown := exceptions(); len(thrown) > 0 {
			t.Errorf("uncaught exceptions of the pages: %q", thrown)
		}
	}
	if names := identities(t, p); !slices.Equal(names, []string{"user:ada", "user:ben"}) {
		t.Errorf("accounts in the ledger: %v", names)
	}
}

// TestLinkPrintedByRun checks that the link signs its first visitor in as the local visitor, that it works once, and that the code
// does not stay in the page's URL.
func TestLinkPrintedByRun(t *testing.T) {
	t.Parallel()
	p := runProduct(t, gateDir)
	ctx, exceptions := browser(t)
	err := chromedp.Do(ctx, chromedp.Navigate(p.Link), chromedp.WaitVisible(chromedp.CSS(".figure")))
	screenshot(t, ctx, "sign-in-link.png")
	if err != nil {
		t.Fatalf("%v; uncaught exceptions: %q", err, exceptions())
	}
	shown, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + " " + document.querySelector("header").textContent + " " + document.querySelector(".figure").textContent`))
	if err != nil || !strings.HasPrefix(shown, p.Console+"/ ") || !strings.Contains(shown, "the local visitor, admin") || !strings.HasSuffix(shown, " 210 s") {
		t.Errorf("the page: %q (%v)", shown, err)
	}
	if cookies, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.cookie")); err != nil || cookies != "" {
		t.Errorf("the page's code can read the console's cookies %q (%v)", cookies, err)
	}
	_, code, _ := strings.Cut(p.Link, "#code=")
	if status, body := request(t, http.MethodPost, p.Console+"/login/link", fmt.Sprintf(`{"code":%q}`, code), nil); status != http.StatusForbidden || !strings.Contains(body, "spacehost login") {
		t.Errorf("the link used twice: got %d %s, want 403", status, body)
	}
	link := strings.TrimSpace(runCLI(t, p, "login"))
	if !strings.HasPrefix(link, p.Console+"/#code=") {
		t.Errorf("spacehost login: %q", link)
	}
	// The page survives a fragment that is not encoded. A link that is opened in its tab loads no page.
	err = chromedp.Do(ctx, chromedp.Navigate(p.Console+"/#home/100%"), chromedp.Reload(), chromedp.WaitVisible(chromedp.CSS(".figure")),
		chromedp.Click(chromedp.CSS("header button")), chromedp.WaitVisible(chromedp.CSS("#token")),
		chromedp.Navigate(link), chromedp.WaitVisible(chromedp.CSS(".figure")))
	if err != nil {
		t.Errorf("a second link in the same tab: %v; uncaught exceptions: %q", err, exceptions())
	}
}
