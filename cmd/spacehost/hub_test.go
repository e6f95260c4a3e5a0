package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestPayerInEachMode makes the same calls from Gradio's page, from the app's own pages and from programs, with ada signed in, and
// checks the payer.
func TestPayerInEachMode(t *testing.T) {
	t.Parallel()
	const ada, local, anonymous = "user:ada", "local", "ip:127.0.0.1"
	type payers struct{ page, client, join, call, program string }
	direct, hub := payers{ada, ada, ada, ada, local}, payers{ada, ada, anonymous, anonymous, anonymous}
	for _, row := range []struct {
		line, mode, space string
		payers
	}{
		{"v6", "hub", "frontends", hub}, {"v6", "hub", "server", hub}, {"v6", "direct", "frontends", direct},
		{"v5", "hub", "frontends", hub}, {"v5", "direct", "frontends", direct}, {"v4", "hub", "frontends", hub}, {"v4", "direct", "frontends", direct},
	} {
		t.Run(strings.Join([]string{row.line, row.mode, row.space}, " "), func(t *testing.T) {
			if row.line != "v6" && !isFidelity() {
				t.Skip("SKIPPED: only Gradio 6 is tested here; run make fidelity to include Gradio 5 and 4")
			}
			f := newFrontend(t, row.line, row.space, row.mode)
			if row.space == "frontends" {
				f.by("Gradio's page", row.page, f.greetInGradio)
			}
			f.by("@gradio/client in the app's page", row.client, f.inPage("client"))
			f.by("fetch of queue/join in the app's page", row.join, f.inPage("join"))
			f.by("fetch of /call in the app's page", row.call, f.inPage("call"))
			f.by("curl", row.program, f.curl(""))
			f.by("curl with a token", ada, f.curl(f.token))
			f.by("gradio_client", row.program, f.python(""))
			f.by("gradio_client with a token", ada, f.python(f.token))
			if warned := strings.Contains(f.text(), "user:ada is signed in, but the call is charged by address"); warned != (row.mode == "hub") {
				t.Errorf("the operator was warned of the payment by address: %v, want %v", warned, row.mode == "hub")
			}
		})
	}
}

// TestMCPInHubMode checks that in the mode hub an MCP client without a token pays by address, and one with a token as its user.
// It uses another Space than TestPayerInEachMode, because an app mounted below a path cannot call itself there.
func TestMCPInHubMode(t *testing.T) {
	t.Parallel()
	p := runProduct(t, "testdata/spaces/lines", "--identity", "hub")
	f := &frontend{product: p, t: t, base: p.URL, token: member(t, p, "ada", "pro"), hub: true}
	f.by("MCP", "ip:127.0.0.1", f.mcp(""))
	f.by("MCP with a token", "user:ada", f.mcp(f.token))
}

// frontend is a Space with its own pages, and a browser in which ada is signed in.
type frontend struct {
	*product
	t     *testing.T
	ctx   context.Context
	base  string // address of Gradio
	own   string // path of the app's own page
	token string
	hub   bool
}

func newFrontend(t *testing.T, line, space, mode string) *frontend {
	t.Helper()
	dir := filepath.Join(onGradio(t, t.TempDir(), line, "testdata/spaces/"+space))
	for name, from := range map[string]string{
		"client.js": filepath.Join(nodePackages(t), "node_modules", "@gradio", "client", "dist", "browser.js"),
		"page.html": filepath.Join("testdata", "spaces", "frontends", "page.html"),
	} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p := startOn(t, line, t.TempDir(), dir, "--identity", mode, "--tier", "unlimited")
	t.Cleanup(p.stop)
	p.awaitReady()
	f := &frontend{product: p, t: t, base: p.URL, token: member(t, p, "ada", "pro"), hub: mode == "hub"}
	switch {
	case line == "v4":
		f.own = "/own"
	case space == "frontends":
		f.base, f.own = f.base+"/gradio", "/"
	default:
		f.own = "/"
	}
	ctx, _ := browser(t)
	f.ctx = ctx
	err := chromedp.Do(ctx, chromedp.Navigate(p.URL+"/__spacehost/login?to="+f.own), chromedp.SendKeys(chromedp.CSS("#token"), f.token+"\r"),
		chromedp.WaitVisible(chromedp.CSS("#spaces button")), chromedp.Click(chromedp.CSS("#spaces button")), chromedp.WaitVisible(chromedp.CSS("#ready")))
	if err != nil {
		t.Fatalf("ada signs in: %v", err)
	}
	return f
}

