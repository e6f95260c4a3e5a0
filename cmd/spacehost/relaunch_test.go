package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const relaunchesDir = "testdata/spaces/relaunches"

// TestAppLaunchesAgain: the app closes and launches again while one event runs and another waits. Who ran is told,
// who waited is answered, the address stays.
func TestAppLaunchesAgain(t *testing.T) {
	eachLine(t, func(t *testing.T, line string) {
		p := runOn(t, line, relaunchesDir, "--gpus", "none")
		c, pid := p.client(), spacePID(t, p)
		running := c.submit("/slow", 120)
		p.awaitRunning("slow")
		waiting := c.submit("/next", "waited")
		eventually(t, "an event waits", patience, func() bool { return p.health().Spaces[0].Queued == 1 })
		c.submit("/relaunch") // whether its own answer still comes is a race
		if r := running.wait(); !strings.Contains(r.Err, "The app was closed.") {
			t.Errorf("who ran reads %q, value %s", r.Err, r.Value)
		}
		if r := waiting.wait(); text(r.Value) != fmt.Sprintf("waited %d 2", pid) {
			t.Errorf("who waited gets %s %s, want the second launch's answer", r.Value, r.Err)
		}
		for name, c := range map[string]*client{"the same client": c, "a new one": p.client()} {
			if got := c.ok("/echo", "anew"); got != fmt.Sprintf("anew %d 2", pid) {
				t.Errorf("%s gets %q", name, got)
			}
		}
	})
}

// awaitRuns waits for an event of that endpoint to run.
func (p *product) awaitRunning(endpoint string) {
	p.t.Helper()
	eventually(p.t, "an event of "+endpoint+" runs", patience, func() bool {
		return strings.Contains(p.log(), fmt.Sprintf(`"endpoint":%q`, endpoint))
	})
}

// TestFurtherDemo: of two demos in one process visitors reach the first, as at the Hub's one port; when it makes
// room, the next that launches.
func TestSecondDemo(t *testing.T) {
	p := runProduct(t, "testdata/spaces/two-demos", "--gpus", "none")
	eventually(t, "the operator is told", patience, func() bool {
		return strings.Contains(p.text(), "two-demos: A further demo was launched: visitors reach only the first one.")
	})
	c := p.client()
	if got := c.ok("/first", "hi"); got != "first hi" {
		t.Errorf("the first demo answers %q", got)
	}
	if _, config := request(t, "GET", p.URL+"/config", "", nil); strings.Contains(config, `"second"`) {
		t.Errorf("the address is the second's: %s", config)
	}
	c.submit("/swap")
	eventually(t, "the third is served", patience, func() bool {
		_, config := request(t, "GET", p.URL+"/config", "", nil)
		return strings.Contains(config, `"third"`)
	})
	if got := p.client().ok("/third", "hi"); got != "third hi" {
		t.Errorf("the third demo answers %q", got)
	}
}

// TestOpenPageOutlivesItsApp: a page that is open while the app launches again, and while the Space's process is killed,
// shows what became of its events and works on without being loaded anew.
func TestOpenPageSurvivesRelaunch(t *testing.T) {
	eachLine(t, func(t *testing.T, line string) {
		tab := openPage(t)
		p := runOn(t, line, relaunchesDir, "--gpus", "none")
		tab.open(p.URL, "#echo")
		first := spacePID(t, p)
		tab.click("#echo")
		tab.shows("#out", fmt.Sprintf("page %d 1", first))

		tab.click("#relaunch")
		c := p.client()
		eventually(t, "it is launched again", patience, func() bool {
			r := c.call("/echo", "")
			return strings.HasSuffix(text(r.Value), " 2")
		})
		tab.click("#echo")
		tab.shows("#out", fmt.Sprintf("page %d 2", first))

		tab.click("#slow")
		p.awaitRunning("slow")
		tab.click("#next")
		eventually(t, "an event waits", patience, func() bool { return p.health().Spaces[0].Queued == 1 })
		if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		tab.showsText("it was killed by SIGKILL")
		var second int
		eventually(t, "the Space is back", patience, func() bool {
			s := p.health().Spaces[0]
			second = s.PID
			return s.Stage == "RUNNING" && second != first
		})
		tab.shows("#slept", fmt.Sprintf("page %d 1", second)) // who waited
		tab.click("#echo")
		tab.shows("#out", fmt.Sprintf("page %d 1", second))
		screenshot(t, tab.ctx, "outlived-"+line+".png")
		if thrown := tab.exceptions(); len(thrown) > 0 {
			t.Errorf("the page threw: %q", thrown)
		}
	})
}

// page is a tab of a browser.
type page struct {
	t          *testing.T
	ctx        context.Context
	exceptions func() []string
}

func openPage(t *testing.T) page {
	t.Helper()
	ctx, exceptions := browser(t)
	return page{t, ctx, exceptions}
}

// waitFor polls the page for longer than its own patience would be on a loaded machine.
const waitFor = 60 * time.Second

func (p page) open(url, button string) {
	p.t.Helper()
	p.do("open "+url, chromedp.Do(p.ctx, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS(button))))
}

func (p page) click(button string) {
	p.t.Helper()
	p.do("click "+button, chromedp.Do(p.ctx, chromedp.Click(chromedp.CSS(button))))
}

// shows waits for a text field's value.
func (p page) shows(field, want string) {
	p.t.Helper()
	p.poll(field+" shows "+want, fmt.Sprintf(`() => document.querySelector("%s textarea, %s input").value === %q`, field, field, want))
}

// says waits for words anywhere on the page, as in a toast.
func (p page) showsText(words string) {
	p.t.Helper()
	p.poll("it says "+words, fmt.Sprintf(`() => document.body.innerText.includes(%q)`, words))
}

func (p page) poll(what, script string) {
	p.t.Helper()
	_, err := chromedp.Run(p.ctx, chromedp.PollFunction[bool](script, chromedp.WithPollingTimeout(waitFor)))
	p.do(what, err)
}

func (p page) do(what string, err error) {
	p.t.Helper()
	if err != nil {
		screenshot(p.t, p.ctx, "failed.png")
		text, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		p.t.Fatalf("%s: %v; the browser says %q; the page %q", what, err, p.exceptions(), text)
	}
}
