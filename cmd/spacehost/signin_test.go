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

// cookieVisit is a browser as far as requests go: it keeps cookies, and says which page sends what.
type cookieVisit struct {
	*http.Client
	t *testing.T
}

func newVisit(t *testing.T) cookieVisit {
	jar, _ := cookiejar.New(nil) // never fails
	return cookieVisit{&http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, t}
}

// do sends headers as pairs of name and value.
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

// call is a /call with its stream.
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
		v.t.Fatalf("a call: %d %s", answer.StatusCode, body)
	}
	_, stream := v.do("GET", at+"/call/"+api+"/"+reply.EventID, "", headers...)
	return stream
}

// signIn goes the way of the pages: the Space, the console, back with a form.
func (v cookieVisit) signIn(p *product, space, address, token string) {
	v.t.Helper()
	answer, _ := v.do("GET", address+"/__spacehost/login?to=/x%3Fy=z", "")
	at, err := url.Parse(answer.Header.Get("Location"))
	if err != nil || answer.StatusCode != http.StatusSeeOther || "http://"+at.Host != p.Console || at.Query().Get("space") != space || at.Query().Get("origin") != address {
		v.t.Fatalf("sent to the console with %d %q", answer.StatusCode, answer.Header.Get("Location"))
	}
	action, code := v.code(p, space, address, token)
	answer, body := v.redeem(action, code, p.Console, at.Query().Get("to"))
	if answer.StatusCode != http.StatusOK || !strings.Contains(body, `content="0;url=/x?y=z"`) {
		v.t.Fatalf("the code: %d %s", answer.StatusCode, body)
	}
}

func (v cookieVisit) code(p *product, space, address, token string) (action, code string) {
	v.t.Helper()
	answer, body := v.do("POST", p.Console+"/login/code", fmt.Sprintf(`{"space":%q,"origin":%q}`, space, address),
		"Content-Type", "application/json", "X-Hf-Authorization", "Bearer "+token, "Origin", p.Console)
	var reply struct{ Action, Code string }
	if err := json.Unmarshal([]byte(body), &reply); err != nil || answer.StatusCode != http.StatusOK {
		v.t.Fatalf("the console: %d %s", answer.StatusCode, body)
	}
	return reply.Action, reply.Code
}

func (v cookieVisit) redeem(action, code, origin, to string) (*http.Response, string) {
	v.t.Helper()
	return v.do("POST", action, url.Values{"code": {code}, "to": {to}}.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Origin", origin, "Sec-Fetch-Site", "same-site")
}

// member is a person with a token.
func member(t *testing.T, p *product, name, tier string) (token string) {
	t.Helper()
	runCLI(t, p, "user", "add", name, "--tier", tier)
	return strings.TrimSpace(runCLI(t, p, "token", "create", name))
}

// TestSignInAtOneSpace: a sign-in is for one Space, for its own pages, and for no code of it.
func TestSignInAtOneSpace(t *testing.T) {
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
		t.Errorf("signed in as %s", got)
	}
	if got := v.identity(elsewhere); got != "local" { // ports do not part cookies: it was sent there
		t.Errorf("at the other Space: %s", got)
	}
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", elsewhere}} {
		answer, _ := v.do("GET", at+"/__spacehost/whoami", "", header...)
		if answer.StatusCode != http.StatusForbidden {
			t.Errorf("whoami for %v: %d", header, answer.StatusCode)
		}
	}
	pay := func(want string, headers ...string) {
		t.Helper()
		before := identities(t, p)
		v.call(at, "greet", `["x"]`, headers...)
		if after := identities(t, p); !slices.Contains(after, want) || slices.Contains(before, want) {
			t.Errorf("%v: the ledger knows %v, and before %v; want %s", headers, after, before, want)
		}
	}
	pay("local", "Origin", elsewhere, "Sec-Fetch-Site", "same-site") // Gradio lets the page in, but as nobody
	pay("user:ada", "Origin", at, "Sec-Fetch-Site", "same-origin")

	jar, _ := v.Jar.(*cookiejar.Jar)
	u, _ := url.Parse(at)
	jar.SetCookies(u, []*http.Cookie{{Name: "theirs", Value: "x"}})
	if stream := v.call(at, "whoami", `[]`); !strings.Contains(stream, `["theirs=x"]`) {
		t.Errorf("the Space's code sees %s", stream)
	}
	if answer, _ := v.do("POST", at+"/__spacehost/logout", "", "Origin", elsewhere); answer.StatusCode != http.StatusForbidden {
		t.Errorf("another Space's page signs out: %d", answer.StatusCode)
	}
	if answer, _ := v.do("GET", at+"/__spacehost/logout", ""); answer.StatusCode != http.StatusOK || v.identity(at) != "user:ada" {
		t.Errorf("a GET: %d, and then %s", answer.StatusCode, v.identity(at))
	}
	kept := slices.Clone(jar.Cookies(u))
	if answer, _ := v.do("POST", at+"/__spacehost/logout", "", "Origin", at); answer.StatusCode != http.StatusSeeOther || v.identity(at) != "local" {
		t.Errorf("signed out: %d, and then %s", answer.StatusCode, v.identity(at))
	}
	jar.SetCookies(u, kept)
	if got := v.identity(at); got != "local" {
		t.Errorf("the old cookie after that: %s", got)
	}
	v.signIn(p, "gate", at, token)
	runCLI(t, p, "token", "revoke", tokenID(t, p))
	if got := v.identity(at); got != "local" {
		t.Errorf("with the token revoked: %s", got)
	}
	if strings.Contains(p.log()+p.text(), token) {
		t.Error("the token stands in a log")
	}
}

