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

// fidelityDir contains the apps. docs/gradio.md lists which case of fidelity_cases_test.go exercises which part of Gradio.
const fidelityDir = "testdata/fidelity"

// masks lists every permitted difference between a Space under the host and under stock Gradio, with the reason. Order matters.
var masks = []struct {
	what *regexp.Regexp
	as   string
	why  string
}{
	{regexp.MustCompile(`(?:127\.0\.0\.1|localhost)(?::|%3A)\d+`), "<host>", "each side listens at its own address"},
	{regexp.MustCompile(`[^"'\s=\\,(<>]*/home/gradio\b`), "<files>", "each side has its own folder for files"},
	{regexp.MustCompile(`[^"'\s=\\,(<>]*/(?:ours|stock)/(components|protocol|guarded|server)\b`), "<space>/$1", "each side has its own copy of the app"},
	{regexp.MustCompile(`(?:\bstream/[^/"]+/[^/"]+|\b\w{8,13}/(?:[0-9a-f]{32}|\d{9,}))/`), "<stream>/", "session and run ids are random"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b|\bS[0-9a-f]{10}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`), "<id>", "event ids, the test's session ids and segment ids of a stream are random"},
	{regexp.MustCompile(`\b(state|nonce|code_challenge)=[\w-]+`), "$1=<drawn>", "the state of a sign-in is random"},
	{regexp.MustCompile(`(?m)^"[\w-]{11}"$`), `"<id>"`, "a deep link is a hash over values that differ"},
	{regexp.MustCompile(`("app_id":\s?)\d+|( at )0x[0-9a-f]+`), "$1$2<drawn>", "app_id is random; Gradio 5 prints the memory address of a function"},
	{regexp.MustCompile(`"(duration|average_duration|cache_duration|avg_time|eta|rank_eta|time_limit)":\s?(?:null|-?[0-9][0-9.e-]*)`), `"$1":<time>`, "times are measured, and estimates derive from them"},
	{regexp.MustCompile(`"(50th|90th|99th|total_requests|success_rate)":[0-9.e-]+`), `"$1":<count>`, "the summary covers all calls so far"},
	{regexp.MustCompile(`("space_id":\s?)"(?:local/\w+)?"`), `$1"<space>"`, "the host leaves space_id empty, so that no page asks the Hub about the Space"},
	{regexp.MustCompile(`\blocal/(?:components|protocol|guarded|server)\b`), "http://<host>", "code snippets then name the app's address"},
	{regexp.MustCompile(`(\bClient(?:\.connect)?\(\\?"|\} predict )http://<host>/\w+`), "${1}http://<host>", "of a mounted app, with its path, where a client finds it"},
	{regexp.MustCompile(`blob:[^"\s]+`), "<blob>", "a browser generates these names"},
}

// nodeMask follows masks if the Spaces run on a node, where the name of a folder is the hash of its content.
var nodeMask = regexp.MustCompile(`<space>/(?:components|protocol|guarded|server)\b|[^"'\s=\\,(<>]*/bundles/trees/[0-9a-f]{64}`)

func masked(text string) string {
	for _, one := range masks {
		text = one.what.ReplaceAllString(text, one.as)
	}
	if isNodeSuite() {
		text = nodeMask.ReplaceAllString(text, "<space>")
	}
	return text
}

// fidelitySpaces lists the Spaces of a line. Each is one process and may mount several apps. Gradio 4 and 5 have no gr.Server.
func fidelitySpaces(line string) []string {
	spaces := []string{"components", "protocol", "guarded", "server"}
	if line != "v6" {
		return spaces[:3]
	}
	return spaces
}

// fidelityCase is one comparison. Its name is the api_name without the slash. The fields that are set select the ways of calling it.
type fidelityCase struct {
	name     string
	page     string        // Space and mount: "components/text"
	covers   string        // words of docs/gradio.md: components, routes, messages, behaviours
	lines    string        // of Gradio; "" means all
	args     string        // sent by the clients; "" means that they do not call it
	auth     []string      // name and password
	do       []string      // browser steps before #out-NAME is read; nil means a click on #go-NAME, empty means none
	out      string        // selector that the browser reads instead of #out-NAME
	noPage   bool          // the browser skips it
	want     string        // part of every result, so that two failing sides are not reported as equal
	requests []httpRequest // plain requests
	slow     bool          // takes so long that only `make fidelity` runs it
	unlike   string        // why the host's response differs on purpose; want is then part of the host's response
}

func (c fidelityCase) in(line string) bool { return c.lines == "" || strings.Contains(c.lines, line) }

// sides runs the same apps twice: behind the host, and under stock Gradio.
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
	provider := signInProvider(t)
	signIn := []string{"OPENID_PROVIDER_URL=" + provider.URL, "OAUTH_CLIENT_ID=client", "OAUTH_CLIENT_SECRET=secret", "OAUTH_SCOPES=openid profile"}
	p := startOurs(t, line, filepath.Join(dir, "state"), spaces[ours], provider, signIn, args)
	t.Cleanup(p.stop)
	p.awaitReady()
	for _, one := range p.Spaces {
		s.urls[ours][one.Name] = one.URL
	}
	var starting []stockGradio
	for i, space := range fidelitySpaces(line) {
		python := environmentOf(t, line)
		if n := nodeOf(p.State); n != nil {
			python = n.pythonOf(t, space)
		}
		one := startStock(t, python, spaces[stock][i], append(onSpaces(space), signIn...)...)
		starting = append(starting, one)
		s.urls[stock][space] = one.url
	}
	for _, one := range starting {
		one.ready()
	}
	return s
}

// startOurs starts the Spaces behind a host: with `run`, or with `serve` on a node or below an agent, as the suite asks.
func startOurs(t *testing.T, line, state string, spaces []string, provider *httptest.Server, variables, args []string) *product {
	if !spacesOutlastHost() {
		more := slices.Concat(spaces[1:], []string{"--gpus", "none"}, reachFlags(provider), args)
		for _, pair := range variables {
			more = append(more, "--variable", pair)
		}
		return startOn(t, line, state, spaces[0], more...)
	}
	if len(args) > 0 {
		t.Skip("SKIPPED: the admission by the Space, which has no key in a file")
	}
	var each, file strings.Builder
	for _, pair := range variables {
		name, value, _ := strings.Cut(pair, "=")
		fmt.Fprintf(&each, "%s: %q, ", name, value)
	}
	fmt.Fprintf(&file, "%s\nconsole: \"127.0.0.1:0\"\ngpus: {machine: mock:1xH200}\ndrain: 1s\nreach: [%q]\nspaces:\n", agentKey(), provider.Listener.Addr())
	for _, space := range spaces {
		fmt.Fprintf(&file, "  - {folder: %q, name: %s, address: \"127.0.0.1:0\", variables: {%s}, python: %q}\n", space, filepath.Base(space), each.String(), environmentOf(t, line))
	}
	name := filepath.Join(filepath.Dir(state), "lab.yaml")
	writeFile(t, name, file.String())
	p := startCommandWith(t, nil, state, "serve", "--config", name)
	p.line = line
	return p
}

// signInProvider starts a fake of the Hub's OpenID provider.
func signInProvider(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	server := startInNetwork(t, mux)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": server.URL, "authorization_endpoint": server.URL + "/authorize", "token_endpoint": server.URL + "/token"})
	})
	return server
}

