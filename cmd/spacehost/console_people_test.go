package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"spacehost/internal/audit"
	"spacehost/internal/control"
)

// endsWithin bounds the end of the streams of an ended token on a loaded machine; on an idle one they end within two seconds.
const endsWithin = 8 * time.Second

// createToken creates a token of the person of another token.
func (l consoleLab) createToken(t *testing.T, with, body string) (made control.CreatedToken) {
	t.Helper()
	status, text := request(t, "POST", l.Console+"/api/spacehost/tokens", body, bearer(with))
	if err := json.Unmarshal([]byte(text), &made); err != nil || status != http.StatusCreated {
		t.Fatalf("create %s: %d %s", body, status, text)
	}
	return made
}

// tokenRights uses tokens with few rights at the console and at Spaces.
func (l consoleLab) tokenRights(t *testing.T) {
	call := l.createToken(t, l.ben, `{"label":"caller","scope":"call","spaces":["shown"],"expiresInSeconds":3600}`)
	read := l.createToken(t, l.ben, `{"scope":"read"}`)
	admin := l.createToken(t, l.ada, `{"scope":"read"}`)
	elsewhere := l.createToken(t, l.ada, `{"scope":"call","spaces":["shown"]}`)
	brief := l.createToken(t, l.ben, `{"scope":"all","expiresInSeconds":3600}`)
	const api = "/api/spacehost"
	for _, row := range []struct {
		what, token, method, url, body string
		status                         int
		text                           string // part of the answer
	}{
		{"call reads the person", call.Text, "GET", l.Console + api + "/me", "", 403, "this token has scope call, and scope read is required"},
		{"call reads the account", call.Text, "GET", l.Console + api + "/quota", "", 403, "scope read is required"},
		{"call reads the Hub's quota", call.Text, "GET", l.Console + "/api/spaces/zero-gpu/quota", "", 403, "scope read is required"},
		{"call signs in at its Space", call.Text, "POST", l.Console + "/login/code", `{"space":"shown","origin":"` + l.space("shown").URL + `"}`, 200, `"code"`},
		{"call opens its Space", call.Text, "GET", l.space("shown").URL + "/config", "", 200, "version"},
		{"call opens another Space", elsewhere.Text, "GET", l.space("hidden").URL + "/config", "", 404, ""},
		{"call signs in at another Space", elsewhere.Text, "POST", l.Console + "/login/code", `{"space":"hidden","origin":"` + l.space("hidden").URL + `"}`, 403, "not valid at the Space hidden"},
		{"read reads the person", read.Text, "GET", l.Console + api + "/me", "", 200, `"scope":"read"`},
		{"read reads the account", read.Text, "GET", l.Console + api + "/quota", "", 200, "leftSeconds"},
		{"read creates a token", read.Text, "POST", l.Console + api + "/tokens", `{"scope":"read"}`, 403, "scope all is required"},
		{"an admin's read reads", admin.Text, "GET", l.Console + api + "/admin/people", "", 200, `"ben"`},
		{"an admin's read changes", admin.Text, "POST", l.Console + api + "/admin/grant", `{"identity":"user:ben","seconds":1}`, 403, "scope all is required"},
		{"a later expiry", brief.Text, "POST", l.Console + api + "/tokens", `{"expiresInSeconds":7200}`, 403, "choose an expiry that is not later"},
		{"no expiry", brief.Text, "POST", l.Console + api + "/tokens", `{}`, 403, "choose an expiry that is not later"},
		{"a hidden Space", l.ben, "POST", l.Console + api + "/tokens", `{"scope":"call","spaces":["hidden"]}`, 400, `unknown Space \"hidden\"; Spaces for which a token can be created: shown"`},
		{"an unknown scope", l.ben, "POST", l.Console + api + "/tokens", `{"scope":"root"}`, 400, "give call, read or all"},
		{"an unknown field", l.ben, "POST", l.Console + api + "/tokens", `{"person":"ada"}`, 400, "person"},
		{"another person's token", l.ben, "DELETE", l.Console + api + "/tokens/" + admin.ID, "", 404, "no token has the ID"},
		{"an own token", l.ben, "DELETE", l.Console + api + "/tokens/" + read.ID, "", 200, "revokedAt"},
		{"a revoked token", read.Text, "GET", l.Console + api + "/me", "", 401, "revoked"},
	} {
		if status, text := request(t, row.method, row.url, row.body, bearer(row.token)); status != row.status || !strings.Contains(text, row.text) {
			t.Errorf("%s: %d %.300s, want %d with %q", row.what, status, text, row.status, row.text)
		}
	}
	var own []control.Token
	_, text := request(t, "GET", l.Console+api+"/tokens", "", bearer(l.ben))
	if err := json.Unmarshal([]byte(text), &own); err != nil {
		t.Fatal(err)
	}
	for _, token := range own {
		if token.Person != "ben" || token.Current != token.Declared {
			t.Errorf("ben is shown %+v", token)
		}
		if !token.Declared {
			continue
		}
		if status, text := request(t, "DELETE", l.Console+api+"/tokens/"+token.ID, "", bearer(l.ben)); status != http.StatusConflict || !strings.Contains(text, "declared in the configuration") {
			t.Errorf("revoke a declared token: %d %s", status, text)
		}
	}
	l.wantAudit(t, call)
}

