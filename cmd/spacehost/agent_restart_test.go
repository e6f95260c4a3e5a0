package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"spacehost/internal/lease"
)

// TestHostRestartsAroundSpaces restarts a host with a running plain and GPU call. Both finish, and the Space goes on in the same
// process: with the state of sessions and of the process, with a page that was open, with its log and with its history.
func TestHostRestartsAroundSpaces(t *testing.T) {
	t.Parallel()
	l := serveAgentLab(t, agentSpaces)
	pid, agent := l.space("kept").PID, l.agent()
	c := l.ada("kept")
	c.ok("/later")
	wantText(t, "the first count", c.ok("/count"), "1 1")
	page, exceptions := browser(t)
	counted := newCountingPage(t, page, l.space("kept").URL)
	counted.click("1 2")

	slow, computed := c.submit("/slow", 4), c.submit("/on_gpu", 3)
	awaitActive(t, l.product)
	l.terminate()
	for name, k := range map[string]call{"the plain call": slow, "the GPU call": computed} {
		if r := k.wait(); r.Failed {
			t.Errorf("%s: %s", name, r.Err)
		}
	}
	if !alive(pid) || l.agent() != agent {
		t.Fatalf("processes %s after the end of the host, want %d among them", pidsBelow(l.State), pid)
	}
	writeFile(t, inFolder(pid, "print"), "")
	l.awaitFile(pid, "printed")

	began := time.Now()
	l.start()
	t.Logf("the next host was ready after %s", time.Since(began).Round(time.Millisecond))
	l.wantKept("kept", pid)
	wantText(t, "a count of the same session", c.ok("/count"), "2 3")
	counted.click("2 4")
	wantText(t, "a count of another session", l.ada("kept").ok("/count"), "1 5")
	if messages := exceptions(); len(messages) > 0 {
		t.Errorf("uncaught exceptions of the page: %q", messages)
	}
	wantText(t, "a GPU call", c.ok("/on_gpu", 0), "computed")
	ended := l.leases().Ended
	if len(ended) != 2 || ended[1].State != lease.Released || ended[1].ChargedSeconds < 3 || ended[1].ChargedSeconds > 20 {
		t.Errorf("ended leases %+v, want the earlier of 3 s", ended)
	}
	_, log, _ := l.cli("logs", "kept", "--lines", "0")
	for _, want := range []string{"counted 1", "counted 2", "printed without a host", "counted 3", "counted 5"} {
		if n := strings.Count(log, want); n != 1 {
			t.Errorf("the log has %q %d times, want once:\n%s", want, n, log)
		}
	}
	l.signal(syscall.SIGINT)
	l.wantNothingLeft("SIGINT")
	l.wantExactLedger(2)
	want := []string{"APP_STARTING ", "RUNNING ", "APP_STARTING The host restarts.", "APP_STARTING ", "RUNNING ", "STOPPED The host stopped the Space."}
	if got := l.stages("kept"); !slices.Equal(got, want) {
		t.Errorf("stages\n got %q\nwant %q", got, want)
	}
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// stages lists the history of a Space, without its builds.
func (l *agentLab) stages(name string) (all []string) {
	l.t.Helper()
	rows, err := l.database().QueryContext(l.t.Context(), `SELECT stage, reason FROM space_stages WHERE space = ? AND stage <> 'BUILDING' ORDER BY id`, name)
	if err != nil {
		l.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var stage, reason string
		if err := rows.Scan(&stage, &reason); err != nil {
			l.t.Fatal(err)
		}
		all = append(all, stage+" "+reason)
	}
	if err := rows.Err(); err != nil {
		l.t.Fatal(err)
	}
	return all
}

// countingPage is the page of the Space in a browser.
type countingPage struct {
	t   *testing.T
	ctx context.Context
}

// newCountingPage opens the page as a visitor.
func newCountingPage(t *testing.T, ctx context.Context, url string) countingPage {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("#count"))); err != nil {
		t.Fatal(err)
	}
	return countingPage{t, ctx}
}

// click clicks and waits for what the page shows.
func (p countingPage) click(want string) {
	p.t.Helper()
	err := chromedp.Do(p.ctx, chromedp.Click(chromedp.CSS("#count")))
	if err == nil {
		_, err = chromedp.Run(p.ctx, chromedp.PollFunction[bool](
			fmt.Sprintf(`() => document.querySelector("#counted textarea, #counted input").value === %q`, want), chromedp.WithPollingTimeout(30*time.Second)))
	}
	if err != nil {
		screenshot(p.t, p.ctx, "counting.png")
		p.t.Fatalf("the page does not show %q: %v", want, err)
	}
}

// TestSettingsChangeBetweenHosts changes settings while no host runs. Only the Spaces with other settings are started anew.
func TestSettingsChangeBetweenHosts(t *testing.T) {
	t.Parallel()
	l := serveAgentLab(t, agentSpaces+
		"  - {folder: FOLDER, name: changed, address: TWO, python: PYTHON, variables: {COLOR: red}}\n"+
		"  - {folder: FOLDER, name: removed, address: THREE, python: PYTHON}\n")
	kept, changed, removed := l.space("kept").PID, l.space("changed").PID, l.space("removed").PID
	l.terminate()
	l.write(t, agentSpaces+"  - {folder: FOLDER, name: changed, address: TWO, python: PYTHON, concurrency: 4, variables: {COLOR: red}}\n")
	l.start()
	l.wantKept("kept", kept)
	l.wantKept("changed", changed) // with a key that needs no new start
	if alive(removed) {
		t.Errorf("the Space that was removed runs as %d", removed)
	}
	l.terminate()
	l.write(t, agentSpaces+"  - {folder: FOLDER, name: changed, address: TWO, python: PYTHON, variables: {COLOR: blue}}\n")
	l.start()
	l.wantKept("kept", kept)
	l.wantOther("changed", changed)
	changed = l.space("changed").PID
	l.terminate()
	l.write(t, agentSpaces+"  - {folder: FOLDER, name: changed, address: TWO, python: PYTHON, variables: {COLOR: blue}, isolation: none}\n")
	l.start()
	l.wantKept("kept", kept)
	l.wantOther("changed", changed)
}

// TestAgentAtEachLevel restarts the host around a Space at each level of isolation.
func TestAgentAtEachLevel(t *testing.T) {
	for _, level := range []string{"none", "files", "namespaces", "users"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			keys := "isolation: " + level
			switch level {
			case "files", "namespaces":
				requireLevel(t, level)
			case "users":
				requireRoot(t)
			}
			l := newAgentLab(t, "")
			if level == "users" {
				l.vars = append(l.vars, "quota: 2026-04", fmt.Sprintf("quota: 2026-04\nusers: %d-%d", firstUID+40, firstUID+49))
			}
			l.write(t, fmt.Sprintf("  - {folder: FOLDER, name: kept, address: ONE, python: PYTHON, %s}\n", keys))
			l.start()
			pid, c := l.space("kept").PID, l.ada("kept")
			wantText(t, "before", c.ok("/count"), "1 1")
			wantText(t, "a GPU call before", c.ok("/on_gpu", 0), "computed")
			for n, end := range []func(){l.terminate, func() { l.kill() }} {
				end()
				l.start()
				l.wantKept("kept", pid)
				wantText(t, "after", c.ok("/count"), fmt.Sprint(n+2, n+2))
				wantText(t, "a GPU call after", c.ok("/on_gpu", 0), "computed")
			}
			l.signal(syscall.SIGINT)
			l.wantNothingLeft("SIGINT")
			l.wantExactLedger(3)
		})
	}
}
