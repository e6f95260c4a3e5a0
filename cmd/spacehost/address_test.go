package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"spacehost/internal/people"
	"spacehost/internal/web/certtest"
)

// publicPlace is a Space with a `url` in TestPublicAddresses.
type publicPlace struct {
	name, url string
	private   bool // its sign-in begins at the console
	direct    bool // browsers reach the host itself, which serves TLS
}

var publicPlaces = []publicPlace{
	{name: "hello", url: "https://hello.lab.example", private: true},
	{name: "port", url: "https://port.lab.example:44443"},
	{name: "survey", url: "https://gpu.lab.example/survey"},
	{name: "direct", url: "https://direct.lab.example:DIRECT", direct: true},
}

// TestPublicAddresses drives a browser through sign-in, call, stream, upload and sign-out at a sub-domain, at a high port and at a
// sub-path, behind a block of nginx as the first page of a search shows it and behind docker/proxies/nginx.conf, and with the
// host's own TLS.
func TestPublicAddresses(t *testing.T) {
	t.Parallel()
	p, token, directAddr := servePublicly(t)
	conf := map[string]string{"naive": naiveBlocks(p), "documented": documentedBlocks(t, p)}
	for name, text := range conf {
		t.Run(name, func(t *testing.T) {
			addr := startNginx(t, text)
			for _, at := range publicPlaces {
				if at.direct && name != "naive" { // no proxy is involved
					continue
				}
				t.Run(at.name, func(t *testing.T) {
					at.url = strings.Replace(at.url, "DIRECT", port(directAddr), 1)
					v := newPublicVisit(t, p, at, fmt.Sprintf("MAP direct.lab.example:%s %s, MAP * %s", port(directAddr), directAddr, addr))
					v.signIn(token)
					v.keepsToItsPath()
					v.calls()
					v.streams()
					v.uploads(map[string]int{"naive": 300 << 10, "documented": 3 << 20}[name])
					v.signsOut()
				})
			}
		})
	}
	for _, one := range p.Spaces {
		if !strings.HasPrefix(one.URL, "https://") || !strings.HasPrefix(one.Local, "http://") {
			t.Errorf("%s: url %s, local %s", one.Name, one.URL, one.Local)
		}
	}
	if code, list, stderr := p.cli("space", "list"); code != 0 || !strings.Contains(list, "https://gpu.lab.example/survey") {
		t.Errorf("space list: %d %s%s, want the address in browsers", code, list, stderr)
	}
}

