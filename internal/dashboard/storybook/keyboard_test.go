package main

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"spacehost/internal/dashboard"
)

// markControls numbers all controls that a person can see, and returns their number.
const markControls = `(() => {
	document.activeElement?.blur();
	const all = [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
		.filter((e) => !e.disabled && e.checkVisibility() && e.type !== "hidden" && e.type !== "radio");
	all.forEach((e, i) => (e.number = i));
	globalThis.controls = all;
	globalThis.reached = new Set();
	globalThis.unseen = [];
	return all.length;
})()`

// noteFocus notes the focused control, and reports whether the focus has left the page.
const noteFocus = `(() => {
	const e = document.activeElement;
	if (!e || e === document.body) return true;
	const style = getComputedStyle(e);
	if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) === 0) unseen.push(e.outerHTML.slice(0, 120));
	reached.add(e.number);
	return false;
})()`

// TestKeyboard reaches each control of each page with Tab, and sees where the focus is.
func TestKeyboard(t *testing.T) {
	s := openStudio(t)
	all := []story{{page: "home", role: dashboard.Member, state: signedOut}}
	for _, of := range stories() {
		if of.role == dashboard.Admin && of.state == filled {
			all = append(all, of)
		}
	}
	for _, of := range all {
		t.Run(of.name(), func(t *testing.T) {
			s.open(t, of)
			count := evaluate[int](t, s, markControls)
			if count == 0 {
				t.Fatal("the page has no control")
			}
			for range count + 5 {
				s.do(t, chromedp.KeyEvent(kb.Tab))
				if evaluate[bool](t, s, noteFocus) {
					break
				}
			}
			if missed := evaluate[[]string](t, s, "controls.filter((e) => !reached.has(e.number)).map((e) => e.outerHTML.slice(0, 160))"); len(missed) > 0 {
				t.Errorf("Tab does not reach %d of %d controls: %s", len(missed), count, strings.Join(missed[:min(4, len(missed))], "\n"))
			}
			if unseen := evaluate[[]string](t, s, "unseen"); len(unseen) > 0 {
				t.Errorf("the focus is not visible: %s", strings.Join(unseen[:min(4, len(unseen))], "\n"))
			}
		})
	}
}
