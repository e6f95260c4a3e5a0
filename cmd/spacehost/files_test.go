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
	all := map[string]string{}
	var folder string
	send := func(what string, r *http.Request) string {
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		text := string(body)
		if folder != "" {
			text = strings.ReplaceAll(text, folder, "UPLOADS")
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
		all[what] = line
		return string(body)
	}
	names := []string{"plain.txt", "a b#c(d).tar.gz", "é日本.png", "../up.svg", `C:\\dir\\old.txt`, `quo\"ted.json`, "a.HTML", ".hidden", "x", "con.txt", strings.Repeat("n", 300) + ".md"}
	for _, name := range names {
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="files"; filename="` + name + `"`}}) // in memory, so it cannot fail
		fmt.Fprint(part, "0123456789")
		w.Close()
		text := send("upload of "+name, fileRequest(t, "POST", url+"/gradio_api/upload", w.FormDataContentType(), body.String()))
		path := strings.Trim(text, "[]\"\n")
		folder = filepath.Dir(filepath.Dir(path))
		all["upload of "+name] = strings.ReplaceAll(strings.ReplaceAll(all["upload of "+name], folder, "UPLOADS"), contentLength(text), "")
		if strings.Contains(path, `\u`) {
			continue
		}
		for _, method := range []string{"GET", "HEAD"} {
			send(method+" "+name, fileRequest(t, method, url+"/gradio_api/file="+escaped(path), "", ""))
		}
	}
	for what, r := range map[string]*http.Request{
		"no multipart":   fileRequest(t, "POST", url+"/gradio_api/upload", "application/json", "{}"),
		"no boundary":    fileRequest(t, "POST", url+"/gradio_api/upload", "multipart/form-data", ""),
		"no name":        fileRequest(t, "POST", url+"/gradio_api/upload", "multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--\r\n"),
		"up":             fileRequest(t, "POST", url+"/gradio_api/upload", "multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=files; filename=..\r\n\r\nx\r\n--B--\r\n"),
		"another field":  fileRequest(t, "POST", url+"/gradio_api/upload", "multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=other; filename=a\r\n\r\nx\r\n--B--\r\n"),
		"a value":        fileRequest(t, "POST", url+"/gradio_api/upload", "multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=other\r\n\r\nx\r\n--B--\r\n"),
		"progress of no": fileRequest(t, "GET", url+"/gradio_api/upload_progress?upload_id=none", "", ""),
		"progress":       fileRequest(t, "GET", url+"/gradio_api/upload_progress", "", ""),
	} {
		send(what, r)
	}
	for _, path := range []string{
		"allowed/a b.html", "allowed/a.tar.gz", "allowed/none", "allowed/blocked/x", "allowed", "static/s.svg", "app.json", "app.py", "none", "allowed/../app.py", "allowed/./none", "allowed//none", ".env",
	} {
		send("file= /"+path, fileRequest(t, "GET", url+"/gradio_api/file="+escaped(dir+"/")+escaped(path), "", ""))
		send("file/ /"+path, fileRequest(t, "GET", url+"/gradio_api/file/"+escaped(dir+"/")+escaped(path), "", ""))
	}
	for _, path := range []string{"/etc/passwd", "app.py", ".env", "//etc/passwd", "file:///etc/passwd", "", "/", "x%00y"} {
		send("file= "+path, fileRequest(t, "GET", url+"/gradio_api/file="+path, "", ""))
	}
	for _, value := range []string{"bytes=0-", "bytes=-2", "bytes=1-", "bytes=99-"} {
		r := fileRequest(t, "GET", url+"/gradio_api/file="+escaped(dir+"/allowed/a.tar.gz"), "", "")
		r.Header.Set("Range", value)
		send("range "+value, r)
	}
	return all
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
