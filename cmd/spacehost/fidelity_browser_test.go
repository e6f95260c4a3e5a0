package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// snapshot collects the visible content below an element: texts, values, addresses.
const snapshot = `(selector => {
	const root = document.querySelector(selector), out = [];
	const walk = node => {
		if (node.nodeType === Node.TEXT_NODE) { const text = node.textContent.trim(); if (text) out.push(text); return; }
		if (node.nodeType !== Node.ELEMENT_NODE || ["STYLE", "SCRIPT"].includes(node.tagName)) return;
		const field = ["INPUT", "TEXTAREA", "SELECT"].includes(node.tagName);
		if (field) out.push(node.type + "=" + (["checkbox", "radio"].includes(node.type) ? node.checked : node.type === "file" ? "" : node.value));
		for (const name of ["src", "href", "download", "alt"]) if (node.hasAttribute(name)) out.push(name + "=" + node.getAttribute(name));
		if (node.tagName === "CANVAS") out.push("canvas " + node.width + "x" + node.height);
		node.childNodes.forEach(walk);
		if (node.shadowRoot) node.shadowRoot.childNodes.forEach(walk);
	};
	if (root) walk(root);
	return out.join("\n");
})(%q)`

// browse performs each case in real pages, as a visitor does, and compares the content that both pages show.
func (s *sides) browse(v verdicts) {
	cases := s.cases(func(c fidelityCase) bool { return !c.noPage && c.requests == nil })
	tabs := s.tabs()
	page := ""
	for _, c := range cases {
		s.t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			if c.page != page {
				page = c.page
				s.both(c, func(side int) error { return chromedp.Do(tabs[side], chromedp.Navigate(s.at(side, page))) })
			}
			s.both(c, func(side int) error { return s.act(tabs[side], c) })
			v.judge(t, c, "browser", s.seen(tabs, c))
		})
	}
}

// both runs do on both sides concurrently.
func (s *sides) both(c fidelityCase, do func(side int) error) {
	s.t.Helper()
	var errs [2]error
	var waiting sync.WaitGroup
	for side := range errs {
		waiting.Go(func() { errs[side] = do(side) })
	}
	waiting.Wait()
	for side, err := range errs {
		if err != nil {
			s.t.Errorf("%s in the browser at %s: %v", c.name, sideNames[side], err)
		}
	}
}

// tabs opens a tab for each side in one browser.
func (s *sides) tabs() [2]context.Context {
	first, _ := browser(s.t)
	second, closeTab := chromedp.NewContext(first)
	s.t.Cleanup(closeTab)
	return [2]context.Context{first, second}
}

// act performs the steps of a case: "click SELECTOR", "type SELECTOR = TEXT", "upload SELECTOR = FILE", and "until SELECTOR = TEXT",
// which waits for the delayed effect of an earlier step.
func (s *sides) act(tab context.Context, c fidelityCase) error {
	steps := c.do
	if steps == nil {
		steps = []string{"click #go-" + c.name}
	}
	for _, step := range steps {
		verb, rest, _ := strings.Cut(step, " ")
		selector, value, _ := strings.Cut(rest, " = ")
		if err := do(tab, verb, selector, value); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	return nil
}

func do(tab context.Context, verb, selector, value string) error {
	ready := fmt.Sprintf(`() => document.querySelector(%q) !== null`, selector)
	for deadline := time.Now().Add(30 * time.Second); ; {
		_, err := chromedp.Run(tab, chromedp.PollFunction[bool](ready, chromedp.WithPollingTimeout(10*time.Second)))
		if err == nil {
			break
		}
		if time.Now().After(deadline) { // before the deadline, a navigation may have replaced the page
			return err
		}
	}
	switch verb {
	case "click":
		_, err := chromedp.Run(tab, chromedp.Evaluate[bool](fmt.Sprintf(`(() => { document.querySelector(%q).click(); return true })()`, selector)))
		return err
	case "type":
		_, err := chromedp.Run(tab, chromedp.Evaluate[bool](fmt.Sprintf(
			`(() => { const field = document.querySelector(%q); field.focus(); field.select(); return true })()`, selector)))
		if err != nil {
			return err
		}
		return chromedp.Do(tab, chromedp.KeyEvent(value))
	case "upload":
		path, err := filepath.Abs(filepath.Join(fidelityDir, "components", "files", value))
		if err != nil {
			return err
		}
		return chromedp.Do(tab, chromedp.SetUploadFiles(chromedp.CSS(selector), []string{path}))
	case "until":
		_, err := chromedp.Run(tab, chromedp.PollFunction[bool](fmt.Sprintf(`() => document.querySelector(%q).value === %q`, selector, value),
			chromedp.WithPollingTimeout(30*time.Second)))
		return err
	}
	return fmt.Errorf("unknown step %q; use click, type, upload or until", verb)
}

// seen reads both pages until two consecutive readings agree and contain c.want: pages render with a delay.
func (s *sides) seen(tabs [2]context.Context, c fidelityCase) (got [2]string) {
	s.t.Helper()
	where := c.out
	if where == "" {
		where = "#out-" + c.name
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	agreed := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		for side := range got {
			text, err := chromedp.Run(tabs[side], chromedp.Evaluate[string](fmt.Sprintf(snapshot, where)))
			if err != nil {
				s.t.Errorf("%s in the browser at %s: %v", c.name, sideNames[side], err)
				return got
			}
			got[side] = masked(text)
		}
		if got[ours] == got[stock] && strings.Contains(got[ours], c.want) {
			if got[ours] == agreed {
				return got
			}
			agreed = got[ours]
		}
	}
	return got
}
