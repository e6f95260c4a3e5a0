package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFilesMatchStockGradio sends the same requests to stock Gradio and to spacehost. The responses may differ only in the host's
// own headers and in the folder of its files.
func TestFilesMatchStockGradio(t *testing.T) {
	for line := range gradioVersions {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "spaces", "attacks"))); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{"allowed/a b.html": "<b>", "allowed/a.tar.gz": "0123456789", "allowed/none": "x", "allowed/blocked/x": "x", "static/s.svg": "<svg/>", "app.json": "{}"} {
				plant(t, filepath.Join(dir, name), text)
			}
			python := environmentOf(t, line)
			ours := runProduct(t, dir, "--python", python)
			stock := startStock(t, python, dir).ready()
			here, there := fileAnswers(t, ours.URL, dir), fileAnswers(t, stock, dir)
			for _, what := range slices.Sorted(maps.Keys(there)) {
				if here[what] != there[what] {
					t.Errorf("%s:\nspacehost %s\nstock     %s", what, here[what], there[what])
				}
			}
		})
	}
}

// fileAnswers returns the responses by request, without the paths and times that differ between runs.
func fileAnswers(t *testing.T, url, dir string) map[string]string {
	t.Helper()
	p := &fileProbe{t: t, url: url, all: map[string]string{}}
	p.uploads()
	p.invalidUploads()
	p.files(dir)
	return p.all
}

// fileProbe sends requests for files to one side.
type fileProbe struct {
	t      *testing.T
	url    string
	folder string            // of uploads, known after the first one
	all    map[string]string // responses by request
}

// send records the response and returns its body.
func (p *fileProbe) send(what string, r *http.Request) string {
	p.t.Helper()
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	text := string(body)
	if p.folder != "" {
		text = strings.ReplaceAll(text, p.folder, "UPLOADS")
	}
	line := fmt.Sprintf("%d %s", answer.StatusCode, text)
	for _, name := range []string{"Content-Type", "Content-Disposition", "Content-Length", "Content-Range", "Accept-Ranges", "Location"} {
		line += fmt.Sprintf(" %s=%q", name, strings.ReplaceAll(answer.Header.Get(name), "UTF-8", "utf-8"))
	}
	if strings.Contains(what, "/allowed/") { // both serve the same file, so Etag and Last-Modified are equal
		line += " Etag=" + answer.Header.Get("Etag") + " Last-Modified=" + answer.Header.Get("Last-Modified")
	}
	if answer.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		line = "416" // the text is that of Go's net/http; Gradio 5 sends an invalid Content-Range
	}
	p.all[what] = line
	return string(body)
}

// uploads uploads files with unusual names and reads them back.
func (p *fileProbe) uploads() {
	p.t.Helper()
	names := []string{"plain.txt", "a b#c(d).tar.gz", "é日本.png", "../up.svg", `C:\\dir\\old.txt`, `quo\"ted.json`, "a.HTML", ".hidden", "x", "con.txt", strings.Repeat("n", 300) + ".md"}
	for _, name := range names {
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="files"; filename="` + name + `"`}}) // in memory, so it cannot fail
		fmt.Fprint(part, "0123456789")
		w.Close()
		text := p.send("upload of "+name, fileRequest(p.t, "POST", p.url+"/gradio_api/upload", w.FormDataContentType(), body.String()))
		path := strings.Trim(text, "[]\"\n")
		p.folder = filepath.Dir(filepath.Dir(path))
		p.all["upload of "+name] = strings.ReplaceAll(strings.ReplaceAll(p.all["upload of "+name], p.folder, "UPLOADS"), contentLength(text), "")
		if strings.Contains(path, `\u`) {
			continue
		}
		for _, method := range []string{"GET", "HEAD"} {
			p.send(method+" "+name, fileRequest(p.t, method, p.url+"/gradio_api/file="+escaped(path), "", ""))
		}
	}
}

func (p *fileProbe) invalidUploads() {
	p.t.Helper()
	for what, r := range map[string]*http.Request{
		"no multipart":   fileRequest(p.t, "POST", p.url+"/gradio_api/upload", "application/json", "{}"),
		"no boundary":    fileRequest(p.t, "POST", p.url+"/gradio_api/upload", "multipart/form-data", ""),
		"no name":        fileRequest(p.t, "POST", p.url+"/gradio_api/upload", "multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--\r\n"),
		"up":             fileRequest(p.t, "POST", p.url+"/gradio_api/upload", "multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=files; filename=..\r\n\r\nx\r\n--B--\r\n"),
		"another field":  fileRequest(p.t, "POST", p.url+"/gradio_api/upload", "multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=other; filename=a\r\n\r\nx\r\n--B--\r\n"),
		"a value":        fileRequest(p.t, "POST", p.url+"/gradio_api/upload", "multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=other\r\n\r\nx\r\n--B--\r\n"),
		"progress of no": fileRequest(p.t, "GET", p.url+"/gradio_api/upload_progress?upload_id=none", "", ""),
		"progress":       fileRequest(p.t, "GET", p.url+"/gradio_api/upload_progress", "", ""),
	} {
		p.send(what, r)
	}
}

// files reads files of the app in dir, other paths, and ranges.
func (p *fileProbe) files(dir string) {
	p.t.Helper()
	for _, path := range []string{
		"allowed/a b.html", "allowed/a.tar.gz", "allowed/none", "allowed/blocked/x", "allowed", "static/s.svg", "app.json", "app.py", "none", "allowed/../app.py", "allowed/./none", "allowed//none", ".env",
	} {
		p.send("file= /"+path, fileRequest(p.t, "GET", p.url+"/gradio_api/file="+escaped(dir+"/")+escaped(path), "", ""))
		p.send("file/ /"+path, fileRequest(p.t, "GET", p.url+"/gradio_api/file/"+escaped(dir+"/")+escaped(path), "", ""))
	}
	for _, path := range []string{"/etc/passwd", "app.py", ".env", "//etc/passwd", "file:///etc/passwd", "", "/", "x%00y"} {
		p.send("file= "+path, fileRequest(p.t, "GET", p.url+"/gradio_api/file="+path, "", ""))
	}
	for _, value := range []string{"bytes=0-", "bytes=-2", "bytes=1-", "bytes=99-"} {
		r := fileRequest(p.t, "GET", p.url+"/gradio_api/file="+escaped(dir+"/allowed/a.tar.gz"), "", "")
		r.Header.Set("Range", value)
		p.send("range "+value, r)
	}
}

func contentLength(text string) string {
	return fmt.Sprintf(` Content-Length="%d"`, len(strings.TrimSuffix(text, "\n")))
}

func fileRequest(t *testing.T, method, url, kind, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	return r
}
