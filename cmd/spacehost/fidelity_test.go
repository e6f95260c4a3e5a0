package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fidelityDir holds the apps. docs/gradio.md says which case of fidelity_cases_test.go exercises what of Gradio.
const fidelityDir = "testdata/fidelity"

// masks are all that may differ between a Space under the host and under stock Gradio, and why. Order matters.
var masks = []struct {
	what *regexp.Regexp
	as   string
	why  string
}{
	{regexp.MustCompile(`(?:127\.0\.0\.1|localhost)(?::|%3A)\d+`), "<host>", "each side listens at an address of its own"},
	{regexp.MustCompile(`[^"'\s=\\,(<>]*/home/gradio\b`), "<files>", "and keeps its files in a folder of its own"},
	{regexp.MustCompile(`[^"'\s=\\,(<>]*/(?:ours|stock)/(components|protocol|guarded|server)\b`), "<space>/$1", "so does the app"},
	{regexp.MustCompile(`(?:\bstream/[^/"]+/[^/"]+|\b\w{8,13}/(?:[0-9a-f]{32}|\d{9,}))/`), "<stream>/", "sessions and runs are drawn by lot"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b|\bS[0-9a-f]{10}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`), "<id>", "so are events, our sessions and segments of a stream"},
	{regexp.MustCompile(`\b(state|nonce|code_challenge)=[\w-]+`), "$1=<drawn>", "so is what a sign-in must bring back"},
	{regexp.MustCompile(`(?m)^"[\w-]{11}"$`), `"<id>"`, "a deep link is a hash of all that differs"},
	{regexp.MustCompile(`("app_id":\s?)\d+|( at )0x[0-9a-f]+`), "$1$2<drawn>", "so is the app's number; Gradio 5 prints where a function lies in memory"},
	{regexp.MustCompile(`"(duration|average_duration|cache_duration|avg_time|eta|rank_eta|time_limit)":\s?(?:null|-?[0-9][0-9.e-]*)`), `"$1":<time>`, "measured times, and estimates made of them"},
	{regexp.MustCompile(`"(50th|90th|99th|total_requests|success_rate)":[0-9.e-]+`), `"$1":<count>`, "so does the summary of all calls so far"},
	{regexp.MustCompile(`blob:[^"\s]+`), "<blob>", "a browser names what it holds itself"},
}

func masked(text string) string {
	for _, one := range masks {
		text = one.what.ReplaceAllString(text, one.as)
	}
	return text
}

// fidelitySpaces are the processes of a line, each of which may mount several apps; Gradio 4 and 5 have no gr.Server.
func fidelitySpaces(line string) []string {
	spaces := []string{"components", "protocol", "guarded", "server"}
	if line != "v6" {
		return spaces[:3]
	}
	return spaces
}

// fidelityCase is one comparison. It is called by its name, without the slash; how, says what is set.
type fidelityCase struct {
	name     string
	page     string        // Space and mount: "components/text"
	covers   string        // words of docs/gradio.md: components, routes, messages, behaviours
	lines    string        // of Gradio; "" is all
	args     string        // given by the clients; "" is not called by them
	auth     []string      // name and password
	do       []string      // in the browser, before #out-NAME is read; nil is a click on #go-NAME, empty is nothing
	out      string        // where the browser reads, if not there
	noPage   bool          // the browser does not
	want     string        // stands in every answer, so that two sides which fail do not pass for equal
	requests []httpRequest // plain requests
	slow     bool          // takes so long that only make fidelity does it
	unlike   string        // why the host answers otherwise, on purpose: then want is what the host says
}

func (c fidelityCase) in(line string) bool { return c.lines == "" || strings.Contains(c.lines, line) }

// sides are the same apps twice: behind the host, and under their own Gradio.
type sides struct {
	t    *testing.T
	line string
	urls [2]map[string]string // by Space: ours, stock
}

const ours, stock = 0, 1

var sideNames = [2]string{"spacehost", "stock Gradio"}

func startSides(t *testing.T, line string, args ...string) *sides {
	s := &sides{t: t, line: line, urls: [2]map[string]string{{}, {}}}
	dir := t.TempDir()
	var spaces [2][]string
	for i, name := range []string{"ours", "stock"} {
		for _, space := range fidelitySpaces(line) {
			to := filepath.Join(dir, name)
			if err := os.MkdirAll(to, 0o755); err != nil {
				t.Fatal(err)
			}
			spaces[i] = append(spaces[i], onGradio(t, to, line, filepath.Join(fidelityDir, space)))
		}
	}
	signIn := []string{"OPENID_PROVIDER_URL=" + signInProvider(t), "OAUTH_CLIENT_ID=client", "OAUTH_CLIENT_SECRET=secret", "OAUTH_SCOPES=openid profile"}
	more := append(append(slices.Clone(spaces[ours][1:]), "--gpus", "none"), args...)
	for _, pair := range signIn {
		more = append(more, "--variable", pair)
	}
	p := startOn(t, line, filepath.Join(dir, "state"), spaces[ours][0], more...)
	t.Cleanup(p.stop)
	p.awaitReady()
	for _, one := range p.Spaces {
		s.urls[ours][one.Name] = one.URL
	}
	var starting []stockGradio
	for i, space := range fidelitySpaces(line) {
		one := startStock(t, environmentOf(t, line), spaces[stock][i], append(onSpaces(space), signIn...)...)
		starting = append(starting, one)
		s.urls[stock][space] = one.url
	}
	for _, one := range starting {
		one.ready()
	}
	return s
}

// signInProvider stands in for the Hub where people sign in.
func signInProvider(t *testing.T) string {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": server.URL, "authorization_endpoint": server.URL + "/authorize", "token_endpoint": server.URL + "/token"})
	})
	return server.URL
}

