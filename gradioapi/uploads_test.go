package gradioapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"spacehost/gradioapi"
	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
	"spacehost/queue"
)

// newUploadHost is a file host that marks uploads. The header X-Visitor is the browser of a request.
func newUploadHost(t *testing.T, change ...func(*setup)) (*host, shelf.Storage) {
	t.Helper()
	_, storage := newFileHost(t)
	storage.Marks = storage.Root + "/uploaded"
	files := &queue.Files{Uploads: storage.Uploads, Seed: "seed", Names: map[string]string{"a#.txt": "a#.txt"}, Ranges: true}
	return newHost(t, append([]func(*setup){func(s *setup) {
		s.files.Storage, s.manifest.Files = storage, files
		s.config.SessionOwner = func(r *http.Request) gradioapi.SessionOwner {
			return gradioapi.SessionOwner{Visitor: r.Header.Get("X-Visitor")}
		}
	}}, change...)...), storage
}

// sent uploads a file for a visitor and returns its path.
func (h *host) sent(visitor, content string) string {
	h.Helper()
	r, err := http.NewRequest(http.MethodPost, h.url+api+"/upload", strings.NewReader(shelftest.Part("files", "a.txt", content)+"--B--\r\n"))
	if err != nil {
		h.Fatal(err)
	}
	r.Header.Set("Content-Type", "multipart/form-data; boundary=B")
	r.Header.Set("X-Visitor", visitor)
	answer, err := h.client.Do(r)
	if err != nil {
		h.Fatal(err)
	}
	defer answer.Body.Close()
	var paths []string
	if err := json.NewDecoder(answer.Body).Decode(&paths); err != nil || answer.StatusCode != http.StatusOK || len(paths) != 1 {
		h.Fatalf("upload: %s %v %v", answer.Status, paths, err)
	}
	return paths[0]
}

// unreferenced returns the contents of the files of the uploads that no open Session refers to, in their order.
func (h *host) unreferenced(storage shelf.Storage) (contents []string) {
	h.Helper()
	all, err := h.handler.Unreferenced(false)
	if err != nil {
		h.Fatal(err)
	}
	for _, one := range all {
		found, err := filepath.Glob(filepath.Join(storage.Uploads, one.Name, "*"))
		if err != nil || len(found) != 1 {
			h.Fatalf("%v: %v %v", one, found, err)
		}
		text, err := os.ReadFile(found[0])
		if err != nil {
			h.Fatal(err)
		}
		contents = append(contents, string(text))
	}
	return contents
}

