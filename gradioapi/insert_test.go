package gradioapi_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// inserted is the HTML that the tests append to documents.
const inserted = `<script src="/bar.js"></script>`

// Headers of a browser that opens a page.
var (
	opens = []string{"Accept: text/html,application/xhtml+xml", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept-Encoding: gzip, br"}
	plain = []string{"Accept: text/html,*/*;q=0.8", "Upgrade-Insecure-Requests: 1", "Accept-Encoding: gzip, br"}
)

func withInsertion(s *setup) {
	s.config.Insert = func(*http.Request) string { return inserted }
}

// read returns the text of an answer, which may be compressed.
func (a answer) read(t *testing.T) string {
	t.Helper()
	if a.header.Get("Content-Encoding") != "gzip" {
		return a.body
	}
	r, err := gzip.NewReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestOnlyOpenedDocumentsAreChanged requests each kind of answer as a browser that opens a page does, and in other ways. All answers
// but the opened documents keep their bytes and headers.
func TestOnlyOpenedDocumentsAreChanged(t *testing.T) {
	_, front := withFrontend(t)
	h, stock := newHost(t, front, withInsertion), newHost(t, front)
	const document = "<!doctype html><html><body>page</body></html>\n"
	respond := func(kind, text string, more ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Etag", `"1"`)
			for i := 0; i < len(more); i += 2 {
				w.Header().Set(more[i], more[i+1])
			}
			if r.Header.Get("If-None-Match") != "" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fmt.Fprint(w, text)
		}
	}
	for _, space := range []*fakeSpace{h.space, stock.space} {
		space.route("/", respond("text/html; charset=utf-8", document)) // cached
		space.route("/own", respond("text/html", document))
		space.route("/wide", respond("text/html; charset=UTF-16LE", "<\x00p\x00>\x00"))
		space.route("/packed", respond("text/html", "\x1f\x8b", "Content-Encoding", "gzip"))
		space.route("/saved", respond("text/html", document, "Content-Disposition", "attachment; filename=a.html"))
		space.route("/api", respond("application/json", `{"a":1}`))
		space.route("/config", respond("application/json", `{"a":2}`)) // cached
		space.route("/text", respond("text/plain", document))
		space.route(api+"/file=x.html", respond("text/html", document))
		space.route("/gone", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, document)
		})
	}
	fetch := []string{"Accept: */*", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}
	for _, row := range []struct {
		path    string
		headers []string
		changed bool
		varies  bool // the same address can be opened with the insertion
	}{
		{"/", opens, true, true}, {"/", plain, true, true}, {"/", fetch, false, true}, {"/", nil, false, true}, {"/", []string{"Accept: text/html"}, false, true},
		{"/own", opens, true, true}, {"/own", plain, true, true}, {"/own", fetch, false, true}, {"/own", append([]string{`If-None-Match: "1"`}, opens...), true, true},
		{"/own", append([]string{"Range: bytes=0-3"}, opens...), false, true}, {"/?x=1", opens, true, true},
		{"/own", []string{"Accept: text/html", "Sec-Fetch-Mode: cors", "Upgrade-Insecure-Requests: 1"}, false, true},
		{"/wide", opens, false, true}, {"/packed", opens, false, true}, {"/saved", opens, false, true}, {"/api", opens, false, false}, {"/config", opens, false, false}, {"/text", opens, false, false},
		{api + "/file=x.html", opens, false, false}, {"/gone", opens, false, false}, {api + "/queue/data?session_hash=none", opens, false, false},
	} {
		got, want := h.get(row.path, row.headers...), stock.get(row.path, row.headers...)
		if varied := strings.Join(got.header.Values("Vary"), ", "); row.varies || row.changed {
			if !strings.Contains(varied, "Accept, Sec-Fetch-Mode, Upgrade-Insecure-Requests") {
				t.Errorf("%s %q: Vary is %q", row.path, row.headers, varied)
			}
			got.header.Del("Vary")
			want.header.Del("Vary")
		}
		if row.changed {
			if text := got.read(t); got.status != http.StatusOK || text != document+inserted || got.header.Get("Etag") != "" {
				t.Errorf("%s %q: %d %q %v, want the document with the insertion", row.path, row.headers, got.status, text, got.header)
			}
			continue
		}
		for _, a := range []*answer{&got, &want} {
			a.header.Del("Date")
		}
		if got.status != want.status || got.body != want.body || fmt.Sprint(got.header) != fmt.Sprint(want.header) {
			t.Errorf("%s %q: got %d %q %v\nwant as without an insertion: %d %q %v", row.path, row.headers, got.status, got.body, got.header, want.status, want.body, want.header)
		}
	}
}

// TestDocumentWithInsertionIsStreamed checks that a document which the Space sends in parts, as with server-side rendering, is not held
// back, and that a large one is whole.
func TestDocumentWithInsertionIsStreamed(t *testing.T) {
	h := newHost(t, withInsertion)
	more := make(chan struct{})
	rest := bytes.Repeat([]byte("0123456789"), 1<<16)
	h.space.route("/parts", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<p>first")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = w.Write(rest)
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/parts", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range opens {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
	}
	response, err := h.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	first := make([]byte, len("<p>first"))
	if _, err := io.ReadFull(response.Body, first); err != nil {
		t.Fatal(err)
	}
	close(more)
	text, err := io.ReadAll(response.Body)
	if err != nil || string(first)+string(text) != "<p>first"+string(rest)+inserted {
		t.Errorf("got %q and %d bytes (%v)", first, len(text), err)
	}
}