// TestCodesLeadNowhereElse: a code is good once, at the Space and the address that it was made for, from the console.
func TestSignInCodesAreBound(t *testing.T) {
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
		refused("a code for "+origin, answer, body)
	}
	for _, origin := range []string{"http://localhost:" + port(at), "https://demo.lab.example", "http://demo.lab.example:" + port(at)} {
		if action, _ := v.code(p, "gate", origin, token); action != origin+"/__spacehost/session" {
			t.Errorf("a code for %s leads to %s", origin, action)
		}
	}
	action, code := v.code(p, "gate", at, token)
	answer, body := v.redeem(strings.Replace(action, at, elsewhere, 1), code, p.Console, "/")
	refused("at another Space", answer, body)
	answer, body = v.redeem(action, code, p.Console, "/")
	refused("after that", answer, body)
	for _, origin := range []string{"http://evil.test", "null", at, elsewhere, "http://127.0.0.1:9", ""} {
		action, code = v.code(p, "gate", at, token)
		answer, body = v.redeem(action, code, origin, "/")
		refused("from "+origin, answer, body)
	}
	action, code = v.code(p, "gate", at, token)
	if answer, body := v.redeem(action, code, p.Console, "//evil.test"); answer.StatusCode != http.StatusOK || strings.Contains(body, "evil") {
		t.Errorf("on to another site: %d %s", answer.StatusCode, body)
	}
	answer, body = v.redeem(action, code, p.Console, "/")
	refused("twice", answer, body)
	for range 25 {
		answer, body = v.redeem(action, strings.Repeat("0", 64), p.Console, "/")
	}
	if answer.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "Too many wrong") {
		t.Errorf("after 25 made-up codes: %d %s", answer.StatusCode, body)
	}
}

// TestSignInOfMembers: a private Space opens to its members by the console, and is not there for others; through a proxy
// that speaks plain http nobody signs in.
func TestSignInOfMembers(t *testing.T) {
	ada, adas := people.NewToken()
	ben, bens := people.NewToken()
	l := serveLab(t, t.TempDir(), "[ada]", fmt.Sprintf(`[{name: ada, tier: pro, tokens: [%s]}, {name: ben, tier: student, tokens: [%s]}]`, adas, bens))
	const space = "hello-zerogpu"
	v := newVisit(t)
	if answer, body := v.do("GET", l.hidden+"/__spacehost/login", ""); answer.StatusCode != http.StatusNotFound {
		t.Errorf("a stranger's sign-in at the private Space: %d %s", answer.StatusCode, body)
	}
	codeStatus := func(token, space, origin string) int {
		answer, _ := v.do("POST", l.Console+"/login/code", fmt.Sprintf(`{"space":%q,"origin":%q}`, space, origin), "Content-Type", "application/json", "X-Hf-Authorization", "Bearer "+token)
		return answer.StatusCode
	}
	if bens, unknown := codeStatus(ben, space, l.hidden), codeStatus(ben, "nosuch", l.hidden); bens != http.StatusNotFound || unknown != bens {
		t.Errorf("a code for ben: %d, and %d where there is no Space", bens, unknown)
	}
	if answer, body := v.redeem(l.hidden+"/__spacehost/session", "made up", l.Console, "/"); answer.StatusCode != http.StatusNotFound || body != `{"detail":"Not Found"}`+"\n" {
		t.Errorf("a made-up code: %d %s", answer.StatusCode, body)
	}
	action, code := v.code(l.product, space, l.hidden, ada)
	if answer, body := v.redeem(action, code, l.Console, "/"); answer.StatusCode != http.StatusOK {
		t.Fatalf("ada's code: %d %s", answer.StatusCode, body)
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
			t.Errorf("ada's browser with %v: %d %.300s", row.headers, answer.StatusCode, body)
		}
	}
	if answer, body := v.do("GET", l.hidden+"//evil.example/", "", link...); answer.StatusCode != http.StatusOK || !strings.Contains(body, `content="0;url=/"`) {
		t.Errorf("a link whose path names another site: %d %.300s", answer.StatusCode, body)
	}
	if answer, body := newVisit(t).do("GET", l.hidden+"/", "", link...); answer.StatusCode != http.StatusNotFound {
		t.Errorf("a stranger who comes by a link: %d %s", answer.StatusCode, body)
	}

	far := []string{"X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "http"}
	answer, body := v.do("GET", l.open+"/__spacehost/login", "", far...)
	if answer.StatusCode != http.StatusForbidden || !strings.Contains(body, "plain http") || !strings.Contains(body, "--insecure-login") {
		t.Errorf("over plain http from afar: %d %s", answer.StatusCode, body)
	}
	answer, body = v.do("GET", l.Console+"/login/me", "", append(far, "Authorization", "Bearer "+ada)...)
	if answer.StatusCode != http.StatusForbidden || !strings.Contains(body, "plain http") {
		t.Errorf("a token over plain http from afar: %d %s", answer.StatusCode, body)
	}
	answer, body = v.do("GET", l.shared+"/__spacehost/login", "", "Host", protectedName, "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "https")
	if answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "--console-url") {
		t.Errorf("with a console out of reach: %d %s", answer.StatusCode, body)
	}
}