func wantTexts(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestUploadsOfClosedSessions uploads files in three ways: for a browser whose page is open, for a call of an open Session, and for
// no Session at all. Only the last one can go, and the others once their Sessions have closed.
func TestUploadsOfClosedSessions(t *testing.T) {
	h, storage := newUploadHost(t)
	leaveB := h.queue.Visit("open-b")
	ask := func(session, visitor, path string) int {
		body := fmt.Sprintf(`{"data":[{"path":%q,"meta":{"_type":"gradio.FileData"}}],"fn_index":%d,"session_hash":%q}`, path, quick, session)
		r, err := http.NewRequest(http.MethodPost, h.url+api+"/queue/join", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Visitor", visitor)
		answer, err := h.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	lonely, page, called := h.sent("", "lonely"), h.sent("bea", "page"), h.sent("", "called")
	leaveC := h.queue.Visit("open-c")
	if status := ask("open-b", "bea", lonely); status != http.StatusOK { // b's page is open, and names another's file
		t.Fatal(status)
	}
	if status := ask("open-c", "", called); status != http.StatusOK {
		t.Fatal(status)
	}
	wantTexts(t, "all pages are open", h.unreferenced(storage))
	leaveC()
	for range 2 {
		wantTexts(t, "an Event is open", h.unreferenced(storage))
		h.finish(h.started().ID)
	}
	eventually(t, "c has left", func() bool { return len(h.unreferenced(storage)) == 1 })
	wantTexts(t, "c has left", h.unreferenced(storage), "called")
	leaveB()
	wantTexts(t, "the one used longest ago first", h.unreferenced(storage), "page", "lonely", "called")

	all, err := h.handler.Unreferenced(false)
	if err != nil {
		t.Fatal(err)
	}
	h.sent("", "called") // again: this use comes after the list
	for i, want := range []bool{true, true, false} {
		if removed, err := h.handler.RemoveUpload(all[i]); removed != want || err != nil {
			t.Errorf("%d: removed %v, %v, want %v", i, removed, err, want)
		}
	}
	for path, want := range map[string]bool{lonely: false, page: false, called: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if marks := shelftest.FilesBelow(t, storage.Marks); len(marks) != 1 || !strings.Contains(called, marks[0]) {
		t.Errorf("marks %v, want that of %s", marks, called)
	}
}

// TestUploadsAfterARestart checks that the host knows the time of an upload after its restart, and that files of the app go only
// while the Space is stopped: a running app may use those of an earlier start.
func TestUploadsAfterARestart(t *testing.T) {
	h, storage := newUploadHost(t)
	uploaded := h.sent("", "uploaded")
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(filepath.Join(storage.Marks, filepath.Base(filepath.Dir(uploaded))), old, old); err != nil {
		t.Fatal(err)
	}
	cached := filepath.Join(storage.Uploads, strings.Repeat("c", 64))
	for _, dir := range []string{cached, filepath.Join(storage.Uploads, "deep_links")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("cached"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, old.Add(time.Hour), old.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	again := gradioapi.New(gradioapi.Config{Space: "demo", Queue: h.queue, Upstream: h.space, Shelf: shelf.New(shelf.Config{Storage: storage})})
	defer again.Close()
	for stopped, want := range map[bool]int{false: 1, true: 2} {
		all, err := again.Unreferenced(stopped)
		if err != nil || len(all) != want || !all[0].Used.Equal(old) {
			t.Errorf("stopped %t: %v, %v, want %d, that of %s first", stopped, all, err, want, old)
		}
	}
	get, err := h.client.Get(h.url + api + "/file=" + uploaded)
	if err != nil {
		t.Fatal(err)
	}
	get.Body.Close()
	if all, err := h.handler.Unreferenced(false); err != nil || len(all) != 1 || time.Since(all[0].Used) > time.Minute {
		t.Errorf("after it was read (%s): %v, %v", get.Status, all, err)
	}
}

// TestUploadLimits checks the refusals of the host: a file that is too large, and a disk without room. Each is the same for an app
// that handles its files itself.
func TestUploadLimits(t *testing.T) {
	for name, own := range map[string]bool{"native": false, "passed through": true} {
		t.Run(name, func(t *testing.T) {
			var full error
			room := &fakeRoom{}
			h, storage := newUploadHost(t, func(s *setup) {
				s.files.Storage.MaxUpload = 1000
				s.files.ReserveUpload = func(int64) (shelf.Room, error) { return room, full }
				if own {
					s.manifest.Files.Expires = true
				}
			})
			h.space.route(api+"/upload", teapot)
			large := strings.Repeat("x", 1001)
			if own {
				large = strings.Repeat("x", 2<<20)
			}
			status, text := h.upload(shelftest.Part("files", "a.txt", large) + "--B--\r\n")
			if status != http.StatusRequestEntityTooLarge || text != "File size exceeded maximum allowed size of 1000 bytes, the limit of this Space's host (upload_size)." {
				t.Errorf("got %d %q", status, text)
			}
			if status, text = h.upload(shelftest.Part("files", "a.txt", large[:1000]) + "--B--\r\n"); (status == http.StatusOK) == own || own && status != http.StatusTeapot {
				t.Errorf("got %d %q", status, text)
			}
			if got, want := room.stored.Load(), map[bool]int64{false: 1}[own]; got != want {
				t.Errorf("%d uploads were stored, want %d", got, want)
			}
			full = errors.New("The disk of this host is nearly full.")
			if status, text = h.upload(shelftest.Part("files", "a.txt", "x") + "--B--\r\n"); status != http.StatusInsufficientStorage || text != full.Error() {
				t.Errorf("got %d %q", status, text)
			}
			if left := shelftest.FilesBelow(t, storage.Staging); len(left) != 0 {
				t.Errorf("left in the staging folder: %v", left)
			}
		})
	}
}

// fakeRoom has room for so many bytes; 0: for any number.
type fakeRoom struct {
	bytes                   int64
	received, ended, stored atomic.Int64
}

func (r *fakeRoom) Received(n int64) error {
	if got := r.received.Add(n); r.bytes > 0 && got > r.bytes {
		return errors.New("This Space has no room for this upload.")
	}
	return nil
}

func (r *fakeRoom) End(stored bool) {
	if stored {
		r.stored.Add(1)
	}
	r.ended.Add(1)
}

// TestUploadOfUnknownSize checks that an upload that does not state its size is refused once there is no room for the rest.
func TestUploadOfUnknownSize(t *testing.T) {
	for name, own := range map[string]bool{"native": false, "passed through": true} {
		t.Run(name, func(t *testing.T) {
			room, sizes := &fakeRoom{bytes: 3 << 20}, make(chan int64, 1)
			h, storage := newUploadHost(t, func(s *setup) {
				s.files.ReserveUpload = func(size int64) (shelf.Room, error) { sizes <- size; return room, nil }
				s.manifest.Files.Expires = own
			})
			h.space.route(api+"/upload", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
			body := io.MultiReader(strings.NewReader(shelftest.Part("files", "a.txt", strings.Repeat("x", 32<<20)) + "--B--\r\n")) // hides its length
			r, err := http.NewRequest(http.MethodPost, h.url+api+"/upload", body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "multipart/form-data; boundary=B")
			answer, err := h.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			text, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != http.StatusInsufficientStorage || string(text) != "This Space has no room for this upload." {
				t.Errorf("got %s %q", answer.Status, text)
			}
			if size, got := <-sizes, room.received.Load(); size != -1 || got > 5<<20 {
				t.Errorf("reserved %d, and received %d bytes, want less than 5 MiB", size, got)
			}
			eventually(t, "the room is given back", func() bool { return room.ended.Load() == 1 && room.stored.Load() == 0 })
			if left := shelftest.FilesBelow(t, storage.Staging); len(left) != 0 {
				t.Errorf("left in the staging folder: %v", left)
			}
		})
	}
}

// TestPassedUploadIsMarked checks the paths in the answer of an app that handles its uploads itself. A folder from before the upload
// is the app's.
func TestPassedUploadIsMarked(t *testing.T) {
	room := &fakeRoom{}
	h, storage := newUploadHost(t, func(s *setup) {
		s.manifest.Native = false
		s.files.ReserveUpload = func(int64) (shelf.Room, error) { return room, nil }
	})
	folder, ofApp := filepath.Join(storage.Uploads, strings.Repeat("a", 64)), filepath.Join(storage.Uploads, strings.Repeat("b", 64))
	if err := os.MkdirAll(ofApp, 0o755); err != nil {
		t.Fatal(err)
	}
	h.space.route(api+"/upload", func(w http.ResponseWriter, _ *http.Request) {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode([]string{filepath.Join(folder, "a.txt"), filepath.Join(ofApp, "a.txt"), "/etc/passwd", filepath.Join(storage.Uploads, "..", "x")})
	})
	if status, text := h.upload(shelftest.Part("files", "a.txt", "x") + "--B--\r\n"); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	wantTexts(t, "marks", shelftest.FilesBelow(t, storage.Marks), strings.Repeat("a", 64))
	eventually(t, "the upload has ended", func() bool { return room.ended.Load() == 1 })
	if room.stored.Load() != 1 {
		t.Error("it does not count as stored")
	}
}

// TestUploadsBehindALink checks that a Space that replaces Gradio's folder by a link cannot make the host remove other files.
func TestUploadsBehindALink(t *testing.T) {
	h, storage := newUploadHost(t)
	uploaded := h.sent("", "uploaded")
	all, err := h.handler.Unreferenced(false)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	elsewhere := filepath.Join(t.TempDir(), filepath.Base(storage.Uploads))
	if err := os.Rename(storage.Uploads, elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, storage.Uploads); err != nil {
		t.Fatal(err)
	}
	if removed, err := h.handler.RemoveUpload(all[0]); removed || err == nil {
		t.Errorf("removed %v, %v", removed, err)
	}
	if _, err := h.handler.Unreferenced(true); err == nil {
		t.Error("a link out of the Space's folders is listed")
	}
	if _, err := os.Stat(uploaded); err != nil {
		t.Error(err)
	}
}

// TestUploadEqualToAFileOfTheApp checks that a visitor's upload of a file that the app has cached leaves the folder the app's: it
// stays while the Space runs, and while the folder changes.
func TestUploadEqualToAFileOfTheApp(t *testing.T) {
	h, storage := newUploadHost(t)
	folder := filepath.Dir(h.sent("", "shared"))
	mark := filepath.Join(storage.Marks, filepath.Base(folder))
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	again, _ := newUploadHost(t, func(s *setup) { s.files.Storage, s.manifest.Files.Uploads = storage, storage.Uploads })
	if second := filepath.Dir(again.sent("", "shared")); second != folder {
		t.Fatalf("stored in %s and %s", folder, second)
	}
	if _, err := os.Stat(mark); !os.IsNotExist(err) {
		t.Errorf("the app's folder is marked: %v", err)
	}
	wantTexts(t, "while the Space runs", again.unreferenced(storage))
	all, err := again.handler.Unreferenced(true)
	if err != nil || len(all) != 1 || !all[0].ByApp {
		t.Fatal(all, err)
	}
	earlier := all[0]
	earlier.Used = earlier.Used.Add(-time.Minute)
	for i, want := range []bool{false, true} {
		if removed, err := again.handler.RemoveUpload([]shelf.Upload{earlier, all[0]}[i]); removed != want || err != nil {
			t.Errorf("%d: removed %v, %v, want %v", i, removed, err, want)
		}
	}
}
