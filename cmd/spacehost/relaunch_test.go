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

// TestAppLaunchesAgain closes and relaunches the app while one event runs and another waits. The running event ends with an error,
// the waiting event runs on the new launch, and the URL stays.
func TestAppLaunchesAgain(t *testing.T) {
	eachLine(t, func(t *testing.T, line string) {
		p := runOn(t, line, relaunchesDir, "--gpus", "none")
		c, pid := p.client(), insidePID(spacePID(t, p))
		running := c.submit("/slow", 120)
		p.awaitRunning("slow")
		waiting := c.submit("/next", "waited")
		eventually(t, "an event is waiting", patience, func() bool { return p.health().Spaces[0].Queued == 1 })
		c.submit("/relaunch") // its own response may be lost with the old launch
		if r := running.wait(); !strings.Contains(r.Err, "The app was closed.") {
			t.Errorf("the running event: error %q, value %s; want that the app was closed", r.Err, r.Value)
		}
		if r := waiting.wait(); text(r.Value) != fmt.Sprintf("waited %d 2", pid) {
			t.Errorf("the waiting event: got %s %s, want the second launch's result", r.Value, r.Err)
		}
		for name, c := range map[string]*client{"the same client": c, "a new one": p.client()} {
			if got := c.ok("/echo", "anew"); got != fmt.Sprintf("anew %d 2", pid) {
				t.Errorf("%s: got %q from the second launch", name, got)
			}
		}
	})
}

// awaitRuns waits until an event of that endpoint is running.
func (p *product) awaitRunning(endpoint string) {
	p.t.Helper()
	eventually(p.t, "an event of "+endpoint+" is running", patience, func() bool {
		return strings.Contains(p.log(), fmt.Sprintf(`"endpoint":%q`, endpoint))
	})
}

// TestSecondDemo launches two demos in one process. Visitors reach the first, as on the Hub's single port. After it closes, they
// reach the next one that launches.
func TestSecondDemo(t *testing.T) {
	t.Parallel()
	p := runProduct(t, "testdata/spaces/two-demos", "--gpus", "none")
	eventually(t, "the operator is warned", patience, func() bool {
		return strings.Contains(p.text(), "two-demos: A further demo was launched: visitors reach only the first one.")
	})
	c := p.client()
	if got := c.ok("/first", "hi"); got != "first hi" {
		t.Errorf("the first demo returned %q", got)
	}
	if _, config := request(t, "GET", p.URL+"/config", "", nil); strings.Contains(config, `"second"`) {
		t.Errorf("the URL serves the second demo: %s", config)
	}
	c.submit("/swap")
	eventually(t, "the third demo is served", patience, func() bool {
		_, config := request(t, "GET", p.URL+"/config", "", nil)
		return strings.Contains(config, `"third"`)
	})
	if got := p.client().ok("/third", "hi"); got != "third hi" {
		t.Errorf("the third demo returned %q", got)
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
		p.awaitRunning("most")
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

// TestOpenPageSurvivesRelaunch keeps a page open while the app relaunches and while the Space's process is killed. The page shows
// the outcome of its events and keeps working without a reload.
func TestOpenPageSurvivesRelaunch(t *testing.T) {
	eachLine(t, func(t *testing.T, line string) {
		tab := openPage(t)
		p := runOn(t, line, relaunchesDir, "--gpus", "none")
		tab.open(p.URL, "#echo")
		first := spacePID(t, p)
		tab.click("#echo")
		tab.shows("#out", fmt.Sprintf("page %d 1", insidePID(first)))

		tab.click("#relaunch")
		c := p.client()
		eventually(t, "the app is launched again", patience, func() bool {
			r := c.call("/echo", "")
			return strings.HasSuffix(text(r.Value), " 2")
		})
		tab.click("#echo")
		tab.shows("#out", fmt.Sprintf("page %d 2", insidePID(first)))

		tab.click("#slow")
		p.awaitRunning("slow")
		tab.click("#next")
		eventually(t, "an event is waiting", patience, func() bool { return p.health().Spaces[0].Queued == 1 })
		if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		tab.showsText("it was killed by SIGKILL")
		var second int
		eventually(t, "the Space is running again", patience, func() bool {
			s := p.health().Spaces[0]
			second = s.PID
			return s.Stage == "RUNNING" && second != first
		})
		tab.shows("#slept", fmt.Sprintf("page %d 1", insidePID(second))) // the waiting event's result
		tab.click("#echo")
		tab.shows("#out", fmt.Sprintf("page %d 1", insidePID(second)))
		screenshot(t, tab.ctx, "outlived-"+line+".png")
		if thrown := tab.exceptions(); len(thrown) > 0 {
			t.Errorf("uncaught exceptions of the page: %q", thrown)
		}
	})
}

// TestOpenPageSurvivesHostRestart keeps a page open while the host ends and starts again, on the same state folder and address.
func TestOpenPageSurvivesHostRestart(t *testing.T) {
	eachLine(t, func(t *testing.T, line string) {
		tab := openPage(t)
		state, dir, address := t.TempDir(), onGradio(t, t.TempDir(), line, relaunchesDir), freeAddress(t)
		start := func() *product {
			p := startOn(t, line, state, dir, "--gpus", "none", "--addr", address, "--isolation", "none") // its processes have different numbers
			t.Cleanup(p.stop)
			p.awaitReady()
			return p
		}
		p := start()
		tab.open(p.URL, "#echo")
		tab.click("#echo")
		tab.shows("#out", fmt.Sprintf("page %d 1", spacePID(t, p)))
		p.stop()
		p = start()
		tab.click("#echo")
		tab.shows("#out", fmt.Sprintf("page %d 1", spacePID(t, p)))
		screenshot(t, tab.ctx, "restarted-"+line+".png")
		if thrown := tab.exceptions(); len(thrown) > 0 {
			t.Errorf("uncaught exceptions of the page: %q", thrown)
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

// waitFor is the time limit of a poll in the page. It exceeds chromedp's default, for loaded machines.
const waitFor = 60 * time.Second

func (p page) open(url, button string) {
	p.t.Helper()
	p.do("open "+url, chromedp.Do(p.ctx, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS(button))))
}

func (p page) click(button string) {
	p.t.Helper()
	p.do("click "+button, chromedp.Do(p.ctx, chromedp.Click(chromedp.CSS(button))))
}

// shows waits until a text field has this value.
func (p page) shows(field, want string) {
	p.t.Helper()
	p.poll(field+" shows "+want, fmt.Sprintf(`() => document.querySelector("%s textarea, %s input").value === %q`, field, field, want))
}

// showsText waits until the page contains these words, for example in a toast.
func (p page) showsText(words string) {
	p.t.Helper()
	p.poll("the page shows "+words, fmt.Sprintf(`() => document.body.innerText.includes(%q)`, words))
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
		p.t.Fatalf("%s: %v; uncaught exceptions: %q; text of the page: %q", what, err, p.exceptions(), text)
	}
}
