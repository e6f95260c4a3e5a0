package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"spacehost/internal/control"
	"spacehost/internal/people"
)

const dashboardSpaces = `
people:
  - {name: ada, tier: pro, admin: true, tokens: [ADA]}
  - {name: ben, tier: free, tokens: [BEN]}
  - {name: cleo, tier: free, tokens: [CLEO]}
spaces:
  - {folder: LEASES, name: shown, address: "127.0.0.1:0", python: PYTHON}
  - {folder: TITLED, name: hidden, address: "127.0.0.1:0", python: PYTHON, visibility: private, members: [ada]}
`

// hostileTitle is a Space's title that would run as code in a page that does not escape it. The page shows visibleTitle. Its functions
// have hostile names, and it prints a hostile line.
const (
	hostileTitle = `<img src=x onerror="document.body.remove()">` + "\x1b[31m\u202egnp"
	visibleTitle = `<img src=x onerror="document.body.remove()">` + "␛[31m‹U+202E›gnp"

	hostileApp = `

def named(name):
    def function():
        print("<script>document.body.remove()</script>\x1b[31m\u202eenil")
    function.__name__ = function.__qualname__ = name
    return spaces.GPU(duration=7)(function)

named("<img src=x onerror=document.body.remove()>")
named("\u202eneddih\x1b[2J")
print("<script>document.body.remove()</script>\x1b[31m\u202eenil")
`
)

// consoleLab is a host with an admin, ada, and two members.
type consoleLab struct {
	*reloadLab
	ada, ben, cleo string
}

