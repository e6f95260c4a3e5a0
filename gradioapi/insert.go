package gradioapi

import (
	"bytes"
	"compress/gzip"
	"io"
	"mime"
	"net/http"
	"strings"
)

// insertion returns the HTML that Config.Insert adds to the document that a browser opens with r; "" for all other requests.
//
//  1. Browsers send Sec-Fetch-Mode to https and to this machine only.
//  2. Elsewhere Upgrade-Insecure-Requests tells a navigation from a fetch of the same address.
func (h *Handler) insertion(r *http.Request) string {
	if h.config.Insert == nil || r.Method != http.MethodGet || r.Header.Get("Range") != "" || r.Header.Get("Upgrade") != "" || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		return ""
	}
	mode := r.Header.Get("Sec-Fetch-Mode")
	if mode != "navigate" && (mode != "" || r.Header.Get("Upgrade-Insecure-Requests") != "1") { // 1, 2
		return ""
	}
	return h.config.Insert(r)
}

// takesInsertion reports whether a response is an HTML document in which a text of ASCII characters can be appended.
func takesInsertion(status int, header http.Header) bool {
	kind, parameters, err := mime.ParseMediaType(header.Get("Content-Type"))
	if status != http.StatusOK || err != nil || kind != "text/html" || header.Get("Content-Encoding") != "" {
		return false
	}
	disposition, _, _ := strings.Cut(header.Get("Content-Disposition"), ";")
	return !strings.EqualFold(strings.TrimSpace(disposition), "attachment") && !strings.HasPrefix(strings.ToLower(parameters["charset"]), "utf-16")
}

// vary marks a document whose bytes depend on what insertion reads, with the insertion or without. A cache must not answer a fetch of
// an address with what a browser has opened, or the other way round.
func (h *Handler) vary(status int, header http.Header) {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if h.config.Insert == nil || status != http.StatusOK && status != http.StatusNotModified || err != nil || kind != "text/html" {
		return
	}
	for _, name := range []string{"Accept", "Sec-Fetch-Mode", "Upgrade-Insecure-Requests"} {
		header.Add("Vary", name)
	}
}

// changesBody removes the headers that describe the bytes of a document without the insertion.
func changesBody(header http.Header) {
	for _, name := range []string{"Content-Length", "Etag", "Last-Modified", "Accept-Ranges", "Content-Md5", "Digest"} {
		header.Del(name)
	}
}

// appendTo appends text to the document of a response. A browser's parser puts what follows </html> into the body, so the
// document can be passed on as it arrives.
func appendTo(response *http.Response, text string) {
	changesBody(response.Header)
	response.ContentLength = -1
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(response.Body, strings.NewReader(text)), response.Body}
}

// writeInserted sends a cached document with an insertion, compressed if the browser accepts it.
func (h *Handler) writeInserted(w http.ResponseWriter, r *http.Request, p *page, text string) {
	for name, values := range p.header {
		w.Header()[name] = append([]string(nil), values...)
	}
	h.vary(http.StatusOK, w.Header())
	changesBody(w.Header())
	w.Header().Add("Vary", "Accept-Encoding")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.WriteHeader(http.StatusOK)
		_, _ = io.Copy(w, io.MultiReader(bytes.NewReader(p.body), strings.NewReader(text))) // fails if the visitor has left, as below
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.WriteHeader(http.StatusOK)
	compressed := gzip.NewWriter(w)
	_, _ = compressed.Write(p.body)
	_, _ = io.WriteString(compressed, text)
	_ = compressed.Close()
}
