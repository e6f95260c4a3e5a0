package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"spacehost/internal/people"
	"spacehost/internal/web/certtest"
)

// The names in docker/proxies. hello is at a sub-domain, survey below gpuName at a sub-path.
const (
	helloName   = "hello.lab.example"
	gpuName     = "gpu.lab.example"
	consoleName = "console.lab.example"
	surveyPath  = "/survey"
)

// reverseProxy runs a file of docker/proxies.
type reverseProxy struct {
	name, file string
	// config returns the files of the proxy by name, made from the text of file, and the command line that runs it.
	config func(text string, at proxyPlaces) (files map[string]string, args []string)
}

// proxyPlaces are what a test replaces in a file of docker/proxies.
type proxyPlaces struct {
	dir, cert, key string
	addr           string // of the proxy
}

var reverseProxies = []reverseProxy{
	{"nginx", "nginx.conf", func(text string, at proxyPlaces) (map[string]string, []string) {
		text = strings.NewReplacer("listen 443", "listen "+at.addr, "/etc/ssl/lab.example.pem", at.cert, "/etc/ssl/lab.example.key", at.key).Replace(text)
		main := fmt.Sprintf("daemon off; master_process off; pid %s/pid; error_log stderr warn;\nevents {}\nhttp {\naccess_log off;\n", at.dir)
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			main += fmt.Sprintf("%s_temp_path %s/%[1]s;\n", kind, at.dir)
		}
		return map[string]string{"nginx.conf": main + "include spacehost.conf;\n}\n", "spacehost.conf": text}, []string{"-p", at.dir, "-c", "nginx.conf", "-e", "stderr"}
	}},
	{"caddy", "Caddyfile", func(text string, at proxyPlaces) (map[string]string, []string) {
		host, port, _ := net.SplitHostPort(at.addr)
		global := fmt.Sprintf("{\nadmin off\nhttps_port %s\ndefault_bind %s\nauto_https disable_redirects\nlocal_certs\nskip_install_trust\nstorage file_system %s\n}\n", port, host, at.dir)
		return map[string]string{"Caddyfile": global + text}, []string{"run", "--adapter", "caddyfile", "--config", filepath.Join(at.dir, "Caddyfile")}
	}},
	{"traefik", "traefik.yaml", func(text string, at proxyPlaces) (map[string]string, []string) {
		text += fmt.Sprintf("\ntls: {certificates: [{certFile: %s, keyFile: %s}]}\n", at.cert, at.key)
		return map[string]string{"traefik.yaml": text}, []string{"--entryPoints.websecure.address=" + at.addr, "--entryPoints.websecure.transport.respondingTimeouts.readTimeout=0",
			"--providers.file.filename=" + filepath.Join(at.dir, "traefik.yaml"), "--global.checkNewVersion=false", "--global.sendAnonymousUsage=false"}
	}},
}

// TestProxies runs the files of docker/proxies in front of a host, whose Spaces are at a sub-domain and at a sub-path.
func TestProxies(t *testing.T) {
	t.Parallel()
	p, token := serveBehindProxy(t, "v6", `url: "https://gpu.lab.example/survey"`)
	for _, proxy := range reverseProxies {
		t.Run(proxy.name, func(t *testing.T) {
			if proxy.name == "traefik" { // Debian has no package of it; make proxy-check installs it
				if _, err := exec.LookPath(proxy.name); err != nil {
					t.Skip("SKIPPED: traefik is not installed; docker/proxies/traefik.yaml was not tested")
				}
			}
			addr := proxy.start(t, p)
			for _, at := range []string{"https://" + helloName, "https://" + gpuName + surveyPath} {
				v := &proxyVisit{cookieVisit{newVisit(t).Client, t}, p, addr, at}
				v.Transport = v.transport()
				v.await()
				v.streams()
				v.uploads(300 << 20)
				v.speaksWebSocket()
				v.keepsAddresses()
				v.signsIn(token)
				v.showsPages(token)
			}
		})
	}
}

// TestPythonClientAtSubPath calls a Space at its sub-path, and without it, at the host itself.
func TestPythonClientAtSubPath(t *testing.T) { eachLine(t, pythonClientAtSubPath) }