// servePublicly starts a host without trusted proxies whose Spaces and console have addresses in browsers. It returns a member's
// token, and the address of the Space that browsers reach without a proxy.
func servePublicly(t *testing.T) (p *product, token, directAddr string) {
	t.Helper()
	state := t.TempDir()
	token, hash := people.NewToken()
	directAddr = freeAddress(t)
	cert, key := filepath.Join(state, "cert.pem"), filepath.Join(state, "key.pem")
	certtest.Write(t, 1, cert, key, "*.lab.example")
	text := strings.NewReplacer("FOLDER", onGradio(t, t.TempDir(), "v6", "testdata/spaces/proxied"), "PYTHON", environment(t), "HASH", hash, "DIRECT", directAddr, "PORT", port(directAddr), "CERT", cert, "KEY", key).Replace(`
gpus: {machine: mock:1xH200}
quota: 2026-04
address: 127.0.0.1:0
console: 127.0.0.1:0
console_url: https://gpu.lab.example/console
tls: {cert: CERT, key: KEY}
tiers: {unauthenticated: {unlimited: true}}
spaces:
  - {folder: FOLDER, name: hello, address: "127.0.0.1:0", url: "https://hello.lab.example/", visibility: private, members: [ada], python: PYTHON}
  - {folder: FOLDER, name: port, address: "127.0.0.1:0", url: "https://port.lab.example:44443", python: PYTHON}
  - {folder: FOLDER, name: survey, url: "https://gpu.lab.example/survey", python: PYTHON}
  - {folder: FOLDER, name: direct, address: "DIRECT", url: "https://direct.lab.example:PORT", python: PYTHON}
people: [{name: ada, tokens: [HASH]}]
`)
	file := filepath.Join(state, "lab.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p = startCommand(t, state, "serve", "--config", file)
	t.Cleanup(p.stop)
	p.awaitReady()
	p.line = "v6"
	return p, token, directAddr
}

// publicPorts returns the port behind each host name. At gpuName, the shared address has a Space and the console.
func publicPorts(p *product) map[string]string {
	return map[string]string{helloName: port(p.Spaces[0].Local), "port.lab.example": port(p.Spaces[1].Local), gpuName: port(strings.TrimSuffix(p.Spaces[2].Local, "/survey"))}
}

// naiveBlocks passes requests on without a header: the host sees its own address as Host, and no scheme.
func naiveBlocks(p *product) (text string) {
	for name, port := range publicPorts(p) {
		text += fmt.Sprintf("server {\nlisten 443 ssl;\nserver_name %s;\nssl_certificate /etc/ssl/lab.example.pem;\nssl_certificate_key /etc/ssl/lab.example.key;\nlocation / { proxy_pass http://127.0.0.1:%s; }\n}\n", name, port)
	}
	return text
}

// documentedBlocks is docker/proxies/nginx.conf, whose server of Spaces is repeated for the addresses of the Spaces here.
func documentedBlocks(t *testing.T, p *product) string {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("..", "..", "docker", "proxies", "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	const names = "hello.lab.example drafts.lab.example gpu.lab.example"
	text, rest, found := strings.Cut(string(file), "# Spaces: ")
	block, _, ended := strings.Cut(rest, "\n}\n")
	if !found || !ended || !strings.Contains(block, names) {
		t.Fatalf("docker/proxies/nginx.conf has no server of Spaces: %s", file)
	}
	for name, port := range publicPorts(p) {
		text += strings.NewReplacer(names, name, ":7860", ":"+port).Replace("# " + block + "\n}\n")
	}
	return text
}

// startNginx runs nginx with the text of a file of conf.d, and returns its address.
func startNginx(t *testing.T, text string) (addr string) {
	t.Helper()
	program := requireProgram(t, "nginx", "nginx", "/usr/sbin/nginx")
	dir := t.TempDir()
	at := proxyPlaces{dir: dir, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), addr: freeAddress(t)}
	certtest.Write(t, 1, at.cert, at.key, "*.lab.example")
	files, args := reverseProxies[0].config(text, at)
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	startUntilEnd(t, exec.Command(program, args...))
	return at.addr
}

// publicVisit is a browser at the public address of a Space.
type publicVisit struct {
	publicPlace
	t          *testing.T
	ctx        context.Context
	exceptions func() []string
}

func newPublicVisit(t *testing.T, p *product, at publicPlace, rules string) *publicVisit {
	t.Helper()
	ctx, exceptions := browser(t, chromedp.Flag("host-resolver-rules", rules), chromedp.Flag("ignore-certificate-errors", true))
	return &publicVisit{at, t, ctx, exceptions}
}

// do runs actions, whose failure ends the test.
func (v *publicVisit) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	if err := chromedp.Do(v.ctx, actions...); err != nil {
		screenshot(v.t, v.ctx, "failed-"+strings.ReplaceAll(v.t.Name(), "/", "-")+".png")
		text, _ := chromedp.Run(v.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
		v.t.Fatalf("%s: %s: %v; exceptions %q; the page: %.500s", v.url, what, err, v.exceptions(), text)
	}
}

// script returns the text that a script of the page resolves to.
func (v *publicVisit) script(text string) string {
	v.t.Helper()
	result, err := chromedp.Run(v.ctx, chromedp.Evaluate[string](`(async () => {`+text+`})()`, chromedp.EvalAwaitPromise))
	if err != nil {
		v.t.Fatalf("%s: %v", v.url, err)
	}
	return result
}

// signIn enters the token at the console and chooses the Space, which opens at its own address.
func (v *publicVisit) signIn(token string) {
	v.t.Helper()
	start, button := v.url+"/__spacehost/login", chromedp.Search(fmt.Sprintf(`//button[text()="Sign in to %s"]`, v.name))
	if v.private {
		start = "https://" + gpuName + "/console#spaces"
		button = chromedp.Search(fmt.Sprintf(`//article[.//small[starts-with(normalize-space(.), %q)]]//button[starts-with(., "Open as")]`, v.name))
	}
	v.do("sign-in", chromedp.Navigate(start), chromedp.WaitVisible(chromedp.CSS("#token")),
		chromedp.SendKeys(chromedp.CSS("#token"), token+"\r"), chromedp.WaitVisible(button))
	screenshot(v.t, v.ctx, "console-"+strings.ReplaceAll(v.t.Name(), "/", "-")+".png")
	v.do("sign-in at the Space", chromedp.Click(button), chromedp.WaitVisible(greetButton))
	screenshot(v.t, v.ctx, "signed-in-"+strings.ReplaceAll(v.t.Name(), "/", "-")+".png")
	if at := v.script("return location.href"); at != v.url+"/" {
		v.t.Errorf("after the sign-in the browser is at %s, want %s/", at, v.url)
	}
	if who := v.script(`return (await fetch("__spacehost/whoami")).text()`); !strings.Contains(who, `"user:ada"`) {
		v.t.Errorf("%s: signed in as %s, want user:ada", v.url, who)
	}
}

// keepsToItsPath checks the sign-in cookie, and the addresses that the app itself sees.
func (v *publicVisit) keepsToItsPath() {
	v.t.Helper()
	cookies, err := chromedp.Call(v.ctx, network.GetCookies, network.GetCookiesParams{})
	path := strings.TrimPrefix(strings.SplitN(v.url, "//", 2)[1], strings.SplitN(strings.SplitN(v.url, "//", 2)[1], "/", 2)[0])
	signIns := 0
	for _, one := range cookies.Cookies {
		if strings.Contains(one.Name, "spacehost-in-") {
			signIns++
			if want := map[bool]string{true: "/", false: path}[path == ""]; one.Path != want || !one.Secure || !one.HTTPOnly {
				v.t.Errorf("%s: the cookie %s has path %q, secure %v; want path %q", v.url, one.Name, one.Path, one.Secure, want)
			}
		}
	}
	if err != nil || signIns != 1 {
		v.t.Errorf("%s: %d sign-in cookies, %v, want 1", v.url, signIns, err)
	}
	var urls struct {
		LocalURL string `json:"local_url"`
		Callback string `json:"callback"`
	}
	text := v.script(`return (await fetch("urls")).text()`)
	if err := json.Unmarshal([]byte(text), &urls); err != nil || strings.TrimSuffix(urls.LocalURL, "/") != v.url || urls.Callback != v.url+"/urls" {
		v.t.Errorf("%s: the app sees %s, want that address in both (%v)", v.url, text, err)
	}
	if root := v.script(`return window.gradio_config.root`); root != v.url {
		v.t.Errorf("the root of the page is %s, want %s", root, v.url)
	}
	if styled := v.script(`return getComputedStyle(document.querySelector("#greet")).cursor`); styled != "pointer" {
		v.t.Errorf("%s: the button has the cursor %q: the page has no style", v.url, styled)
	}
}

func (v *publicVisit) calls() {
	v.t.Helper()
	greeting, err := greet(v.ctx, v.url+"/", "browser")
	if err != nil || greeting != "Hello browser" || len(v.exceptions()) > 0 {
		v.t.Errorf("%s: the page shows %q (%v), exceptions: %q", v.url, greeting, err, v.exceptions())
	}
}

// streams clicks and notes when each of eight steps, 0.2 s apart, is shown.
func (v *publicVisit) streams() {
	v.t.Helper()
	text := v.script(`
		const seen = [];
		document.querySelector("#count").click();
		for (const end = Date.now() + 60000; Date.now() < end && seen.at(-1)?.[0] !== "step 8"; await new Promise((r) => setTimeout(r, 10))) {
			const shown = document.querySelector("#greeting textarea, #greeting input").value;
			if (shown.startsWith("step") && seen.at(-1)?.[0] !== shown) seen.push([shown, Date.now()]);
		}
		return seen.map(([step]) => step).join() + " in " + (seen.at(-1)[1] - seen[0][1]);`)
	var took int
	steps, rest, _ := strings.Cut(text, " in ")
	if _, err := fmt.Sscan(rest, &took); err != nil || strings.Count(steps, ",") < 5 || took < 900 {
		v.t.Errorf("%s: the page has shown %s ms, want eight steps in about 1400 ms", v.url, text)
	}
}

// uploads sends a file by the page's own field, and reads the app's copy of it at the address that the page links to.
func (v *publicVisit) uploads(size int) {
	v.t.Helper()
	file := filepath.Join(v.t.TempDir(), "upload.bin")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), size), 0o600); err != nil {
		v.t.Fatal(err)
	}
	v.do("choose a file", chromedp.SetUploadFiles(chromedp.CSS("#file input[type=file]"), []string{file}), chromedp.WaitVisible(chromedp.CSS(`#file a[href*="upload.bin"]`)))
	v.do("copy the file", chromedp.Click(chromedp.CSS("#same")), chromedp.WaitVisible(chromedp.CSS(`#copy a[href*="upload.bin"]`)))
	got := v.script(`const link = document.querySelector('#copy a[href*="upload.bin"]').href; return link + " " + (await (await fetch(link)).blob()).size`)
	if !strings.HasPrefix(got, v.url+"/gradio_api/file=") || !strings.HasSuffix(got, fmt.Sprintf(" %d", size)) {
		v.t.Errorf("%s: the file is at %s bytes, want %d", v.url, got, size)
	}
}

// signsOut ends the sign-in with the button. A private Space is hidden from then on.
func (v *publicVisit) signsOut() {
	v.t.Helper()
	const out = `//button[text()="Sign out"]`
	v.do("open the sign-in page", chromedp.Navigate(v.url+"/__spacehost/"), chromedp.WaitVisible(chromedp.Search(out)))
	screenshot(v.t, v.ctx, "sign-out-"+strings.ReplaceAll(v.t.Name(), "/", "-")+".png")
	v.do("sign out", chromedp.Click(chromedp.Search(out)))
	want := "You are not signed in."
	if v.private {
		want = "Not Found"
	}
	eventually(v.t, "the page shows "+want, patience, func() bool {
		text, err := chromedp.Run(v.ctx, chromedp.Evaluate[string](`document.body.innerText`)) // fails between two pages
		return err == nil && strings.Contains(text, want)
	})
	if at := v.script("return location.href"); at != v.url+"/__spacehost/" {
		v.t.Errorf("after the sign-out the browser is at %s, want it at %s", at, v.url)
	}
}