// by makes one call and checks its payer. A page whose call came without the sign-in shows the Hub's message.
func (f *frontend) by(what, want string, call func() string) {
	f.t.Helper()
	before := len(f.leases().Ended)
	text := call()
	if !strings.Contains(text, "Hello") {
		f.t.Errorf("%s: %q", what, text)
		return
	}
	eventually(f.t, what+" is paid for", patience, func() bool { return len(f.leases().Ended) > before })
	if got := f.leases().Ended[0].Identity; got != want {
		f.t.Errorf("%s: %s paid, want %s", what, got, want)
	}
	if strings.Contains(what, "queue/join") && strings.Contains(text, "Falling back to IP-based quotas (your sign-in did not reach the Space with this call: ") != f.hub {
		f.t.Errorf("%s: the page shows %q", what, text)
	}
}

func (f *frontend) greetInGradio() string {
	f.t.Helper()
	in := greet
	if f.hub {
		in = greetInFrame
	}
	greeting, err := in(f.ctx, f.page(strings.TrimPrefix(f.base, f.URL)+"/"), "page")
	if err != nil {
		f.t.Fatal(err)
	}
	return greeting
}

// page returns the address at which ada opens a path of the Space: in the mode hub, that of the page around it.
func (f *frontend) page(path string) string {
	if f.hub {
		return f.URL + "/__spacehost/hub?to=" + path
	}
	return f.URL + path
}

func (f *frontend) inPage(way string) func() string {
	return func() string {
		f.t.Helper()
		window := "window"
		if f.hub {
			window = `document.querySelector("iframe").contentWindow`
		}
		until := func(holds string) error {
			_, err := chromedp.Run(f.ctx, chromedp.PollFunction[bool](`() => `+holds, chromedp.WithPollingTimeout(patience/2)))
			return err
		}
		err := chromedp.Do(f.ctx, chromedp.Navigate(f.page(f.own)), chromedp.WaitReady(chromedp.CSS("body")))
		if err == nil {
			err = until(window + `.document?.querySelector("#ready[data-loaded]") != null`)
		}
		if err == nil {
			_, err = chromedp.Run(f.ctx, chromedp.Evaluate[bool](window+`.start("`+way+`"), true`))
		}
		if err == nil {
			err = until(window + `.said !== ""`)
		}
		if err != nil {
			f.t.Fatalf("%s: %v", way, err)
		}
		text, err := chromedp.Run(f.ctx, chromedp.Evaluate[string](window+".said"))
		if err != nil {
			f.t.Fatal(err)
		}
		return text
	}
}

func (f *frontend) curl(token string) func() string {
	return func() string {
		api := "/gradio_api"
		if f.line == "v4" {
			api = ""
		}
		return newVisit(f.t).callBelow(f.base+api, "greet", `["curl"]`, tokenHeader(token)...)
	}
}

func tokenHeader(token string) []string {
	if token == "" {
		return nil
	}
	return []string{"Authorization", "Bearer " + token}
}

func (f *frontend) python(token string) func() string {
	return func() string { return f.clientAs(f.base+"/", token).ok("/greet", "python") }
}

func (f *frontend) mcp(token string) func() string {
	return func() string {
		f.t.Helper()
		cmd := exec.Command(environmentOf(f.t, f.line), filepath.Join("testdata", "clients", "mcp_client.py"), f.base+"/gradio_api/mcp/", "greet", `{"name": "mcp"}`, token)
		cmd.Env = append(os.Environ(), "HOME="+f.t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			f.t.Errorf("MCP: %v: %s", err, out)
		}
		return string(out)
	}
}
