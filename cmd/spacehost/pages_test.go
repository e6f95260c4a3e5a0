package main

import (
	"io"
	"io/fs"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPagesMatchStockGradio compares the pages of the host and of stock Gradio byte for byte. Four values are masked: app_id, which
// is random at each start; the memory address of a function, which Gradio 5 prints into components[].props.delete_callback;
// the server's address, which Gradio writes into root and code_snippets; and the name of the Space (withoutSpaceID).
func TestPagesMatchStockGradio(t *testing.T) {
	t.Parallel()
	for _, line := range testedLines { // Gradio 4 serves its pages itself
		t.Run(line, func(t *testing.T) {
			dir, python := onGradio(t, t.TempDir(), line, "testdata/spaces/captured"), environmentOf(t, line)
			p := runProduct(t, dir, "--gpus", "none", "--python", python, "--host", "space.example")
			s := side{t, p.URL, startStock(t, python, dir, onSpaces("captured")...).ready()}
			s.comparePages()
			s.compareRefusals()
			s.compareAssets(frontendOf(t, python))
		})
	}
}

// side is the host beside stock Gradio.
type side struct {
	*testing.T
	ours, stock string
}

// withoutSpaceID turns a response of stock Gradio into the host's: space_id is empty in every config, and code_snippets name the
// app's address instead (spacehost_runner/frontend.py, hide_space_id).
var withoutSpaceID = strings.NewReplacer(
	`"space_id":"local/captured"`, `"space_id":""`, `"space_id": "local/captured"`, `"space_id": ""`, "local/captured", "<root>",
)

var drawn = regexp.MustCompile(`("app_id":\s?)\d+|( at )0x[0-9a-f]+`)

func (s side) comparePages() {
	paths := []string{
		"/", "/?__theme=dark", "/config", "/config/", "/config?page=", "/config?page=none", "/gradio_api/info", "/gradio_api/info/",
		"/gradio_api/info?all_endpoints=true", "/gradio_api/info?all_endpoints=&serialize=True", "/gradio_api/info?page=",
		"/gradio_api/app_id", "/theme.css", "/gradio_api/theme.css?v=1", "/manifest.json", "/robots.txt", "/favicon.ico",
	}
	for _, path := range paths {
		for _, header := range []http.Header{{}, {"Origin": {"http://localhost:3000"}, "Cookie": {"a=b"}}, {"Host": {"space.example"}}} {
			for range 2 { // first the Space's response, then the host's cached one
				s.same(path, header, true)
			}
		}
	}
}

// compareRefusals compares the refusals of paths that leave the folders or do not exist byte for byte. S07 in TestAttacks covers
// the advisory.
func (s side) compareRefusals() {
	for _, path := range []string{
		"/static/", "/static/nothing.js", "/static//etc/passwd", "/assets//windows/win.ini", "/static/%2e%2e/index.html",
		"/assets/../../../../routes.py", "/svelte/../../index.html", "/assets/nothing.css", "/static/img//logo.svg", "/static/./img/logo.svg",
	} {
		s.same(path, http.Header{}, true)
	}
	for _, path := range []string{"/static/img", "/favicon.ico/..", "/deep_link", "/config?deep_link=..%2Fx", "/nothing"} {
		s.same(path, http.Header{}, false)
	}
}

// compareAssets compares the assets that the page names, and some more of each file type.
func (s side) compareAssets(frontend string) {
	paths := map[string]bool{}
	const most = 12 // of hundreds in Gradio 6
	for _, m := range regexp.MustCompile(`(?:src|href)="\.?(/(?:assets|static|svelte)/[^"?]+)"`).FindAllStringSubmatch(get(s.T, s.stock+"/"), most) {
		paths[m[1]] = true
	}
	if len(paths) < 2 {
		s.Errorf("the page names %d assets, want at least 2", len(paths))
	}
	kinds := map[string]int{}
	err := filepath.WalkDir(frontend, func(path string, entry fs.DirEntry, err error) error {
		name := filepath.ToSlash(strings.TrimPrefix(path, frontend))
		if err != nil || entry.IsDir() || !strings.HasPrefix(name, "/assets/") && !strings.HasPrefix(name, "/static/") {
			return err
		}
		if kinds[filepath.Ext(name)]++; kinds[filepath.Ext(name)] <= 3 {
			paths[name] = true
		}
		return nil
	})
	if err != nil || kinds[".js"] < 3 || kinds[".css"] < 3 {
		s.Fatalf("%v: %v", err, kinds)
	}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		for _, header := range []http.Header{{}, {"Accept-Encoding": {"identity"}}, {"Range": {"bytes=2-9"}}} {
			s.same(path, header, true)
		}
	}
}

func frontendOf(t *testing.T, python string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(filepath.Dir(python), "../lib/python3*/site-packages/gradio/templates/frontend"))
	if len(found) != 1 {
		t.Fatalf("frontends of %s: %v", python, found)
	}
	return found[0]
}

// same compares status, headers and body. natively means that the host must serve the path itself, without a request to the Space.
func (s side) same(path string, header http.Header, natively bool) {
	s.Helper()
	got, want := s.fetch(s.ours, path, header), s.fetch(s.stock, path, header)
	want.body = withoutSpaceID.Replace(want.body)
	if got.body != want.body { // only then, because masking would take most of this test's time
		got.body, want.body = drawn.ReplaceAllString(got.body, "$1$2<drawn>"), drawn.ReplaceAllString(want.body, "$1$2<drawn>")
	}
	if got.status != want.status || got.body != want.body {
		at := 0
		for at < min(len(got.body), len(want.body)) && got.body[at] == want.body[at] {
			at++
		}
		part := func(text string) string { return text[max(0, min(at-20, len(text))):min(at+60, len(text))] }
		s.Errorf("%s %v: got %d %q, want %d %q (at %d)", path, header, got.status, part(got.body), want.status, part(want.body), at)
	}
	for _, name := range []string{"Content-Type", "Etag", "Last-Modified", "Cache-Control", "Accept-Ranges", "Content-Range", "Access-Control-Allow-Origin"} {
		if got.header.Get(name) != want.header.Get(name) {
			s.Errorf("%s %v: %s is %q, want %q", path, header, name, got.header.Get(name), want.header.Get(name))
		}
	}
	if passed := got.header.Get("Server") != ""; passed == natively { // uvicorn sends a Server header, the host does not
		s.Errorf("%s %v: passed through to the Space: %t", path, header, passed)
	}
}

type answered struct {
	status int
	header http.Header
	body   string
}

// fetch sends path unchanged. Go's transport requests gzip and decompresses it, unless header sets Accept-Encoding.
func (s side) fetch(base, path string, header http.Header) answered {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), http.MethodGet, base, nil)
	if err != nil {
		s.Fatal(err)
	}
	r.URL.Opaque = path
	r.Header = header.Clone()
	host := r.Host
	if other := header.Get("Host"); other != "" {
		host = other
		r.Header.Del("Host")
	}
	r.Host = host
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: time.Minute}
	answer, err := client.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		s.Fatal(err)
	}
	text := string(body)
	for _, root := range []string{"http://" + host, base} { // /info keeps the address of the first request
		text = strings.ReplaceAll(text, root, "<root>")
	}
	return answered{answer.StatusCode, answer.Header, text}
}
