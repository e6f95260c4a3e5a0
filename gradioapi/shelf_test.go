package gradioapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"spacehost/gradioapi"
	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
	"spacehost/queue"
)

// newFileHost is a host whose Space has its own folders. Its file names follow Gradio 6.
func newFileHost(t *testing.T, change ...func(*queue.Files)) (h *host, storage shelf.Storage) {
	t.Helper()
	storage, files := shelftest.Folders(t)
	for _, c := range change {
		c(files)
	}
	return newHost(t, func(s *setup) { s.files.Storage, s.manifest.Files = storage, files }), storage
}

// teapot is the response of the Space's own server, which shows that a request was passed through.
func teapot(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }

func (h *host) upload(body string) (status int, text string) {
	h.Helper()
	return shelftest.Upload(h, h.client, h.url+api+"/upload", body)
}

func (h *host) file(path string, header ...string) *http.Response {
	h.Helper()
	return shelftest.Get(h, h.client, h.url+api+"/file="+path, header...)
}

// TestPassedContentIsProtected: the Space's own server serves some files. Its responses may redirect elsewhere or
// reveal request headers.
func TestPassedContentIsProtected(t *testing.T) {
	h := newHost(t)
	h.space.route("*", func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header { // gradio/ranged_response.py
			w.Header()[name] = values
		}
		if strings.Contains(r.URL.Path, "away") {
			http.Redirect(w, r, "https://evil.test/", http.StatusFound)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<script>")
	})
	got := h.file("/x.html", "Cookie", "secret=1")
	if got.StatusCode != 200 || got.Header.Get("X-Ip-Token") != "" || got.Header.Get("Cookie") != "" || got.Header.Get("Content-Security-Policy") != "sandbox" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got %s %v", got.Status, got.Header)
	}
	if got := h.file("/away"); got.StatusCode != http.StatusForbidden || got.Header.Get("Location") != "" {
		t.Errorf("got %s %v", got.Status, got.Header)
	}
}

// TestFilesOfTheSpace checks the whole way of a request to a Shelf: an upload, its file, their CORS headers, and a
// path that only the Space's own server may serve.
func TestFilesOfTheSpace(t *testing.T) {
	h, storage := newFileHost(t)
	h.space.route("*", teapot)
	r := h.request(t.Context(), http.MethodPost, api+"/upload", strings.NewReader(shelftest.Part("files", "a.txt", "mine")+"--B--\r\n"), "Origin: http://localhost:1")
	r.Header.Set("Content-Type", "multipart/form-data; boundary=B")
	sent := h.send(r)
	var paths []string
	if err := json.Unmarshal([]byte(sent.body), &paths); err != nil || sent.status != http.StatusOK || len(paths) != 1 {
		t.Fatalf("got %d %s", sent.status, sent.body)
	}
	got := h.file(paths[0], "Origin", "http://localhost:1")
	text, err := io.ReadAll(got.Body)
	if err != nil || got.StatusCode != http.StatusOK || string(text) != "mine" {
		t.Errorf("got %s %q, %v", got.Status, text, err)
	}
	for what, header := range map[string]http.Header{"upload": sent.header, "file": got.Header} {
		if header.Get("Access-Control-Allow-Origin") != "http://localhost:1" {
			t.Errorf("%s: headers %v", what, header)
		}
	}
	h.expectNoRequests()
	if got := h.file(storage.Root + "/app/main.py"); got.StatusCode != http.StatusTeapot {
		t.Errorf("got %s", got.Status)
	}
	if arrived := h.onlyRequest(); arrived.target != api+"/file="+storage.Root+"/app/main.py" {
		t.Errorf("the Space receives %s", arrived.target)
	}
}

// TestUploadsPassedThrough: an upload that only Gradio can handle goes to the Space.
func TestUploadsPassedThrough(t *testing.T) {
	for name, change := range map[string]func(*queue.Files){
		"old files are deleted": func(f *queue.Files) { f.Expires = true },
		"another folder":        func(f *queue.Files) { f.Uploads = "/tmp/gradio" },
		"another naming":        func(f *queue.Files) { f.Names["x"] = "y" },
	} {
		h, storage := newFileHost(t, change)
		h.space.route("*", teapot)
		if status, text := h.upload(shelftest.Part("files", "x", "x") + "--B--\r\n"); status != http.StatusTeapot {
			t.Errorf("%s: %d %s", name, status, text)
		}
		if left := shelftest.FilesBelow(t, storage.Uploads); len(left) != 0 {
			t.Errorf("%s: %q", name, left)
		}
	}
}

// TestProgressEndsWithItsCredential: a revoked token ends the stream of an upload's progress, as it ends every other stream. The
// client sees a broken response.
func TestProgressEndsWithItsCredential(t *testing.T) {
	var refused atomic.Bool
	root := t.TempDir()
	storage := shelf.Storage{Root: root, Uploads: root + "/home/gradio", Staging: root + "/uploading"}
	if err := errors.Join(os.MkdirAll(storage.Uploads, 0o755), os.MkdirAll(storage.Staging, 0o755)); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, func(s *setup) {
		s.files.Storage = storage
		s.manifest.Files = &queue.Files{Uploads: storage.Uploads, Names: map[string]string{"a#.txt": "a#.txt"}, Ranges: true}
		s.config.Credential = func(*http.Request) gradioapi.Credential { return gradioapi.Credential{Bearer: "sph_a"} }
		s.config.Allowed = func(gradioapi.Credential) bool { return !refused.Load() }
	})
	body, sending := io.Pipe()
	defer sending.Close()
	upload := h.request(t.Context(), http.MethodPost, api+"/upload?upload_id=one", body)
	upload.Header.Set("Content-Type", "multipart/form-data; boundary=B")
	go func() {
		if answer, err := h.client.Do(upload); err == nil {
			answer.Body.Close()
		}
	}()
	if _, err := sending.Write([]byte(shelftest.Part("files", "a.txt", strings.Repeat("x", 400_000)))); err != nil {
		t.Fatal(err)
	}
	answer, err := h.client.Do(h.request(t.Context(), http.MethodGet, api+"/upload_progress?upload_id=one", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	first := make([]byte, len(`data: {"msg": "update"`))
	if _, err := io.ReadFull(answer.Body, first); err != nil || string(first) != `data: {"msg": "update"` {
		t.Fatalf("%q, %v", first, err)
	}
	refused.Store(true)
	h.handler.EndRefused()
	if rest, err := io.ReadAll(answer.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v, want a broken response", rest, err)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}
