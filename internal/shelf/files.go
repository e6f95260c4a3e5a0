package shelf

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"spacehost/queue"
)

// served is an open file that Gradio would serve.
type served struct {
	file *os.File
	info os.FileInfo
	// allowed is set for files that the author allows (launch's allowed_paths, gr.set_static_paths). Other files were
	// uploaded by a visitor or created by Gradio.
	allowed bool
}

// file serves the files that Gradio's own route serves (gradio/route_utils.py, file_fetch). It adds headers that keep
// a visitor's file from acting as a page of the Space. Undecided cases are passed through to the Space's own server.
func (s *Shelf) file(c call, name string) {
	f := s.files(c)
	if f != nil && !filepath.IsAbs(name) && s.escapesFolder(f, name) {
		c.notAllowed(name)
		return
	}
	if f != nil && !f.Ranges && isImpossibleName(name) {
		c.notAllowed(name) // Gradio 4 fails on it
		return
	}
	if f == nil || !filepath.IsAbs(name) || strings.HasPrefix(name, "//") || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		c.pass(nil)
		return
	}
	clean := path.Clean(name)
	found, err := s.open(f, clean)
	switch {
	case errors.Is(err, errRefused):
		c.notAllowed(name)
		return
	case err != nil:
		c.pass(nil)
		return
	}
	defer found.file.Close()
	s.NoteUses([]byte(clean), noSession)
	if !f.Ranges {
		c.pass(nil)
		return
	}
	serve(c, f, clean, found)
}

func noSession() queue.SessionHash { return "" }

// serve writes an open file as Starlette's FileResponse does.
func serve(c call, f *queue.Files, clean string, found served) {
	c.allowOrigin()
	head := c.w.Header()
	head.Set("Etag", etag(found.info))
	head.Set("Accept-Ranges", "bytes")
	kind := guessType(f, clean)
	shown := "inline"
	if !found.allowed && !f.Safe[kind] {
		kind, shown = "", "attachment"
	}
	if kind == "" {
		kind = "application/octet-stream"
	}
	head.Set("Content-Type", withCharset(kind))
	head.Set("Content-Disposition", disposition(shown, path.Base(clean)))
	Protect(head, found.allowed)
	fixSuffixRange(c.r.Header, found.info.Size())
	http.ServeContent(c.w, c.r, "", found.info.ModTime(), found.file)
}

// fixSuffixRange makes a suffix range of 0 bytes unsatisfiable: the last 0 bytes are no part of a file (RFC 9110,
// 14.1.2). net/http would answer with a part that ends before it begins.
func fixSuffixRange(request http.Header, size int64) {
	specs := strings.Split(request.Get("Range"), ",")
	for i, spec := range specs {
		unit, last, _ := strings.Cut(spec, "-")
		if strings.Trim(strings.TrimPrefix(unit, "bytes="), " \t") == "" && last != "" && strings.Trim(last, "0 \t") == "" {
			specs[i] = strings.TrimRight(unit, " \t") + fmt.Sprintf("%d-", size) // starts after the last byte
		}
	}
	if request.Get("Range") != "" {
		request.Set("Range", strings.Join(specs, ","))
	}
}

// escapesFolder reports whether a relative name is refused. Gradio resolves such a name in the folder where its app
// runs.
func (s *Shelf) escapesFolder(f *queue.Files, name string) bool {
	for _, folder := range s.storage.Load().Served {
		found, err := s.open(f, path.Join(folder, name))
		if errors.Is(err, errRefused) {
			return true
		}
		if err == nil {
			found.file.Close()
		}
	}
	return false
}

// notAllowed answers with Gradio's own text.
func (c call) notAllowed(name string) {
	c.allowOrigin()
	c.refuseDetail(http.StatusForbidden, fmt.Sprintf("File not allowed: %s.", name))
}

// Protect keeps a file that is not the author's own from acting as a page of this origin; it may still be displayed.
// An allowed file of the author may be a page: many Spaces show maps and reports in frames.
func Protect(head http.Header, allowed bool) {
	head.Set("X-Content-Type-Options", "nosniff")
	if !allowed {
		head.Set("Content-Security-Policy", "sandbox")
	}
}

var (
	errRefused   = errors.New("blocked, or no regular file")
	errNotServed = errors.New("not served by the host")
)

// open opens a file by Gradio's rules (gradio/utils.py, is_allowed_file), applied to the file's real path. One rule
// is the host's: the file must be below a folder that the host knows, so that a Space's manifest opens nothing else.
//
//  1. A blocked file stays blocked, in any case of letters and under any name. Gradio neglects other names on
//     file systems where the case matters.
//  2. Allowed and static files are published by the author. Created files are uploads and caches. Gradio 4
//     follows a link that leads out of these folders; the host refuses it.
//  3. The file that was checked is the file that is opened: below a folder, through no link, and without waiting
//     for the other end of a FIFO.
func (s *Shelf) open(f *queue.Files, clean string) (served, error) {
	real, ok := resolve(clean)
	if isKernelPath(clean) || isKernelPath(real) || isBlocked(clean, f.Blocked) || real != "" && isBlocked(real, f.Blocked) { // 1
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
	for _, folder := range s.storage.Load().Served {
		root, ok := resolve(folder)
		if !ok || !isBelowAny(real, []string{root}) || real == root {
			continue
		}
		file, info, err := openBelow(root, strings.TrimPrefix(real, root+"/")) // 3
		return served{file, info, allowed}, err
	}
	return served{}, errNotServed
}

// isImpossibleName reports a name that no file can have.
func isImpossibleName(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return true
		}
	}
	return !utf8.ValidString(name) || strings.ContainsRune(name, 0) || len(name) >= 4096
}

// isKernelPath reports a path of the kernel's file systems, which are never served, even if the author allows them.
// /dev/shm holds ordinary files.
func isKernelPath(name string) bool {
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
			err = errNotServed // Gradio words the refusal
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