func pythonClientAtSubPath(t *testing.T, line string) {
	p, token := serveBehindProxy(t, line, `address: "127.0.0.1:0", path: /survey`)
	for _, at := range []string{p.Spaces[1].URL + surveyPath + "/", p.Spaces[1].URL} {
		if got := p.clientAs(at, token).ok("/greet", "python"); got != "Hello python" {
			t.Errorf("%s: %q", at, got)
		}
		if got := p.clientAs(at, token).call("/count"); len(got.Steps) < 8 || text(got.Value) != "step 8" {
			t.Errorf("%s: %d steps, %s %s", at, len(got.Steps), got.Value, got.Err)
		}
	}
	for _, at := range []string{p.Spaces[2].URL + "/lab/mounts/two", p.Spaces[2].URL + "/two"} {
		if status, body := request(t, http.MethodGet, at+"/config", "", nil); status != http.StatusOK || !strings.Contains(body, `"root":"`+at+`"`) {
			t.Errorf("%s, an app below a path: %d, want its address as root: %.300s", at, status, body)
		}
	}
}

// serveBehindProxy starts a host for the names of docker/proxies, with a member's token. survey are the keys of its address.
func serveBehindProxy(t *testing.T, line, survey string) (p *product, token string) {
	t.Helper()
	state := t.TempDir()
	token, hash := people.NewToken()
	proxied, mounts := onGradio(t, t.TempDir(), line, "testdata/spaces/proxied"), onGradio(t, t.TempDir(), line, "testdata/spaces/mounts")
	text := strings.NewReplacer("FOLDER", proxied, "MOUNTS", mounts, "PYTHON", environmentOf(t, line), "HASH", hash, "URL", survey).Replace(`
gpus: {machine: mock:1xH200}
quota: 2026-04
address: 127.0.0.1:0
console: 127.0.0.1:0
console_url: https://console.lab.example
trusted_proxies: [127.0.0.1]
tiers: {unauthenticated: {unlimited: true}}
spaces:
  - {folder: FOLDER, name: hello, host: hello.lab.example, python: PYTHON}
  - {folder: FOLDER, name: survey, URL, python: PYTHON}
  - {folder: MOUNTS, address: "127.0.0.1:0", path: /lab/mounts, python: PYTHON}
people: [{name: ada, tokens: [HASH]}]
`)
	file := filepath.Join(state, "lab.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p = startCommand(t, state, "serve", "--config", file)
	t.Cleanup(p.stop)
	p.awaitReady()
	p.line = line
	return p, token
}

// start runs the proxy with the addresses of p until the test ends. It returns the proxy's address.
func (proxy reverseProxy) start(t *testing.T, p *product) (addr string) {
	t.Helper()
	program := requireProgram(t, proxy.name, proxy.name, "/usr/sbin/"+proxy.name)
	text, err := os.ReadFile(filepath.Join("..", "..", "docker", "proxies", proxy.file))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	at := proxyPlaces{dir: dir, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), addr: freeAddress(t)}
	certtest.Write(t, 1, at.cert, at.key, "*.lab.example")
	rendered := strings.NewReplacer(":7860", ":"+port(p.Spaces[0].Local), ":7870", ":"+port(p.ConsoleLocal)).Replace(string(text))
	files, args := proxy.config(rendered, at)
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	startUntilEnd(t, cmd)
	return at.addr
}

// startUntilEnd starts a program, and ends it with the test. The output appears if the test fails.
func startUntilEnd(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have exited
		_ = cmd.Wait()                          // its status after a signal differs between programs
		if t.Failed() {
			t.Logf("output of %s:\n%s", cmd.Path, output.String())
		}
	})
}

// proxyVisit is a browser behind a reverse proxy, which answers to every name of docker/proxies.
type proxyVisit struct {
	cookieVisit
	p         *product
	proxyAddr string
	at        string // URL of the Space
}

func (v *proxyVisit) transport() *http.Transport {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", v.proxyAddr)
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the test made the certificate
		ForceAttemptHTTP2: true,
	}
	v.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// await waits until the proxy answers, and checks the address that Gradio's page and clients use.
func (v *proxyVisit) await() {
	v.t.Helper()
	eventually(v.t, "the proxy answers", patience, func() bool {
		r, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, v.at+"/config", nil)
		if err != nil {
			v.t.Fatal(err)
		}
		answer, err := v.Do(r)
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	for _, path := range []string{"/config", "/"} {
		if answer, body := v.do("GET", v.at+path, ""); answer.StatusCode != http.StatusOK || !strings.Contains(body, `"root":"`+v.at+`"`) {
			v.t.Errorf("%s%s: %d, want the root %s in it: %.300s", v.at, path, answer.StatusCode, v.at, body)
		}
	}
}

// streams checks that each of eight steps arrives while the Space waits with the next one.
func (v *proxyVisit) streams() {
	v.t.Helper()
	ctx, stop := context.WithTimeout(v.t.Context(), patience)
	defer stop()
	visit := rand.Text()
	_, body := v.do("POST", v.at+"/gradio_api/call/count_seen", `{"data":["`+visit+`"]}`, "Content-Type", "application/json")
	id := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(body), `{"event_id":"`), `"}`)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, v.at+"/gradio_api/call/count_seen/"+id, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	answer, err := v.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer answer.Body.Close()
	var text []byte
	next, buffer := 1, make([]byte, 4096)
	for err == nil {
		var n int
		n, err = answer.Body.Read(buffer)
		text = append(text, buffer[:n]...)
		if bytes.Contains(text, fmt.Appendf(nil, "step %d", next)) {
			v.do("POST", fmt.Sprintf("%s/seen/%s/%d", v.at, visit, next), "")
			next++
		}
	}
	if next != 9 || !bytes.Contains(text, []byte("event: complete")) {
		v.t.Fatalf("%s: the Space waited %s for step %d to arrive: %s (%v)", v.at, patience, next, text, err)
	}
}

