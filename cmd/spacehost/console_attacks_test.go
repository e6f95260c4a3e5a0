package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/internal/control"
	"spacehost/internal/dashboard"
)

// consoleAttacks are attacks on the API and the pages of the console. TestConsoleRoles runs them at its host; TestConsolePages has
// those that need a browser.
var consoleAttacks = []struct {
	name string
	run  func(*testing.T, consoleLab)
}{
	{"a page of another origin", func(t *testing.T, l consoleLab) {
		for _, from := range []map[string]string{
			{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": l.space("shown").URL}, {"Origin": l.Console + ".evil.example"},
			{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
		} {
			l.wantAll(t, http.StatusForbidden, from, bearer(l.ada))
		}
	}},
	{"DNS rebinding", func(t *testing.T, l consoleLab) {
		at, _ := url.Parse(l.Console)
		for _, name := range []string{"rebind.evil.example", "localhost.evil.example", "127.0.0.1.evil.example"} {
			host := name + ":" + at.Port()
			l.wantAll(t, http.StatusMisdirectedRequest, map[string]string{"Host": host, "Origin": "http://" + host}, bearer(l.ada))
		}
	}},
	{"a form of another site", func(t *testing.T, l consoleLab) { // what a browser sends without asking the console first, and without the bearer
		for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""} {
			l.wantAll(t, http.StatusUnauthorized, map[string]string{"Content-Type": kind, "Cookie": "bearer=" + l.ada + "; token=" + l.ada})
		}
	}},
	{"a token in the URL", func(t *testing.T, l consoleLab) {
		for _, name := range []string{"token", "access_token", "bearer", "authorization", "X-Hf-Authorization", "__sign", "code"} {
			for _, path := range []string{"/api/spacehost/me", "/api/spacehost/changes", "/api/spacehost/admin/gpu", "/api/spacehost/admin/nothing", "/login/me"} {
				if status, body := request(t, "GET", l.Console+path+"?"+name+"="+l.ada, "", nil); status != http.StatusUnauthorized && status != http.StatusNotFound {
					t.Errorf("%s with the token as %s: %d %.200s", path, name, status, body)
				}
			}
			if status, body := request(t, "GET", l.Console+"/api/spacehost/quota?"+name+"="+l.ada, "", nil); strings.Contains(body, "user:ada") {
				t.Errorf("the token as %s is accepted: %d %.200s", name, status, body)
			}
		}
		for _, token := range []string{l.ada, l.ben} {
			if strings.Contains(l.log(), token) || strings.Contains(l.text(), token) {
				t.Error("a token is in the log")
			}
		}
	}},
	{"the stream of another person", func(t *testing.T, l consoleLab) {
		for _, token := range []string{"", "sph_" + strings.Repeat("a", 40), l.ben[:len(l.ben)-1]} {
			headers := map[string]string{"Last-Event-ID": "1"}
			if token != "" {
				headers["Authorization"] = "Bearer " + token
			}
			if status, body := request(t, "GET", l.Console+"/api/spacehost/changes", "", headers); status != http.StatusUnauthorized {
				t.Errorf("with the token %q: %d %.200s", token, status, body)
			}
		}
	}},
	{"the topics of an admin for a member", func(t *testing.T, l consoleLab) {
		for _, last := range []string{"", "0", "-1", "99999999999999", "x", "1e300"} {
			events := l.watch(t, l.ben, last)
			seen := map[string]string{}
			for seen["account"] == "" {
				e := events.next(t)
				seen[e.name] = e.data
			}
			if status, body := request(t, "POST", l.Console+"/api/spacehost/admin/grant", `{"identity":"user:ben","seconds":1}`, bearer(l.ada)); status != http.StatusOK {
				t.Fatalf("a grant: %d %s", status, body)
			}
			for granted := seen["account"]; granted == seen["account"]; {
				e := events.next(t)
				seen[e.name] = e.data
			}
			for name, data := range seen {
				if !slices.Contains([]string{"clock", "me", "account", "stale"}, name) || strings.Contains(data, `"hidden"`) || strings.Contains(data, "user:ada") {
					t.Errorf("with the last id %q, a member receives %s: %.300s", last, name, data)
				}
			}
			events.close()
		}
	}},
	{"a stream after the token was revoked", func(t *testing.T, l consoleLab) {
		var made control.CreatedToken
		if status, body := request(t, "POST", l.Console+"/api/spacehost/admin/people", `{"name":"dora","tier":"free"}`, bearer(l.ada)); status != http.StatusCreated {
			t.Fatalf("a person: %d %s", status, body)
		}
		_, body := request(t, "POST", l.Console+"/api/spacehost/admin/people/dora/tokens", `{"label":"stream"}`, bearer(l.ada))
		if err := json.Unmarshal([]byte(body), &made); err != nil || made.Text == "" {
			t.Fatalf("a token: %v %s", err, body)
		}
		events := l.watch(t, made.Text, "")
		events.next(t)
		if status, body := request(t, "DELETE", l.Console+"/api/spacehost/admin/tokens/"+made.ID, "", bearer(l.ada)); status != http.StatusOK {
			t.Fatalf("revoke: %d %s", status, body)
		}
		revoked := time.Now()
		last := event{}
		for e := range events.all {
			last = e
		}
		if took := time.Since(revoked); last.name != "ended" || took > endsWithin {
			t.Errorf("the stream ended with %q after %v", last.name, took)
		}
		if status, _ := request(t, "GET", l.Console+"/api/spacehost/changes", "", bearer(made.Text)); status != http.StatusUnauthorized {
			t.Errorf("a new stream: %d", status)
		}
	}},
	{"clickjacking", func(t *testing.T, l consoleLab) {
		for _, path := range []string{"/", "/app/app.js", "/login"} {
			header := headerOf(t, l.Console+path, nil)
			policy := header.Get("Content-Security-Policy")
			if !strings.Contains(policy, "frame-ancestors 'none'") || header.Get("X-Frame-Options") != "DENY" {
				t.Errorf("%s may be in a frame: %v", path, header)
			}
			if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "base-uri 'none'") {
				t.Errorf("%s: the policy is %s", path, policy)
			}
		}
		for _, path := range []string{"/api/spacehost/me", "/api/spacehost/admin/gpu", "/api/spacehost/admin/nothing"} {
			header := headerOf(t, l.Console+path, bearer(l.ada))
			if header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(header.Get("Content-Type"), "application/json") || header.Get("Access-Control-Allow-Origin") != "" || header.Get("Set-Cookie") != "" {
				t.Errorf("%s: %v", path, header)
			}
		}
	}},
	{"texts that a table cannot show", func(t *testing.T, l consoleLab) {
		if status, body := request(t, "POST", l.Console+"/api/spacehost/admin/people", `{"name":"eve","tier":"free"}`, bearer(l.ada)); status != http.StatusCreated {
			t.Fatalf("a person: %d %s", status, body)
		}
		for _, text := range []string{"a\u001b[31mb", "a\u202eb", "a\u2066b", "a\nb", "a\u0000b", "a\u009bb"} {
			for path, body := range map[string]any{
				"/people":            control.AddPersonRequest{Name: text, Tier: "free"},
				"/people/eve/tokens": control.CreateTokenRequest{Label: text},
				"/grant":             control.AdjustmentRequest{Identity: "user:ben", Seconds: 1, Reason: text},
				"/gpu/drain":         control.DrainRequest{UUID: "0", Reason: text},
			} {
				sent, _ := json.Marshal(body) // the types can be marshalled
				if status, answer := request(t, "POST", l.Console+"/api/spacehost/admin"+path, string(sent), bearer(l.ada)); status != http.StatusBadRequest {
					t.Errorf("%s with %q: %d %.200s", path, text, status, answer)
				}
			}
		}
		for _, name := range []string{"<script>alert(1)</script>", "../ada", "a b", "a%00b", "ada'--", "local"} {
			sent, _ := json.Marshal(control.AddPersonRequest{Name: name, Tier: "free"})
			if status, answer := request(t, "POST", l.Console+"/api/spacehost/admin/people", string(sent), bearer(l.ada)); status != http.StatusBadRequest {
				t.Errorf("a person %q: %d %.200s", name, status, answer)
			}
		}
	}},
}

