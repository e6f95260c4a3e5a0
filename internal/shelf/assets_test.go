package shelf_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
	"spacehost/queue"
)

// withFrontend is a frontend in a folder of the test.
func withFrontend(t *testing.T) (root string, f *queue.Frontend) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "gradio", "templates", "frontend")
	return root, &queue.Frontend{
		Root: root, Folders: map[string]string{"/static/": "static"}, Types: map[string]string{".js": "application/javascript", ".css": "text/css"},
	}
}

func newFrontendHost(t *testing.T, f *queue.Frontend) *host {
	t.Helper()
	return newHost(t, shelftest.New(t, shelf.Config{}), shelf.Call{Frontend: f})
}

// answer is a complete response.
type answer struct {
	status int
	header http.Header
	body   string
}

// get takes headers in pairs of name and value.
func (h *host) get(path string, header ...string) answer {
	h.Helper()
	r, err := http.NewRequestWithContext(h.Context(), http.MethodGet, h.url+path, nil)
	if err != nil {
		h.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	got, err := h.client.Do(r)
	if err != nil {
		h.Fatal(err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		h.Fatal(err)
	}
	return answer{got.StatusCode, got.Header, string(body)}
}

func TestAssetPathsCannotEscape(t *testing.T) {
	root, frontend := withFrontend(t)
	h := newFrontendHost(t, frontend)
	writeFile(t, filepath.Join(root, "..", "secret.js"), "secret")
	writeFile(t, filepath.Join(root, "static", "a.js"), "a")
	writeFile(t, filepath.Join(root, "index.js"), "beside the folder")
	if err := os.Symlink("../../secret.js", filepath.Join(root, "static", "link.js")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../..", filepath.Join(root, "static", "folder")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "static", "dir.js"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/static/a.js": 200, "/static//a.js": 403, "/static/x/../a.js": 200, "/static/none.js": 404, "/static/": 400, "/static/dir.js": 403,
		"/static/link.js": 403, "/static/folder/secret.js": 403, "/static/../index.js": 403, "/static/%2e%2e/index.js": 403, "/static//etc/passwd": 403,
		"/static/..%2findex.js": 403, "/static/a.js%00": http.StatusTeapot, // unknown suffix: passed through
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Opaque = path
		got, err := h.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(got.Body)
		got.Body.Close()
		if got.StatusCode != want || bytes.Contains(body, []byte("secret")) || bytes.Contains(body, []byte("beside")) {
			t.Errorf("%s: got %d %s, want %d", path, got.StatusCode, body, want)
		}
	}
}

// TestReportedFolderMustBeAFrontend: a Space must not name host paths, so the reported folder must be a Gradio's
// frontend.
func TestReportedFolderMustBeAFrontend(t *testing.T) {
	secret := t.TempDir()
	if err := os.MkdirAll(filepath.Join(secret, "static"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secret, "static", "key.js"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, frontend := withFrontend(t)
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, root); err != nil {
		t.Fatal(err)
	}
	for name, claim := range map[string]string{"a folder": secret, "a link to it": root, "none": filepath.Join(secret, "none")} {
		frontend.Root = claim
		if got := newFrontendHost(t, frontend).get("/static/key.js"); got.status != http.StatusTeapot {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
}

func TestAssetsAreCompressed(t *testing.T) {
	root, frontend := withFrontend(t)
	h := newFrontendHost(t, frontend)
	text := strings.Repeat("body { color: black } ", 500)
	if err := os.MkdirAll(filepath.Join(root, "static"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "static", "a.css")
	for _, text := range []string{text, text + "changed"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		plain, compressed := h.get("/static/a.css"), h.get("/static/a.css", "Accept-Encoding", "br, gzip")
		if plain.body != text || plain.header.Get("Content-Encoding") != "" || plain.header.Get("Content-Type") != "text/css; charset=utf-8" {
			t.Errorf("got %d bytes, %v", len(plain.body), plain.header)
		}
		unpacked, err := gzip.NewReader(strings.NewReader(compressed.body))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(unpacked); err != nil || string(got) != text || compressed.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("got %d bytes, %v, %v", len(got), err, compressed.header)
		}
		if got := h.get("/static/a.css", "If-None-Match", compressed.header.Get("Etag"), "Accept-Encoding", "gzip"); got.status != http.StatusNotModified || got.body != "" {
			t.Errorf("got %d %q", got.status, got.body)
		}
		if got := h.get("/static/a.css", "Range", "bytes=0-3", "Accept-Encoding", "gzip"); got.status != http.StatusPartialContent || got.body != "body" {
			t.Errorf("got %d %q", got.status, got.body)
		}
	}
	head, err := h.client.Head(h.url + "/static/a.css")
	if err != nil || head.StatusCode != http.StatusTeapot || head.Header.Get("Etag") != "" { // Gradio words the refusal
		t.Errorf("got %v, %v", head, err)
	}
}
