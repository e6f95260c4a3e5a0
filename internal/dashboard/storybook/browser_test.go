package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"spacehost/internal/build/buildtest"
	"spacehost/internal/feature/featuretest"
)

// noon is the moment of all values, and the clock of the browser.
var noon = time.Date(2026, 11, 30, 14, 5, 0, 0, time.UTC)

// patience is the longest time for one step in the browser.
const patience = 30 * time.Second

// studio is a browser that opens stories at one address. Its clock stands still.
type studio struct {
	ctx     context.Context
	address string

	mu     sync.Mutex
	thrown []string // uncaught exceptions of the present story
}

// beforeEachPage sets the bearer and the clock, collects violations of the Content-Security-Policy, and counts requests. The time of
// the last one is that of performance.now, which does not stand still.
const beforeEachPage = `
if (location.pathname.includes("signed-out")) sessionStorage.removeItem("bearer");
else if (location.protocol === "http:") sessionStorage.setItem("bearer", "story");
globalThis.violations = [];
globalThis.requests = { pending: 0, last: 0 };
{
	const real = fetch;
	globalThis.fetch = async (path, ...more) => {
		if (String(path).endsWith("/changes")) return real(path, ...more);
		requests.pending++;
		try {
			return await real(path, ...more);
		} finally {
			requests.pending--;
			requests.last = performance.now();
		}
	};
}
addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI));
{
	const moment = %d;
	const Real = Date;
	globalThis.Date = class extends Real {
		constructor(...args) { args.length ? super(...args) : super(moment); }
		static now() { return moment; }
	};
}`

// openStudio starts a browser, or skips the test without one.
func openStudio(t *testing.T) *studio {
	t.Helper()
	server := httptest.NewServer(newBook(noon))
	t.Cleanup(server.CloseClientConnections)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program(t, "Chromium", "chromium", "chromium-browser", "google-chrome", "chrome")), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("lang", "en-GB"),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("disable-features", "Translate,BackForwardCache"), // a page that is kept for "back" would keep its connections
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1200, 900))
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(end)
	tab, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(closeTab)
	s := &studio{ctx: tab, address: server.URL}
	err := chromedp.Listen(tab, func(event any) {
		if thrown, ok := event.(*runtime.EventExceptionThrown); ok {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.thrown = append(s.thrown, fmt.Sprintf("%+v", thrown.ExceptionDetails))
		}
	})
	if err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	s.do(t,
		call(page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: fmt.Sprintf(beforeEachPage, noon.UnixMilli())}),
		call(emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "UTC"}),
		call(emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{Locale: "en-GB"}))
	return s
}

// call is an action that sends one command to the browser.
func call[Params, Result any](command cdp.Command[Params, Result], params Params) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, command, params)
		return err
	})
}

// program returns the path of the first program that is installed. It skips the test without one.
func program(t *testing.T, what string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	featuretest.Missing(t, "%s is not installed (looked for %s)", what, strings.Join(names, ", "))
	return ""
}

func (s *studio) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatalf("%v; uncaught exceptions: %q", err, s.exceptions())
	}
}

// evaluate returns the value of a script, which may be a promise.
func evaluate[T any](t *testing.T, s *studio, script string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%.60s: %v", script, err)
	}
	return value
}

// exceptions returns the uncaught exceptions since the last call.
func (s *studio) exceptions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	thrown := s.thrown
	s.thrown = nil
	return thrown
}

// open opens a story and waits until it shows its state.
func (s *studio) open(t *testing.T, of story) {
	t.Helper()
	s.do(t, chromedp.Navigate(s.address+"/"+of.Address()))
	script := fmt.Sprintf("() => Boolean(document.querySelector('main h1') && (%s))", settled(of.state))
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.PollFunction[bool](script, chromedp.WithPollingTimeout(patience)))
	for err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "Cannot find context") { // that of the page before
		_, err = chromedp.Run(ctx, chromedp.PollFunction[bool](script, chromedp.WithPollingTimeout(patience)))
	}
	if err != nil {
		t.Fatalf("the page does not settle: %v; exceptions %q; it shows %.600s", err, s.exceptions(), evaluate[string](t, s, "document.body.innerText"))
	}
	s.awaitFrames(t)
}

// awaitFrames waits until the page was drawn as it is now.
func (s *studio) awaitFrames(t *testing.T) {
	t.Helper()
	evaluate[bool](t, s, "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
}

// settled is a condition of JavaScript: the page shows its state. Every view has each of these states.
func settled(of state) string {
	shows := func(text string) string { return fmt.Sprintf("document.body.innerText.includes(%q)", text) }
	switch of {
	case loading:
		return shows("Loading …")
	case failing:
		return shows("The host cannot read ") + " || " + shows(refusal)
	case stale:
		return shows("GPUs (since 14:03:30: the driver does not answer)") + " && " + settled(filled)
	case lost:
		return shows("The connection to the host is lost (the host is restarting). Retrying; the page shows the state of 14:05:00.") + " && " + settled(filled)
	case ended:
		return shows("Your token is no longer valid.")
	case unreachable:
		return shows("The host does not answer: the host is restarting")
	case signedOut:
		return "document.querySelector('#token')"
	}
	return "document.querySelector('nav [aria-current]') && !" + shows("Loading …")
}

// setDark chooses the theme.
func (s *studio) setDark(t *testing.T, dark bool) {
	t.Helper()
	theme := map[bool]string{true: "dark", false: "light"}[dark]
	s.do(t, call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}))
}

// axeVersion is the version of axe-core on npm.
const axeVersion = "4.14.1"

// axe returns the source of axe-core, which is installed once and kept between runs.
func axe(t *testing.T) string {
	t.Helper()
	cache, err := buildtest.Cache()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "node-axe-core-"+axeVersion)
	file := filepath.Join(dir, "node_modules", "axe-core", "axe.min.js")
	if _, err := os.Stat(file); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(program(t, "npm", "npm"), "install", "--prefix", dir, "--no-fund", "--no-audit", "axe-core@"+axeVersion).CombinedOutput()
		if err != nil {
			t.Fatalf("npm install: %v\n%s", err, out)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// violation is a rule of axe that the page breaks.
type violation struct {
	ID     string   `json:"id"`
	Impact string   `json:"impact"`
	Nodes  []string `json:"nodes"`
}

// audit runs axe with these options, and returns the serious faults and wrong orders of headings.
func (s *studio) audit(t *testing.T, options string) (found []violation) {
	t.Helper()
	text := evaluate[string](t, s, `axe.run(document, `+options+`).then((r) => JSON.stringify(r.violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + " " + (n.any[0]?.message ?? n.failureSummary ?? "")) }))))`)
	var all []violation
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if v.Impact == "serious" || v.Impact == "critical" || strings.Contains(v.ID, "heading") || strings.Contains(v.ID, "landmark") {
			found = append(found, v)
		}
	}
	return found
}