// wantAll sends a request to every route of the API, and wants the same status from each.
func (l consoleLab) wantAll(t *testing.T, want int, headers ...map[string]string) {
	t.Helper()
	all := map[string]string{}
	for _, more := range headers {
		for name, value := range more {
			all[name] = value
		}
	}
	for _, o := range dashboard.Operations() {
		path := strings.NewReplacer(":name", "ben", ":id", "x").Replace(o.Path)
		body := ""
		if o.Method != http.MethodGet {
			body = `{"identity":"user:ben","seconds":1,"space":"shown","uuid":"0","name":"eve","tier":"free","data":true}`
		}
		if status, answer := request(t, o.Method, l.Console+path, body, all); status != want && !isAnonymous(o, want, status, answer) {
			t.Errorf("%s %s from %q: %d, want %d: %.200s", o.Method, path, headers[0], status, want, answer)
		}
	}
}

// isAnonymous reports an answer that a request without a token may read: the document, and the account of the address.
func isAnonymous(o control.Operation, want, status int, answer string) bool {
	return want == http.StatusUnauthorized && status == http.StatusOK && o.Method == http.MethodGet && o.Access != string(dashboard.Admin) && (o.Path == dashboard.ShowOpenAPI.Path || !strings.Contains(answer, "user:"))
}

func headerOf(t *testing.T, url string, headers map[string]string) http.Header {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.Header
}

// event is a Server-Sent Event.
type event struct{ name, id, data string }

// eventStream is an open stream of the console. all is closed when the host ends it.
type eventStream struct {
	all   <-chan event
	close context.CancelFunc
}

// watch opens the stream of changes of a person.
func (l consoleLab) watch(t *testing.T, token, last string) eventStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.Console+"/api/spacehost/changes", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("the stream: %v %v", answer, err)
	}
	all := make(chan event, 100)
	go func() {
		defer close(all)
		defer answer.Body.Close()
		e := event{}
		lines := bufio.NewScanner(answer.Body)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if e.name != "" && lines.Text() == "" {
					all <- e
					e = event{}
				}
			}
		}
	}()
	return eventStream{all, cancel}
}

func (s eventStream) next(t *testing.T) event {
	t.Helper()
	e, more := <-s.all
	if !more {
		t.Fatal("the stream has ended")
	}
	return e
}
