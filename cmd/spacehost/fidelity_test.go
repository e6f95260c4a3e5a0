package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
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
	{regexp.MustCompile(`("space_id":\s?)"(?:local/\w+)?"`), `$1"<space>"`, "under the host no config names the Space, lest its page asks the Hub about it"},
	{regexp.MustCompile(`\blocal/(?:components|protocol|guarded|server)\b`), "http://<host>", "so code snippets name its address"},
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
	name   string
	page   string    // Space and mount: "components/text"
	covers string    // words of docs/gradio.md: components, routes, messages, behaviours
	lines  string    // of Gradio; "" is all
	args   string    // given by the clients; "" is not called by them
	auth   []string  // name and password
	do     []string  // in the browser, before #out-NAME is read; nil is a click on #go-NAME, empty is nothing
	out    string    // where the browser reads, if not there
	noPage bool      // the browser does not
	want   string    // stands in every answer, so that two sides which fail do not pass for equal
	asks   []httpAsk // plain requests
	slow   bool      // takes so long that only make fidelity does it
	unlike string    // why the host answers otherwise, on purpose: then want is what the host says
}

func (c fidelityCase) in(line string) bool { return c.lines == "" || strings.Contains(c.lines, line) }

// httpAsk is one request and its answer. {name} in path and body is what one before has kept, {fn:NAME} the number of a function.
type httpAsk struct {
	method, path, body string
	header             http.Header
	keep               string // NAME=REGEXP: what its group finds in the answer, or in Location; "cookies" are the answer's
	frames             int    // ends the request after so many
	open               bool   // leaves it open instead, for
	resume             bool   // the one that goes on reading it
}

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

// call has a client make all calls, at both sides at the same time.
func (s *sides) call(v verdicts, way string, command func(order []byte) *exec.Cmd) {
	t := s.t
	cases := s.cases(func(c fidelityCase) bool { return c.args != "" })
	var got [2]map[string]string
	var both sync.WaitGroup
	for side := range got {
		both.Go(func() { got[side] = s.callSide(side, cases, way, command) })
	}
	both.Wait()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { v.judge(t, c, way, [2]string{got[ours][c.name], got[stock][c.name]}) })
	}
}

// callOrder is what testdata/clients/fidelity.py and .mjs read.
type callOrder struct {
	URL   string     `json:"url"`
	Files string     `json:"files"`
	Pages []callPage `json:"pages"`
}

type callPage struct {
	Path  string     `json:"path"`
	Auth  []string   `json:"auth,omitempty"`
	Calls []callCase `json:"calls"`
}

type callCase struct {
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

func (s *sides) callSide(side int, cases []fidelityCase, way string, command func([]byte) *exec.Cmd) map[string]string {
	files, err := filepath.Abs(filepath.Join(fidelityDir, "components", "files"))
	if err != nil {
		s.t.Error(err)
	}
	order := callOrder{Files: files}
	for _, c := range cases {
		url := s.at(side, c.page)
		if len(order.Pages) == 0 || order.Pages[len(order.Pages)-1].Path != url {
			order.Pages = append(order.Pages, callPage{Path: url, Auth: c.auth})
		}
		last := &order.Pages[len(order.Pages)-1]
		last.Calls = append(last.Calls, callCase{c.name, json.RawMessage(c.args)})
	}
	text, err := json.Marshal(order)
	if err != nil {
		s.t.Errorf("arguments: %v", err)
		return nil
	}
	cmd := command(text)
	cmd.Stdin, cmd.WaitDelay = bytes.NewReader(text), time.Second
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		s.t.Errorf("%s at %s: %v: %s", way, sideNames[side], err, complaints.String())
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		var answer struct{ Name string }
		if json.Unmarshal([]byte(line), &answer) == nil { // or something else is printed
			got[answer.Name] += masked(line)
		}
		if strings.HasPrefix(answer.Name, "http") {
			s.t.Errorf("%s at %s: %s", way, sideNames[side], line)
		}
	}
	return got
}