// wantAudit checks what the audit log has of tokenRights.
func (l consoleLab) wantAudit(t *testing.T, call control.CreatedToken) {
	t.Helper()
	entries := controlJSON[[]audit.Record](t, l.product, "/audit?limit=1000")
	found := func(want audit.Record) bool {
		for _, e := range entries {
			if e.Actor == want.Actor && e.Action == want.Action && e.Object == want.Object && e.Status == want.Status && e.Origin == want.Origin && strings.Contains(e.Detail, want.Detail) {
				return true
			}
		}
		return false
	}
	for _, want := range []audit.Record{
		{Actor: "user:ben", Origin: audit.Console, Action: "token.create", Status: 201},
		{Actor: "user:ada", Origin: audit.Console, Action: "grant", Status: 403, Detail: "scope all is required"}, // refused before its body is decoded,
		{Actor: "user:ada", Origin: audit.Console, Action: "grant", Object: "user:ben", Status: 200},
	} {
		if !found(want) {
			t.Errorf("the audit log has no %+v in %+v", want, entries)
		}
	}
	if found(audit.Record{Actor: "user:ben", Origin: audit.Console, Action: "token.create", Status: 400}) {
		t.Error("the audit log has the refusal of a member: it would fill the database")
	}
	if text := fmt.Sprintf("%+v%s", entries, l.log()); strings.Contains(text, call.Text) {
		t.Error("a token is in the audit log or in the log")
	}
	if code, out, _ := l.cli("audit", "--since", "1h"); code != 0 || !strings.Contains(out, "refused (403)") {
		t.Errorf("spacehost audit: %s", out)
	}
}

// tokensEnd lets tokens end while a page is open with them, and measures when its stream ends.
func (l consoleLab) tokensEnd(t *testing.T) {
	revoked := l.createToken(t, l.ben, `{"scope":"read"}`)
	ended := l.streamUntilEnded(t, revoked.Text)
	began := time.Now()
	if code, _, errOut := l.cli("token", "revoke", revoked.ID); code != 0 {
		t.Fatalf("token revoke: %s", errOut)
	}
	if took := (<-ended).Sub(began); took > endsWithin {
		t.Errorf("the stream of a revoked token ended after %s, want %s at most", took, endsWithin)
	}
	expiring := l.createToken(t, l.ben, `{"scope":"read","expiresInSeconds":3}`)
	ended = l.streamUntilEnded(t, expiring.Text)
	if late := (<-ended).Sub(*expiring.ExpiresAt); late < 0 || late > endsWithin {
		t.Errorf("the stream of an expired token ended %s after the expiry, want %s at most", late, endsWithin)
	}
	if status, _ := request(t, "GET", l.Console+"/api/spacehost/me", "", bearer(expiring.Text)); status != http.StatusUnauthorized {
		t.Errorf("an expired token: %d, want 401", status)
	}
}

