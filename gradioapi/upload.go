package gradioapi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/queue"
)

// Bounds of an upload: Gradio's (gradio/route_utils.py, GradioMultiPartParser; python_multipart).
const (
	maxParts    = 1000 // with a file, and as many without
	maxHeaders  = 8    // of a part
	maxHeader   = 4096 + 128
	maxBoundary = 256
	maxName     = 255 // bytes, as file systems have it
	uploadChunk = 256 << 10
)

// uploadError refuses an upload in plain text, as Gradio does: 413 if the text speaks of a maximum, else 400; and 408 if it
// is too slow, which Gradio does not mind.
type uploadError struct{ text string }

func (e *uploadError) Error() string { return e.text }

// nameError refuses a name that no file can have.
type nameError struct{ name string }

func (e *nameError) Error() string { return "Invalid file name: " + e.name }

func refuseUpload(format string, args ...any) error {
	return &uploadError{fmt.Sprintf(format, args...)}
}

// upload takes files into the folder where Gradio would put them, under the names that it would give them
// (gradio/routes.py, upload_file). Nothing of a request that fails or breaks off is left.
//
// Deliberate differences: a body that ends before its last boundary is refused, where Gradio takes the parts that
// were whole; and so is a name that the file system cannot hold, where Gradio answers with a path to nothing.
func (h *Handler) upload(c call) error {
	if isCompressed(c.Request()) {
		return errCompressed
	}
	f := h.files(c)
	if f == nil || f.Expires || namingOf(f) == nil || !isUTF8Form(c.Request()) {
		return h.pass(c)
	}
	kind, params := parseOptions(c.Request().Header.Get(echo.HeaderContentType))
	if kind != "multipart/form-data" {
		return answer(c, http.StatusBadRequest, "Invalid content type.")
	}
	paths, err := h.receive(c, f, params)
	var refused *uploadError
	var name *nameError
	switch {
	case errors.As(err, &name):
		return answer(c, http.StatusBadRequest, name.Error())
	case errors.As(err, &refused):
		status := http.StatusBadRequest
		if refused == errTooSlow {
			status = http.StatusRequestTimeout
		}
		if strings.Contains(refused.text, "maximum allowed size") {
			status = http.StatusRequestEntityTooLarge
		}
		allowOrigin(c)
		return plain(c, status, refused.text)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		h.config.Logger.Error("upload failed", zap.String("space", h.config.Space), zap.Error(err))
		return echo.NewHTTPError(http.StatusInsufficientStorage, "The disk of this host is full.")
	case err != nil:
		return err
	}
	allowOrigin(c)
	return c.JSONBlob(http.StatusOK, mustJSON(paths))
}

// receive takes all parts, and only then gives the files their places.
func (h *Handler) receive(c call, f *queue.Files, params map[string]string) (paths []string, err error) {
	boundary, ok := params["boundary"]
	if !ok || boundary == "" {
		return nil, refuseUpload("Missing boundary in multipart.")
	}
	if len(boundary) > maxBoundary {
		return nil, refuseUpload("Could not parse multipart request: the boundary is longer than %d bytes.", maxBoundary)
	}
	root, err := os.OpenRoot(h.config.Storage.Root)
	if err != nil {
		return nil, fmt.Errorf("take an upload: %w", err)
	}
	defer root.Close()
	in := &intake{
		root: root, storage: h.config.Storage, files: f, name: namingOf(f),
		progress: h.progress.track(c.QueryParam("upload_id")),
	}
	defer in.clear()
	defer in.progress.end()
	body := newParts(c.Request().Body, boundary)
	defer body.close()
	if err := in.read(body); err != nil {
		return nil, err
	}
	return in.place()
}

var errTooSlow = &uploadError{"The upload came too slowly."}

var errHeaderSize = refuseUpload("Headers exceeded maximum allowed size.")

// intake is one upload under way.
type intake struct {
	root     *os.Root
	storage  Storage
	files    *queue.Files
	name     naming
	progress *tracker

	staged       []staged
	named, plain int // parts with a file, and without
}

// staged is a file that is whole, at a place where nobody looks for it.
type staged struct{ draft, sum, name string }

func (in *intake) read(body *parts) error {
	for {
		header, err := body.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return badMultipart(err)
		}
		if err := in.take(header, body); err != nil {
			return err
		}
	}
}

func badMultipart(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) { // the server's (server/body.go)
		return errTooSlow
	}
	if errors.Is(err, errHeaderSize) {
		return err
	}
	return refuseUpload("Could not parse multipart request: %s", err)
}

func (in *intake) take(header textproto.MIMEHeader, body *parts) error {
	count := 0
	for name, values := range header {
		for _, value := range values {
			if count++; count > maxHeaders || len(name)+len(value) > maxHeader {
				return errHeaderSize
			}
		}
	}
	_, params := parseOptions(header.Get("Content-Disposition"))
	field, ok := params["name"]
	if !ok {
		return refuseUpload(`The Content-Disposition header field "name" must be provided.`)
	}
	filename, isFile := params["filename"]
	if !isFile {
		return in.skip(body, field)
	}
	if in.named++; in.named > maxParts {
		return refuseUpload("Too many files. Maximum number of files is %d.", maxParts)
	}
	return in.write(body, field, safeDecode(filename))
}

