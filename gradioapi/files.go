package gradioapi

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"spacehost/queue"
)

// served is a file that Gradio would serve, opened.
type served struct {
	file *os.File
	info os.FileInfo
	// allowed: by the author (launch's allowed_paths, gr.set_static_paths); else Gradio has it from a visitor or made it.
	allowed bool
}

// file serves what Gradio's own route would (gradio/route_utils.py, file_fetch), and adds what keeps a visitor's
// file from acting as a page of the Space. What it is not sure of, the Space's own server decides.
func (h *Handler) file(c call, name string) error {
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		if isInternalURL(name) {
			return notAllowed(c, name)
		}
		return h.passBytes(c) // Gradio 6 fetches it for the visitor, from public addresses alone; a redirect of 5 is refused
	}
	f := h.files(c)
	if f != nil && !filepath.IsAbs(name) && h.leadsOut(f, name) {
		return notAllowed(c, name)
	}
	if f != nil && !f.Ranges && isNoName(name) {
		return notAllowed(c, name) // Gradio 4 fails over it
	}
	if f == nil || !filepath.IsAbs(name) || strings.HasPrefix(name, "//") || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return h.passBytes(c)
	}
	clean := path.Clean(name)
	found, err := h.open(f, clean)
	switch {
	case errors.Is(err, errRefused):
		return notAllowed(c, name)
	case err != nil:
		return h.passBytes(c)
	}
	defer found.file.Close()
	if !f.Ranges {
		return h.passBytes(c)
	}
	allowOrigin(c)
	head := c.Response().Header()
	head.Set("Etag", etagOf(found.info))
	head.Set("Accept-Ranges", "bytes")
	kind := guessType(f, clean)
	shown := "inline"
	if !found.allowed && !f.Safe[kind] {
		kind, shown = "", "attachment"
	}
	if kind == "" {
		kind = echo.MIMEOctetStream
	}
	head.Set(echo.HeaderContentType, withCharset(kind))
	head.Set(echo.HeaderContentDisposition, disposition(shown, path.Base(clean)))
	protect(head, found.allowed)
	askProperly(c.Request().Header, found.info.Size())
	http.ServeContent(c.Response(), c.Request(), "", found.info.ModTime(), found.file)
	return nil
}

// askProperly: the last 0 bytes are no part of a file (RFC 9110, 14.1.2); net/http would answer with a part that ends
// before it begins.
func askProperly(asked http.Header, size int64) {
	specs := strings.Split(asked.Get("Range"), ",")
	for i, spec := range specs {
		unit, last, _ := strings.Cut(spec, "-")
		if strings.Trim(strings.TrimPrefix(unit, "bytes="), " \t") == "" && last != "" && strings.Trim(last, "0 \t") == "" {
			specs[i] = strings.TrimRight(unit, " \t") + fmt.Sprintf("%d-", size) // nothing is there
		}
	}
	if asked.Get("Range") != "" {
		asked.Set("Range", strings.Join(specs, ","))
	}
}

// leadsOut reports whether a relative name, which Gradio takes from the folder where its app runs, is refused there.
func (h *Handler) leadsOut(f *queue.Files, name string) bool {
	for _, folder := range h.config.Storage.Served {
		found, err := h.open(f, path.Join(folder, name))
		if errors.Is(err, errRefused) {
			return true
		}
		if err == nil {
			found.file.Close()
		}
	}
	return false
}

// notAllowed speaks Gradio's words.
func notAllowed(c call, name string) error {
	return answer(c, http.StatusForbidden, fmt.Sprintf("File not allowed: %s.", name))
}

// protect: bytes that are not the author's own may be looked at, and are never a page of this origin. What an
// author has allowed may well be one: maps and reports stand in frames of many Spaces.
func protect(head http.Header, allowed bool) {
	head.Set("X-Content-Type-Options", "nosniff")
	if !allowed {
		head.Set("Content-Security-Policy", "sandbox")
	}
}

var (
	errRefused   = errors.New("blocked, or no regular file")
	errNotServed = errors.New("not served by the host")
)

// open opens a file by Gradio's rules (gradio/utils.py, is_allowed_file), which look at where it really is, and
// by one of the host's: only below the folders that it knows, so that a Space's claim opens nothing else.
//
//  1. What is blocked stays blocked, in any case of letters, and under any name: Gradio forgets the latter where
//     the former matters.
//  2. Allowed or static: the author wants it seen. Created: uploads and caches. A link that leads out of these
//     Gradio 4 follows.
//  3. What has been looked at is what is opened: below a folder, through no link, and not waiting for a FIFO's
//     other end.
func (h *Handler) open(f *queue.Files, clean string) (served, error) {
	real, ok := resolve(clean)
	if isKernels(clean) || isKernels(real) || isBlocked(clean, f.Blocked) || real != "" && isBlocked(real, f.Blocked) { // 1
		return served{}, errRefused
	}
	if !ok {
		return served{}, errNotServed
	}
	static, created := f.Static(), []string{f.Uploads, f.Cache}
	allowed := isInAny(real, f.Allowed) || isInAny(real, static) // 2
	if !allowed && !isInAny(real, created) {
		if isBelowAny(clean, slices.Concat(f.Allowed, static, created)) {
			return served{}, errRefused
		}
		return served{}, errNotServed
	}
	if info, err := os.Lstat(real); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return served{}, errRefused
	}
	for _, folder := range h.config.Storage.Served {
		root, ok := resolve(folder)
		if !ok || !isBelowAny(real, []string{root}) || real == root {
			continue
		}
		file, info, err := openBelow(root, strings.TrimPrefix(real, root+"/")) // 3
		return served{file, info, allowed}, err
	}
	return served{}, errNotServed
}

