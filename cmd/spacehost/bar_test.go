package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"spacehost/internal/people"
)

// lineSpaces are copies of the sample Space on each line of Gradio, with the names v4, v5 and v6.
const lineSpaces = `
people: [{name: ben, tier: free, tokens: [BEN]}]
spaces:
  - {folder: FOLDERv4, name: v4, address: "127.0.0.1:0", python: PYTHONv4}
  - {folder: FOLDERv5, name: v5, address: "127.0.0.1:0", python: PYTHONv5}
  - {folder: FOLDERv6, name: v6, address: "127.0.0.1:0", python: PYTHONv6, concurrency: 1}
`

func serveLines(t *testing.T, text string) (l *reloadLab, ben string) {
	t.Helper()
	ben, hash := people.NewToken()
	vars := []string{"BEN", hash}
	for line := range gradioVersions {
		vars = append(vars, "FOLDER"+line, onGradio(t, t.TempDir(), line, sampleDir), "PYTHON"+line, environmentOf(t, line))
	}
	return serveReload(t, text, vars...), ben
}

// inBar returns an expression of the bar's element in the page.
func inBar(selector string) string {
	return fmt.Sprintf(`document.querySelector("spacehost-bar")?.shadowRoot.querySelector(%q)`, selector)
}

func (p profile) perform(script string) {
	p.t.Helper()
	if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](script+"; true")); err != nil {
		p.t.Fatalf("%s: %v; uncaught exceptions: %q", script, err, p.exceptions())
	}
}