// skip reads over a part that is no file.
func (in *intake) skip(body *parts, field string) error {
	if in.plain++; in.plain > maxParts {
		return refuseUpload("Too many fields. Maximum number of fields is %d.", maxParts)
	}
	if field == "files" {
		return refuseUpload("File is not an instance of GradioUploadFile")
	}
	for {
		piece, last, err := body.piece()
		if err != nil {
			return badMultipart(err)
		}
		piece.free()
		if last {
			return nil
		}
	}
}

// write takes a file, hashed as it comes. One of another field than "files" nobody asked for.
func (in *intake) write(body *parts, field, filename string) error {
	if field != "files" {
		return in.copy(body, filename, nil)
	}
	name, err := in.nameOf(filename)
	if err != nil {
		return err
	}
	place := path.Join(in.below(in.storage.Staging), randomHex(16))
	file, err := in.root.OpenFile(place, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("take an upload: %w", err)
	}
	at := len(in.staged)
	in.staged = append(in.staged, staged{draft: place, name: name})
	to := &draft{file: file, sum: sha256.New()}
	to.sum.Write([]byte(in.files.Seed))
	err = in.copy(body, filename, to)
	if e := to.close(); err == nil && e != nil {
		err = fmt.Errorf("take an upload: %w", e)
	}
	in.staged[at].sum = hex.EncodeToString(to.sum.Sum(nil))
	return err
}

// draft is a file that grows; nil is one that nobody asked for.
type draft struct {
	file           *os.File
	sum            hash.Hash
	size, reserved int64
}

// reserve is how far ahead of what is written the file system is told of it: pages of a file that is known to
// grow cost it a fraction.
const reserve = 8 << 20

func (d *draft) write(p []byte) error {
	if d == nil {
		return nil
	}
	if d.size += int64(len(p)); d.size > d.reserved && len(p) > uploadChunk/2 { // no small file
		_ = unix.Fallocate(int(d.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, d.reserved, reserve) // not every file system can
		d.reserved += reserve
	}
	_, err := d.file.Write(p)
	return err
}

func (d *draft) hash(p []byte) {
	if d != nil {
		d.sum.Write(p)
	}
}

// close gives back what was reserved and not written.
func (d *draft) close() error {
	if d.reserved > d.size {
		_ = d.file.Truncate(d.size)
	}
	return d.file.Close()
}

// copy takes a part's content in three steps, each a piece or two behind the one before: to receive, to write, to hash.
func (in *intake) copy(body *parts, filename string, to *draft) error {
	received, written := make(chan filled, 2), make(chan filled, 2)
	broken, hashed := make(chan struct{}), make(chan struct{})
	var failed error
	go func() {
		defer close(written)
		for piece := range received {
			if failed == nil {
				if failed = to.write(piece.bytes()); failed != nil {
					close(broken)
				}
			}
			written <- piece
		}
	}()
	go func() {
		defer close(hashed)
		for piece := range written {
			to.hash(piece.bytes())
			piece.free()
		}
	}()
	err := in.fill(body, filename, received, broken)
	close(received)
	<-hashed
	if failed != nil {
		return fmt.Errorf("take an upload: %w", failed)
	}
	return err
}

// fill reads a part to its end; broken tells that nobody writes any more.
func (in *intake) fill(body *parts, filename string, received chan<- filled, broken <-chan struct{}) error {
	var size int64
	for {
		piece, last, err := body.piece()
		if err != nil {
			return badMultipart(err)
		}
		in.progress.add(filename, piece.n)
		if size += int64(piece.n); in.files.MaxSize != nil && size > *in.files.MaxSize {
			piece.free()
			return refuseUpload("File size exceeded maximum allowed size of %d bytes.", *in.files.MaxSize)
		}
		select {
		case received <- piece:
		case <-broken:
			piece.free()
			return nil
		}
		if last {
			return nil
		}
	}
}

// nameOf is the name that Gradio would give it (gradio/route_utils.py, upload_fn).
func (in *intake) nameOf(filename string) (string, error) {
	if filename == "" {
		return "tmp" + randomHex(5), nil
	}
	name := in.name(pythonBase(filename))
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return "", &nameError{name}
	}
	return name, nil
}

// place gives every file its place, in the order of the parts; a file that is there already has the same content.
func (in *intake) place() ([]string, error) {
	paths := make([]string, 0, len(in.staged))
	for i, s := range in.staged {
		folder := path.Join(in.below(in.storage.Uploads), s.sum)
		if err := in.root.MkdirAll(folder, 0o755); err != nil {
			return nil, fmt.Errorf("place an upload: %w", err)
		}
		if err := in.root.Rename(s.draft, path.Join(folder, s.name)); err != nil {
			return nil, fmt.Errorf("place an upload: %w", err)
		}
		in.staged[i].draft = ""
		paths = append(paths, path.Join(in.storage.Uploads, s.sum, s.name))
	}
	return paths, nil
}

// below is a folder's path as the root has it.
func (in *intake) below(folder string) string {
	relative, err := filepath.Rel(in.storage.Root, folder)
	if err != nil {
		return folder // the root refuses it
	}
	return relative
}

// clear removes what has no place.
func (in *intake) clear() {
	for _, s := range in.staged {
		if s.draft != "" {
			_ = in.root.Remove(s.draft) // what cannot go now, goes at the next start
		}
	}
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