// zeros reads as size zero bytes.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// uploads sends a file of size bytes and reads it back from the URL that the app returns.
func (v *proxyVisit) uploads(size int64) {
	v.t.Helper()
	const start = "--limit\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a b%2F.bin\"\r\n\r\n"
	body := io.MultiReader(strings.NewReader(start), io.LimitReader(zeros{}, size), strings.NewReader("\r\n--limit--\r\n"))
	r, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, v.at+"/gradio_api/upload", body)
	if err != nil {
		v.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "multipart/form-data; boundary=limit")
	answer, err := v.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		v.t.Fatalf("%s: the upload of %d bytes: %s %s %v", v.at, size, answer.Status, text, err)
	}
	path := strings.Trim(strings.TrimSpace(string(text)), `[]`)
	stream := v.call(v.at, "same", `[{"path":`+path+`,"meta":{"_type":"gradio.FileData"}}]`)
	_, url, found := strings.Cut(stream, `"url": "`)
	url, _, _ = strings.Cut(url, `"`)
	if !found || !strings.HasPrefix(url, v.at+"/gradio_api/file=") {
		v.t.Fatalf("%s: the URL of the file is %q, want it below the Space: %s", v.at, url, stream)
	}
	if r, err = http.NewRequestWithContext(v.t.Context(), http.MethodGet, url, nil); err != nil {
		v.t.Fatal(err)
	}
	file, err := v.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer file.Body.Close()
	if n, err := io.Copy(io.Discard, file.Body); err != nil || n != size || file.StatusCode != http.StatusOK {
		v.t.Errorf("%s: %s, %d bytes (%v), want %d", url, file.Status, n, err, size)
	}
}

func (v *proxyVisit) speaksWebSocket() {
	v.t.Helper()
	const script = `
import socket, ssl, sys
from websockets.sync.client import connect
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
name, port = sys.argv[2].rsplit(":", 1)
with connect(sys.argv[1], sock=socket.create_connection((name, int(port))), ssl=context) as one:
    one.send("hello")
    print(one.recv())`
	out, err := exec.Command(environment(v.t), "-c", script, "wss"+strings.TrimPrefix(v.at, "https")+"/socket", v.proxyAddr).CombinedOutput()
	if err != nil || string(out) != "echo hello\n" {
		v.t.Errorf("%s: a WebSocket: %v: %s", v.at, err, out)
	}
}

// keepsAddresses checks redirects and forged headers.
func (v *proxyVisit) keepsAddresses() {
	v.t.Helper()
	if answer, _ := v.do("GET", v.at+"/folder", ""); answer.Header.Get("Location") != strings.TrimPrefix(v.at, "https://"+gpuName)+"/folder/" && answer.Header.Get("Location") != "/folder/" {
		v.t.Errorf("%s/folder redirects to %q, want /folder/ below the Space", v.at, answer.Header.Get("Location"))
	}
	forged := []string{"X-Forwarded-For", "203.0.113.9", "X-Forwarded-Host", "evil.example", "X-Forwarded-Prefix", "/evil", "X-Forwarded-Proto", "http"}
	if answer, body := v.do("GET", v.at+"/config", "", forged...); answer.StatusCode != http.StatusOK || !strings.Contains(body, `"root":"`+v.at+`"`) {
		v.t.Errorf("%s with forged headers: %d %.300s", v.at, answer.StatusCode, body)
	}
	if got := v.identity(v.at, forged...); got != "local" {
		v.t.Errorf("%s with a forged address: %s, want local", v.at, got)
	}
	if answer, _ := v.do("GET", "https://"+consoleName+"/metrics", ""); answer.StatusCode == http.StatusOK {
		v.t.Errorf("the metrics are readable through the proxy")
	}
	if strings.HasSuffix(v.at, surveyPath) {
		if answer, _ := v.do("GET", v.at, ""); answer.Header.Get("Location") != surveyPath+"/" {
			v.t.Errorf("%s redirects to %q, want a slash at the end", v.at, answer.Header.Get("Location"))
		}
		if answer, _ := v.do("GET", "https://"+gpuName+"/config", ""); answer.StatusCode != http.StatusNotFound {
			v.t.Errorf("outside of the sub-path: %d, want 404", answer.StatusCode)
		}
	}
}

