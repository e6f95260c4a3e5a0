package shelf_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"spacehost/internal/shelf"
	"spacehost/queue"
)

// wantFile is the expected response for a file. All but status matter only if the host serves the file itself.
type wantFile struct {
	status            int
	kind, disposition string
	sandboxed         bool
}

func TestFilesFollowGradiosRules(t *testing.T) {
	h, storage := newFileHost(t)
	write := func(path string) string {
		path = filepath.Join(storage.Root, path)
		writeFile(t, path, "0123456789")
		return path
	}
	secret := write("secret.txt")
	linkFiles(t, storage, secret)
	const native, passed = 200, http.StatusTeapot
	for path, want := range map[string]wantFile{
		write("home/gradio/h/a.txt"):             {native, "text/plain; charset=utf-8", `inline; filename="a.txt"`, true},
		write("home/gradio/h/a.html"):            {native, "application/octet-stream", `attachment; filename="a.html"`, true},
		write("home/gradio/h/é x.TXT"):           {native, "text/plain; charset=utf-8", `inline; filename*=utf-8''%C3%A9%20x.TXT`, true},
		write("home/gradio/h/a.tgz"):             {native, "application/octet-stream", `attachment; filename="a.tgz"`, true},
		write("app/pub/a.html"):                  {native, "text/html; charset=utf-8", `inline; filename="a.html"`, false},
		write("app/pub/a.tgz"):                   {native, "application/x-tar", `inline; filename="a.tgz"`, false},
		storage.Uploads + "/in.txt":              {native, "text/plain; charset=utf-8", `inline; filename="in.txt"`, true},
		storage.Uploads + "/fifo":                {status: 403},
		storage.Uploads + "/out.txt":             {status: 403},
		storage.Root + "/app/pub/In/a.txt":       {status: 403},
		storage.Root + "/app/pub/out/secret.txt": {status: 403},
		write("app/pub/no/a.txt"):                {status: 403},
		write("app/main.py"):                     {status: passed},
		write("other/a.txt"):                     {status: passed}, // allowed, but outside the folders of the Space
		secret:                                   {status: passed},
		storage.Uploads + "/h":                   {status: passed},
		"/etc/passwd":                            {status: passed},
		"/proc/self/environ":                     {status: 403},
		"/dev/shm/x":                             {status: passed},
		"h/a.txt":                                {status: passed},
		"pub/out/secret.txt":                     {status: 403}, // relative to the app's folder
		"pub/a.html":                             {status: passed},
	} {
		h.expectFile(path, want)
	}
}

