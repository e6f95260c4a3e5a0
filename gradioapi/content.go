package gradioapi

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/internal/pytext"
	"spacehost/internal/shelf"
	"spacehost/queue"
)

// isContentRoute reports the routes that return bytes of users or of the app.
func isContentRoute(path string) bool {
	for _, start := range []string{"/file=", "/file/", "/proxy=", "/stream/"} {
		if strings.HasPrefix(path, start) {
			return true
		}
	}
	return false
}

func (h *Handler) content(c call) error {
	for _, start := range []string{"/file=", "/file/"} {
		if name, ok := strings.CutPrefix(c.apiPath, start); ok {
			return h.file(c, name)
		}
	}
	if address, ok := strings.CutPrefix(c.apiPath, "/proxy="); ok {
		return h.proxyTo(c, address)
	}
	return h.passContent(c)
}

// proxyTo serves gr.load's components the files of their own Space on the Hub. No other URL is fetched for a visitor:
// Gradio takes the allowed hosts from the configuration of the Space that it loaded (gradio/routes.py,
// build_proxy_request).
func (h *Handler) proxyTo(c call, address string) error {
	if host, ok := hostOf(address); !ok || !strings.HasPrefix(address, "https://") || !strings.HasSuffix(host, ".hf.space") {
		return refuseDetail(c, http.StatusForbidden, "This URL cannot be proxied.")
	}
	return h.passContent(c)
}

// protectPassed gives a passed-through response with content the protection of a native one.
//
//  1. Gradio 5 redirects a visitor to any address after file=.
//  2. For some ranges Gradio answers with the headers of the request, the visitor's own and the host's
//     (captures/v6/files.txt).
//  3. A file that is shown inline and has no safe type is the author's own.
func protectPassed(response *http.Response, f *queue.Files) {
	if response.StatusCode == http.StatusSwitchingProtocols { // Gradio 5 also takes the chunks of a stream over a WebSocket
		return
	}
	if response.StatusCode/100 == 3 && response.Header.Get("Location") != "" { // 1
		refuseRedirect(response)
		return
	}
	for name := range response.Request.Header { // 2
		if !strings.HasPrefix(name, "Content-") {
			response.Header.Del(name)
		}
	}
	response.Header.Del("Host")
	kind, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	shown, _, _ := strings.Cut(response.Header.Get("Content-Disposition"), ";")
	shelf.Protect(response.Header, shown == "inline" && (f == nil || !f.Safe[kind])) // 3
}

func refuseRedirect(response *http.Response) {
	body := string(pytext.JSON(detail{"Files of other sites are not fetched here."}))
	response.Body.Close()
	response.StatusCode, response.Status = http.StatusForbidden, ""
	response.Header = http.Header{"Content-Type": {echo.MIMEApplicationJSON}, "Content-Length": {strconv.Itoa(len(body))}}
	response.Body, response.ContentLength = readCloser(body), int64(len(body))
}

func readCloser(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }
