package shelf_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
	"spacehost/queue"
)

// remote is a host with the files on a node of the test.
type remote struct {
	*host
	storage shelf.Storage
	files   *queue.Files
	node    *shelftest.Node
	shelf   *shelf.Remote
}

func newRemote(t *testing.T, change ...func(*shelf.RemoteConfig)) *remote {
	t.Helper()
	storage, files := shelftest.Folders(t)
	storage.Marks = storage.Root + "/uploaded"
	r := &remote{storage: storage, files: files, node: shelftest.NewNode(t, shelf.New(shelf.Config{Storage: storage, Heartbeat: 10 * time.Millisecond}))}
	config := shelf.RemoteConfig{Space: "demo"}
	for _, c := range change {
		c(&config)
	}
	r.shelf = r.node.Remote(t, config)
	r.host = newHost(t, r.shelf, shelf.Call{Files: files, Native: true})
	return r
}

// eventually waits until a state without a notification is reached.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(20 * time.Second)
	for !reached() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s: not reached", what)
		}
	}
}

// expectNothingStored waits until the node has removed what an upload has left.
func (r *remote) expectNothingStored() {
	r.Helper()
	eventually(r.T, "nothing is left", func() bool {
		return len(shelftest.FilesBelow(r, r.storage.Staging))+len(shelftest.FilesBelow(r, r.storage.Uploads)) == 0
	})
}

const uploaded = "--B--\r\n"

// TestUploadOverACutConnection: the connection to the node ends after any number of bytes. The visitor reads an error, and nothing is
// stored in part.
func TestUploadOverACutConnection(t *testing.T) {
	r := newRemote(t)
	form := shelftest.Part("files", "whole.txt", "y") + shelftest.Part("files", "a.txt", strings.Repeat("x", 2<<20)) + uploaded
	for _, sent := range []int64{1, 500, 3000, 100_000, 1 << 20, 2 << 20} {
		r.node.CutAfter(sent)
		if status, text := r.upload(form); status != http.StatusServiceUnavailable || !strings.Contains(text, "The machine of this Space cannot be reached now.") {
			t.Errorf("cut after %d bytes: got %d %s", sent, status, text)
		}
		r.node.Cut()
		r.expectNothingStored()
	}
	r.node.CutAfter(0)
	if status, text := r.upload(form); status != http.StatusOK {
		t.Errorf("afterwards: got %d %s", status, text)
	}
}

// TestDownloadOverACutConnection: the visitor sees a broken response, and not the end of a file.
func TestDownloadOverACutConnection(t *testing.T) {
	r := newRemote(t)
	name := r.storage.Uploads + "/h/a.txt"
	writeFile(t, name, strings.Repeat("x", 64<<20))
	for _, header := range []string{"", "bytes=1000-"} {
		got := r.file(name, "Range", header)
		if _, err := io.ReadFull(got.Body, make([]byte, 1<<20)); err != nil || got.StatusCode/100 != 2 {
			t.Fatal(got.Status, err)
		}
		r.node.Cut()
		if n, err := io.Copy(io.Discard, got.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %d bytes more and %v, want a broken response", n, err)
		}
	}
}