// isNoName: no file can have it.
func isNoName(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return true
		}
	}
	return !utf8.ValidString(name) || strings.ContainsRune(name, 0) || len(name) >= 4096
}

// isKernels names what is no file of anybody's, whatever an author has allowed; /dev/shm holds files.
func isKernels(name string) bool {
	return isBelowAny(name, []string{"/proc", "/sys", "/dev"}) && !isBelowAny(name, []string{"/dev/shm"})
}

func openBelow(folder, name string) (*os.File, os.FileInfo, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errRefused
		if info.IsDir() {
			err = errNotServed // Gradio words it
		}
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

func isBlocked(name string, blocked []string) bool {
	name = strings.ToLower(name)
	for _, folder := range blocked {
		target, _ := resolve(folder)
		if isBelowAny(name, []string{strings.ToLower(folder)}) || target != "" && isBelowAny(name, []string{strings.ToLower(target)}) {
			return true
		}
	}
	return false
}

// etagOf is Starlette's (starlette/responses.py, set_stat_headers), so that a browser's copy stays good.
func etagOf(info os.FileInfo) string {
	modified := info.ModTime()
	seconds := strconv.FormatFloat(float64(modified.Unix())+1e-9*float64(modified.Nanosecond()), 'f', -1, 64)
	if !strings.Contains(seconds, ".") {
		seconds += ".0"
	}
	sum := md5.Sum(fmt.Appendf(nil, "%s-%d", seconds, info.Size()))
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func disposition(shown, name string) string {
	quoted := pythonQuote(name)
	if quoted != name {
		return fmt.Sprintf("%s; filename*=utf-8''%s", shown, quoted)
	}
	return fmt.Sprintf("%s; filename=%q", shown, name)
}

// pythonQuote is urllib.parse.quote.
func pythonQuote(s string) string {
	var out strings.Builder
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("_.-~/", b) >= 0:
			out.WriteByte(b)
		default:
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}

// proxyTo lets gr.load's components have the files of their own Space, on the Hub. Nothing else is fetched for a
// visitor: Gradio takes the allowed hosts from the configuration of the Space that it loaded
// (gradio/routes.py, build_proxy_request).
func (h *Handler) proxyTo(c call, address string) error {
	if host, ok := hostOf(address); !ok || !strings.HasPrefix(address, "https://") || !strings.HasSuffix(host, ".hf.space") {
		return answer(c, http.StatusForbidden, "This URL cannot be proxied.")
	}
	return h.passBytes(c)
}

// protectPassed gives an answer of the Space's own server that holds bytes of somebody's what a native one has.
//
//  1. Gradio 5 sends a visitor to whatever address stands behind file=.
//  2. For some ranges Gradio answers with the headers of the request, the visitor's own and ours (captures/v6/files.txt).
//  3. Inline and not a safe type: the author's own.
func protectPassed(answer *http.Response, f *queue.Files) {
	if answer.StatusCode == http.StatusSwitchingProtocols { // Gradio 5 takes the chunks of a stream over a WebSocket, too
		return
	}
	if answer.StatusCode/100 == 3 && answer.Header.Get("Location") != "" { // 1
		refuseRedirect(answer)
		return
	}
	for name := range answer.Request.Header { // 2
		if !strings.HasPrefix(name, "Content-") {
			answer.Header.Del(name)
		}
	}
	answer.Header.Del("Host")
	kind, _, _ := strings.Cut(answer.Header.Get("Content-Type"), ";")
	shown, _, _ := strings.Cut(answer.Header.Get("Content-Disposition"), ";")
	protect(answer.Header, shown == "inline" && (f == nil || !f.Safe[kind])) // 3
}

func refuseRedirect(answer *http.Response) {
	body := string(mustJSON(detail{"Files of other sites are not sent for here."}))
	answer.Body.Close()
	answer.StatusCode, answer.Status = http.StatusForbidden, ""
	answer.Header = http.Header{"Content-Type": {echo.MIMEApplicationJSON}, "Content-Length": {strconv.Itoa(len(body))}}
	answer.Body, answer.ContentLength = readCloser(body), int64(len(body))
}
