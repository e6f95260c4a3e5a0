package main

import (
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"spacehost/internal/dashboard"
)

// TestEachEndpointHasAnAnswer compares the answers with the routes of the API: each GET has one, of its type.
func TestEachEndpointHasAnAnswer(t *testing.T) {
	canned := map[string]answer{}
	for _, a := range answers() {
		canned[a.method+" "+a.path] = a
	}
	v := story{role: dashboard.Admin, state: filled}.values(noon)
	for _, o := range dashboard.Operations() {
		route := o.Method + " " + o.Path
		a, has := canned[route]
		delete(canned, route)
		switch {
		case o.Method != http.MethodGet || len(o.Events) > 0 || o.Answer == nil || slices.Contains(unread, o.Path):
		case !has:
			t.Errorf("%s has no answer; add it to answers.go", route)
		default:
			if got := reflect.TypeOf(a.value(v)); got != o.Answer {
				t.Errorf("%s answers with %s, want %s", route, got, o.Answer)
			}
		}
	}
	for route := range canned {
		t.Errorf("%s is no route of the API", route)
	}
}

// unread are the endpoints that no page reads.
var unread = []string{"/api/spacehost/openapi.json", "/api/spacehost/ledger.csv", "/api/spacehost/admin/clock", "/api/spacehost/admin/via"}

// TestOpeningPage opens a story as the index of `make storybook` does.
func TestOpeningPage(t *testing.T) {
	s := openStudio(t)
	s.do(t, chromedp.Navigate(s.address), chromedp.Click(chromedp.CSS(`a[href="line-admin-filled"]`)), chromedp.WaitVisible(chromedp.CSS(`nav a[href="#line"][aria-current]`)))
	if title := evaluate[string](t, s, "document.title"); title != "Line · spacehost" {
		t.Errorf("title %q", title)
	}
}

// TestStories opens each story at the width of a phone, and looks with axe in both themes at those that show something new. With
// SPACEHOST_STORIES=all (make stories) axe looks at all of them.
func TestStories(t *testing.T) {
	checker := axe(t)
	s := openStudio(t)
	for _, of := range stories() {
		t.Run(of.name(), func(t *testing.T) {
			s.do(t, chromedp.EmulateViewport(1200, 900))
			s.setDark(t, false)
			s.open(t, of)
			if of.state == many {
				t.Logf("first view of %d rows after %.0f ms", of.values(noon).rows, evaluate[float64](t, s, "performance.now()"))
			}
			if !of.showsNew() && os.Getenv("SPACEHOST_STORIES") != "all" {
				s.checkRest(t)
				return
			}
			evaluate[bool](t, s, checker+"; true")
			for _, v := range s.audit(t, "{}") {
				t.Errorf("light: %s (%s): %q", v.ID, v.Impact, v.Nodes)
			}
			s.setDark(t, true)
			for _, v := range s.audit(t, `{ runOnly: ["color-contrast"] }`) {
				t.Errorf("dark: %s (%s): %q", v.ID, v.Impact, v.Nodes)
			}
			s.checkRest(t)
		})
	}
}

// showsNew reports whether a story has elements that no other one has. A stale or lost page is the filled one below a sentence that is the
// same on all pages, and many rows are those of filled, a hundred times.
func (s story) showsNew() bool {
	switch s.state {
	case many:
		return false
	case stale, lost:
		return s.page == "home"
	}
	return true
}

// checkRest checks the width of a phone, and what a page must never do.
func (s *studio) checkRest(t *testing.T) {
	t.Helper()
	s.do(t, chromedp.EmulateViewport(360, 800))
	s.awaitFrames(t) // a chart follows its box
	if wide := evaluate[[]string](t, s, tooWide); len(wide) > 0 {
		t.Errorf("scrolls at 360 px: %q", wide)
	}
	if found := evaluate[[]string](t, s, "violations"); len(found) > 0 {
		t.Errorf("violations of the Content-Security-Policy: %q", found)
	}
	if unknown := evaluate[[]string](t, s, unanswered); len(unknown) > 0 {
		t.Errorf("the storybook has no answer for %q; add it to answers.go", unknown)
	}
	if thrown := s.exceptions(); len(thrown) > 0 {
		t.Errorf("uncaught exceptions: %q", thrown)
	}
}

// tooWide lists the elements that make the document wider than the screen.
const tooWide = `(() => {
	const width = document.documentElement.clientWidth;
	if (document.documentElement.scrollWidth <= width) return [];
	return [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > width + 1 && !e.closest(".scroll")).map((e) => e.outerHTML.slice(0, 120)).slice(0, 4).concat("scrollWidth " + document.documentElement.scrollWidth);
})()`

// unanswered lists the requests that answers.go does not know.
const unanswered = `performance.getEntriesByType("resource").filter((e) => e.responseStatus === 501).map((e) => e.name)`

// actingCharacters lists the text nodes and labels with a character that changes the direction of writing or colours a terminal.
const actingCharacters = `(() => {
	const texts = [];
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) texts.push(walk.currentNode.data);
	for (const e of document.querySelectorAll("body *")) for (const { value } of e.attributes) texts.push(value);
	return texts.filter((text) => /[\x1b\u202a-\u202e\u2066-\u2069]/.test(text)).map((text) => text.slice(0, 80)).slice(0, 4);
})()`

// TestNameDoesNotMoveSignOut gives the person a name that is written from right to left: the header stays as it is.
func TestNameDoesNotMoveSignOut(t *testing.T) {
	s := openStudio(t)
	s.open(t, story{page: "home", role: dashboard.Admin, state: filled})
	right := evaluate[bool](t, s, `(() => {
		const who = document.querySelector(".who");
		who.querySelector("bdi").firstChild.data = "\u05d0\u05d1\u05d2 \u202e\u05d3";
		const button = who.querySelector("button").getBoundingClientRect();
		return [...who.childNodes].every((node) => {
			const range = document.createRange();
			range.selectNodeContents(node);
			return node.nodeName === "BUTTON" || range.getBoundingClientRect().right <= button.left;
		});
	})()`)
	if !right {
		t.Error("the name has moved the button")
	}
}

// TestHostileTextsAreShown finds the hostile texts as text: neither their elements exist, nor do they hide a line.
func TestHostileTextsAreShown(t *testing.T) {
	s := openStudio(t)
	for _, of := range stories() {
		if of.state != hostile {
			continue
		}
		s.open(t, of)
		if made := evaluate[int](t, s, `document.querySelectorAll("main script, main img[src=x]").length`); made > 0 {
			t.Errorf("%s: %d elements of a text are in the page", of.name(), made)
		}
		if text := evaluate[string](t, s, "document.body.innerText"); !strings.Contains(text, "<script>document.body.remove()</script>") {
			t.Errorf("%s does not show the text: %.300s", of.name(), text)
		}
		if acting := evaluate[[]string](t, s, actingCharacters); len(acting) > 0 {
			t.Errorf("%s has characters that act on the texts around them: %q", of.name(), acting)
		}
		if text := evaluate[string](t, s, "document.querySelector('main').innerText"); of.at != "" && (strings.Contains(text, "You see no Space") || strings.Contains(text, "This host has no person")) {
			t.Errorf("%s does not find what its address names: %.200s", of.name(), text)
		}
	}
}