// streamUntilEnded opens the stream of a page, and returns when it has received the event `ended`.
func (l consoleLab) streamUntilEnded(t *testing.T, token string) <-chan time.Time {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.Console+"/api/spacehost/changes", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() || lines.Text() != "event: clock" {
		t.Fatalf("the stream begins with %q (%s)", lines.Text(), answer.Status)
	}
	ended := make(chan time.Time, 1)
	go func() {
		defer answer.Body.Close()
		for lines.Scan() {
			if lines.Text() == "event: ended" {
				ended <- time.Now()
				return
			}
		}
		ended <- time.Time{}.AddDate(9000, 0, 0)
	}()
	return ended
}

// clickFirst clicks the first element of a selector once it is visible.
func (p profile) clickFirst(selector string) {
	p.t.Helper()
	p.do(chromedp.WaitVisible(chromedp.CSS(selector)), chromedp.Click(chromedp.CSS(selector)))
}

// peoplePages drives the pages of tokens, people and changes: what a person does there acts, and appears at an admin's.
func (l consoleLab) peoplePages(t *testing.T, admin, member profile) {
	member.goTo("tokens")
	member.shows("valid, from the configuration", patience)
	member.clickFirst("main > div > p > button")
	member.do(chromedp.WaitVisible(chromedp.CSS("#label")), chromedp.SendKeys(chromedp.CSS("#label"), "night job"), chromedp.Click(chromedp.CSS(`input[type=checkbox][value=shown]`)))
	screenshot(t, member.ctx, "console-tokens-new.png")
	member.clickFirst("form.card button")
	member.shows("Copy it now", patience)
	member.shows("only at shown", patience)
	secret, err := chromedp.Run(member.ctx, chromedp.Evaluate[string](`document.querySelector(".fresh code").textContent`))
	if status, text := request(t, "GET", l.Console+"/api/spacehost/me", "", bearer(secret)); err != nil || status != http.StatusForbidden || !strings.Contains(text, "scope call") {
		t.Errorf("the token of the page: %d %s (%v)", status, text, err)
	}
	screenshot(t, member.ctx, "console-tokens.png")
	member.clickFirst(`button[aria-label="Revoke night job"]`)
	member.clickFirst(".confirm .danger")
	member.shows("1 ended token", patience)
	if status, _ := request(t, "GET", l.Console+"/api/spacehost/me", "", bearer(secret)); status != http.StatusUnauthorized {
		t.Errorf("the token that the page has revoked: %d", status)
	}

	admin.goTo("people")
	admin.do(chromedp.WaitVisible(chromedp.CSS("input[name=person]")), chromedp.SendKeys(chromedp.CSS("input[name=person]"), "dora"))
	admin.clickFirst("form.filters button")
	admin.shows("dora is added", patience)
	screenshot(t, admin.ctx, "console-people.png")
	admin.clickFirst(`a[href="#people/dora"]`)
	admin.do(chromedp.WaitVisible(chromedp.CSS("input[name=runs]")), chromedp.SendKeys(chromedp.CSS("input[name=runs]"), "7"))
	admin.clickFirst("form.fields button")
	eventually(t, "dora may make 7 runs", patience, func() bool {
		for _, p := range controlJSON[[]control.Person](t, l.product, "/people") {
			if p.Name == "dora" && p.Runs != nil {
				return *p.Runs == 7
			}
		}
		return false
	})
	screenshot(t, admin.ctx, "console-person.png")
	admin.goTo("people")
	admin.clickFirst(`a[href="#people/ben"]`)
	admin.shows("The configuration file declares this person.", patience)
	admin.do(chromedp.WaitVisible(chromedp.CSS(`input[aria-label="Seconds to grant: ben"]`)), chromedp.SendKeys(chromedp.CSS(`input[aria-label="Seconds to grant: ben"]`), "77"))
	admin.clickFirst(`form:has(input[name=amount]) button`)
	admin.shows("ben has 77.0 s more until the reset.", patience)
	screenshot(t, admin.ctx, "console-person-file.png")

	admin.goTo("audit")
	admin.shows("token.revoke", patience)
	admin.shows("console.sign-in", patience)
	screenshot(t, admin.ctx, "console-audit.png")
	if code, _, errOut := l.cli("user", "remove", "dora"); code != 0 {
		t.Errorf("user remove: %s", errOut)
	}
	admin.shows("person.remove", patience) // without a reload
}
