package host

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"spacehost/internal/people"
)

// publicLab has a Space at a high port, and at paths of one name another Space and the console.
const publicLab = `address: 127.0.0.1:0
console_url: https://gpu.lab.example/console
people: [{name: ada, tokens: [HASH]}]`

const publicSpaces = "- {folder: SAMPLE, name: one, address: '127.0.0.1:0', url: 'https://one.lab.example:44443', visibility: private, python: /bin/false}\n" +
	"- {folder: SAMPLE, name: two, url: 'https://gpu.lab.example/two', python: /bin/false}\n"

// publicHost is a host behind a proxy that passes requests on without a header.
type publicHost struct {
	*reloadHost
	token string
}

// ask sends a request to an address of the host. headers are pairs of name and value.
func (p publicHost) ask(method, addr, path, body string, headers ...string) (*http.Response, string) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := ownClient.Transport.RoundTrip(r) // no redirects
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer, string(text)
}

// shared is the address of all host names.
func (p publicHost) shared() string { return p.find("two").site().Addr.String() }

// TestPublicAddress checks that links, sign-in and screens use the addresses of browsers, wherever the request arrives.
func TestPublicAddress(t *testing.T) {
	token, hash := people.NewToken()
	p := publicHost{startReloadHost(t, labOf(strings.Replace(publicLab, "HASH", hash, 1), publicSpaces)), token}
	p.linksToSpaces()
	p.leadsToTheConsole()
	p.servesTheConsole()
	p.issuesCodes()
	p.movesAtAReload(strings.Replace(publicLab, "HASH", hash, 1))
}

func (p publicHost) linksToSpaces() {
	p.t.Helper()
	for name, want := range map[string][2]string{
		"one": {"https://one.lab.example:44443", "http://" + p.find("one").site().Addr.String()},
		"two": {"https://gpu.lab.example/two", "http://gpu.lab.example:" + p.shared()[strings.LastIndex(p.shared(), ":")+1:] + "/two"},
	} {
		s := p.find(name)
		if s.url() != want[0] || s.view().URL != want[0] || s.supervisorConfig().PublicURL != want[0] || s.localURL() != want[1] || s.supervisorConfig().LocalURL != want[1] {
			p.t.Errorf("%s: url %s, view %s, local %s, want %s and %s", name, s.url(), s.view().URL, s.localURL(), want[0], want[1])
		}
		if got := s.publicName(); "https://"+got != want[0] {
			p.t.Errorf("%s: SPACE_HOST is %s, want that of %s", name, got, want[0])
		}
	}
	if got := p.consoleAddress().String(); got != "https://gpu.lab.example/console" {
		p.t.Errorf("the console is at %s", got)
	}
}

func (p publicHost) leadsToTheConsole() {
	p.t.Helper()
	for _, row := range [][3]string{ // address, path, the sign-in's origin and path
		{p.shared(), "/two/__spacehost/login", "https://gpu.lab.example /two"},
		{p.find("one").site().Addr.String(), "/__spacehost/login", "https://one.lab.example:44443 "},
	} {
		answer, body := p.ask("GET", row[0], row[1], "", "Authorization", "Bearer "+p.token) // one is private
		to, err := url.Parse(answer.Header.Get("Location"))
		if err != nil || answer.StatusCode != http.StatusSeeOther || to.Scheme+"://"+to.Host+to.Path != "https://gpu.lab.example/console/login" || to.Query().Get("origin")+" "+to.Query().Get("path") != row[2] {
			p.t.Errorf("%s: %d to %q, want the console with %s: %s", row[1], answer.StatusCode, answer.Header.Get("Location"), row[2], body)
		}
	}
	if answer, _ := p.ask("GET", p.find("one").site().Addr.String(), "/__spacehost/login", ""); answer.StatusCode != http.StatusNotFound {
		p.t.Errorf("sign-in at a private Space: %d, want 404, which reveals nothing", answer.StatusCode)
	}
	answer, body := p.ask("GET", p.shared(), "/two/__spacehost/", "")
	if answer.StatusCode != http.StatusOK || !strings.Contains(body, `href="/two/__spacehost/login"`) || !strings.Contains(body, `href="/two/__spacehost/page.css"`) {
		p.t.Errorf("the page of the sign-in: %d %s", answer.StatusCode, body)
	}
	cookie := answer.Header.Get("Set-Cookie")
	if !strings.HasPrefix(cookie, "__Secure-spacehost-visitor-") && cookie != "" {
		p.t.Errorf("the cookie at a sub-path is %q", cookie)
	}
}

