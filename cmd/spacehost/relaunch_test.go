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
		p.awaitRuns("slow")
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
func (p *product) awaitRuns(endpoint string) {
	p.t.Helper()
	eventually(p.t, "an event of "+endpoint+" runs", patience, func() bool {
		return strings.Contains(p.log(), fmt.Sprintf(`"endpoint":%q`, endpoint))
	})
}

// TestFurtherDemo: of two demos in one process visitors reach the first, as at the Hub's one port; when it makes
// room, the next that launches.
func TestFurtherDemo(t *testing.T) {
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

// TestAnotherAppTakesItsPlace: a process closes its app and launches other Blocks with a higher concurrency limit, while
// one call of the first app runs and two wait. The calls of the first app end, as in stock Gradio, and two calls of
// the second app run at once. The functions of both have the same name and place.
func TestAnotherAppTakesItsPlace(t *testing.T) {
	eachLine(t, func(t *testing.T, line string) {
		p := runOn(t, line, "testdata/spaces/another-app", "--gpus", "none")
		c := p.client()
		first := []call{c.submit("/most"), c.submit("/most"), c.submit("/most")}
		p.awaitRuns("most")
		eventually(t, "two calls wait", patience, func() bool { return p.health().Spaces[0].Queued == 2 })
		c.submit("/next")
		for _, k := range first {
			if r := k.wait(); !strings.Contains(r.Err, "The app was closed") {
				t.Errorf("a call of the first app: %q, value %s", r.Err, r.Value)
			}
		}
		eventually(t, "the second app is served", patience, func() bool {
			_, config := request(t, "GET", p.URL+"/config", "", nil)
			return strings.Contains(config, `"Limit 2"`)
		})
		second := p.client()
		for _, k := range []call{second.submit("/most"), second.submit("/most"), second.submit("/most")} {
			if r := k.wait(); text(r.Value) != "2" {
				t.Errorf("a call of the second app saw at most %s running, want 2; %s", r.Value, r.Err)
			}
		}
	})
}

// TestOpenPageOutlivesItsApp: a page that is open while the app launches again, and while the Space's process is killed,
// shows what became of its events and works on without being loaded anew.
func TestOpenPageOutlivesItsApp(t *testing.T) {
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
		p.awaitRuns("slow")
		tab.click("#next")
		eventually(t, "an event waits", patience, func() bool { return p.health().Spaces[0].Queued == 1 })
		if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		tab.says("it was killed by SIGKILL")
		var second int
		eventually(t, "the Space is back", patience, func() bool {
			s := p.health().Spaces[0]
			second = s.PID
			return s.Stage == "RUNNING" && second != first
		})
		tab.shows("#slept", fmt.Sprintf("page %d 1", second)) // who waited
		tab.click("#echo")
		tab.shows("#out", fmt.Sprintf("page %d 1", second))
		shoot(t, tab.ctx, "outlived-"+line+".png")
		if said := tab.complaints(); len(said) > 0 {
			t.Errorf("the page threw: %q", said)
		}
	})
}

// page is a tab of a browser.
type page struct {
	t          *testing.T
	ctx        context.Context
	complaints func() []string
}

func openPage(t *testing.T) page {
	t.Helper()
	ctx, complaints := browser(t)
	return page{t, ctx, complaints}
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
func (p page) says(words string) {
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
		shoot(p.t, p.ctx, "failed.png")
		said, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		p.t.Fatalf("%s: %v; the browser says %q; the page %q", what, err, p.complaints(), said)
	}
}
