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

// Limits of an upload: Gradio's (gradio/route_utils.py, GradioMultiPartParser; python_multipart).
const (
	maxParts    = 1000 // with a file, and as many without
	maxHeaders  = 8    // per part
	maxHeader   = 4096 + 128
	maxBoundary = 256
	maxName     = 255 // bytes, the limit of file systems
	uploadChunk = 256 << 10
)

// uploadError refuses an upload in plain text, as Gradio does: 413 if the text names a maximum, else 400. A slow
// upload gets 408; Gradio has no such limit.
type uploadError struct{ text string }

func (e *uploadError) Error() string { return e.text }

// nameError refuses a name that no file can have.
type nameError struct{ name string }

func (e *nameError) Error() string { return "Invalid file name: " + e.name }

func refuseUpload(format string, args ...any) error {
	return &uploadError{fmt.Sprintf(format, args...)}
}

// upload stores files in the folder and under the names that Gradio would use (gradio/routes.py, upload_file). A
// request that fails or breaks off leaves no file behind.
//
// Deliberate differences: the host refuses a body that ends before its last boundary, of which Gradio keeps the
// complete parts. It also refuses a name that the file system cannot hold, for which Gradio returns a path to no
// file.
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
		return refuseDetail(c, http.StatusBadRequest, "Invalid content type.")
	}
	paths, err := h.receive(c, f, params)
	var refused *uploadError
	var name *nameError
	switch {
	case errors.As(err, &name):
		return refuseDetail(c, http.StatusBadRequest, name.Error())
	case errors.As(err, &refused):
		status := http.StatusBadRequest
		if refused == errTooSlow {
			status = http.StatusRequestTimeout
		}
		if strings.Contains(refused.text, "maximum allowed size") {
			status = http.StatusRequestEntityTooLarge
		}
		allowOrigin(c)
		return refuseText(c, status, refused.text)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		h.config.Logger.Error("upload failed", zap.String("space", h.config.Space), zap.Error(err))
		return echo.NewHTTPError(http.StatusInsufficientStorage, "The disk of this host is full.")
	case err != nil:
		return err
	}
	allowOrigin(c)
	return c.JSONBlob(http.StatusOK, mustJSON(paths))
}

// receive reads all parts before it moves any file into place.
func (h *Handler) receive(c call, f *queue.Files, params map[string]string) (paths []string, err error) {
	boundary, ok := params["boundary"]
	if !ok || boundary == "" {
		return nil, refuseUpload("Missing boundary in multipart.")
	}
	if len(boundary) > maxBoundary {
		return nil, refuseUpload("Could not parse multipart request: the boundary is longer than %d bytes.", maxBoundary)
	}
	root, err := os.OpenRoot(h.storage.Load().Root)
	if err != nil {
		return nil, fmt.Errorf("receive upload: %w", err)
	}
	defer root.Close()
	in := &intake{
		root: root, storage: *h.storage.Load(), files: f, rename: namingOf(f),
		progress: h.progress.track(c.QueryParam("upload_id")),
	}
	defer in.removeDrafts()
	defer in.progress.end()
	body := newPartReader(c.Request().Body, boundary)
	defer body.close()
	if err := in.read(body); err != nil {
		return nil, err
	}
	return in.publish()
}

var errTooSlow = &uploadError{"The upload came too slowly."}

var errHeaderSize = refuseUpload("Headers exceeded maximum allowed size.")

// intake is one upload under way.
type intake struct {
	root     *os.Root
	storage  Storage
	files    *queue.Files
	rename   naming
	progress *tracker

	staged                []staged
	fileParts, fieldParts int
}

// staged is a complete file in the staging folder, which is never served.
type staged struct{ draft, sum, name string }

func (in *intake) read(body *partReader) error {
	for {
		header, err := body.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return badMultipart(err)
		}
		if err := in.readPart(header, body); err != nil {
			return err
		}
	}
}

func badMultipart(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) { // set by the server (server/body.go)
		return errTooSlow
	}
	if errors.Is(err, errHeaderSize) {
		return err
	}
	return refuseUpload("Could not parse multipart request: %s", err)
}

func (in *intake) readPart(header textproto.MIMEHeader, body *partReader) error {
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
		return in.skipField(body, field)
	}
	if in.fileParts++; in.fileParts > maxParts {
		return refuseUpload("Too many files. Maximum number of files is %d.", maxParts)
	}
	return in.writeFile(body, field, safeDecode(filename))
}

// skipField discards a part without a file.
func (in *intake) skipField(body *partReader, field string) error {
	if in.fieldParts++; in.fieldParts > maxParts {
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
		piece.release()
		if last {
			return nil
		}
	}
}

