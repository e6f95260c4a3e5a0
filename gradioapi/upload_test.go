package gradioapi_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"spacehost/gradioapi"
	"spacehost/queue"
)

// newFileHost is a host whose Space has folders of its own, on a Gradio whose names are those of 6.
func newFileHost(t *testing.T, change ...func(*queue.Files)) (h *host, storage gradioapi.Storage) {
	t.Helper()
	root := t.TempDir()
	storage = gradioapi.Storage{Root: root, Uploads: root + "/home/gradio", Staging: root + "/uploading", Served: []string{root + "/home", root + "/app"}}
	for _, dir := range []string{storage.Uploads, storage.Staging, root + "/app/pub", root + "/other"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := &queue.Files{
		Uploads: storage.Uploads, Seed: "seed", Cache: root + "/app/.gradio/cached_examples", Names: map[string]string{"a#.txt": "a#.txt"},
		Allowed: []string{root + "/app/pub", root + "/other"}, Blocked: []string{root + "/app/pub/no"},
		Safe: map[string]bool{"text/plain": true}, Types: map[string]string{".txt": "text/plain", ".html": "text/html", ".tar": "application/x-tar"},
		Encodings: map[string]string{".gz": "gzip"}, Suffixes: map[string]string{".tgz": ".tar.gz"}, Ranges: true,
	}
	for _, c := range change {
		c(files)
	}
	return newHost(t, func(s *setup) { s.config.Storage, s.manifest.Files = storage, files }), storage
}

// teapot is how the Space's own server says that a request has reached it.
func teapot(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }

func part(name, filename, content string) string {
	return "--B\r\nContent-Disposition: form-data; name=\"" + name + "\"; filename=\"" + filename + "\"\r\n\r\n" + content + "\r\n"
}

func (h *host) upload(body string) (status int, text string) {
	h.Helper()
	answer, err := h.client.Post(h.url+api+"/upload", "multipart/form-data; boundary=B", strings.NewReader(body))
	if err != nil {
		h.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		h.Fatal(err)
	}
	return answer.StatusCode, string(data)
}

// filesBelow lists what lies there.
func filesBelow(t *testing.T, dir string) (all []string) {
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

func TestUploadsLieWhereGradioPutsThem(t *testing.T) {
	h, storage := newFileHost(t)
	large := strings.Repeat("0123456789", 100_000) // several chunks, and more than one of the last
	status, text := h.upload(part("files", "a#.txt", "hello") + part("other", "b.txt", "not asked for") + part("files", "../x!.bin", large) + part("files", "", "") + "--B--\r\n")
	var paths []string
	if err := json.Unmarshal([]byte(text), &paths); err != nil || status != http.StatusOK || len(paths) != 3 {
		t.Fatalf("%d %s", status, text)
	}
	sum := func(content string) string {
		all := sha256.Sum256([]byte("seed" + content))
		return hex.EncodeToString(all[:])
	}
	for i, want := range []struct{ path, content string }{{sum("hello") + "/a#.txt", "hello"}, {sum(large) + "/x.bin", large}} {
		if got, err := os.ReadFile(paths[i]); paths[i] != storage.Uploads+"/"+want.path || err != nil || string(got) != want.content {
			t.Errorf("%s: %v, %d bytes, want %s", paths[i], err, len(got), want.path)
		}
	}
	if !strings.HasPrefix(filepath.Base(paths[2]), "tmp") {
		t.Errorf("a file without a name: %s", paths[2])
	}
	if left := filesBelow(t, storage.Staging); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

// What is refused, and in which words; and that nothing of it is left.
func TestUploadsThatAreRefusedLeaveNothing(t *testing.T) {
	limit := int64(10)
	h, storage := newFileHost(t, func(f *queue.Files) { f.MaxSize = &limit })
	whole := part("files", "ok.txt", "ok")
	for name, row := range map[string]struct {
		body   string
		status int
		text   string
	}{
		"too large":      {whole + part("files", "l", strings.Repeat("x", 11)) + "--B--\r\n", 413, "File size exceeded maximum allowed size of 10 bytes."},
		"much too large": {whole + part("files", "l", strings.Repeat("x", 1<<20)) + "--B--\r\n", 413, "File size exceeded maximum allowed size of 10 bytes."},
		"no name":        {whole + "--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--\r\n", 400, `The Content-Disposition header field "name" must be provided.`},
		"no file":        {whole + "--B\r\nContent-Disposition: form-data; name=files\r\n\r\nx\r\n--B--\r\n", 400, "File is not an instance of GradioUploadFile"},
		"up":             {whole + part("files", "..", "x") + "--B--\r\n", 400, "Invalid file name: .."},
		"long header":    {whole + part("files", strings.Repeat("x", 5000), "x") + "--B--\r\n", 413, "Headers exceeded maximum allowed size."},
		"endless header": {whole + "--B\r\nX: " + strings.Repeat("x", 20<<20), 413, "Headers exceeded maximum allowed size."},
		"many headers":   {whole + "--B\r\n" + strings.Repeat("X: 1\r\n", 9) + "\r\nx\r\n--B--\r\n", 413, "Headers exceeded maximum allowed size."},
		"many files":     {strings.Repeat(part("files", "x", ""), 1001) + "--B--\r\n", 400, "Too many files. Maximum number of files is 1000."},
		"many fields":    {strings.Repeat("--B\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n", 1001) + "--B--\r\n", 400, "Too many fields. Maximum number of fields is 1000."},
		"no end":         {whole + "--B\r\nContent-Disposition: form-data; name=files; filename=x\r\n\r\nhalf", 400, "Could not parse multipart request"},
		"no multipart":   {"nothing of the kind", 400, "Could not parse multipart request"},
	} {
		if status, text := h.upload(row.body); status != row.status || !strings.Contains(text, row.text) {
			t.Errorf("%s: %d %.200s, want %d %s", name, status, text, row.status, row.text)
		}
		if left := append(filesBelow(t, storage.Uploads), filesBelow(t, storage.Staging)...); len(left) != 0 {
			t.Errorf("%s: left %q", name, left)
		}
	}
}

// A visitor who hangs up in the middle leaves nothing, and a reader of the progress hears the end.
func TestAnUploadThatBreaksOffLeavesNothing(t *testing.T) {
	h, storage := newFileHost(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST %s/upload?upload_id=one HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 1000000\r\n\r\n%s", api, part("files", "é.txt", strings.Repeat("x", 400_000)))
	answer, err := h.client.Get(h.url + api + "/upload_progress?upload_id=one")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	first := make([]byte, len(`data: {"msg": "update", "orig_name": "\u00e9.txt"`))
	if _, err := io.ReadFull(answer.Body, first); err != nil || string(first) != `data: {"msg": "update", "orig_name": "\u00e9.txt"` {
		t.Fatalf("%q, %v", first, err)
	}
	conn.Close()
	rest, err := io.ReadAll(answer.Body)
	if err != nil || !bytes.HasSuffix(rest, []byte("data: {\"msg\": \"done\"}\n\n")) {
		t.Errorf("%q, %v", rest, err)
	}
	if left := append(filesBelow(t, storage.Uploads), filesBelow(t, storage.Staging)...); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

// Wherever an upload ends too early, with a length told before or not, and also one that is too large.
func TestCutUploadsLeaveNothing(t *testing.T) {
	most := int64(1 << 20)
	h, storage := newFileHost(t, func(f *queue.Files) { f.MaxSize = &most })
	whole := part("files", "whole.txt", "y") + part("files", "a.txt", strings.Repeat("x", 600_000)) + "--B--\r\n"
	large := part("files", "a.txt", strings.Repeat("x", 2<<20)) + "--B--\r\n"
	for _, row := range []struct {
		body   string
		sent   int
		status int
	}{
		{whole, 0, 400}, {whole, 100, 400}, {whole, len(whole) / 2, 400}, {whole, len(whole) - 9, 400}, {whole, len(whole) * 99 / 100, 400}, {large, len(large), 413}, {large, len(large) * 3 / 4, 413},
	} {
		for _, chunked := range []bool{false, true} {
			if status := h.cutUpload(row.body, row.sent, chunked); status != row.status {
				t.Errorf("%d of %d bytes, chunked %v: %d, want %d", row.sent, len(row.body), chunked, status, row.status)
			}
			if left := append(filesBelow(t, storage.Uploads), filesBelow(t, storage.Staging)...); len(left) != 0 {
				t.Fatalf("%d of %d bytes, chunked %v, left %q", row.sent, len(row.body), chunked, left)
			}
		}
	}
}

// cutUpload sends the beginning of a body, and hears what comes of it.
func (h *host) cutUpload(body string, sent int, chunked bool) int {
	h.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		h.Fatal(err)
	}
	defer conn.Close()
	framed, length := body[:sent], fmt.Sprintf("Content-Length: %d", len(body))
	if chunked {
		length = "Transfer-Encoding: chunked"
		if sent > 0 {
			framed = fmt.Sprintf("%x\r\n%s\r\n", sent, body[:sent])
		}
	}
	go func() { // a refusal may come before all is sent
		fmt.Fprintf(conn, "POST %s/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n%s\r\n\r\n%s", api, length, framed)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		h.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

// What only Gradio can decide goes to the Space.
func TestUploadsThatTheSpaceMustSeeGoThere(t *testing.T) {
	for name, change := range map[string]func(*queue.Files){
		"old files are deleted": func(f *queue.Files) { f.Expires = true },
		"another folder":        func(f *queue.Files) { f.Uploads = "/tmp/gradio" },
		"another naming":        func(f *queue.Files) { f.Names["x"] = "y" },
	} {
		h, storage := newFileHost(t, change)
		h.space.route("*", teapot)
		if status, text := h.upload(part("files", "x", "x") + "--B--\r\n"); status != http.StatusTeapot {
			t.Errorf("%s: %d %s", name, status, text)
		}
		if left := filesBelow(t, storage.Uploads); len(left) != 0 {
			t.Errorf("%s: %q", name, left)
		}
	}
}

func (h *host) file(path string, header ...string) *http.Response {
	h.Helper()
	r, err := http.NewRequest(http.MethodGet, h.url+api+"/file="+path, nil)
	if err != nil {
		h.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := h.client.Do(r)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { answer.Body.Close() })
	return answer
}

func TestFilesAreServedByGradiosRules(t *testing.T) {
	h, storage := newFileHost(t)
	h.space.route("*", teapot)
	write := func(path string) string {
		path = filepath.Join(storage.Root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("0123456789"), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := write("secret.txt")
	for link, target := range map[string]string{"app/pub/In": storage.Root + "/app/pub/no", "app/pub/out": filepath.Dir(secret), "home/gradio/out.txt": secret, "home/gradio/in.txt": "h/a.txt"} {
		if err := os.Symlink(target, filepath.Join(storage.Root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(storage.Uploads+"/fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	const native, passed = 200, http.StatusTeapot
	for path, want := range map[string]struct {
		status            int
		kind, disposition string
		sandboxed         bool
	}{
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
		write("other/a.txt"):                     {status: passed}, // allowed, and not in a folder of the Space
		secret:                                   {status: passed},
		storage.Uploads + "/h":                   {status: passed},
		"/etc/passwd":                            {status: passed},
		"/proc/self/environ":                     {status: 403},
		"/dev/shm/x":                             {status: passed},
		"h/a.txt":                                {status: passed},
		"pub/out/secret.txt":                     {status: 403}, // from the app's folder
		"pub/a.html":                             {status: passed},
	} {
		got := h.file(strings.ReplaceAll(path, " ", "%20"))
		if got.StatusCode != want.status {
			t.Errorf("%s: %s, want %d", path, got.Status, want.status)
		}
		if want.status != native {
			continue
		}
		if got.Header.Get("Content-Type") != want.kind || got.Header.Get("Content-Disposition") != want.disposition ||
			got.Header.Get("X-Content-Type-Options") != "nosniff" || (got.Header.Get("Content-Security-Policy") == "sandbox") != want.sandboxed {
			t.Errorf("%s: %v", path, got.Header)
		}
	}
	whole := h.file(storage.Uploads + "/h/a.txt")
	for value, want := range map[string]string{"bytes=2-3": "23", "bytes=8-": "89", "bytes=-1": "9", "bytes=20-": ""} {
		got := h.file(storage.Uploads+"/h/a.txt", "Range", value)
		text, _ := io.ReadAll(got.Body)
		if status := map[bool]int{true: 416, false: 206}[want == ""]; got.StatusCode != status || want != "" && string(text) != want {
			t.Errorf("%s: %s %q", value, got.Status, text)
		}
	}
	for _, good := range [][2]string{{"If-None-Match", whole.Header.Get("Etag")}, {"If-None-Match", "*"}, {"If-Modified-Since", whole.Header.Get("Last-Modified")}} {
		if again := h.file(storage.Uploads+"/h/a.txt", good[0], good[1]); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s, a copy that is good: %s", good, again.Status)
		}
		if again := h.file(storage.Uploads+"/h/a.txt", good[0], `"old"`); again.StatusCode != http.StatusOK {
			t.Errorf("%s, another copy: %s", good[0], again.Status)
		}
	}
	head, err := h.client.Head(h.url + api + "/file=" + storage.Uploads + "/h/a.txt")
	if err != nil || head.StatusCode != 200 || head.ContentLength != 10 || head.Header.Get("Etag") != whole.Header.Get("Etag") || head.Header.Get("Content-Disposition") != whole.Header.Get("Content-Disposition") {
		t.Errorf("HEAD: %+v %v", head, err)
	}
}

// The Space's own server serves some, and may send elsewhere or say too much.
func TestBytesThatTheSpaceServesAreNoPage(t *testing.T) {
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
		t.Errorf("%s %v", got.Status, got.Header)
	}
	if got := h.file("/away"); got.StatusCode != http.StatusForbidden || got.Header.Get("Location") != "" {
		t.Errorf("%s %v", got.Status, got.Header)
	}
}

// Any bytes for a body: the host answers, takes nothing that is not whole, and leaves no draft.
func FuzzUpload(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		h, storage := newFileHost(t)
		status, text := h.upload(string(body))
		if status != 200 && status != 400 && status != 413 {
			t.Errorf("%q: %d %s", body, status, text)
		}
		if left := filesBelow(t, storage.Staging); len(left) != 0 || status != 200 && len(filesBelow(t, storage.Uploads)) != 0 {
			t.Errorf("%q: %d, left %q", body, status, left)
		}
	})
}

// Whatever is asked for, only what lies in the served folders and is allowed or created comes back: by the path after
// the folder of uploads, from the root, or from the app's own folder; for a Gradio that serves by itself, too.
func FuzzFilePath(f *testing.F) {
	f.Fuzz(func(t *testing.T, path string) {
		for _, ranges := range []bool{true, false} {
			h, storage := newFileHost(t, func(f *queue.Files) { f.Ranges = ranges })
			h.space.route("*", teapot)
			for name, text := range map[string]string{
				"home/gradio/a.txt": "mine", "app/pub/a.txt": "mine", "secret.txt": "secret", "home/secret.txt": "secret", "app/secret.txt": "secret", "app/pub/no/secret.txt": "secret",
			} {
				plant(t, filepath.Join(storage.Root, name), text)
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
						t.Errorf("%s%q was left to the Space, which may follow the link", from, path)
					}
				}
			}
		}
	})
}

func plant(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// Whatever part of a file is asked for, what comes back is that part, and not more than the file in all.
func FuzzRange(f *testing.F) {
	const content = "0123456789abcdef"
	f.Fuzz(func(t *testing.T, value, condition string) {
		if strings.ContainsAny(value+condition, "\r\n\x00") || !isHeader(value) || !isHeader(condition) {
			t.Skip("no header")
		}
		h, storage := newFileHost(t)
		plant(t, storage.Uploads+"/a.txt", content)
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
	})
}

// isHeader: net/http sends it.
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
			t.Errorf("more is answered than there is: %d bytes", sum)
		}
		expectPart(t, part.Header.Get("Content-Range"), string(body), content)
	}
}

func expectPart(t *testing.T, said, body, content string) {
	t.Helper()
	var from, to, size int
	if n, err := fmt.Sscanf(said, "bytes %d-%d/%d", &from, &to, &size); n != 3 || err != nil || size != len(content) || from < 0 || to < from || to >= size || body != content[from:to+1] {
		t.Errorf("%q holds %q", said, body)
	}
}