// showsPages signs ada in with a browser, and makes a call from Gradio's page.
func (v *proxyVisit) showsPages(token string) {
	v.t.Helper()
	ctx, exceptions := browser(v.t, chromedp.Flag("host-resolver-rules", "MAP * "+v.proxyAddr), chromedp.Flag("ignore-certificate-errors", true))
	err := chromedp.Do(ctx, chromedp.Navigate(v.at+"/__spacehost/login"), chromedp.WaitVisible(chromedp.CSS("#token")),
		chromedp.SendKeys(chromedp.CSS("#token"), token+"\r"), chromedp.WaitVisible(chromedp.CSS("#spaces button")),
		chromedp.Click(chromedp.CSS("#spaces button")), chromedp.WaitVisible(greetButton))
	if err != nil {
		v.t.Fatalf("%s: sign-in with a browser: %v, exceptions: %q", v.at, err, exceptions())
	}
	who, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(() => { const r = new XMLHttpRequest(); r.open("GET", "__spacehost/whoami", false); r.send(); return r.responseText })()`))
	if err != nil || !strings.Contains(who, `"user:ada"`) {
		v.t.Errorf("%s: the page is signed in as %s (%v), want user:ada", v.at, who, err)
	}
	greeting, err := greet(ctx, v.at+"/", "browser")
	if err != nil || greeting != "Hello browser" || len(exceptions()) > 0 {
		v.t.Errorf("%s: the page shows %q (%v), exceptions: %q", v.at, greeting, err, exceptions())
	}
}

// signsIn signs ada in as the pages do, makes a call that she pays, and signs her out.
func (v *proxyVisit) signsIn(token string) {
	v.t.Helper()
	answer, body := v.do("GET", v.at+"/__spacehost/login?to=/x%3Fy=z", "")
	login, err := answer.Location()
	if err != nil || answer.StatusCode != http.StatusSeeOther || login.Host != consoleName {
		v.t.Fatalf("%s: redirect to the console: %d %q %s", v.at, answer.StatusCode, answer.Header.Get("Location"), body)
	}
	q := login.Query()
	answer, body = v.do("POST", "https://"+consoleName+"/login/code", fmt.Sprintf(`{"space":%q,"origin":%q,"path":%q}`, q.Get("space"), q.Get("origin"), q.Get("path")),
		"Content-Type", "application/json", "X-Hf-Authorization", "Bearer "+token, "Origin", "https://"+consoleName)
	var reply struct{ Action, Code string }
	if err := json.Unmarshal([]byte(body), &reply); err != nil || answer.StatusCode != http.StatusOK || reply.Action != v.at+"/__spacehost/session" {
		v.t.Fatalf("%s: issuing a code: %d %s", v.at, answer.StatusCode, body)
	}
	subPath := strings.TrimPrefix(strings.TrimPrefix(v.at, "https://"+gpuName), "https://"+helloName)
	answer, body = v.redeem(reply.Action, reply.Code, "https://"+consoleName, q.Get("to"))
	if answer.StatusCode != http.StatusOK || !strings.Contains(body, `content="0;url=`+subPath+`/x?y=z"`) || !strings.Contains(body, `href="`+subPath+`/__spacehost/page.css"`) {
		v.t.Fatalf("%s: redeeming the code: %d %s", v.at, answer.StatusCode, body)
	}
	if got := v.identity(v.at); got != "user:ada" {
		v.t.Errorf("%s: signed in as %s, want user:ada", v.at, got)
	}
	origin := strings.TrimSuffix(v.at, surveyPath)
	if stream := v.call(v.at, "greet", `["x"]`, "Origin", origin, "Sec-Fetch-Site", "same-origin"); !strings.Contains(stream, "Hello x") {
		v.t.Errorf("%s: a call after the sign-in: %s", v.at, stream)
	}
	answer, _ = v.do("POST", v.at+"/__spacehost/logout", "", "Origin", origin)
	if answer.Header.Get("Location") != subPath+"/__spacehost/" || v.identity(v.at) != "local" {
		v.t.Errorf("%s: sign-out: %d %q, then signed in as %s", v.at, answer.StatusCode, answer.Header.Get("Location"), v.identity(v.at))
	}
}