func serveConsole(t *testing.T) consoleLab {
	t.Helper()
	titled := filepath.Join(t.TempDir(), "titled")
	if err := os.CopyFS(titled, os.DirFS("testdata/spaces/steady")); err != nil {
		t.Fatal(err)
	}
	app, err := os.ReadFile(filepath.Join(titled, "app.py"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(titled, "app.py"), []byte(strings.Replace(string(app), "\nwith gr.Blocks", hostileApp+"\nwith gr.Blocks", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	title, _ := json.Marshal(hostileTitle) // YAML reads JSON
	text := "---\ntitle: " + string(title) + "\nsdk: gradio\nsdk_version: 6.31.0\napp_file: app.py\n---\n"
	if err := os.WriteFile(filepath.Join(titled, "README.md"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ada, adaHash := people.NewToken()
	ben, benHash := people.NewToken()
	cleo, cleoHash := people.NewToken()
	return consoleLab{serveReload(t, dashboardSpaces, "ADA", adaHash, "BEN", benHash, "CLEO", cleoHash, "TITLED", titled), ada, ben, cleo}
}

// TestConsoleRoles asks for what admins, members and strangers may read and change.
func TestConsoleRoles(t *testing.T) {
	t.Parallel()
	l := serveConsole(t)
	for _, row := range []struct {
		method, path, body string
		ada, ben, nobody   int
	}{
		{"GET", "/api/spacehost/me", "", 200, 200, 401},
		{"GET", "/api/spacehost/spaces", "", 200, 200, 401},
		{"GET", "/api/spacehost/admin/gpu", "", 200, 404, 401},
		{"GET", "/api/spacehost/admin/lease", "", 200, 404, 401},
		{"GET", "/api/spacehost/admin/lease/timeline?from=2026-01-01T00:00:00Z&to=2026-01-08T00:00:00Z", "", 200, 404, 401},
		{"GET", "/api/spacehost/admin/lease/timeline?from=2026-01-01T00:00:00Z&to=2026-01-08T00:00:00Z&step=0", "", 400, 404, 401},
		{"GET", "/api/spacehost/admin/lease/timeline?from=2026-01-01T00:00:00Z&to=2026-01-08T00:00:00Z&step=NaN", "", 400, 404, 401},
		{"POST", "/api/spacehost/admin/lease/end", `{"lease":"ffffffff"}`, 404, 404, 401},
		{"POST", "/api/spacehost/admin/lease/end", `{"lease":"f"}`, 400, 404, 401},
		{"GET", "/api/spacehost/admin/people", "", 200, 404, 401},
		{"GET", "/api/spacehost/admin/usage?by=tier", "", 200, 404, 401},
		{"GET", "/api/spacehost/admin/usage?by=colour", "", 400, 404, 401},
		{"GET", "/api/spacehost/advice", "", 200, 200, 200}, // of the address
		{"GET", "/api/spacehost/ledger.csv?kind=settle", "", 200, 200, 200},
		{"GET", "/api/spacehost/ledger.csv?kind=fine", "", 400, 400, 400},
		{"GET", "/api/spacehost/admin/tiers", "", 200, 404, 401},
		{"GET", "/api/spacehost/admin/audit?since=2026-01-01T00:00:00Z", "", 200, 404, 401},
		{"GET", "/api/spacehost/admin/audit?since=yesterday", "", 400, 404, 401},
		{"GET", "/api/spacehost/tokens", "", 200, 200, 401},
		{"DELETE", "/api/spacehost/tokens/none", "", 404, 404, 401},
		{"POST", "/api/spacehost/admin/grant", `{"identity":"user:ben","seconds":1}`, 200, 404, 401},
		{"POST", "/api/spacehost/admin/gpu/fault", `{}`, 404, 404, 401}, // of the machine's own user
		{"POST", "/api/spacehost/admin/login-link", `{}`, 404, 404, 401},
		{"POST", "/api/spacehost/admin/clock/advance", `{}`, 404, 404, 401},
	} {
		for token, want := range map[string]int{l.ada: row.ada, l.ben: row.ben, "": row.nobody} {
			var headers map[string]string
			if token != "" {
				headers = bearer(token)
			}
			if status, body := request(t, row.method, l.Console+row.path, row.body, headers); status != want {
				t.Errorf("%s %s: %d, want %d: %.200s", row.method, row.path, status, want, body)
			}
		}
	}
	headers := bearer(l.ada)
	headers["Origin"] = "https://evil.example"
	if status, _ := request(t, "POST", l.Console+"/api/spacehost/admin/grant", `{"identity":"user:ben","seconds":1}`, headers); status != http.StatusForbidden {
		t.Errorf("a change from another origin: %d, want 403", status)
	}
	if _, spaces := request(t, "GET", l.Console+"/api/spacehost/spaces", "", bearer(l.ben)); !strings.Contains(spaces, `"shown"`) || strings.Contains(spaces, `"hidden"`) {
		t.Errorf("a member sees %s", spaces)
	}
	if _, out, _ := l.cli("ledger", "user:ben"); !strings.Contains(out, "user:ada") {
		t.Errorf("the ledger does not name the admin: %s", out)
	}
	if log := l.log(); !strings.Contains(log, `"operator action","actor":"user:ada","action":"POST /api/spacehost/admin/grant"`) {
		t.Errorf("the log does not name the admin: %.2000s", log)
	}
	for _, path := range []string{"/", "/app/app.js", "/app/app.css", "/app/vendor/htm-preact-3.1.1.js"} {
		if status, _ := request(t, "GET", l.Console+path, "", nil); status != 200 {
			t.Errorf("%s: %d", path, status)
		}
	}
	if status, _ := request(t, "GET", l.Console+"/app/../pages.go", "", nil); status != 404 {
		t.Errorf("a file that is no page: %d", status)
	}
	for _, row := range consoleAttacks {
		t.Run(row.name, func(t *testing.T) { row.run(t, l) })
	}
	l.tokenRights(t)
	l.tokensEnd(t)
	l.checkStreams(t)
}

// profile is a browser in which a person is signed in at the console.
type profile struct {
	t          *testing.T
	ctx        context.Context
	exceptions func() []string
}

func (l consoleLab) open(t *testing.T, token string, flags ...chromedp.ExecAllocatorOption) profile {
	t.Helper()
	ctx, exceptions := browser(t, flags...)
	p := profile{t, ctx, exceptions}
	p.do(chromedp.Navigate(l.Console + "/"))
	p.signIn(token)
	return p
}

// signIn signs a person in at the page that asks for a token.
func (p profile) signIn(token string) {
	p.t.Helper()
	p.do(chromedp.WaitVisible(chromedp.CSS("#token")), chromedp.SendKeys(chromedp.CSS("#token"), token), chromedp.Click(chromedp.CSS("form button")), chromedp.WaitVisible(chromedp.CSS("nav")))
}

func (p profile) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatalf("%v; uncaught exceptions: %q", err, p.exceptions())
	}
}

// goTo opens a page of the console.
func (p profile) goTo(page string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(fmt.Sprintf(`nav a[href="#%s"]`, page))), chromedp.WaitVisible(chromedp.CSS(fmt.Sprintf(`nav a[href="#%s"][aria-current]`, page))))
}

// shows waits until the page contains a text.
func (p profile) shows(text string, within time.Duration) {
	p.t.Helper()
	script := fmt.Sprintf("() => document.body.innerText.includes(%q)", text)
	if _, err := chromedp.Run(p.ctx, chromedp.PollFunction[bool](script, chromedp.WithPollingTimeout(within))); err != nil {
		body, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		p.t.Errorf("the page does not show %q within %s: %v; it shows %.1500s", text, within, err, body)
	}
}

// choose selects an option of the field with a label.
func (p profile) choose(label, value string) {
	p.t.Helper()
	p.evaluate(fmt.Sprintf(`(() => { const field = [...document.querySelectorAll("label")].find((l) => l.innerText.startsWith(%q)).querySelector("select");
		field.value = %q; field.dispatchEvent(new Event("change", { bubbles: true })); return field.value === %q })()`, label, value, value))
}

// click clicks the button with a text.
func (p profile) click(text string) {
	p.t.Helper()
	p.evaluate(fmt.Sprintf(`(() => { const button = [...document.querySelectorAll("button")].find((b) => b.innerText === %q); button.click(); return true })()`, text))
}

func (p profile) evaluate(script string) {
	p.t.Helper()
	if ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](script)); err != nil || !ok {
		p.t.Errorf("%s: %v, %v", script, ok, err)
	}
}

