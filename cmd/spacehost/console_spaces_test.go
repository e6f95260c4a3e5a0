package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"spacehost/internal/control"
	"spacehost/internal/dashboard"
	"spacehost/internal/people"
	"spacehost/internal/space"
	"spacehost/internal/spacelog"
)

const talkingSpaces = `
people:
  - {name: ada, tier: pro, admin: true, tokens: [ADA]}
  - {name: ben, tier: free, tokens: [BEN]}
spaces:
  - {folder: TALK, name: talk, address: "127.0.0.1:0", python: PYTHON}
  - {folder: LEASES, name: secret, address: "127.0.0.1:0", python: PYTHON, visibility: private, members: [ada]}
`

// hostileLines are what a Space prints to attack the page with its log.
const hostileLines = `
import sys
for i in range(700):
    print("line", i)
print("<img src=x onerror='document.title=1'><script>document.title=2</script>")
print("\x1b[31mred\x1b[0m and \u202egnp.exe\u2066")
print("ValueError: something is wrong", file=sys.stderr)
`

// talkFolder returns a Space with a card and hostile output.
func talkFolder(t *testing.T) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "talk")
	if err := os.CopyFS(folder, os.DirFS("testdata/spaces/steady")); err != nil {
		t.Fatal(err)
	}
	readme := "---\ntitle: Talking Heads\nemoji: 🦜\ncolorFrom: purple\ncolorTo: pink\nshort_description: Says what it hears\nsdk: gradio\nsdk_version: 6.31.0\napp_file: app.py\n---\n"
	app, err := os.ReadFile(filepath.Join(folder, "app.py"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"README.md": readme, "app.py": strings.Replace(string(app), "import time\n", "import time\n"+hostileLines, 1)} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// TestConsoleSpaces operates a Space from its page: its log, its stages after a crash, a pause and its end, also across a restart of
// the host.
func TestConsoleSpaces(t *testing.T) {
	t.Parallel()
	requireOwnMachine(t, "`space rebuild` is refused on a node")
	ada, adaHash := people.NewToken()
	ben, benHash := people.NewToken()
	l := consoleLab{serveReload(t, talkingSpaces, "ADA", adaHash, "BEN", benHash, "TALK", talkFolder(t)), ada, ben, ""}

	for path, want := range map[string]int{"talk": 200, "secret": 404, "none": 404} {
		if status, body := request(t, "GET", l.Console+"/api/spacehost/spaces/"+path+"/api", "", bearer(ben)); status != want {
			t.Errorf("the API of %s for a member: %d, want %d: %.200s", path, status, want, body)
		}
	}
	for _, path := range []string{"/space?space=talk", "/space/log?space=talk"} {
		if status, _ := request(t, "GET", l.Console+"/api/spacehost/admin"+path, "", bearer(ben)); status != 404 {
			t.Errorf("%s for a member: %d, want 404", path, status)
		}
	}
	api := getJSONAs[dashboard.SpaceAPI](t, l.Console+"/api/spacehost/spaces/talk/api", ben)
	if len(api.Endpoints) != 2 || api.Endpoints[1].Name != "/quick" || api.Endpoints[1].Parameters[0].Name != "text" || api.Prefix != "/gradio_api" {
		t.Errorf("the API: %+v", api)
	}

	admin := l.open(t, ada)
	admin.goTo("spaces")
	admin.shows("Says what it hears", patience)
	screenshot(t, admin.ctx, "spaces.png")
	admin.do(chromedp.Click(chromedp.CSS(`a[href="#spaces/talk"]`)), chromedp.WaitVisible(chromedp.CSS(".log .line")))
	admin.shows("<script>document.title=2</script>", patience)
	admin.shows("red and ‹U+202E›gnp.exe‹U+2066›", patience)
	admin.shows(`api_name="/on_gpu"`, patience)
	if title, err := chromedp.Run(admin.ctx, chromedp.Evaluate[string]("document.title")); err != nil || !strings.Contains(title, "spacehost") {
		t.Errorf("the title of the page is %q, %v: a line of the log ran as code", title, err)
	}
	admin.do(chromedp.SendKeys(chromedp.CSS(`.bar input[type="search"]`), "line 12"))
	admin.shows("11 lines", patience) // 12, and 120 to 129
	admin.do(chromedp.Evaluate[chromedp.Void](`const s = document.querySelector('.bar input[type="search"]'); s.value = ""; s.dispatchEvent(new Event("input", { bubbles: true })); undefined`))
	admin.shows("300 lines", patience)
	admin.do(chromedp.Click(chromedp.CSS(".log button")))
	admin.shows("600 lines", patience)
	screenshotPage(t, admin, "space")

	admin.do(chromedp.Click(chromedp.CSS(".commands button:nth-child(3)")), chromedp.Click(chromedp.CSS(".commands .confirm .danger")))
	admin.shows("talk uses the interpreter", patience) // the refusal of a rebuild, as the stream of its progress

	if err := syscall.Kill(l.space("talk").PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	detail := func() control.SpaceDetail {
		return getJSONAs[control.SpaceDetail](t, l.Console+"/api/spacehost/admin/space?space=talk", ada)
	}
	eventually(t, "the crash is in the history, and the Space runs again", patience, func() bool {
		var crashed bool
		d := detail()
		for _, change := range d.Stages {
			crashed = crashed || change.Cause == "crash" && change.Stage == string(space.RuntimeFailed)
		}
		return crashed && d.Stages[0].Stage == string(space.Running)
	})
	eventually(t, "it was measured", patience, func() bool {
		d := detail()
		return len(d.Usage) > 0 && d.Usage[len(d.Usage)-1].Memory > 10<<20 && d.Usage[len(d.Usage)-1].Processes > 1
	})
	const upload = "--b\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.txt\"\r\n\r\nhello\r\n--b--\r\n"
	headers := bearer(ben)
	headers["Content-Type"] = "multipart/form-data; boundary=b"
	if status, body := request(t, "POST", l.space("talk").URL+"/gradio_api/upload", upload, headers); status != 200 {
		t.Errorf("upload: %d %.300s", status, body)
	}
	least := map[string]float64{
		`spacehost_space_restarts_total{cause="crash",space="talk"}`: 1, `spacehost_space_uploads_total{space="talk"}`: 1, `spacehost_space_upload_bytes_total{space="talk"}`: float64(len(upload)),
		`spacehost_space_memory_bytes{space="talk"}`: 10 << 20, `spacehost_space_processes{space="talk"}`: 2, `spacehost_space_cpu_seconds_total{space="talk"}`: 0.1,
	}
	var metrics map[string]float64
	eventually(t, fmt.Sprintf("the metrics are at least %v", least), patience, func() bool { // an upload is counted after its response
		metrics = l.metrics()
		for name, value := range least {
			if metrics[name] < value {
				return false
			}
		}
		return true
	})
	if got := metrics[`spacehost_space_restarts_total{cause="crash",space="talk"}`]; got != 1 {
		t.Errorf("the metric counts %g restarts, want 1", got)
	}

	admin.do(chromedp.Click(chromedp.CSS(".who button")))
	admin.signIn(ben)
	admin.goTo("spaces")
	admin.shows("Use by API", patience)
	admin.do(chromedp.Click(chromedp.CSS(`a[aria-label="Use by API: talk"]`)))
	admin.shows(`api_name="/on_gpu"`, patience)
	if body, err := chromedp.Run(admin.ctx, chromedp.Evaluate[string]("document.body.innerText")); err != nil || strings.Contains(body, "Restart") || strings.Contains(body, "Leases") {
		t.Errorf("a member sees what is for admins or of a private Space: %v %.2000s", err, body)
	}
	admin.do(chromedp.Click(chromedp.CSS(".who button")))
	admin.signIn(ada)

	caller := l.clientAs(l.space("talk").URL, ben)
	if r := caller.call("/on_gpu", "x"); r.Failed {
		t.Fatalf("a call before the pause: %+v", r)
	}
	admin.do(chromedp.Click(chromedp.CSS(".commands button[aria-expanded]")), chromedp.SendKeys(chromedp.CSS(".commands form input"), "new model until 17:00"), chromedp.Click(chromedp.CSS(".commands form button")))
	admin.shows("Paused by ada", patience)
	admin.shows("The operator has paused this Space: new model until 17:00.", patience)
	wantPaused := func() {
		t.Helper()
		eventually(t, "the stage is PAUSED without a process", patience, func() bool {
			s := l.space("talk")
			return s.Stage == string(space.Paused) && s.PID == 0 && s.Paused != nil && s.Paused.By == "user:ada"
		})
		if status, page := request(t, "GET", l.space("talk").URL, "", map[string]string{"Accept": "text/html"}); status != 503 || !strings.Contains(page, "PAUSED") || !strings.Contains(page, "new model until 17:00") {
			t.Errorf("the page of the paused Space: %d %.400s", status, page)
		}
	}
	wantPaused()
	if r := caller.call("/on_gpu", "x"); !r.Failed || r.Err != "The operator has paused this Space: new model until 17:00." {
		t.Errorf("a call of the paused Space: %+v", r)
	}
	if health := l.health(); health.Status != "ok" {
		t.Errorf("/healthz with a Space that is paused on purpose: %+v", health)
	}
	if code, _, errOut := l.cli("space", "restart", "talk"); code == 0 || !strings.Contains(errOut, "talk is paused by user:ada; resume it first: spacehost space resume talk") {
		t.Errorf("restart of the paused Space: %d %s", code, errOut)
	}
	screenshotPage(t, admin, "space-paused")

	l.stop()
	l.start()
	wantPaused()
	if code, out, errOut := l.cli("space", "resume", "talk"); code != 0 || !strings.Contains(out, "talk starts.") {
		t.Errorf("resume: %d %s%s", code, out, errOut)
	}
	eventually(t, "it runs again", patience, func() bool { return l.space("talk").Stage == string(space.Running) })
	if r := l.clientAs(l.space("talk").URL, ben).call("/on_gpu", "x"); r.Failed {
		t.Errorf("a call after the pause: %+v", r)
	}
	if code, _, errOut := l.cli("space", "resume", "talk"); code == 0 || !strings.Contains(errOut, "talk is not paused; its stage is RUNNING") {
		t.Errorf("resume without a pause: %d %s", code, errOut)
	}
	log := getJSONAs[spacelog.Page](t, l.Console+"/api/spacehost/admin/space/log?space=talk&stream=host&text=paused", ada)
	if len(log.Lines) != 1 || !strings.Contains(log.Lines[0].Text, "paused by user:ada") {
		t.Errorf("the log of the pause: %+v", log)
	}
	if messages := admin.exceptions(); len(messages) > 0 {
		t.Errorf("uncaught exceptions: %q", messages)
	}
}

// getJSONAs returns the answer to a request of a person.
func getJSONAs[T any](t *testing.T, url, token string) (value T) {
	t.Helper()
	status, body := request(t, "GET", url, "", bearer(token))
	if err := json.Unmarshal([]byte(body), &value); err != nil || status != 200 {
		t.Fatalf("%s: %d %.300s: %v", url, status, body, err)
	}
	return value
}

// screenshotPage takes pictures of the whole page in both themes and at the width of a phone, where it must not scroll horizontally.
func screenshotPage(t *testing.T, p profile, name string) {
	t.Helper()
	p.do(chromedp.EmulateViewport(1200, 2200))
	for _, theme := range []string{"dark", "light"} {
		p.do(chromedp.Evaluate[chromedp.Void]("document.documentElement.style.colorScheme = '" + theme + "'; undefined"))
		screenshot(t, p.ctx, "console-"+name+"-"+theme+".png")
	}
	p.do(chromedp.EmulateViewport(360, 3400))
	if wide, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("document.documentElement.scrollWidth > document.documentElement.clientWidth")); err != nil || wide {
		t.Errorf("page %s scrolls horizontally at 360 px: %v, %v", name, wide, err)
	}
	screenshot(t, p.ctx, "console-"+name+"-phone.png")
	p.do(chromedp.EmulateViewport(1200, 900))
}