func (s *sides) python() func([]byte) *exec.Cmd {
	python, home := environmentOf(s.t, s.line), s.t.TempDir()
	return func([]byte) *exec.Cmd {
		cmd := exec.Command(python, filepath.Join("testdata", "clients", "fidelity.py"))
		cmd.Env = append(os.Environ(), "GRADIO_ANALYTICS_ENABLED=False", "HOME="+home)
		return cmd
	}
}

func (s *sides) javaScript() func([]byte) *exec.Cmd {
	node := needs(s.t, "Node", "node", "nodejs")
	dir := nodePackages(s.t, "fidelity.mjs")
	return func([]byte) *exec.Cmd { return exec.Command(node, filepath.Join(dir, "fidelity.mjs")) }
}

// snapshot is what a person or a test finds below an element: texts, values, addresses.
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

// browse does in real pages what a visitor does, and compares what they see.
func (s *sides) browse(v verdicts) {
	cases := s.cases(func(c fidelityCase) bool { return !c.noPage && c.asks == nil })
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

// both does something at both sides at the same time.
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

// tabs are one for each side, in one browser.
func (s *sides) tabs() [2]context.Context {
	first, _ := browserWithin(s.t, 10*patience)
	second, closeTab := chromedp.NewContext(first)
	s.t.Cleanup(closeTab)
	return [2]context.Context{first, second}
}

// act does the steps of a case: "click SELECTOR", "type SELECTOR = TEXT", "upload SELECTOR = FILE", and "until SELECTOR = TEXT",
// which waits for what a step does by and by.
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
		if time.Now().After(deadline) { // else a page may just have made place for another
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
	return fmt.Errorf("no step is called %q", verb)
}

// seen reads both pages until they agree twice running on something that has what is wanted: pages take their time.
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

// requests makes the plain requests of a case.
func (s *sides) requests(v verdicts) {
	for _, c := range s.cases(func(c fidelityCase) bool { return c.asks != nil }) {
		s.t.Run(c.name, func(t *testing.T) { s.in(t).exchange(v, c) })
	}
}

func (s *sides) exchange(v verdicts, c fidelityCase) {
	var got [2]string
	s.both(c, func(side int) (err error) { got[side], err = s.askAll(side, c); return err })
	v.judge(s.t, c, "http", got)
}

// in is the same in a part of the test.
func (s *sides) in(t *testing.T) *sides { return &sides{t: t, line: s.line, urls: s.urls} }

// told are the headers of an answer that say something of it.
var told = []string{"Content-Type", "Cache-Control", "Location", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Content-Disposition",
	"Accept-Ranges", "Content-Range", "Www-Authenticate", "Allow"}

func (s *sides) askAll(side int, c fidelityCase) (string, error) {
	v := &visit{s, side, c.page, map[string]string{"session": fmt.Sprintf("S%010x", time.Now().UnixNano()&0xffffffffff)}, nil}
	var out strings.Builder
	for _, one := range c.asks {
		said, err := v.ask(one)
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", one.method, one.path, err)
		}
		fmt.Fprintf(&out, "%s %s -> %s\n", one.method, one.path, said)
	}
	return out.String(), nil
}

// visit is what a case does at one side.
type visit struct {
	*sides
	side int
	page string
	kept map[string]string
	open *bufio.Reader // of an answer that goes on
}

// api is what `A` stands for in paths.
func (s *sides) api() string {
	if s.line == "v4" {
		return ""
	}
	return "/gradio_api"
}

func (v *visit) ask(one httpAsk) (string, error) {
	if one.resume {
		text, err := read(v.open, one.frames)
		return heard(nil, text, err), nil
	}
	r, cancel, err := v.request(one)
	if err != nil {
		return "", err
	}
	answer, err := transportFor(r).RoundTrip(r)
	if err != nil {
		cancel()
		return "", err
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		defer cancel()
		answer.Body.Close()
		return "101", nil
	}
	if one.open {
		v.t.Cleanup(func() { cancel(); answer.Body.Close() })
	} else {
		defer cancel()
		defer answer.Body.Close()
	}
	v.open = bufio.NewReader(answer.Body)
	text, err := read(v.open, one.frames)
	v.keep(answer, text, one.keep)
	return heard(answer, text, err), nil
}

