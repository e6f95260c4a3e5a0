package shelf_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
)

// ownServer plays the Space's own server for uploads. It answers with the path of a new folder once it has the whole body.
type ownServer struct {
	folder   string
	received atomic.Int64
	failed   atomic.Pointer[error]
}

func (o *ownServer) pass(w http.ResponseWriter, r *http.Request, answered func(*http.Response)) {
	n, err := io.Copy(io.Discard, r.Body)
	o.received.Add(n)
	if err != nil {
		o.failed.Store(&err)
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if err := os.MkdirAll(o.folder, 0o755); err != nil {
		panic(err)
	}
	text, _ := json.Marshal([]string{filepath.Join(o.folder, "a.txt")})
	response := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(text)))}
	answered(response)
	if _, err := io.Copy(w, response.Body); err != nil {
		panic(err)
	}
}

// TestPassedUploadOverALink: an upload that only the Space's own server can take reaches it whole, its paths are marked before the
// visitor has the answer, and the limit of the node holds. If the connection to the node ends, the upload fails.
func TestPassedUploadOverALink(t *testing.T) {
	storage, files := shelftest.Folders(t)
	storage.Marks, storage.MaxUpload = storage.Root+"/uploaded", 64<<20
	files.Expires = false
	node := shelftest.NewNode(t, shelf.New(shelf.Config{Storage: storage}))
	s := node.Remote(t, shelf.RemoteConfig{Space: "demo"})
	sum := strings.Repeat("a", 64)
	own := &ownServer{folder: storage.Uploads + "/" + sum}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(w, shelf.With(r, shelf.Call{Files: files, Pass: own.pass, Owner: "o"}, r.URL.Path)) // not native
	}))
	t.Cleanup(server.Close)
	send := func(size int, hidden bool) int {
		t.Helper()
		var body io.Reader = strings.NewReader(strings.Repeat("x", size))
		if hidden {
			body = io.MultiReader(body)
		}
		got, err := server.Client().Post(server.URL+"/upload", "multipart/form-data; boundary=B", body)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, got.Body)
		got.Body.Close()
		return got.StatusCode
	}
	for _, hidden := range []bool{false, true} {
		own.received.Store(0)
		if status := send(32<<20, hidden); status != http.StatusOK || own.received.Load() != 32<<20 {
			t.Errorf("got %d, and the Space %d bytes", status, own.received.Load())
		}
		if marks := shelftest.FilesBelow(t, storage.Marks); len(marks) != 1 || marks[0] != sum {
			t.Errorf("marks %v", marks)
		}
	}
	if status := send(66<<20, false); status != http.StatusRequestEntityTooLarge {
		t.Errorf("above the limit: got %d", status)
	}
	if status := send(66<<20, true); status != http.StatusBadGateway || !errors.As(*own.failed.Load(), new(*http.MaxBytesError)) {
		t.Errorf("above the limit, of unknown size: got %d, %v", status, *own.failed.Load())
	}
	node.CutAfter(2000)
	own.failed.Store(nil)
	if status := send(32<<20, true); status != http.StatusBadGateway || own.failed.Load() == nil {
		t.Errorf("over a cut connection: got %d", status)
	}
}

// failingBody ends with an error.
type failingBody struct {
	io.Reader
	err error
}

func (b *failingBody) Close() error { return nil }

func (b *failingBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

// TestErrorsOfBodies: the error of a visitor's body has the same answer with the files here and behind a link.
func TestErrorsOfBodies(t *testing.T) {
	for what, err := range map[string]error{
		"slow": os.ErrDeadlineExceeded, "wrapped": fmt.Errorf("read: %w", os.ErrDeadlineExceeded), "large": &http.MaxBytesError{Limit: 7}, "broken": io.ErrUnexpectedEOF,
		"other": errors.New("http: request body <too> strange"),
	} {
		var answers []string
		for _, remote := range []bool{false, true} {
			storage, files := shelftest.Folders(t)
			var s shelftest.Shelf = shelf.New(shelf.Config{Storage: storage})
			if remote {
				s = shelftest.Remote(t, shelf.Config{Storage: storage})
			}
			r := httptest.NewRequest(http.MethodPost, "/upload", &failingBody{strings.NewReader(shelftest.Part("files", "a.txt", "x")), err})
			r.Header.Set("Content-Type", "multipart/form-data; boundary=B")
			w := httptest.NewRecorder()
			s.ServeHTTP(w, shelf.With(r, shelf.Call{Files: files, Native: true}, "/upload"))
			answers = append(answers, fmt.Sprintln(w.Code, w.Header(), w.Body))
		}
		if answers[0] != answers[1] {
			t.Errorf("%s: here %s, behind a link %s", what, answers[0], answers[1])
		}
	}
}