// hides waits until no element that matches has a text.
func (p profile) hides(elements, text string, within time.Duration) {
	p.t.Helper()
	p.until(fmt.Sprintf("() => ![...document.querySelectorAll(%q)].some((e) => e.innerText.includes(%q))", elements, text), within)
}

// waits waits until an element is on the page.
func (p profile) waits(element string, within time.Duration) {
	p.t.Helper()
	p.until(fmt.Sprintf("() => document.querySelector(%q) !== null", element), within)
}

func (p profile) until(script string, within time.Duration) {
	p.t.Helper()
	if _, err := chromedp.Run(p.ctx, chromedp.PollFunction[bool](script, chromedp.WithPollingTimeout(within))); err != nil {
		body, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		p.t.Errorf("not within %s: %s: %v; the page shows %.1500s", within, script, err, body)
	}
}

// parses checks what a page shows of a text in an answer of the host.
func (p profile) parses(text, want string) {
	p.t.Helper()
	answer, _ := json.Marshal(map[string]string{"text": text}) // as the host writes it
	quoted, _ := json.Marshal(string(answer))
	script := fmt.Sprintf(`(async () => (await import("./app/session.js")).parse(%s).text)()`, quoted)
	if got, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise)); err != nil || got != want {
		p.t.Errorf("%q is shown as %q (%v), want %q", text, got, err, want)
	}
}

// reloadInPage changes the configuration file, and applies it at the page Settings.
func (l consoleLab) reloadInPage(t *testing.T, admin profile) {
	t.Helper()
	admin.goTo("home")
	l.write(t, strings.Replace(dashboardSpaces, "name: cleo, tier: free", "name: cleo, tier: pro", 1))
	admin.goTo("settings")
	admin.shows("~ person cleo: tier free -> pro", patience)
	screenshot(t, admin.ctx, "console-settings.png")
	admin.do(chromedp.Click(chromedp.CSS("section .choices button:first-child")))
	admin.shows("is in force, changes: 1.", patience)
	admin.shows("A reload would change nothing.", patience)
	if !strings.Contains(l.log(), `"configuration reloaded","by":"user:ada"`) {
		t.Error("the log does not name the admin who has reloaded the configuration")
	}
	admin.do(chromedp.SendKeys(chromedp.CSS(`input[type="search"]`), "cleo"))
	admin.shows("Person cleo", patience)
	admin.shows("tokens", patience)
	admin.do(chromedp.Click(chromedp.CSS(".machine button")))
	admin.shows(" problem", patience)
	admin.do(chromedp.Click(chromedp.CSS(".card:last-child button")))
	admin.shows("spacehost.db", patience)
	if text, err := chromedp.Run(admin.ctx, chromedp.Evaluate[string]("document.body.innerText")); err != nil || strings.Contains(text, "sha256:") {
		t.Errorf("the page shows the hash of a token: %v", err)
	}
}

