package dashboard

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"spacehost/internal/views"
	"spacehost/quota"
)

// TestVendoredFiles compares each vendored file with the checksum in its README.
func TestVendoredFiles(t *testing.T) {
	readme, err := fs.ReadFile(embedded, "pages/vendor/README.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts, _ := fs.Glob(embedded, "pages/vendor/*.js") // the patterns are valid
	sheets, _ := fs.Glob(embedded, "pages/vendor/*.css")
	if len(scripts) == 0 || len(sheets) == 0 {
		t.Fatal("no vendored file")
	}
	for _, name := range append(scripts, sheets...) {
		text, err := fs.ReadFile(embedded, name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(text)
		if !strings.Contains(string(readme), hex.EncodeToString(sum[:])) {
			t.Errorf("%s has another checksum than in its README: %x", name, sum)
		}
	}
}

// TestPages asks for each page, and for what is none.
func TestPages(t *testing.T) {
	e := echo.New()
	RegisterPages(e)
	for path, kind := range map[string]string{
		"/": "text/html", "/app/app.js": "text/javascript", "/app/app.css": "text/css", "/app/vendor/htm-preact-3.1.1.js": "text/javascript",
		"/app/vendor/README.md": "", "/app/": "", "/app/../pages.go": "", "/app/..%2fpages.go": "", "/app/none.js": "",
	} {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		switch {
		case kind == "" && w.Code != http.StatusNotFound:
			t.Errorf("%s: %d, want 404", path, w.Code)
		case kind != "" && (w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'")):
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
}

// ask requests a file of the pages with these headers.
func ask(path string, headers ...string) *httptest.ResponseRecorder {
	e := echo.New()
	RegisterPages(e)
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	return w
}

// TestPagesAreCompressedAndRevalidated asks for a file in both encodings, and again with its tags.
func TestPagesAreCompressedAndRevalidated(t *testing.T) {
	const name = "/app/app.js"
	plain, small := ask(name), ask(name, "Accept-Encoding", "gzip, br")
	unpacked, err := gzip.NewReader(small.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(unpacked); err != nil || string(text) != plain.Body.String() {
		t.Errorf("%s differs when it is compressed: %v", name, err)
	}
	tags := map[string]bool{}
	for _, first := range []*httptest.ResponseRecorder{plain, small} {
		head := first.Header()
		if head.Get("Cache-Control") != "no-cache" || head.Get("Vary") != "Accept-Encoding" || head.Get("ETag") == "" {
			t.Errorf("headers %v", head)
		}
		tags[head.Get("ETag")] = true
		again := ask(name, "Accept-Encoding", head.Get("Content-Encoding"), "If-None-Match", head.Get("ETag"))
		if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
			t.Errorf("with its tag: %d, %d bytes", again.Code, again.Body.Len())
		}
	}
	if len(tags) != 2 {
		t.Error("both encodings have one tag")
	}
	if w := ask(name, "If-None-Match", `"of another version"`); w.Code != http.StatusOK {
		t.Errorf("with another tag: %d", w.Code)
	}
}

// mostBytes is the budget of the first load, compressed.
const mostBytes = 150_000

var (
	staticImport = regexp.MustCompile(`(?m)^(?:import|export) [^;]*?from "\./([^"]+)"`)
	linked       = regexp.MustCompile(`(?:href|src)="app/([^"]+)"`)
)

// TestFirstLoadIsSmall sums what a browser loads before the first view: the index, what it names, and what that imports. It
// then sums all files, which is the load of a person who opens each page.
func TestFirstLoadIsSmall(t *testing.T) {
	loaded := map[string]int{}
	var load func(name string)
	load = func(name string) {
		if _, done := loaded[name]; done {
			return
		}
		f, known := files()[name]
		if !known {
			t.Fatalf("%s does not exist", name)
		}
		loaded[name] = len(f.small)
		for _, found := range staticImport.FindAllStringSubmatch(string(f.plain), -1) {
			load(path.Join(path.Dir(name), found[1]))
		}
	}
	load("index.html")
	for _, found := range linked.FindAllStringSubmatch(string(files()["index.html"].plain), -1) {
		load(found[1])
	}
	load("home.js") // the first page loads at once
	first, all := 0, 0
	for _, size := range loaded {
		first += size
	}
	for _, f := range files() {
		all += len(f.small)
	}
	for _, name := range []string{"app.js", "app.css", "session.js", "parts.js", "words.js", "vendor/htm-preact-3.1.1.js"} {
		if loaded[name] == 0 {
			t.Errorf("the first load does not count %s", name)
		}
	}
	t.Logf("first load: %d files, %d bytes; all pages: %d bytes", len(loaded), first, all)
	if first > mostBytes || all > mostBytes {
		t.Errorf("first load %d bytes, all pages %d, want at most %d: %v", first, all, mostBytes, loaded)
	}
}

// TestPageAndCommandLineCountAlike compares the words for many calls one after another.
func TestPageAndCommandLineCountAlike(t *testing.T) {
	text, err := fs.ReadFile(embedded, "pages/words.js")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`callsInTurn: (n) => (n >= %d ? %q`, quota.MostInTurn, views.InTurn(quota.MostInTurn)); !strings.Contains(string(text), want) {
		t.Errorf("words.js has no %s", want)
	}
}
