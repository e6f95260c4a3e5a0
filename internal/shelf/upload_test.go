package shelf_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/shelf/shelftest"
	"spacehost/queue"
)

func (h *host) upload(body string) (status int, text string) {
	h.Helper()
	return shelftest.Upload(h, h.client, h.url+"/upload", body)
}

func TestUploadPathsMatchGradio(t *testing.T) {
	h, storage := newFileHost(t)
	large := strings.Repeat("0123456789", 100_000) // several chunks, the last one partly filled
	status, text := h.upload(shelftest.Part("files", "a#.txt", "hello") + shelftest.Part("other", "b.txt", "another field") + shelftest.Part("files", "../x!.bin", large) + shelftest.Part("files", "", "") + "--B--\r\n")
	var paths []string
	if err := json.Unmarshal([]byte(text), &paths); err != nil || status != http.StatusOK || len(paths) != 3 {
		t.Fatalf("got %d %s, want three paths", status, text)
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
	if left := shelftest.FilesBelow(t, storage.Staging); len(left) != 0 {
		t.Errorf("remaining drafts: %q", left)
	}
}

// TestRefusedUploadsLeaveNoFiles checks the text of each refusal, and that no file remains.
func TestRefusedUploadsLeaveNoFiles(t *testing.T) {
	limit := int64(10)
	h, storage := newFileHost(t, func(f *queue.Files) { f.MaxSize = &limit })
	whole := shelftest.Part("files", "ok.txt", "ok")
	for name, row := range map[string]struct {
		body   string
		status int
		text   string
	}{
		"too large":      {whole + shelftest.Part("files", "l", strings.Repeat("x", 11)) + "--B--\r\n", 413, "File size exceeded maximum allowed size of 10 bytes."},
		"much too large": {whole + shelftest.Part("files", "l", strings.Repeat("x", 1<<20)) + "--B--\r\n", 413, "File size exceeded maximum allowed size of 10 bytes."},
		"no name":        {whole + "--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--\r\n", 400, `The Content-Disposition header field "name" must be provided.`},
		"no file":        {whole + "--B\r\nContent-Disposition: form-data; name=files\r\n\r\nx\r\n--B--\r\n", 400, "File is not an instance of GradioUploadFile"},
		"up":             {whole + shelftest.Part("files", "..", "x") + "--B--\r\n", 400, "Invalid file name: .."},
		"long header":    {whole + shelftest.Part("files", strings.Repeat("x", 5000), "x") + "--B--\r\n", 413, "Headers exceeded maximum allowed size."},
		"endless header": {whole + "--B\r\nX: " + strings.Repeat("x", 20<<20), 413, "Headers exceeded maximum allowed size."},
		"many headers":   {whole + "--B\r\n" + strings.Repeat("X: 1\r\n", 9) + "\r\nx\r\n--B--\r\n", 413, "Headers exceeded maximum allowed size."},
		"many files":     {strings.Repeat(shelftest.Part("files", "x", ""), 1001) + "--B--\r\n", 400, "Too many files. Maximum number of files is 1000."},
		"many fields":    {strings.Repeat("--B\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n", 1001) + "--B--\r\n", 400, "Too many fields. Maximum number of fields is 1000."},
		"no end":         {whole + "--B\r\nContent-Disposition: form-data; name=files; filename=x\r\n\r\nhalf", 400, "Could not parse multipart request"},
		"no multipart":   {"nothing of the kind", 400, "Could not parse multipart request"},
	} {
		if status, text := h.upload(row.body); status != row.status || !strings.Contains(text, row.text) {
			t.Errorf("%s: got %d %.200s, want %d %s", name, status, text, row.status, row.text)
		}
		if left := append(shelftest.FilesBelow(t, storage.Uploads), shelftest.FilesBelow(t, storage.Staging)...); len(left) != 0 {
			t.Errorf("%s: remaining files %q", name, left)
		}
	}
}

// TestInterruptedUploadLeavesNoFiles: a visitor disconnects during an upload. A reader of the progress receives the
// end.
func TestInterruptedUploadLeavesNoFiles(t *testing.T) {
	h, storage := newFileHost(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /upload?upload_id=one HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 1000000\r\n\r\n%s", shelftest.Part("files", "é.txt", strings.Repeat("x", 400_000)))
	answer, err := h.client.Get(h.url + "/upload_progress?upload_id=one")
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
	if left := append(shelftest.FilesBelow(t, storage.Uploads), shelftest.FilesBelow(t, storage.Staging)...); len(left) != 0 {
		t.Errorf("remaining files %q", left)
	}
}

// TestTruncatedUploadsLeaveNoFiles: an upload ends early at any position, with and without a Content-Length, also if
// it is too large.
func TestTruncatedUploadsLeaveNoFiles(t *testing.T) {
	most := int64(1 << 20)
	h, storage := newFileHost(t, func(f *queue.Files) { f.MaxSize = &most })
	whole := shelftest.Part("files", "whole.txt", "y") + shelftest.Part("files", "a.txt", strings.Repeat("x", 600_000)) + "--B--\r\n"
	large := shelftest.Part("files", "a.txt", strings.Repeat("x", 2<<20)) + "--B--\r\n"
	for _, row := range []struct {
		body   string
		sent   int
		status int
	}{
		{whole, 0, 400}, {whole, 100, 400}, {whole, len(whole) / 2, 400}, {whole, len(whole) - 9, 400}, {whole, len(whole) * 99 / 100, 400}, {large, len(large), 413}, {large, len(large) * 3 / 4, 413},
	} {
		for _, chunked := range []bool{false, true} {
			if status := h.cutUpload(row.body, row.sent, chunked); status != row.status {
				t.Errorf("%d of %d bytes, chunked %v: got %d, want %d", row.sent, len(row.body), chunked, status, row.status)
			}
			if left := append(shelftest.FilesBelow(t, storage.Uploads), shelftest.FilesBelow(t, storage.Staging)...); len(left) != 0 {
				t.Fatalf("%d of %d bytes, chunked %v: remaining files %q", row.sent, len(row.body), chunked, left)
			}
		}
	}
}

// cutUpload sends the beginning of a body and returns the status of the response.
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
	go func() { // a refusal may arrive before all bytes are sent
		fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n%s\r\n\r\n%s", length, framed)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		h.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

// TestUploadsPassedThrough: an upload that only Gradio can handle goes to the Space.
func TestUploadsPassedThrough(t *testing.T) {
	for name, change := range map[string]func(*queue.Files){
		"old files are deleted": func(f *queue.Files) { f.Expires = true },
		"another folder":        func(f *queue.Files) { f.Uploads = "/tmp/gradio" },
		"another naming":        func(f *queue.Files) { f.Names["x"] = "y" },
	} {
		h, storage := newFileHost(t, change)
		if status, text := h.upload(shelftest.Part("files", "x", "x") + "--B--\r\n"); status != http.StatusTeapot {
			t.Errorf("%s: %d %s", name, status, text)
		}
		if left := shelftest.FilesBelow(t, storage.Uploads); len(left) != 0 {
			t.Errorf("%s: %q", name, left)
		}
	}
}

// FuzzUpload: for any body the host responds, accepts only complete uploads and leaves no draft.
func FuzzUpload(f *testing.F) {
	f.Fuzz(fuzzUpload)
}

func fuzzUpload(t *testing.T, body []byte) {
	h, storage := newFileHost(t)
	status, text := h.upload(string(body))
	if status != 200 && status != 400 && status != 413 {
		t.Errorf("%q: %d %s", body, status, text)
	}
	if left := shelftest.FilesBelow(t, storage.Staging); len(left) != 0 || status != 200 && len(shelftest.FilesBelow(t, storage.Uploads)) != 0 {
		t.Errorf("%q: %d, remaining files %q", body, status, left)
	}
}