// TestTwoPeopleInTwoBrowsers, with the pages as they are: each pays, and neither sees what is the other's.
func TestTwoUsersInTwoBrowsers(t *testing.T) {
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
			t.Fatalf("%s signs in: %v; the browser says %q", name, err, exceptions())
		}
		if greeting, err := greet(ctx, p.URL, name); err != nil || greeting != "Hello "+name {
			t.Fatalf("%s greets: %q, %v", name, greeting, err)
		}
		if err := chromedp.Do(ctx, chromedp.Navigate(p.URL+"/__spacehost/"), chromedp.WaitVisible(chromedp.CSS("main form button"))); err != nil {
			t.Fatal(err)
		}
		screenshot(t, ctx, "sign-in-"+name+"-3-known.png")
		if cookies, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.cookie")); err != nil || strings.Contains(cookies, "spacehost") {
			t.Errorf("the page's code reads %q (%v)", cookies, err)
		}
		if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS("main form button")), chromedp.WaitVisible(chromedp.CSS(`a[href="/__spacehost/login"]`))); err != nil {
			t.Errorf("%s signs out: %v", name, err)
		}
		if thrown := exceptions(); len(thrown) > 0 {
			t.Errorf("the pages threw: %q", thrown)
		}
	}
	if names := identities(t, p); !slices.Equal(names, []string{"user:ada", "user:ben"}) {
		t.Errorf("the ledger knows %v", names)
	}
}

// TestTheLinkOfRun signs in whoever opens it first, as the local visitor, and stays in no address.
func TestLinkPrintedByRun(t *testing.T) {
	p := runProduct(t, gateDir)
	ctx, exceptions := browser(t)
	err := chromedp.Do(ctx, chromedp.Navigate(p.Link), chromedp.WaitVisible(chromedp.CSS("#spaces button")))
	screenshot(t, ctx, "sign-in-link.png")
	if err != nil {
		t.Fatalf("%v; the browser says %q", err, exceptions())
	}
	shown, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + " " + document.querySelector("#known p").textContent`))
	if err != nil || shown != p.Console+"/ You are the local visitor. " && !strings.HasPrefix(shown, p.Console+"/ You are the local visitor. 210 of 210 seconds") {
		t.Errorf("the page: %q (%v)", shown, err)
	}
	if cookies, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.cookie")); err != nil || cookies != "" {
		t.Errorf("the console sets %q (%v)", cookies, err)
	}
	_, code, _ := strings.Cut(p.Link, "#code=")
	if status, body := request(t, http.MethodPost, p.Console+"/login/link", fmt.Sprintf(`{"code":%q}`, code), nil); status != http.StatusForbidden || !strings.Contains(body, "spacehost login") {
		t.Errorf("the link again: %d %s", status, body)
	}
	if link := runCLI(t, p, "login"); !strings.HasPrefix(link, p.Console+"/#code=") {
		t.Errorf("spacehost login: %q", link)
	}
}