// linkFiles makes links that lead into and out of the folders, and a FIFO.
func linkFiles(t *testing.T, storage shelf.Storage, secret string) {
	t.Helper()
	for link, target := range map[string]string{"app/pub/In": storage.Root + "/app/pub/no", "app/pub/out": filepath.Dir(secret), "home/gradio/out.txt": secret, "home/gradio/in.txt": "h/a.txt"} {
		if err := os.Symlink(target, filepath.Join(storage.Root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(storage.Uploads+"/fifo", 0o644); err != nil {
		t.Fatal(err)
	}
}

func (h *host) expectFile(path string, want wantFile) {
	h.Helper()
	got := h.file(strings.ReplaceAll(path, " ", "%20"))
	if got.StatusCode != want.status {
		h.Errorf("%s: got %s, want %d", path, got.Status, want.status)
	}
	if want.status != http.StatusOK {
		return
	}
	if got.Header.Get("Content-Type") != want.kind || got.Header.Get("Content-Disposition") != want.disposition ||
		got.Header.Get("X-Content-Type-Options") != "nosniff" || (got.Header.Get("Content-Security-Policy") == "sandbox") != want.sandboxed {
		h.Errorf("%s: got headers %v, want %+v", path, got.Header, want)
	}
}

func TestRangesAndConditions(t *testing.T) {
	h, storage := newFileHost(t)
	name := storage.Uploads + "/h/a.txt"
	writeFile(t, name, "0123456789")
	whole := h.file(name)
	for value, want := range map[string]string{"bytes=2-3": "23", "bytes=8-": "89", "bytes=-1": "9", "bytes=20-": ""} {
		got := h.file(name, "Range", value)
		text, _ := io.ReadAll(got.Body)
		if status := map[bool]int{true: 416, false: 206}[want == ""]; got.StatusCode != status || want != "" && string(text) != want {
			t.Errorf("%s: got %s %q, want %d %q", value, got.Status, text, status, want)
		}
	}
	for _, good := range [][2]string{{"If-None-Match", whole.Header.Get("Etag")}, {"If-None-Match", "*"}, {"If-Modified-Since", whole.Header.Get("Last-Modified")}} {
		if again := h.file(name, good[0], good[1]); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s, a current copy: got %s, want 304", good, again.Status)
		}
		if again := h.file(name, good[0], `"old"`); again.StatusCode != http.StatusOK {
			t.Errorf("%s, another copy: got %s, want 200", good[0], again.Status)
		}
	}
	head, err := h.client.Head(h.url + "/file=" + name)
	if err != nil || head.StatusCode != 200 || head.ContentLength != 10 || head.Header.Get("Etag") != whole.Header.Get("Etag") || head.Header.Get("Content-Disposition") != whole.Header.Get("Content-Disposition") {
		t.Errorf("HEAD: got %+v %v", head, err)
	}
}

// FuzzFilePath: for any path, only files that are in the served folders and allowed or created are returned. The path
// is tried below the folder of uploads, from the root and from the app's own folder. It is also tried with a Gradio
// that serves files by itself.
func FuzzFilePath(f *testing.F) {
	f.Fuzz(fuzzFilePath)
}

func fuzzFilePath(t *testing.T, path string) {
	for _, ranges := range []bool{true, false} {
		h, storage := newFileHost(t, func(f *queue.Files) { f.Ranges = ranges })
		for name, text := range map[string]string{
			"home/gradio/a.txt": "mine", "app/pub/a.txt": "mine", "secret.txt": "secret", "home/secret.txt": "secret", "app/secret.txt": "secret", "app/pub/no/secret.txt": "secret",
		} {
			writeFile(t, filepath.Join(storage.Root, name), text)
		}
		for _, link := range []string{"app/pub/out", "home/gradio/out"} {
			if err := os.Symlink(storage.Root, filepath.Join(storage.Root, link)); err != nil {
				t.Fatal(err)
			}
		}
		var escaped strings.Builder
		for _, b := range []byte(path) {
			fmt.Fprintf(&escaped, "%%%02x", b)
		}
		for _, from := range []string{storage.Uploads + "/", storage.Root + "/app/pub/", "", "/"} {
			got := h.file(from + escaped.String())
			text, _ := io.ReadAll(got.Body)
			if got.StatusCode >= 500 || bytes.Contains(text, []byte("secret")) && got.StatusCode == 200 {
				t.Errorf("%s %q: %s %q", from, path, got.Status, text)
			}
			if leadsOut := strings.HasPrefix(path, "out/"); leadsOut && from != "" && from != "/" && got.StatusCode == http.StatusTeapot && !strings.Contains(path, "..") {
				if _, err := os.Stat(from + path); err == nil && !strings.Contains(filepath.Clean(path), "out/app/pub") && !strings.Contains(filepath.Clean(path), "out/home/gradio") {
					t.Errorf("%s%q was passed through, and the Space may follow the link", from, path)
				}
			}
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// FuzzRange: the response to any range is that part of the file, and never more than the file in total.
func FuzzRange(f *testing.F) {
	f.Fuzz(fuzzRange)
}

func fuzzRange(t *testing.T, value, condition string) {
	const content = "0123456789abcdef"
	if strings.ContainsAny(value+condition, "\r\n\x00") || !isHeader(value) || !isHeader(condition) {
		t.Skip("not a header value")
	}
	h, storage := newFileHost(t)
	writeFile(t, storage.Uploads+"/a.txt", content)
	header := []string{"Range", value}
	if condition != "" {
		header = append(header, "If-Range", condition)
	}
	got := h.file(storage.Uploads+"/a.txt", header...)
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	kind, params, _ := mime.ParseMediaType(got.Header.Get("Content-Type"))
	switch {
	case got.StatusCode == http.StatusOK && string(body) == content, got.StatusCode == http.StatusRequestedRangeNotSatisfiable:
	case got.StatusCode == http.StatusPartialContent && kind == "multipart/byteranges":
		expectParts(t, multipart.NewReader(bytes.NewReader(body), params["boundary"]), content)
	case got.StatusCode == http.StatusPartialContent:
		expectPart(t, got.Header.Get("Content-Range"), string(body), content)
	default:
		t.Errorf("%q: %s %q", value, got.Status, body)
	}
}

// isHeader reports whether net/http sends the value.
func isHeader(value string) bool {
	return strings.IndexFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}

func expectParts(t *testing.T, parts *multipart.Reader, content string) {
	t.Helper()
	for sum := 0; ; {
		part, err := parts.NextPart()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(part)
		if sum += len(body); sum > len(content) {
			t.Errorf("the parts contain %d bytes, more than the file", sum)
		}
		expectPart(t, part.Header.Get("Content-Range"), string(body), content)
	}
}

func expectPart(t *testing.T, contentRange, body, content string) {
	t.Helper()
	var from, to, size int
	if n, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &from, &to, &size); n != 3 || err != nil || size != len(content) || from < 0 || to < from || to >= size || body != content[from:to+1] {
		t.Errorf("Content-Range %q has body %q", contentRange, body)
	}
}