// TestCancelledRequests: the cancel of a visitor ends the request at the node, and an upload leaves nothing.
func TestCancelledRequests(t *testing.T) {
	r := newRemote(t)
	name := r.storage.Uploads + "/h/a.txt"
	writeFile(t, name, strings.Repeat("x", 64<<20))
	got := r.file(name)
	if _, err := io.ReadFull(got.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if r.node.Conns() == 0 {
		t.Fatal("no connection to the node")
	}
	got.Body.Close()
	eventually(t, "the download has ended at the node", func() bool { return r.node.Conns() == 0 })
	if err := os.RemoveAll(filepath.Dir(name)); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	body, sending := io.Pipe()
	defer sending.Close()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/upload", body)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "multipart/form-data; boundary=B")
	var posting sync.WaitGroup
	posting.Go(func() {
		if got, err := r.client.Do(q); err == nil {
			got.Body.Close()
		}
	})
	if _, err := io.WriteString(sending, shelftest.Part("files", "a.txt", strings.Repeat("x", 1<<20))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a draft", func() bool { return len(shelftest.FilesBelow(t, r.storage.Staging)) == 1 })
	cancel()
	_ = sending.CloseWithError(context.Canceled) // otherwise the client may wait for the rest of the body
	posting.Wait()
	r.expectNothingStored()
	eventually(t, "the upload has ended at the node", func() bool { return r.node.Conns() == 0 })
}

// TestRefusalOfAnUnfinishedBody: a body that is too large and then stalls is refused without its end.
func TestRefusalOfAnUnfinishedBody(t *testing.T) {
	r := newRemote(t)
	limit := int64(1000)
	r.files.MaxSize = &limit
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 1000000000\r\n\r\n%s", shelftest.Part("files", "a", strings.Repeat("x", 400_000)))
	answer := make([]byte, len("HTTP/1.1 413"))
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 413" {
		t.Errorf("got %q, %v", answer, err)
	}
	r.expectNothingStored()
}

// TestUnreachableNode: requests fail with a sentence, calls with an error, and uses are noted later.
func TestUnreachableNode(t *testing.T) {
	r := newRemote(t)
	sum := r.sent("mine")
	all, err := r.shelf.Uploads(t.Context(), false)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	r.node.SetDown(true)
	if got := r.get("/file=" + r.storage.Uploads + "/" + sum + "/a.txt"); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || got.header.Get("Access-Control-Allow-Origin") != "any" {
		t.Errorf("got %d %s %v", got.status, got.body, got.header)
	}
	if got := r.get("/elsewhere"); got.status != http.StatusTeapot {
		t.Errorf("got %d %s, want the Space's own server", got.status, got.body)
	}
	if wrong, err := r.shelf.Check(t.Context(), r.files, []string{"/x"}); err == nil {
		t.Errorf("got %q, want an error", wrong)
	}
	r.note(sum, "s1")
	for what, err := range map[string]error{
		"Uploads": second(r.shelf.Uploads(t.Context(), false)),
		"Remove":  second(r.shelf.Remove(t.Context(), all[0])),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	r.node.SetDown(false)
	if removed, err := r.shelf.Remove(t.Context(), all[0]); removed || err != nil {
		t.Errorf("an upload that was used since: removed %t, %v", removed, err)
	}
	if all, err = r.shelf.Uploads(t.Context(), false); err != nil || len(all) != 1 || !slices.Equal(all[0].References.Sessions, []string{queue.SessionHash("s1").Digest()}) {
		t.Errorf("got %+v, %v", all, err)
	}
}

func second[T any](_ T, err error) error { return err }

// sent uploads a file, and returns the name of its folder.
func (r *remote) sent(content string) (sum string) {
	r.Helper()
	if status, text := r.upload(shelftest.Part("files", "a.txt", content) + uploaded); status != http.StatusOK {
		r.Fatal(status, text)
	}
	all := sha256.Sum256([]byte("seed" + content))
	return hex.EncodeToString(all[:])
}

// note is a message of a Session that names an upload.
func (r *remote) note(sum string, session queue.SessionHash) {
	text := fmt.Sprintf(`{"path":"%s/%s/a.txt"}`, strings.ReplaceAll(r.storage.Uploads, "/", `\/`), sum)
	r.shelf.NoteUses([]byte(text), func() queue.SessionHash { return session })
}

// TestNotedUses: a Remove that comes after a use finds it, and closed Sessions make room for others.
func TestNotedUses(t *testing.T) {
	var mu sync.Mutex
	closed := map[string]bool{}
	r := newRemote(t, func(c *shelf.RemoteConfig) {
		c.IsPresent = func(digest string) bool {
			mu.Lock()
			defer mu.Unlock()
			return !closed[digest]
		}
	})
	sum := r.sent("mine")
	sessions := func() []string {
		all, err := r.shelf.Uploads(t.Context(), false)
		if err != nil || len(all) != 1 || all[0].References == nil {
			t.Fatal(all, err)
		}
		return all[0].References.Sessions
	}
	r.note(sum, "") // of no Session
	for i := range 70 {
		all, err := r.shelf.Uploads(t.Context(), false)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		r.note(sum, queue.SessionHash(fmt.Sprint("s", i)))
		if removed, err := r.shelf.Remove(t.Context(), all[0]); removed || err != nil {
			t.Fatalf("%d: removed %t, %v", i, removed, err)
		}
	}
	if got := sessions(); len(got) != 64 {
		t.Errorf("%d Sessions, want 64", len(got))
	}
	mu.Lock()
	for i := range 10 {
		closed[queue.SessionHash(fmt.Sprint("s", i)).Digest()] = true
	}
	mu.Unlock()
	r.note(sum, "last")
	if got := sessions(); len(got) != 55 || !slices.Contains(got, queue.SessionHash("last").Digest()) {
		t.Errorf("%d Sessions, want 55 with the last one", len(got))
	}
	all, err := r.shelf.Uploads(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if removed, err := r.shelf.Remove(t.Context(), all[0]); !removed || err != nil {
		t.Errorf("removed %t, %v", removed, err)
	}
	r.expectNothingStored()
}

// TestRemoveOfAnotherFolder: a name that is no folder of Gradio's cache is refused.
func TestRemoveOfAnotherFolder(t *testing.T) {
	r := newRemote(t)
	writeFile(t, r.storage.Root+"/home/own.txt", "own")
	for _, name := range []string{"..", "", "../own.txt"} {
		if removed, err := r.shelf.Remove(t.Context(), shelf.Upload{Name: name, Used: time.Now()}); removed || err == nil {
			t.Errorf("%q: removed %t, %v", name, removed, err)
		}
	}
	if _, err := os.Stat(r.storage.Root + "/home/own.txt"); err != nil {
		t.Error(err)
	}
}

// TestManifestsOfARemote: static paths that come later count at once, many of them are no matter, and a node that has forgotten a
// manifest gets it again.
func TestManifestsOfARemote(t *testing.T) {
	r := newRemote(t)
	var paths []string
	for i := range 1000 {
		paths = append(paths, fmt.Sprintf("%s/app/static/%d", r.storage.Root, i))
	}
	wanted := []string{paths[0] + "/a.txt", paths[999] + "/a.txt"}
	for _, name := range wanted {
		writeFile(t, name, "static")
	}
	for round, allowed := range [][]string{nil, paths[:1], paths, paths[999:], nil} {
		if allowed != nil || round > 0 {
			r.files.SetStatic(allowed)
		}
		for i, name := range wanted {
			want := http.StatusTeapot
			if slices.Contains(allowed, paths[999*i]) {
				want = http.StatusOK
			}
			if got := r.file(name); got.StatusCode != want {
				t.Errorf("round %d, %s: got %s, want %d", round, name, got.Status, want)
			}
			wrong, err := r.shelf.Check(t.Context(), r.files, []string{name})
			if err != nil || (len(wrong) == 0) != (want == http.StatusOK) {
				t.Errorf("round %d, %s: got %q, %v", round, name, wrong, err)
			}
		}
	}
	for range 2 {
		for i := range 40 { // more than are kept
			f := &queue.Files{Uploads: r.storage.Uploads, Allowed: paths[i : i+1]}
			if wrong, err := r.shelf.Check(t.Context(), f, wanted[:1]); err != nil || (len(wrong) == 0) != (i == 0) {
				t.Errorf("%d: got %q, %v", i, wrong, err)
			}
		}
	}
}

// TestChecksOfManyPaths: many and long paths are checked in several calls, and keep their order.
func TestChecksOfManyPaths(t *testing.T) {
	r := newRemote(t)
	good := r.storage.Uploads + "/a.txt"
	writeFile(t, good, "x")
	var paths, want []string
	for i := range 100 {
		bad := fmt.Sprintf("/%d/%s\xff", i, strings.Repeat("y", i*2000))
		paths, want = append(paths, good, bad, strings.Repeat("/.", 100_000)+good), append(want, bad)
	}
	got, err := r.shelf.Check(t.Context(), r.files, paths)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %d paths, %v, want %d", len(got), err, len(want))
	}
}

// tapped keeps what the front sends.
type tapped struct {
	net.Conn
	mu   *sync.Mutex
	sent *bytes.Buffer
}

func (c tapped) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.sent.Write(p)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// TestHeadersStayAtTheFront: cookies, tokens and the address of a visitor do not reach the node.
func TestHeadersStayAtTheFront(t *testing.T) {
	storage, files := shelftest.Folders(t)
	node := shelftest.NewNode(t, shelf.New(shelf.Config{Storage: storage}))
	var mu sync.Mutex
	var sent bytes.Buffer
	r := shelf.NewRemote(shelf.RemoteConfig{Space: "demo", Dial: func(ctx context.Context) (net.Conn, error) {
		conn, err := node.Dial(ctx)
		return tapped{conn, &mu, &sent}, err
	}})
	t.Cleanup(r.Close)
	h := newHost(t, r, shelf.Call{Files: files, Native: true})
	writeFile(t, storage.Uploads+"/a.txt", "0123456789")
	got := h.get("/file="+storage.Uploads+"/a.txt", "Cookie", "secret", "Authorization", "secret", "X-Ip-Token", "secret", "X-Forwarded-For", "secret", "Range", "bytes=1-2")
	if got.status != http.StatusPartialContent || got.body != "12" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	mu.Lock()
	defer mu.Unlock()
	if text := sent.String(); strings.Contains(text, "secret") || !strings.Contains(text, "bytes=1-2") {
		t.Errorf("the front has sent %q", text)
	}
}

// TestServeEnds: the end of the context ends a request that is under way.
func TestServeEnds(t *testing.T) {
	storage, files := shelftest.Folders(t)
	writeFile(t, storage.Uploads+"/a.txt", strings.Repeat("x", 64<<20))
	s := shelf.New(shelf.Config{Storage: storage})
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	r := shelf.NewRemote(shelf.RemoteConfig{Dial: func(context.Context) (net.Conn, error) {
		front, node := net.Pipe()
		serving.Go(func() { shelf.Serve(ctx, node, func(string) *shelf.Shelf { return s }, nil) })
		return front, nil
	}})
	t.Cleanup(r.Close)
	h := newHost(t, r, shelf.Call{Files: files, Native: true})
	got := h.file(storage.Uploads + "/a.txt")
	if _, err := io.ReadFull(got.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	serving.Wait()
	if _, err := io.Copy(io.Discard, got.Body); err == nil {
		t.Error("the download goes on")
	}
}

// TestServeLogsPanics: a panic on the machine of the files is in its log, and the request fails.
func TestServeLogsPanics(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	r := shelf.NewRemote(shelf.RemoteConfig{Dial: func(context.Context) (net.Conn, error) {
		front, node := net.Pipe()
		serving.Go(func() { shelf.Serve(t.Context(), node, func(string) *shelf.Shelf { panic("broken") }, zap.New(core)) })
		return front, nil
	}})
	t.Cleanup(r.Close)
	if _, err := r.Check(t.Context(), &queue.Files{}, []string{"/a"}); err == nil {
		t.Error("the request succeeds")
	}
	serving.Wait()
	if all := logs.FilterMessageSnippet("broken").All(); len(all) == 0 {
		t.Errorf("the log has no entry of the panic: %v", logs.All())
	}
}