// becomes waits until an expression is true in the page. A page that is being replaced counts as false.
func (p profile) becomes(expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		holds, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if holds {
			return
		}
		if p.ctx.Err() != nil || time.Now().After(deadline) {
			seen, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.querySelector("spacehost-bar")?.shadowRoot.querySelector("section").innerText ?? document.body.innerText`))
			p.t.Fatalf("%s is not reached: %v; the bar or the page shows %.800q; uncaught exceptions: %q", expression, err, seen, p.exceptions())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p profile) barShows(text string) {
	p.t.Helper()
	p.becomes(fmt.Sprintf(`%s?.innerText.includes(%q)`, inBar("section"), text))
}

// signInFromBar follows the bar's link, signs in at the console and returns to the page.
func (p profile) signInFromBar(token string) {
	p.t.Helper()
	p.perform(inBar(".chip") + ".click()")
	p.becomes(inBar(`a[href*="/login"]`))
	p.perform(inBar(`a[href*="/login"]`) + ".click()")
	p.becomes(`document.querySelector("#enter")?.hidden === false || document.querySelector("#spaces button")`) // the tab may know the token
	if known, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](`document.querySelector("#enter").hidden`)); err != nil || !known {
		p.do(chromedp.SendKeys(chromedp.CSS("#token"), token+"\r"))
	}
	p.do(chromedp.WaitVisible(chromedp.CSS("#spaces button")), chromedp.Click(chromedp.CSS("#spaces button")))
	p.barShows("ben")
}

func newProfile(t *testing.T, flags ...chromedp.ExecAllocatorOption) profile {
	t.Helper()
	ctx, exceptions := browser(t, flags...)
	return profile{t, ctx, exceptions}
}

// TestBarOnPagesOfSpaces opens pages of each line of Gradio: the bar shows the visitor's account, the place in the line, and what a call
// has cost. Its removal by a reload reaches open pages.
func TestBarOnPagesOfSpaces(t *testing.T) {
	t.Parallel()
	l, ben := serveLines(t, lineSpaces)
	p := newProfile(t)
	for line := range gradioVersions {
		at := l.space(line).URL
		greeting, err := greet(p.ctx, at+"/?own=x", "bar")
		if err != nil || !strings.HasPrefix(greeting, "Hello bar, from GPU-") {
			t.Errorf("%s: the page with the bar returns %q: %v; uncaught exceptions: %q", line, greeting, err, p.exceptions())
		}
		p.barShows("s left")
		screenshot(t, p.ctx, "bar-"+line+".png")
		p.signInFromBar(ben)
		p.becomes(`location.search === "?own=x"`)
		screenshot(t, p.ctx, "bar-"+line+"-signed-in.png")
	}

	at := l.space("v6").URL
	p.do(chromedp.Navigate(at + "/"))
	first, second := l.clientAs(at, ben), l.clientAs(at, ben)
	running := first.submit("/sleep", 20)
	eventually(t, "the first call has a GPU", patience, l.isUsingGPU)
	waiting := second.submit("/count", 2)
	p.barShows("place 1, 0:")
	p.perform(inBar(".chip") + ".click()")
	p.barShows("count waits for a GPU: place 1, starts in 0:")
	p.barShows("sleep is on a GPU, for 0:")
	screenshot(t, p.ctx, "bar-waiting.png")
	for _, call := range []call{running, waiting} {
		if r := call.wait(); r.Failed {
			t.Errorf("a call: %+v", r)
		}
	}
	p.becomes(inBar(".chip") + `.innerText.match(/ left$/)`)

	p.perform(`(() => { const frame = document.createElement("iframe"); frame.id = "inner"; frame.src = "/"; document.body.append(frame); })()`)
	p.becomes(`document.querySelector("#inner").contentDocument?.querySelector("#greet")`)
	if inner, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](`!!document.querySelector("#inner").contentDocument.querySelector("spacehost-bar, script[src*=__spacehost]")`)); err != nil || inner {
		t.Errorf("a page in a frame has a bar: %v, %v", inner, err)
	}
	p.do(chromedp.EmulateViewport(360, 740))
	if wide, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](inBar(".panel")+".getBoundingClientRect().right > 360")); err != nil || wide {
		t.Errorf("the panel is wider than a phone: %v, %v", wide, err)
	}
	screenshot(t, p.ctx, "bar-phone.png")

	p.becomes(inBar(".actions button"))
	p.perform(inBar(".actions button") + ".click()") // sign out
	p.becomes(inBar(".chip") + `?.innerText.match(/^[0-9.]+ s left$/)`)
	l.write(t, strings.Replace(lineSpaces, "concurrency: 1", "concurrency: 1, bar: false", 1))
	if code, out, errOut := l.cli("reload"); code != 0 || !strings.Contains(out, "~ space v6: bar true -> false\n") {
		t.Fatalf("reload: %d %s %s", code, out, errOut)
	}
	p.perform(`document.dispatchEvent(new Event("visibilitychange"))`) // instead of the next regular request
	p.becomes(`!document.querySelector("spacehost-bar")`)
	navigation := map[string]string{"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}
	for space, want := range map[string]bool{"v5": true, "v6": false} {
		if _, page := request(t, "GET", l.space(space).URL+"/", "", navigation); strings.Contains(page, "__spacehost") != want {
			t.Errorf("the page of %s has a bar: %v, want %v", space, !want, want)
		}
	}
	if status, _ := request(t, "GET", at+"/__spacehost/bar", "", nil); status != http.StatusNotFound {
		t.Errorf("GET /__spacehost/bar without a bar: %d, want 404", status)
	}
	if status, _ := request(t, "GET", l.space("v5").URL+"/__spacehost/bar", "", map[string]string{"Origin": "https://evil.example"}); status != http.StatusForbidden {
		t.Errorf("GET /__spacehost/bar from another site: %d, want 403", status)
	}
	if status, _ := request(t, "GET", l.space("v5").URL+"/__spacehost/bar", "", bearer("sph_unknown")); status != http.StatusUnauthorized {
		t.Errorf("GET /__spacehost/bar with an unknown bearer: %d, want 401", status)
	}
	if messages := p.exceptions(); len(messages) > 0 {
		t.Errorf("uncaught exceptions: %q", messages)
	}
}

// framed is an expression of the document inside the page around a Space.
const framed = `document.querySelector("iframe").contentDocument`

// greetInFrame is greet for the page around a Space.
func greetInFrame(ctx context.Context, address, name string) (string, error) {
	if err := chromedp.Do(ctx, chromedp.Navigate(address), chromedp.WaitVisible(chromedp.CSS("iframe"))); err != nil {
		return "", err
	}
	ready := chromedp.PollFunction[bool](`() => !!`+framed+`?.querySelector("#greet") && !!`+framed+`.querySelector("#name textarea, #name input")`, chromedp.WithPollingTimeout(patience))
	if _, err := chromedp.Run(ctx, ready); err != nil {
		return "", err
	}
	script := fmt.Sprintf(`(() => {
		const field = %[1]s.querySelector("#name textarea, #name input");
		field.value = %[2]q;
		field.dispatchEvent(new Event("input", { bubbles: true }));
		%[1]s.querySelector("#greet").click();
		return true;
	})()`, framed, name)
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script)); err != nil {
		return "", err
	}
	field := framed + `.querySelector("#greeting textarea, #greeting input").value`
	if _, err := chromedp.Run(ctx, chromedp.PollFunction[bool](`() => `+field+`.startsWith("Hello")`, chromedp.WithPollingTimeout(30*time.Second))); err != nil {
		return "", err
	}
	return chromedp.Run(ctx, chromedp.Evaluate[string](field))
}

// TestPageAroundSpace signs in at Spaces of each line of Gradio in identity mode hub. A call from the page around the Space carries the
// visitor's token, as on the Hub. The same page at the Space's own address does not.
func TestPageAroundSpace(t *testing.T) {
	t.Parallel()
	l, ben := serveLines(t, "identity: hub\n"+lineSpaces)
	p := newProfile(t)
	payer := func(what, want string, call func() (string, error)) {
		t.Helper()
		before := len(l.leases().Ended)
		if greeting, err := call(); err != nil || !strings.HasPrefix(greeting, "Hello ") {
			t.Errorf("%s: %q, %v; uncaught exceptions: %q", what, greeting, err, p.exceptions())
			return
		}
		eventually(t, what+" is settled", patience, func() bool { return len(l.leases().Ended) > before })
		if got := l.leases().Ended[0].Identity; got != want {
			t.Errorf("%s: %s paid, want %s", what, got, want)
		}
	}
	for line := range gradioVersions {
		at := l.space(line).URL
		around := at + "/__spacehost/hub"
		payer(line+", before the sign-in", "ip:127.0.0.1", func() (string, error) { return greetInFrame(p.ctx, around, line) })
		p.signInFromBar(ben)
		payer(line+", in the frame", "user:ben", func() (string, error) { return greetInFrame(p.ctx, around, line) })
		screenshot(t, p.ctx, "hub-"+line+".png")
		payer(line+", without the frame", "ip:127.0.0.1", func() (string, error) { return greet(p.ctx, at+"/", line) })
		p.perform(inBar(".chip") + ".click()")
		p.barShows("Calls from this page pay by address, as on the Hub")
		screenshot(t, p.ctx, "hub-"+line+"-alone.png")
	}
	p.checkHandshake(l.space("v6").URL + "/__spacehost/hub")
	if messages := p.exceptions(); len(messages) > 0 {
		t.Errorf("uncaught exceptions: %q", messages)
	}
}

// checkHandshake checks that the page around a Space gives the token to the Space's frame alone, and to no other site.
func (p profile) checkHandshake(around string) {
	t := p.t
	t.Helper()
	p.do(chromedp.Navigate(around))
	p.becomes(framed + `?.querySelector("#greet")`)
	p.perform(`(() => {
		window.got = [];
		const ask = (to, from) => { const { port1, port2 } = new MessageChannel(); port1.onmessage = (m) => window.got.push(from + " " + Object.keys(m.data)); to(port2); };
		ask((port) => window.postMessage("zerogpu-headers", location.origin, [port]), "the page itself");
		const foreign = document.createElement("iframe");
		foreign.src = "/config"; // a document of the same origin
		foreign.onload = () => {
			ask((port) => { foreign.contentWindow.port = port; foreign.contentWindow.eval("parent.postMessage('zerogpu-headers', '*', [port])"); }, "another frame");
			const inner = document.querySelector("iframe").contentWindow;
			ask((port) => { inner.port = port; inner.eval("parent.postMessage('zerogpu-headers', 'https://huggingface.co', [port])"); }, "the Space");
		};
		document.body.append(foreign);
	})()`)
	p.becomes(`window.got.length > 0`)
	if got, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`window.got.join()`)); err != nil || got != "the Space x-ip-token" {
		t.Errorf("headers were given to %q (%v), want the Space", got, err)
	}
	if status, _ := request(t, "POST", strings.Replace(around, "/hub", "/token", 1), "", map[string]string{"Origin": "https://evil.example"}); status != http.StatusForbidden {
		t.Errorf("a token for another site: %d, want 403", status)
	}
}
