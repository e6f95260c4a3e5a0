package shelf_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
	"spacehost/queue"
)

// TestProgressSendsHeartbeats: an upload that stalls sends nothing but signs of life. Other ids wait for their upload, then there is
// none.
func TestProgressSendsHeartbeats(t *testing.T) {
	_, storage := newFileHost(t)
	s := shelftest.New(t, shelf.Config{Storage: storage, Heartbeat: 10 * time.Millisecond})
	known := shelf.Call{Native: true, Files: &queue.Files{Uploads: storage.Uploads, Names: map[string]string{"a#.txt": "a#.txt"}}}
	h := newHost(t, s, known)
	body, sending := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if got, err := h.client.Post(h.url+"/upload?upload_id=stalls", "multipart/form-data; boundary=B", body); err == nil {
			got.Body.Close()
		}
	}()
	if _, err := io.WriteString(sending, shelftest.Part("files", "a.txt", "x")); err != nil {
		t.Fatal(err)
	}
	got, err := h.client.Get(h.url + "/upload_progress?upload_id=stalls")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	want := "data: {\"msg\": \"heartbeat\"}\n\n"
	first := make([]byte, 2*len(want))
	if _, err := io.ReadFull(got.Body, first); err != nil || string(first) != want+want || got.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" ||
		got.Header.Get("X-Accel-Buffering") != "no" || got.Header.Get("Access-Control-Allow-Origin") != "any" {
		t.Errorf("got %q, %v, %v", first, err, got.Header)
	}
	if _, err := io.WriteString(sending, "--B--\r\n"); err != nil {
		t.Fatal(err)
	}
	sending.Close()
	<-ended
	if rest, err := io.ReadAll(got.Body); err != nil || !strings.HasSuffix(string(rest), "data: {\"msg\": \"done\"}\n\n") {
		t.Errorf("got %q, %v", rest, err)
	}
}

// TestProgressOfNoUpload: Gradio 4 sends an empty stream where later ones refuse. An id that is missing is Gradio's to word.
func TestProgressOfNoUpload(t *testing.T) {
	_, storage := newFileHost(t)
	s := shelftest.New(t, shelf.Config{Storage: storage})
	for empty, want := range map[bool]answer{true: {status: http.StatusOK}, false: {status: http.StatusNotFound, body: "Upload not found"}} {
		t.Run(want.body, func(t *testing.T) {
			t.Parallel()
			files := &queue.Files{Uploads: storage.Uploads, Names: map[string]string{"a#.txt": "a#.txt"}}
			h := newHost(t, s, shelf.Call{Native: true, Files: files, EmptyProgress: empty})
			if got := h.get("/upload_progress?upload_id=none"); got.status != want.status || got.body != want.body {
				t.Errorf("got %d %q, want %d %q", got.status, got.body, want.status, want.body)
			}
			if got := h.get("/upload_progress"); got.status != http.StatusTeapot {
				t.Errorf("without an id: got %d %s", got.status, got.body)
			}
		})
	}
}
