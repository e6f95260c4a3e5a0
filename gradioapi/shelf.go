package gradioapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"spacehost/internal/shelf"
	"spacehost/queue"
)

// Shelf has what touches the files of a Space, on the machine where they are. Package internal/shelf implements it. Its methods may
// be called from any goroutine. Those with a context may block for a round trip to that machine.
type Shelf interface {
	// ServeHTTP answers a request that shelf.With has returned: uploads and their progress, files and those of the frontend.
	http.Handler
	// Check returns those of paths that no call may name. f is not nil.
	Check(ctx context.Context, f *queue.Files, paths []string) (wrong []string, err error)
	// NoteUses notes the uploads that a text of JSON names. It calls session, before it returns, if there are any.
	NoteUses(text []byte, session func() queue.SessionHash)
	// Uploads returns the uploads, oldest use first, and with stopped also the files that the app has created.
	Uploads(ctx context.Context, stopped bool) ([]shelf.Upload, error)
	// Remove removes an upload that Uploads has returned, unless it was used since.
	Remove(ctx context.Context, one shelf.Upload) (removed bool, err error)
}

// onShelf lets the Shelf answer. pass answers in the place of the Shelf, for what only the Space's own server can decide. answered
// may be nil (shelf.Call.Pass).
func (h *Handler) onShelf(c call, path string, known shelf.Call, pass func(c call, answered func(*http.Response)) error) (err error) {
	r := c.Request()
	known.AllowOrigin = func(head http.Header) { setOrigin(r, head) }
	known.Pass = func(_ http.ResponseWriter, sent *http.Request, answered func(*http.Response)) {
		sent.URL = r.URL
		c.SetRequest(sent)
		err = pass(c, answered)
	}
	h.config.Shelf.ServeHTTP(c.Response(), shelf.With(r, known, path))
	return err
}

// filesOf returns what the Shelf needs to know of the manifest.
func filesOf(m queue.Manifest) shelf.Call {
	return shelf.Call{Files: m.Files, Native: m.Native && !m.PassThrough, EmptyProgress: dialectOf(m).hasEmptyProgress()}
}

// upload passes an upload to the Shelf, with its owner. The Space's own server stores it if the app handles its files itself.
func (h *Handler) upload(c call) error {
	known := filesOf(c.manifest)
	known.Owner = ownerText(h.uploader(c.Request()))
	return h.onShelf(c, "/upload", known, func(c call, answered func(*http.Response)) error {
		return h.passAsDirectCall(c, func(d *destination, _ queue.EventID) { d.onResponse = answered })
	})
}

// uploadProgress streams the progress of an upload until its end, that of the Handler, or that of the credential.
func (h *Handler) uploadProgress(c call) error {
	ctx, cancel := context.WithCancelCause(c.Request().Context())
	defer cancel(nil)
	defer context.AfterFunc(h.ctx, func() { cancel(nil) })()
	defer h.grant(c.Request(), func() { cancel(errCredentialEnded) })()
	c.SetRequest(c.Request().WithContext(ctx))
	return h.onShelf(c, "/upload_progress", filesOf(c.manifest), func(c call, _ func(*http.Response)) error { return h.pass(c) })
}

// file serves what Gradio's own route serves. A URL is no file: Gradio 6 fetches it for the visitor, from public addresses only; a
// redirect of Gradio 5 is refused.
func (h *Handler) file(c call, name string) error {
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		if isInternalURL(name) {
			return refuseDetail(c, http.StatusForbidden, "File not allowed: "+name+".") // Gradio's own text
		}
		return h.passContent(c)
	}
	return h.onShelf(c, "/file="+name, filesOf(c.manifest), func(c call, _ func(*http.Response)) error { return h.passContent(c) })
}

// asset serves a file of the frontend.
func (h *Handler) asset(c call) error {
	known := shelf.Call{Frontend: c.manifest.Frontend}
	return h.onShelf(c, c.Request().URL.Path, known, func(c call, _ func(*http.Response)) error { return h.pass(c) })
}

// ownerText returns a text that stands for an owner of uploads on other machines. It has no name in it; "" stands for no owner.
func ownerText(o SessionOwner) string {
	if o == (SessionOwner{}) {
		return ""
	}
	sum := sha256.Sum256([]byte(o.Person + "\x00" + o.Visitor))
	return hex.EncodeToString(sum[:])
}

// uploader returns the owner of the Sessions of a request.
func (h *Handler) uploader(r *http.Request) SessionOwner {
	if h.config.SessionOwner == nil {
		return SessionOwner{}
	}
	return h.config.SessionOwner(r)
}