func (p publicHost) servesTheConsole() {
	p.t.Helper()
	own := p.console.Addr.String()
	for _, row := range []struct {
		addr, path string
		want       int
		contains   string
	}{
		{p.shared(), "/console", http.StatusPermanentRedirect, ""}, {p.shared(), "/console/", http.StatusOK, `href="app/app.css"`}, {p.shared(), "/console/app/session.js", http.StatusOK, `request("login/code"`}, {p.shared(), "/console/login", http.StatusOK, `src="login.js"`},
		{p.shared(), "/console/login.js", http.StatusOK, `request("login/me")`}, {p.shared(), "/console/metrics", http.StatusNotFound, ""}, {p.shared(), "/metrics", http.StatusNotFound, ""},
		{own, "/metrics", http.StatusOK, "spacehost_"}, {own, "/console/login.css", http.StatusOK, ""}, {own, "/login.css", http.StatusOK, ""},
	} {
		answer, body := p.ask("GET", row.addr, row.path, "")
		if answer.StatusCode != row.want || !strings.Contains(body, row.contains) || row.want == http.StatusPermanentRedirect && answer.Header.Get("Location") != "/console/" {
			p.t.Errorf("%s: %d %q %.200s, want %d with %q", row.path, answer.StatusCode, answer.Header.Get("Location"), body, row.want, row.contains)
		}
	}
}

// issuesCodes checks that a code goes to the address of a Space only, at which its browser sends the cookie back.
func (p publicHost) issuesCodes() {
	p.t.Helper()
	headers := []string{"X-Hf-Authorization", "Bearer " + p.token, "Origin", "https://gpu.lab.example", "Sec-Fetch-Site", "same-origin", "Content-Type", "application/json"}
	_, body := p.ask("GET", p.shared(), "/console/login/me", "", headers...)
	if !strings.Contains(body, `"origin":"https://one.lab.example:44443","path":""`) || !strings.Contains(body, `"origin":"https://gpu.lab.example","path":"/two"`) {
		p.t.Errorf("the console offers %s", body)
	}
	for _, row := range []struct{ ask, action string }{
		{`{"space":"one","origin":"https://one.lab.example:44443","path":""}`, "https://one.lab.example:44443/__spacehost/session"},
		{`{"space":"two","origin":"https://gpu.lab.example","path":"/two"}`, "https://gpu.lab.example/two/__spacehost/session"},
		{`{"space":"two","origin":"https://gpu.lab.example","path":"/evil"}`, "https://gpu.lab.example/two/__spacehost/session"},
		{`{"space":"two","origin":"https://gpu.lab.example","path":""}`, "https://gpu.lab.example/two/__spacehost/session"},
		{`{"space":"one","origin":"https://one.lab.example:44444","path":""}`, ""},
		{`{"space":"one","origin":"https://evil.example:44443","path":""}`, ""},
	} {
		_, body := p.ask("POST", p.shared(), "/console/login/code", row.ask, headers...)
		var reply struct{ Action, Code string }
		if err := json.Unmarshal([]byte(body), &reply); err != nil || reply.Action != row.action {
			p.t.Errorf("%s: %s, want a code for %q", row.ask, body, row.action)
		}
		if reply.Code == "" {
			continue
		}
		addr, path := p.shared(), strings.TrimPrefix(row.action, "https://gpu.lab.example")
		if strings.HasPrefix(row.action, "https://one") {
			addr, path = p.find("one").site().Addr.String(), "/__spacehost/session"
		}
		form := url.Values{"code": {reply.Code}, "to": {"/"}}.Encode()
		answer, body := p.ask("POST", addr, path, form, "Content-Type", "application/x-www-form-urlencoded", "Origin", "https://gpu.lab.example")
		if cookie := answer.Header.Get("Set-Cookie"); answer.StatusCode != http.StatusOK || !strings.Contains(cookie, "Secure") || strings.Contains(path, "/two/") != strings.Contains(cookie, "Path=/two") {
			p.t.Errorf("%s: redeeming the code: %d %q %s", row.ask, answer.StatusCode, cookie, body)
		}
	}
}

