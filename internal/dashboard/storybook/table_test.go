package main

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"spacehost/internal/dashboard"
)

// TestLongTable searches a table of 1,000 rows, of which 100 are drawn, and shows all of them by keyboard.
func TestLongTable(t *testing.T) {
	s := play(t, story{page: "people", role: dashboard.Admin, state: many}, "")
	s.steps(t, `
		globalThis.drawn = () => document.querySelectorAll("tbody tr");
		await until(() => drawn().length === 100);
		want(document.body.innerText.includes("The first 100 of 969 rows are shown."), document.querySelector(".scroll > p").innerText);
		type("input[type=search]", "ben961");
		await until(() => drawn().length === 1);
		want(drawn()[0].innerText.includes("ben961") && !document.body.innerText.includes("Show all"), drawn()[0].innerText);
		type("input[type=search]", "");
		await until(() => drawn().length === 100);
		button("Show all 969").focus();
	`)
	began := evaluate[float64](t, s, "performance.now()")
	s.do(t, chromedp.KeyEvent(kb.Enter))
	s.steps(t, `
		await until(() => drawn().length === 969);
		want(document.activeElement === drawn()[100], "the focus is on " + document.activeElement.outerHTML.slice(0, 80));
		want(getComputedStyle(document.activeElement).outlineStyle !== "none", "the focus is not visible");
		want(!document.body.innerText.includes("Show all"), "the button is still there");
	`)
	s.awaitFrames(t)
	t.Logf("all rows after %.0f ms", evaluate[float64](t, s, "performance.now()")-began)
	s.do(t, chromedp.KeyEvent(kb.Tab))
	if !evaluate[bool](t, s, "document.activeElement.tagName === 'A' && document.activeElement.closest('tr') === drawn()[100]") {
		t.Errorf("Tab leaves the row for %s", evaluate[string](t, s, "document.activeElement.outerHTML.slice(0, 80)"))
	}
}

// TestFileOfLongTable: a file has all rows, also those that are not drawn.
func TestFileOfLongTable(t *testing.T) {
	s := play(t, story{page: "audit", role: dashboard.Admin, state: many}, "URL.createObjectURL = (blob) => ((globalThis.saved = blob), 'blob:none');")
	s.steps(t, `
		await until(() => document.querySelectorAll("tbody tr").length === 100);
		button("Download as CSV").click();
		const lines = (await saved.text()).trimEnd().split("\r\n");
		want(lines.length === 1001, "the file has " + lines.length + " lines, want 1001");
	`)
}
