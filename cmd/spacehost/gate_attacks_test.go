package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestGateAttacks covers requests by pages of other sites, DNS rebinding, redirects after a login, and foreign streams. The
// rows are Gradio's security advisories, as in TestAttacks.
func TestGateAttacks(t *testing.T) {
	for _, line := range attackedLines() {
		t.Run(line, func(t *testing.T) {
			a := newIntruder(t, line)
			for _, row := range gateAttacks {
				t.Run(row.name, func(t *testing.T) {
					a.on(t)
					row.run(a)
				})
			}
		})
	}
}

// TestPasswordsAreNotGuessed is S31, CVE-2024-1729 and CVE-2024-47869. The time that an app takes to compare a wrong password
// leaks nothing, because the host answers at fixed intervals. After twenty wrong passwords the rate limit refuses all attempts.
func TestPasswordsAreNotGuessed(t *testing.T) {
	for _, line := range attackedLines() {
		t.Run(line, func(t *testing.T) {
			p := runOn(t, line, "testdata/fidelity/guarded")
			login := func(name, password string) (status int, took time.Duration) {
				began := time.Now()
				status, _ = request(t, "POST", p.URL+"/login", "username="+name+"&password="+password, map[string]string{"Content-Type": "application/x-www-form-urlencoded"})
				return status, time.Since(began)
			}
			if status, _ := login("ann", "open"); status != http.StatusOK {
				t.Fatalf("the right password: %d", status)
			}
			for range 5 {
				for name, password := range map[string]string{"ann": "xpen", "bob": "sesamx", "nobody": "open", "": ""} {
					status, took := login(name, password)
					if name != "" && status != http.StatusBadRequest || status == http.StatusBadRequest && took < 100*time.Millisecond {
						t.Errorf("%q %q: got %d after %v, want 400 after at least 100ms", name, password, status, took)
					}
				}
			}
			for range 5 {
				login("ann", "wrong")
			}
			for _, password := range []string{"wrong", "open"} {
				if status, _ := login("ann", password); status != http.StatusTooManyRequests {
					t.Errorf("%q after many wrong passwords: got %d, want 429", password, status)
				}
			}
		})
	}
}

const (
	evil      = "Origin: https://evil.test\r\nSec-Fetch-Site: cross-site\r\nCookie: x=1\r\n"
	sandboxed = "Origin: null\r\nCookie: x=1\r\n"
	silent    = "Sec-Fetch-Site: cross-site\r\n" // a form of another site; the browser sends no Origin
)