// at is the address of a page.
func (s *sides) at(side int, page string) string {
	space, mount, mounted := strings.Cut(page, "/")
	if mounted {
		mount = "/" + mount
	}
	return s.urls[side][space] + mount
}

// cases are those of this line.
func (s *sides) cases(keep func(fidelityCase) bool) (chosen []fidelityCase) {
	for _, c := range fidelityCases {
		if c.in(s.line) && keep(c) && (!c.slow || os.Getenv("SPACEHOST_FIDELITY") != "") {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// verdicts are what `make fidelity` writes down: by case, each way that it was called.
type verdicts map[string][]string

// judge compares what both sides gave.
func (v verdicts) judge(t *testing.T, c fidelityCase, way string, got [2]string) {
	t.Helper()
	result := "equal"
	switch {
	case c.unlike != "" && got[ours] != got[stock] && strings.Contains(got[ours], c.want):
		result = "unlike stock on purpose"
	case c.unlike != "":
		result = "fails"
		t.Errorf("%s by %s: want %q from the host and something else from stock Gradio:\n%s", c.name, way, c.want, difference(got))
	case got[ours] != got[stock]:
		result = "differs"
		t.Errorf("%s by %s differs:\n%s", c.name, way, difference(got))
	case !strings.Contains(got[ours], c.want):
		result = "fails"
		t.Errorf("%s by %s: %q is not in %s", c.name, way, c.want, got[ours])
	}
	v[c.page+" "+c.name] = append(v[c.page+" "+c.name], way+" "+result)
}

// difference shows both from where they part.
func difference(got [2]string) string {
	at := 0
	for at < min(len(got[0]), len(got[1])) && got[0][at] == got[1][at] {
		at++
	}
	var out strings.Builder
	for side, text := range got {
		fmt.Fprintf(&out, "  %s: ...%s\n", sideNames[side], text[max(0, at-200):min(len(text), at+500)])
	}
	return out.String()
}

// in is the same in a part of the test.
func (s *sides) in(t *testing.T) *sides { return &sides{t: t, line: s.line, urls: s.urls} }

// TestFidelity calls every case through the host and through stock Gradio. `make fidelity` takes every line, and
// both admissions on the newest.
func TestFidelity(t *testing.T) {
	all := os.Getenv("SPACEHOST_FIDELITY") != ""
	report := map[string]verdicts{}
	run := func(title, line string, args ...string) {
		report[title] = verdicts{}
		t.Run(title, func(t *testing.T) { compareSides(t, report[title], line, args...) })
	}
	run("v6", "v6")
	if !all {
		t.Log("SKIPPED: Gradio 4.44 and 5.49; make fidelity takes them too")
		return
	}
	run("v6, admitted by the Space", "v6", "--admission", "space")
	run("v5", "v5")
	run("v4", "v4")
	writeFidelity(t, report)
}

func compareSides(t *testing.T, v verdicts, line string, args ...string) {
	s := startSides(t, line, args...)
	for _, way := range []struct {
		name string
		run  func(s *sides)
	}{
		{"pages", func(s *sides) { s.comparePages(v) }},
		{"http", func(s *sides) { s.requests(v) }},
		{"python", func(s *sides) { s.call(v, "python", s.python()) }},
		{"javascript", func(s *sides) { s.call(v, "javascript", s.javaScript()) }},
		{"browser", func(s *sides) { s.browse(v) }},
	} {
		t.Run(way.name, func(t *testing.T) { way.run(s.in(t)) })
	}
}

// comparePages holds /config and /info of every app to the letter, but for four things: app_id; the address (root,
// and the snippets made of it); the folder in components[].props.value.path; and the place of a function in memory
// that Gradio 5 prints into components[].props.delete_callback.
func (s *sides) comparePages(v verdicts) {
	pages := map[string]bool{}
	for _, c := range s.cases(func(fidelityCase) bool { return true }) {
		pages[c.page] = true
	}
	for _, page := range slices.Sorted(maps.Keys(pages)) {
		for _, path := range []string{"/config", "A/info", "A/info?all_endpoints=true"} {
			s.exchange(v, fidelityCase{name: path, page: page, requests: []httpRequest{{method: "GET", path: path}}})
		}
	}
}