// writeFile stores a file and hashes it while it arrives. A file of another field than "files" is not requested and
// is discarded.
func (in *intake) writeFile(body *partReader, field, filename string) error {
	if field != "files" {
		return in.copyPart(body, filename, nil)
	}
	name, err := in.nameOf(filename)
	if err != nil {
		return err
	}
	draftPath := path.Join(in.relative(in.storage.Staging), randomHex(16))
	file, err := in.root.OpenFile(draftPath, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("receive upload: %w", err)
	}
	at := len(in.staged)
	in.staged = append(in.staged, staged{draft: draftPath, name: name})
	to := &draft{file: file, sum: sha256.New()}
	to.sum.Write([]byte(in.files.Seed))
	err = in.copyPart(body, filename, to)
	if e := to.close(); err == nil && e != nil {
		err = fmt.Errorf("receive upload: %w", e)
	}
	in.staged[at].sum = hex.EncodeToString(to.sum.Sum(nil))
	return err
}

// draft is a file that grows. nil stands for a file that is discarded.
type draft struct {
	file           *os.File
	sum            hash.Hash
	size, reserved int64
}

// reserve is the size by which the file system preallocates a growing file: allocating pages of a file that is known
// to grow costs a fraction.
const reserve = 8 << 20

func (d *draft) write(p []byte) error {
	if d == nil {
		return nil
	}
	if d.size += int64(len(p)); d.size > d.reserved && len(p) > uploadChunk/2 { // not for a small file
		_ = unix.Fallocate(int(d.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, d.reserved, reserve) // not supported by every file system
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

// close releases space that was preallocated and not written.
func (d *draft) close() error {
	if d.reserved > d.size {
		_ = d.file.Truncate(d.size)
	}
	return d.file.Close()
}

// copyPart processes a part's content in three concurrent steps: receive, write, hash. Each step is a piece or two
// behind the previous one.
func (in *intake) copyPart(body *partReader, filename string, to *draft) error {
	received, written := make(chan chunkPiece, 2), make(chan chunkPiece, 2)
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
			piece.release()
		}
	}()
	err := in.receivePart(body, filename, received, broken)
	close(received)
	<-hashed
	if failed != nil {
		return fmt.Errorf("receive upload: %w", failed)
	}
	return err
}

// receivePart reads a part to its end. broken is closed when writing has failed.
func (in *intake) receivePart(body *partReader, filename string, received chan<- chunkPiece, broken <-chan struct{}) error {
	var size int64
	for {
		piece, last, err := body.piece()
		if err != nil {
			return badMultipart(err)
		}
		in.progress.add(filename, piece.n)
		if size += int64(piece.n); in.files.MaxSize != nil && size > *in.files.MaxSize {
			piece.release()
			return refuseUpload("File size exceeded maximum allowed size of %d bytes.", *in.files.MaxSize)
		}
		select {
		case received <- piece:
		case <-broken:
			piece.release()
			return nil
		}
		if last {
			return nil
		}
	}
}

// nameOf returns the name that Gradio would give the file (gradio/route_utils.py, upload_fn).
func (in *intake) nameOf(filename string) (string, error) {
	if filename == "" {
		return "tmp" + randomHex(5), nil
	}
	name := in.rename(pythonBase(filename))
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return "", &nameError{name}
	}
	return name, nil
}

// publish moves every file to its final path, in the order of the parts. An existing file at that path has the same
// content.
func (in *intake) publish() ([]string, error) {
	paths := make([]string, 0, len(in.staged))
	for i, s := range in.staged {
		folder := path.Join(in.relative(in.storage.Uploads), s.sum)
		if err := in.root.MkdirAll(folder, 0o755); err != nil {
			return nil, fmt.Errorf("move upload into place: %w", err)
		}
		if err := in.root.Rename(s.draft, path.Join(folder, s.name)); err != nil {
			return nil, fmt.Errorf("move upload into place: %w", err)
		}
		in.staged[i].draft = ""
		paths = append(paths, path.Join(in.storage.Uploads, s.sum, s.name))
	}
	return paths, nil
}

// relative returns a folder's path below the root.
func (in *intake) relative(folder string) string {
	relative, err := filepath.Rel(in.storage.Root, folder)
	if err != nil {
		return folder // os.Root refuses it
	}
	return relative
}

// removeDrafts removes the files that were not moved into place.
func (in *intake) removeDrafts() {
	for _, s := range in.staged {
		if s.draft != "" {
			_ = in.root.Remove(s.draft) // a remaining file is removed at the next start
		}
	}
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