// TestConsolePages drives the pages of an admin and of a member in two browsers, while members call.
func TestConsolePages(t *testing.T) {
	t.Parallel()
	requireOwnMachine(t, "the pages count the GPUs of all machines, and the test drains one by its number on the host")
	l := serveConsole(t)
	ben := l.clientAs(l.space("shown").URL, l.ben)
	ben.ok("/five", 0)
	admin, member, other := l.open(t, l.ada), l.open(t, l.ben), l.open(t, l.cleo, chromedp.WindowSize(500, 800))

	admin.goTo("gpus")
	call := ben.submit("/minute", 20)
	eventually(t, "the call has a GPU", patience, l.isUsingGPU)
	admin.shows("shown: minute of ben", patience)
	admin.goTo("line")
	admin.shows("minute", patience)
	member.shows("60.0 s are reserved", patience)
	if r := call.wait(); r.Failed {
		t.Errorf("the call: %+v", r)
	}
	admin.shows("No call has a GPU.", patience)

	ben.ok("/whole", 0)
	ben.ok("/whole", 0)
	if r := ben.submit("/too_long").wait(); !r.Failed {
		t.Error("a call above the maximum succeeded")
	}
	l.showUsage(t, admin, member)
	member.goTo("home")
	l.peoplePages(t, admin, member)
	member.goTo("home")
	member.shows("of 287 s in 24 hours", patience) // 210 of tier free

	l.checkDrain(t, admin)
	l.checkTimeline(t, admin)
	l.checkLine(t, admin)

	admin.goTo("spaces")
	admin.shows(visibleTitle, patience)
	admin.goTo("home")
	admin.shows("<img src=x onerror=document.body.remove()>", patience)
	admin.parses("<script>\x1b[31m\u202eenil\u2066\u009b\r\n\t👩‍👩‍👦 é\x7f", "<script>␛[31m‹U+202E›enil‹U+2066›‹U+009B›␍\n\t👩‍👩‍👦 é␡")
	if text, err := chromedp.Run(admin.ctx, chromedp.Evaluate[string]("document.body.innerText")); err != nil || strings.Contains(text, "neddih") {
		t.Errorf("a function whose name cannot be shown is listed: %v %.500s", err, text)
	}
	admin.goTo("spaces")
	screenshot(t, admin.ctx, "console-spaces.png")
	for _, page := range []string{"home", "ledger", "spaces", "tokens", "gpus", "line", "people", "usage", "audit", "settings"} {
		admin.goTo(page)
		admin.do(chromedp.EmulateViewport(360, 800))
		if wide, err := chromedp.Run(admin.ctx, chromedp.Evaluate[bool]("document.documentElement.scrollWidth > document.documentElement.clientWidth")); err != nil || wide {
			t.Errorf("page %s scrolls horizontally at 360 px: %v, %v", page, wide, err)
		}
		admin.do(chromedp.EmulateViewport(1200, 900))
	}

	l.reloadInPage(t, admin)
	l.checkAnswers(t, map[string]string{"identity": "user:ben", "name": "ben", "space": "shown", "from": "2026-01-01T00:00:00Z", "to": "2126-01-01T00:00:00Z"})

	tokens := controlJSON[[]control.Token](t, l.product, "/tokens")
	for _, token := range tokens {
		if token.Person == "cleo" {
			if code, _, errOut := l.cli("token", "revoke", token.ID); code != 0 {
				t.Fatalf("token revoke: %s", errOut)
			}
		}
	}
	other.shows("Your token is no longer valid.", patience)
	for _, p := range []profile{admin, member, other} {
		if messages := p.exceptions(); len(messages) > 0 {
			t.Errorf("uncaught exceptions: %q", messages)
		}
	}
	l.stop() // within five seconds, although streams are open
}