// at returns the address of a page.
func (s *sides) at(side int, page string) string {
	space, mount, mounted := strings.Cut(page, "/")
	if mounted {
		mount = "/" + mount
	}
	return s.urls[side][space] + mount
}

// isFidelity reports whether `make fidelity` runs the tests: on every line, with all clients, and with what may have to be built.
func isFidelity() bool { return os.Getenv("SPACEHOST_FIDELITY") != "" }

// cases returns the cases of this line that keep selects.
func (s *sides) cases(keep func(fidelityCase) bool) (chosen []fidelityCase) {
	for _, c := range fidelityCases {
		if c.in(s.line) && keep(c) && (!c.slow || isFidelity()) {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// verdicts is what `make fidelity` writes into its report: by case, the result of each way of calling it.
type verdicts map[string][]string

// judge compares the results of both sides and records the verdict.
func (v verdicts) judge(t *testing.T, c fidelityCase, way string, got [2]string) {
	t.Helper()
	result := "equal"
	switch {
	case c.unlike != "" && got[ours] != got[stock] && strings.Contains(got[ours], c.want):
		result = "unlike stock on purpose"
	case c.unlike != "":
		result = "fails"
		t.Errorf("%s by %s: want %q from the host and another result from stock Gradio:\n%s", c.name, way, c.want, difference(got))
	case got[ours] != got[stock]:
		result = "differs"
		t.Errorf("%s by %s differs:\n%s", c.name, way, difference(got))
	case !strings.Contains(got[ours], c.want):
		result = "fails"
		t.Errorf("%s by %s: want %q in the result %s", c.name, way, c.want, got[ours])
	}
	v[c.page+" "+c.name] = append(v[c.page+" "+c.name], way+" "+result)
}

// difference shows both results around their first difference.
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

// in returns the same sides for a subtest.
func (s *sides) in(t *testing.T) *sides { return &sides{t: t, line: s.line, urls: s.urls} }

// TestFidelity sends every case to the host and to stock Gradio, over HTTP and with gradio_client. `make fidelity` also uses
// @gradio/client and the pages in a browser, on every line, and with both values of --admission on the newest.
func TestFidelity(t *testing.T) {
	report := map[string]verdicts{}
	run := func(title, line string, args ...string) {
		report[title] = verdicts{}
		t.Run(title, func(t *testing.T) { compareSides(t, report[title], line, args...) })
	}
	run("v6", "v6")
	if !isFidelity() {
		t.Log("SKIPPED: Gradio 4.44 and 5.49; run make fidelity to include them")
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
		slow bool
		run  func(s *sides)
	}{
		{"pages", false, func(s *sides) { s.comparePages(v) }},
		{"http", false, func(s *sides) { s.requests(v) }},
		{"python", false, func(s *sides) { s.call(v, "python", s.python()) }},
		{"javascript", true, func(s *sides) { s.call(v, "javascript", s.javaScript()) }},
		{"browser", true, func(s *sides) { s.browse(v) }},
	} {
		t.Run(way.name, func(t *testing.T) {
			if way.slow && !isFidelity() {
				t.Skip("SKIPPED: @gradio/client and the browser; run make fidelity to include them")
			}
			way.run(s.in(t))
		})
	}
}

// comparePages compares /config and /info of every app byte for byte. Four values are masked: app_id; the address (root, and
// the snippets that contain it); the folder in components[].props.value.path; and the memory address of a function, which
// Gradio 5 prints into components[].props.delete_callback.
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