// movesAtAReload gives a Space another path.
func (p publicHost) movesAtAReload(top string) {
	p.t.Helper()
	answer := p.reload(labOf(top, strings.Replace(publicSpaces, "example/two", "example/drei", 1)))
	if len(answer.Changes) != 1 || answer.Changes[0].Text != "~ space two: url https://gpu.lab.example/two -> https://gpu.lab.example/drei (the Space restarts)" {
		p.t.Errorf("changes: %+v", answer.Changes)
	}
	p.await("the former path is given up", func() bool {
		before, _ := p.ask("GET", p.shared(), "/two/__spacehost/whoami", "")
		after, body := p.ask("GET", p.shared(), "/drei/__spacehost/whoami", "")
		return before.StatusCode == http.StatusNotFound && after.StatusCode == http.StatusOK && strings.Contains(body, `"identity":"local"`)
	})
	if got := p.find("two").url(); got != "https://gpu.lab.example/drei" {
		p.t.Errorf("after the reload: %s", got)
	}
}

// TestForwardedPrefix checks Spaces behind a trusted proxy that removes a path and names it. The path of a `url` has precedence,
// and a path that only the header names receives no sign-in.
func TestForwardedPrefix(t *testing.T) {
	p := publicHost{startReloadHost(t, labOf("address: 127.0.0.1:0\ntrusted_proxies: [127.0.0.1]\nconsole_url: https://console.lab.example",
		spaceOne+"- {folder: SAMPLE, name: two, url: 'https://gpu.lab.example/two', python: /bin/false}\n"+strings.Replace(spaceTwo, "name: two", "name: three, path: /three", 1))), ""}
	behind := func(prefix string) []string {
		return []string{"X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "https", "X-Forwarded-Prefix", prefix}
	}
	one, three := p.find("one").site().Addr.String(), p.find("three").site().Addr.String()
	for _, row := range []struct{ addr, path, prefix, style string }{
		{one, "/__spacehost/", "/lab", "/lab/__spacehost/page.css"}, {one, "/__spacehost/", "", "/__spacehost/page.css"},
		{p.shared(), "/two/__spacehost/", "/evil", "/two/__spacehost/page.css"},
		{three, "/__spacehost/", "/three", "/three/__spacehost/page.css"}, {three, "/three/__spacehost/", "/three", "/three/__spacehost/page.css"},
	} {
		answer, body := p.ask("GET", row.addr, row.path, "", behind(row.prefix)...)
		if answer.StatusCode != http.StatusOK || !strings.Contains(body, `href="`+row.style+`"`) {
			t.Errorf("%s with prefix %q: %d %s, want the style at %s", row.path, row.prefix, answer.StatusCode, body, row.style)
		}
	}
	if answer, body := p.ask("GET", one, "/__spacehost/login", "", behind("/lab")...); answer.StatusCode != http.StatusBadRequest || !strings.Contains(body, "as url: https://"+one+"/lab") {
		t.Errorf("sign-in below the header's path: %d %s", answer.StatusCode, body)
	}
	if answer, _ := p.ask("GET", three, "/__spacehost/login", "", append(behind("/three"), "X-Forwarded-Host", "127.0.0.1")...); answer.StatusCode != http.StatusSeeOther || !strings.Contains(answer.Header.Get("Location"), "path=%2Fthree") {
		t.Errorf("sign-in below a configured path: %d %s", answer.StatusCode, answer.Header.Get("Location"))
	}
	if answer, _ := p.ask("GET", one, "/__spacehost/", "", behind("//evil.example")...); answer.StatusCode != http.StatusBadRequest {
		t.Errorf("an invalid prefix: %d, want 400", answer.StatusCode)
	}
}
