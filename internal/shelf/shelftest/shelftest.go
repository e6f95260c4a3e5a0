// Package shelftest has the folders and requests of tests of uploads and files.
package shelftest

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/shelf"
	"spacehost/queue"
)

// Folders creates the folders of a Space below a temporary one, and returns them with the data on files that its manifest would
// have. The names are those of Gradio 6.
func Folders(t testing.TB) (shelf.Storage, *queue.Files) {
	t.Helper()
	root := t.TempDir()
	storage := shelf.Storage{Root: root, Uploads: root + "/home/gradio", Staging: root + "/uploading", Served: []string{root + "/home", root + "/app"}}
	for _, dir := range []string{storage.Uploads, storage.Staging, root + "/app/pub", root + "/other"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return storage, &queue.Files{
		Uploads: storage.Uploads, Seed: "seed", Cache: root + "/app/.gradio/cached_examples", Names: map[string]string{"a#.txt": "a#.txt"},
		Allowed: []string{root + "/app/pub", root + "/other"}, Blocked: []string{root + "/app/pub/no"},
		Safe: map[string]bool{"text/plain": true}, Types: map[string]string{".txt": "text/plain", ".html": "text/html", ".tar": "application/x-tar"},
		Encodings: map[string]string{".gz": "gzip"}, Suffixes: map[string]string{".tgz": ".tar.gz"}, Ranges: true,
	}
}

// Part returns one part of a form with the boundary B. The form ends with "--B--\r\n".
func Part(name, filename, content string) string {
	return "--B\r\nContent-Disposition: form-data; name=\"" + name + "\"; filename=\"" + filename + "\"\r\n\r\n" + content + "\r\n"
}

// Upload posts a form with the boundary B.
func Upload(t testing.TB, client *http.Client, url, form string) (status int, text string) {
	t.Helper()
	answer, err := client.Post(url, "multipart/form-data; boundary=B", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(data)
}

// Get requests a URL with headers, given as names and values. The body is closed with the test.
func Get(t testing.TB, client *http.Client, url string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return answer
}

// FilesBelow lists the files below dir.
func FilesBelow(t testing.TB, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			all = append(all, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