var gateAttacks = []struct {
	name string
	run  func(*intruder)
}{
	{"S26 CVE-2024-47084 a page of another site", func(a *intruder) { a.wantRefused(evil) }},
	{"S27 CVE-2024-47165 a page without an origin", func(a *intruder) { a.wantRefused(sandboxed) }},
	{"S29 CVE-2024-1727 an upload by another site", func(a *intruder) {
		before := a.uploaded()
		for _, from := range []string{evil, sandboxed, silent} {
			for _, host := range []string{a.local(), a.host} {
				a.uploadFrom(host, from).is(403)
			}
		}
		if after := a.uploaded(); after != before {
			a.t.Errorf("%d files are stored, want %d as before", after, before)
		}
		a.uploadFrom(a.local(), "Origin: http://localhost:3000\r\nSec-Fetch-Site: same-site\r\n").is(200) // Gradio accepts it, too
		a.uploadFrom(a.local(), "Origin: http://"+a.local()+"\r\nSec-Fetch-Site: same-origin\r\n").is(200)
	}},
	{"S26 a form and a websocket of another site", func(a *intruder) {
		for _, from := range []string{evil, sandboxed, silent} {
			a.request("POST", "/gradio_api/call/greet", a.local(), from+"Content-Type: text/plain\r\n", `{"data":["x"]}`).is(403)
			a.request("POST", "/gradio_api/run/greet", a.local(), from+"Content-Type: application/json\r\n", `{"data":["x"]}`).is(403)
			a.request("POST", "/gradio_api/cancel", a.local(), from+"Content-Type: application/json\r\n", `{"session_hash":"s","fn_index":0,"event_id":"e"}`).is(403)
			a.request("DELETE", "/anything", a.local(), from, "").is(403)
		}
		a.request("GET", "/queue/join", a.local(), evil+"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "").is(403)
		a.request("POST", "/gradio_api/call/greet", a.local(), "Origin: http://localhost:3\r\nOrigin: https://evil.test\r\nContent-Type: application/json\r\n", `{"data":["x"]}`).is(403)
	}},
	{"S30 DNS rebinding", func(a *intruder) {
		for _, name := range []string{"rebind.evil.test", "localhost.evil.test", "127.0.0.1.evil.test"} {
			for _, address := range []string{a.p.URL, a.p.Console, a.device()} {
				for _, path := range []string{"/", "/config", "/gradio_api/queue/data?session_hash=s", "/healthz", "/api/spaces/zero-gpu/quota", "/d/x/queue-size", "/nothing"} {
					for _, method := range []string{"GET", "POST", "OPTIONS"} {
						host := name + ":" + port(address)
						got := statusOfRequest(a.t, method, address+path, map[string]string{"Host": host, "Origin": "http://" + host})
						if got != http.StatusMisdirectedRequest && got != http.StatusForbidden {
							a.t.Errorf("%s %s%s as %s: %d", method, address, path, host, got)
						}
					}
				}
			}
		}
	}},
	{"S30 the console and the device API requested by pages of other sites", func(a *intruder) {
		for _, header := range []map[string]string{
			{"Origin": "https://evil.test"}, {"Origin": "null"}, {"Origin": a.p.URL}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
			{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
		} {
			for _, path := range []string{"/healthz", "/api/spaces/zero-gpu/quota", "/nothing"} {
				if got := statusOfRequest(a.t, "GET", a.p.Console+path, header); got != http.StatusForbidden {
					a.t.Errorf("the console's %s with %v: got %d, want 403", path, header, got)
				}
			}
			if got := statusOfRequest(a.t, "GET", a.device()+"/d/x/queue-size", header); got != http.StatusForbidden {
				a.t.Errorf("the device API with %v: got %d, want 403", header, got)
			}
		}
		if got := statusOfRequest(a.t, "GET", a.device()+"/d/x/queue-size", map[string]string{"Sec-Fetch-Dest": "empty"}); got != http.StatusForbidden {
			a.t.Errorf("the device API for a browser: got %d, want 403", got)
		}
		if got := statusOfRequest(a.t, "GET", a.p.Console+"/healthz", map[string]string{"Origin": a.p.Console, "Sec-Fetch-Site": "same-origin"}); got != http.StatusOK {
			a.t.Errorf("the console for its own page: got %d, want 200", got)
		}
	}},
	{"S32 CVE-2024-47168 monitoring that is off", func(a *intruder) {
		paths := []string{"/monitoring", "/monitoring/0af32a1f", "/monitoring/x/dashboard", "/runs"}
		if a.p.line == "v6" {
			paths = append(paths, "/monitoring/summary") // Gradio 5 answers although monitoring is off; the summary is then empty
		}
		for _, path := range paths {
			for _, prefix := range []string{"", "/gradio_api"} {
				a.request("GET", prefix+path, a.host, "", "").not(200, "")
			}
		}
	}},
	{"S43 CVE-2026-28415 open redirects of a login", func(a *intruder) {
		for _, path := range []string{"/logout", "/login/callback", "/login/huggingface", "/logout/"} {
			for _, to := range []string{"https://evil.test", "////evil.test/f", "//evil.test", "/%5Cevil.test", "/%09/evil.test", "/%0d%0aX:1", "%68ttps://evil.test", "//evil.test;x", "javascript:alert(1)", "%zz"} {
				got := a.request("GET", path+"?a=b&_target%5Furl="+to, a.host, "", "")
				if where := got.header.Get("Location"); got.status < 400 || where != "" {
					a.t.Errorf("%s: %d to %q", got.what, got.status, where)
				}
			}
		}
		got := a.request("GET", "/logout?_target_url=/a%3Fb=c", a.host, "", "")
		if where := got.header.Get("Location"); got.status/100 != 3 || strings.HasPrefix(where, "//") || !strings.Contains(where, "/a?b=c") {
			a.t.Errorf("a redirect to the app's own path: got %d to %q", got.status, where)
		}
	}},
	{"S44 CVE-2026-27167 the host's own token in a session", func(a *intruder) {
		got := a.request("GET", "/login/huggingface", a.host, "", "")
		if !strings.HasPrefix(got.header.Get("Location"), a.provider) || len(got.header.Values("Set-Cookie")) == 0 {
			a.t.Fatalf("the login redirect: got %d %v", got.status, got.header)
		}
		for _, cookie := range got.header.Values("Set-Cookie") {
			value, _, _ := strings.Cut(strings.SplitN(cookie, "=", 2)[1], ".")
			text, err := base64.StdEncoding.DecodeString(value)
			if err != nil || strings.Contains(string(text), canary) || strings.Contains(cookie, canary) {
				a.t.Errorf("the session cookie contains %s (%v)", text, err)
			}
		}
	}},
}

// TestForeignSessions is S45. In Gradio a session hash gives access to its streams, and session hashes appear in URLs and logs.
func TestForeignSessions(t *testing.T) {
	t.Parallel()
	p := runProduct(t, gateDir, "--addr", "[::]:0")
	a := &intruder{attacker: &attacker{t: t, p: p, host: strings.TrimPrefix(p.URL, "http://"), hits: &atomic.Int64{}}}
	token := member(t, p, "ada", "pro")
	cookie := func() string {
		set := a.request("GET", "/", a.host, "Accept: text/html\r\n", "").is(200).header.Get("Set-Cookie")
		name, _, _ := strings.Cut(set, ";")
		return "Cookie: " + name + "\r\n"
	}
	mine, theirs, adas := cookie(), cookie(), "Authorization: Bearer "+token+"\r\n"
	for name, from := range map[string]string{"browser": mine, "person": adas} {
		hash := "s-" + name
		var event struct {
			EventID string `json:"event_id"`
		}
		if err := json.Unmarshal([]byte(a.join(hash, from).is(200).body), &event); err != nil {
			t.Fatal(err)
		}
		for visitor, header := range map[string]string{"a program": "", "another browser": theirs} {
			t.Run(visitor+" with the hash of a "+name, func(t *testing.T) {
				a.on(t)
				a.wantSessionHidden(hash, event.EventID, header)
			})
		}
		a.on(t)
		a.request("GET", "/gradio_api/queue/data?session_hash="+hash, a.host, from, "").is(200).has("Hello x").has("close_stream")
	}
	// A program sends no credentials and keeps its session when its address changes. So does a browser, by its cookie.
	for name, from := range map[string]string{"program": "", "browser": mine} {
		hash := "moved-" + name
		a.host = "[::1]:" + port(p.URL)
		a.join(hash, from).is(200)
		a.host = "127.0.0.1:" + port(p.URL)
		a.request("GET", "/gradio_api/queue/data?session_hash="+hash, a.host, from, "").is(200).has("Hello x")
	}
	if names := identities(t, p); !slices.Equal(names, []string{"local", "user:ada"}) {
		t.Errorf("accounts in the ledger: %v", names)
	}
	a.wantLateCookie(theirs)
}

// join calls greet in a session.
func (a *intruder) join(hash, from string) answer {
	a.t.Helper()
	return a.request("POST", "/gradio_api/queue/join", a.host, from+"Content-Type: application/json\r\n", fmt.Sprintf(`{"data":["x"],"fn_index":%d,"session_hash":%q}`, a.fn(), hash))
}

// wantSessionHidden requests every route of a session and of its event with a foreign visitor's header.
func (a *intruder) wantSessionHidden(hash, event, header string) {
	a.t.Helper()
	for _, requestLine := range []string{
		"GET /gradio_api/queue/data?session_hash=" + hash, "GET /gradio_api/heartbeat/" + hash, "GET /gradio_api/call/greet/" + event,
		"GET /gradio_api/call/v2/greet/" + event, "GET /gradio_api/deep_link?session_hash=" + hash,
		"POST /gradio_api/queue/join", "POST /gradio_api/call/greet", "POST /gradio_api/run/greet", "POST /gradio_api/api/greet",
		"POST /gradio_api/cancel", "POST /gradio_api/component_server", "POST /gradio_api/stream/" + event,
	} {
		method, path, _ := strings.Cut(requestLine, " ")
		body := fmt.Sprintf(`{"data":["y"],"fn_index":%d,"session_hash":%q,"event_id":%q,"component_id":1,"fn_name":"x"}`, a.fn(), hash, event)
		a.request(method, path, a.host, header+"Content-Type: application/json\r\n", body).is(404)
	}
}

// wantLateCookie checks that a browser which receives its cookie with the response to its first call keeps its session, also after
// the rate limit refuses guessed session hashes. (More calls could meet a full queue.)
func (a *intruder) wantLateCookie(theirs string) {
	a.t.Helper()
	cancel := func(from string) answer {
		return a.request("POST", "/gradio_api/cancel", a.host, from+"Content-Type: application/json\r\n", fmt.Sprintf(`{"session_hash":"late","fn_index":%d,"event_id":"e"}`, a.fn()))
	}
	first := a.join("late", "Origin: http://"+a.host+"\r\nSec-Fetch-Site: same-origin\r\n").is(200)
	given, _, _ := strings.Cut(first.header.Get("Set-Cookie"), ";")
	cancel("Cookie: " + given + "\r\n").is(200)
	cancel("").is(404)
	cancel(theirs).is(404)
	for i := range 200 {
		a.request("GET", fmt.Sprintf("/gradio_api/queue/data?session_hash=guess%d", i), a.host, "", "")
	}
	a.request("GET", "/gradio_api/queue/data?session_hash=guess", a.host, "", "").is(429)
	cancel("Cookie: " + given + "\r\n").is(200)
}

// fn returns the fn_index of greet.
func (a *intruder) fn() int {
	if a.fns == nil {
		a.readConfig()
	}
	return a.fns["greet"]
}

// intruder is an attacker of a Space that has a login by the Hub.
type intruder struct {
	*attacker
	provider string
}

func newIntruder(t *testing.T, line string) *intruder {
	t.Helper()
	var provider *httptest.Server
	provider = startInNetwork(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"userinfo_endpoint":%q}`, provider.URL, provider.URL+"/oauth/authorize", provider.URL+"/t", provider.URL+"/u")
	}))
	p := runOn(t, line, "testdata/spaces/gate", append(reachFlags(provider), "--variable", "OAUTH_CLIENT_ID=id", "--secret", "OAUTH_CLIENT_SECRET=s",
		"--variable", "OAUTH_SCOPES=openid", "--variable", "OPENID_PROVIDER_URL="+provider.URL, "--secret", "HF_TOKEN=hf_"+canary)...)
	a := &attacker{t: t, p: p, host: strings.TrimPrefix(p.URL, "http://"), hits: &atomic.Int64{}}
	return &intruder{a, provider.URL}
}

// request sends a request with the path of this line's Gradio: Gradio 4 has no prefix.
func (a *intruder) request(method, path, host, headers, body string) answer {
	a.t.Helper()
	if a.p.line == "v4" {
		path = strings.TrimPrefix(path, "/gradio_api")
	}
	request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\n", method, path, host, headers, len(body))
	if !strings.Contains(headers, "Upgrade") {
		request += "Connection: close\r\n"
	}
	return a.rawTo(request+"\r\n"+body, a.provider)
}

// local returns the Space's address with the host name that foreign pages use.
func (a *intruder) local() string { return "localhost:" + port(a.p.URL) }

func port(address string) string { return address[strings.LastIndex(address, ":")+1:] }

// wantRefused checks that a page of another origin can neither read the Space's responses nor make calls.
func (a *intruder) wantRefused(from string) {
	a.t.Helper()
	join := `{"data":["x"],"fn_index":0,"session_hash":"s"}`
	for _, got := range []answer{
		a.request("GET", "/config", a.local(), from, "").is(200),
		a.request("OPTIONS", "/gradio_api/queue/join", a.local(), from+"Access-Control-Request-Method: POST\r\n", ""),
		a.request("POST", "/gradio_api/queue/join", a.local(), from+"Content-Type: application/json\r\n", join).is(403),
		a.request("POST", "/gradio_api/queue/join", "127.0.0.1:"+port(a.p.URL), from+"Content-Type: text/plain\r\n", join).is(403),
	} {
		if origin := got.header.Get("Access-Control-Allow-Origin"); origin != "" {
			a.t.Errorf("%s allows %s to read the response", got.what, origin)
		}
	}
}

func (a *intruder) uploadFrom(host, from string) answer {
	a.t.Helper()
	body := "--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.txt\"\r\n\r\nx\r\n--B--\r\n"
	return a.request("POST", "/gradio_api/upload", host, from+"Content-Type: multipart/form-data; boundary=B\r\n", body)
}

// uploaded counts the uploaded files.
func (a *intruder) uploaded() (n int) {
	for _, folder := range []string{"home/gradio", "uploading"} {
		_ = filepath.WalkDir(filepath.Join(a.p.State, "spaces", "gate", folder), func(_ string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				n++
			}
			return nil
		})
	}
	return n
}

// device returns the address of the device API: the port that belongs neither to a Space nor to the console.
func (a *intruder) device() string {
	a.t.Helper()
	for _, address := range listening(a.t, a.p.cmd.Process.Pid) {
		if address != a.p.URL && address != a.p.Console {
			return address
		}
	}
	a.t.Fatal("the host listens at no third address")
	return ""
}

func statusOfRequest(t *testing.T, method, address string, headers map[string]string) int {
	t.Helper()
	status, _ := request(t, method, address, "", headers)
	return status
}

// listening lists the loopback addresses at which a process listens: the kernel's listening sockets that the process has open.
func listening(t *testing.T, pid int) (addresses []string) {
	t.Helper()
	own := map[string]bool{}
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		target, _ := os.Readlink(filepath.Join(folder, entry.Name())) // it may be closed by now
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range strings.Split(string(table), "\n")[1:] {
		fields := strings.Fields(row)
		if len(fields) < 10 || fields[3] != "0A" || !own[fields[9]] { // 0A is LISTEN
			continue
		}
		var number int
		if _, err := fmt.Sscanf(fields[1], "0100007F:%X", &number); err == nil {
			addresses = append(addresses, fmt.Sprintf("http://127.0.0.1:%d", number))
		}
	}
	return addresses
}