// aloneTransport opens a connection for each request: uvicorn closes one after an error of its own, which the next
// would run into.
var aloneTransport = &http.Transport{DisableKeepAlives: true, DisableCompression: true}

// transportFor says nothing of closing a connection that is to be upgraded.
func transportFor(r *http.Request) http.RoundTripper {
	if r.Header.Get("Upgrade") != "" {
		return &http.Transport{}
	}
	return aloneTransport
}

// heard is what is compared of an answer.
func heard(answer *http.Response, text string, err error) string {
	var out strings.Builder
	if answer != nil {
		fmt.Fprintf(&out, "%d", answer.StatusCode)
		for _, name := range told {
			for _, value := range answer.Header.Values(name) {
				fmt.Fprintf(&out, " %s: %s;", name, masked(value))
			}
		}
	}
	fmt.Fprintf(&out, "\n%s", masked(text))
	if err != nil {
		fmt.Fprint(&out, " (cut off)")
	}
	return out.String()
}

// request is bounded, and fills in what was kept.
func (v *visit) request(one httpAsk) (*http.Request, context.CancelFunc, error) {
	path, body := v.filled(one.path, one.header), v.filled(one.body, one.header)
	if rest, ok := strings.CutPrefix(path, "A/"); ok {
		path = v.api() + "/" + rest
	}
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Minute)
	r, err := http.NewRequestWithContext(ctx, one.method, v.at(v.side, v.page)+path, strings.NewReader(body))
	if err != nil {
		cancel()
		return nil, nil, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, values := range one.header {
		r.Header.Del(name)
		for _, value := range values {
			r.Header.Add(name, v.filled(value, nil))
		}
	}
	return r, cancel, nil
}

var placeholder = regexp.MustCompile(`\{(fn:)?(\w+)\}`)

// filled puts in what was kept, and the numbers of functions.
func (v *visit) filled(text string, header http.Header) string {
	return placeholder.ReplaceAllStringFunc(text, func(found string) string {
		m := placeholder.FindStringSubmatch(found)
		if m[1] != "" {
			return v.functionOf(m[2], header)
		}
		if value, ok := v.kept[m[2]]; ok {
			return value
		}
		return found
	})
}

// keep remembers what keep names; see httpAsk.
func (v *visit) keep(answer *http.Response, text, keep string) {
	name, pattern, _ := strings.Cut(keep, "=")
	switch {
	case keep == "":
	case keep == "cookies":
		var all []string
		for _, cookie := range answer.Cookies() {
			all = append(all, cookie.Name+"="+cookie.Value)
		}
		v.kept[keep] = strings.Join(all, "; ")
	default:
		if m := regexp.MustCompile(pattern).FindStringSubmatch(text + answer.Header.Get("Location")); m != nil {
			v.kept[name] = m[1]
		}
	}
}

// functionOf is the number of a function, as the JavaScript client finds it, or -1.
func (v *visit) functionOf(name string, header http.Header) string {
	var config struct {
		Dependencies []struct {
			ID      int `json:"id"`
			APIName any `json:"api_name"`
		} `json:"dependencies"`
	}
	r, cancel, err := v.request(httpAsk{method: "GET", path: "/config", header: header})
	if err != nil {
		return "-1"
	}
	defer cancel()
	answer, err := aloneTransport.RoundTrip(r)
	if err != nil {
		return "-1"
	}
	defer answer.Body.Close()
	_ = json.NewDecoder(answer.Body).Decode(&config) // else nothing is found
	for _, one := range config.Dependencies {
		if one.APIName == name {
			return fmt.Sprint(one.ID)
		}
	}
	return "-1"
}

// read takes all, or so many frames.
func read(body *bufio.Reader, frames int) (string, error) {
	if frames == 0 {
		text, err := io.ReadAll(body)
		return string(text), err
	}
	var out strings.Builder
	for frames > 0 {
		line, err := body.ReadString('\n')
		out.WriteString(line)
		if err != nil {
			return out.String(), err
		}
		if line == "\n" {
			frames--
		}
	}
	return out.String(), nil
}

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
			s.exchange(v, fidelityCase{name: path, page: page, asks: []httpAsk{{method: "GET", path: path}}})
		}
	}
}
