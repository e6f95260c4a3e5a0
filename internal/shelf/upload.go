package shelf

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"net/textproto"
	"os"
	"path"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/internal/pytext"
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
func (s *Shelf) upload(c call) error {
	room := roomKeeper{s.config.Space, s.config.ReserveUpload, s.config.Logger}
	return room.with(c, s.uploadWithRoom)
}

func (s *Shelf) uploadWithRoom(c call) (stored bool, err error) {
	f := s.files(c)
	if f == nil || f.Expires || namingOf(f) == nil || !isUTF8Form(c.r) {
		return s.passUpload(c), nil
	}
	kind, params := pytext.ParseOptions(c.r.Header.Get("Content-Type"))
	if kind != "multipart/form-data" {
		c.allowOrigin()
		c.refuseDetail(http.StatusBadRequest, "Invalid content type.")
		return false, nil
	}
	paths, err := s.receive(c, f, params)
	var refused *uploadError
	var name *nameError
	switch {
	case errors.As(err, &name):
		c.allowOrigin()
		c.refuseDetail(http.StatusBadRequest, name.Error())
		return false, nil
	case errors.As(err, &refused):
		status := http.StatusBadRequest
		if refused == errTooSlow {
			status = http.StatusRequestTimeout
		}
		if strings.Contains(refused.text, "maximum allowed size") {
			status = http.StatusRequestEntityTooLarge
		}
		s.config.Logger.Info("upload refused", zap.String("space", s.config.Space), zap.Error(refused))
		c.allowOrigin()
		c.refuseText(status, refused.text)
		return false, nil
	case err != nil:
		return false, err
	}
	c.allowOrigin()
	c.answer(http.StatusOK, "application/json", pytext.JSON(paths))
	return true, nil
}

// receive reads all parts before it moves any file into place.
func (s *Shelf) receive(c call, f *queue.Files, params map[string]string) (paths []string, err error) {
	boundary, ok := params["boundary"]
	if !ok || boundary == "" {
		return nil, refuseUpload("Missing boundary in multipart.")
	}
	if len(boundary) > maxBoundary {
		return nil, refuseUpload("Could not parse multipart request: the boundary is longer than %d bytes.", maxBoundary)
	}
	storage := s.storage.Load()
	root, err := os.OpenRoot(storage.Root)
	if err != nil {
		return nil, fmt.Errorf("receive upload: %w", err)
	}
	defer root.Close()
	in := &intake{
		root: root, storage: storage, files: f, rename: namingOf(f), uploads: &s.uploads, by: c.Owner,
		progress: s.progress.track(c.r.URL.Query().Get("upload_id")),
	}
	defer in.removeDrafts()
	defer in.progress.end()
	body := newPartReader(c.r.Body, boundary)
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
	storage  *Storage
	files    *queue.Files
	rename   naming
	uploads  *uploads
	by       string // owner
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
	if errors.Is(err, errHeaderSize) || errors.As(err, &RoomError{}) {
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
	_, params := pytext.ParseOptions(header.Get("Content-Disposition"))
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
	draftPath := path.Join(in.storage.relative(in.storage.Staging), randomHex(16))
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
		size += int64(piece.n)
		if err := in.checkSize(size); err != nil {
			piece.release()
			return err
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

// checkSize refuses a file that has grown above the limit of the app, in Gradio's words, or above that of the host.
func (in *intake) checkSize(size int64) error {
	switch {
	case in.files.MaxSize != nil && size > *in.files.MaxSize:
		return refuseUpload("File size exceeded maximum allowed size of %d bytes.", *in.files.MaxSize)
	case in.storage.MaxUpload > 0 && size > in.storage.MaxUpload:
		return aboveUploadLimit(in.storage.MaxUpload)
	}
	return nil
}

// aboveUploadLimit is the refusal of a file above the limit of the host.
func aboveUploadLimit(limit int64) error {
	return refuseUpload("File size exceeded maximum allowed size of %d bytes, the limit of this Space's host (upload_size).", limit)
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
	in.uploads.mu.Lock() // no removal of an equal file comes between
	defer in.uploads.mu.Unlock()
	for i, s := range in.staged {
		folder := path.Join(in.storage.relative(in.storage.Uploads), s.sum)
		created, err := makeNew(in.root, folder)
		if err != nil {
			return nil, fmt.Errorf("move upload into place: %w", err)
		}
		if err := in.root.Rename(s.draft, path.Join(folder, s.name)); err != nil {
			return nil, fmt.Errorf("move upload into place: %w", err)
		}
		in.staged[i].draft = ""
		if in.storage.Marks != "" {
			if err := in.uploads.received(in.storage, s.sum, in.by, created); err != nil {
				return nil, err
			}
		}
		paths = append(paths, path.Join(in.storage.Uploads, s.sum, s.name))
	}
	return paths, nil
}

// makeNew creates a folder, and reports whether it did not exist.
func makeNew(root *os.Root, folder string) (created bool, err error) {
	if err := root.MkdirAll(path.Dir(folder), 0o755); err != nil {
		return false, err
	}
	err = root.Mkdir(folder, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
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
