package worker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/labstack/echo/v4"

	"spacehost/gradioapi"
	"spacehost/internal/identity"
	"spacehost/internal/proctree/proctreetest"
	"spacehost/internal/shelf"
	"spacehost/queue"
)

// linked is a Supervisor whose server is reached through a pipe in memory, which has no address, no deadline of the kernel and no
// descriptor: what a link to another machine may be.
type linked struct {
	*Supervisor
	connections *atomic.Int64
}

func (l linked) Upstream() (own gradioapi.Dialer, key string, ok bool) {
	own, key, ok = l.Supervisor.Upstream()
	if !ok {
		return nil, "", false
	}
	return linkedServer{own, l.connections}, key, true
}

type linkedServer struct {
	own         gradioapi.Dialer
	connections *atomic.Int64
}

func (s linkedServer) Dial(ctx context.Context) (net.Conn, error) {
	far, err := s.own.Dial(ctx)
	if err != nil {
		return nil, err
	}
	s.connections.Add(1)
	near, middle := net.Pipe()
	go func() { _, _ = io.Copy(middle, far); middle.Close() }()
	go func() { _, _ = io.Copy(far, middle); far.Close() }()
	return near, nil
}

// visited is a Space with the real Gradio behind gradioapi.Handler.
type visited struct {
	*world
	url, uploads string
	connections  atomic.Int64
}

func newVisited(t *testing.T) *visited {
	python := testPython(t)
	runnerDir, err := InstallRunner(filepath.Join(proctreetest.Root, "runner"))
	if err != nil {
		t.Fatal(err)
	}
	root := tempDir(t)
	v := &visited{uploads: filepath.Join(root, "home", "gradio")}
	storage := shelf.Storage{Root: root, Uploads: v.uploads, Staging: filepath.Join(root, "uploading"), Served: []string{filepath.Join(root, "home")}}
	for _, folder := range []string{storage.Uploads, storage.Staging} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	v.world = prepareWorld(t, func(c *SupervisorConfig) { local(c).Dir = appDir(t, "linked") })
	v.Prepare(python, runnerDir, pythonEnv(t, python, "GRADIO_TEMP_DIR="+v.uploads))
	v.run(t)
	handler := gradioapi.New(gradioapi.Config{
		Space: "test", Queue: v.queue, Upstream: linked{v.Supervisor, &v.connections}, Shelf: shelf.New(shelf.Config{Storage: storage}),
		Identify:  func(*http.Request) (identity.Identity, error) { return identity.Identity{Kind: identity.Local}, nil },
		SignToken: func(event queue.Event) string { return "token-" + string(event.ID) },
	})
	e := echo.New()
	handler.Register(e)
	host := httptest.NewServer(e)
	t.Cleanup(func() {
		host.CloseClientConnections()
		host.Close()
		handler.Close()
	})
	v.url = host.URL
	within(t, 3*patient, "the app is up", v.Ready())
	eventually(t, "its own routes are there", func() bool { return strings.Contains(v.printed(), "the routes are ready") })
	return v
}

// do returns the status and the body of a response.
func (v *visited) do(t *testing.T, method, path, kind, body string) (status int, text string) {
	t.Helper()
	response := v.open(t, method, path, kind, body)
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v after %q", method, path, err, all)
	}
	return response.StatusCode, string(all)
}

func (v *visited) open(t *testing.T, method, path, kind, body string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, v.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// TestSpaceBehindAPipe visits the real Gradio, whose server is reached through pipes only.
func TestSpaceBehindAPipe(t *testing.T) {
	v := newVisited(t)
	m, _ := v.queue.Manifest()
	t.Run("pages", func(t *testing.T) { v.testPages(t, m) })
	t.Run("a stream", v.testStream)
	t.Run("a WebSocket", v.testWebSocket)
	t.Run("uploads and calls", func(t *testing.T) { v.testUploads(t, m) })
	t.Run("a visitor leaves", func(t *testing.T) { v.testUnload(t, m) })
	t.Run("its exit", v.testExit)
}

func (v *visited) testPages(t *testing.T, m queue.Manifest) {
	if status, text := v.do(t, "GET", "/config", "", ""); status != http.StatusOK || !strings.Contains(text, `"version":"`+m.Gradio) {
		t.Errorf("/config: %d %.200s", status, text)
	}
	if status, text := v.do(t, "GET", "/", "", ""); status != http.StatusOK || !strings.Contains(text, "</html>") {
		t.Errorf("/: %d %.200s", status, text)
	}
	if v.connections.Load() == 0 {
		t.Error("no connection through a pipe")
	}
}

// testStream reads the beginning of a stream that does not end.
func (v *visited) testStream(t *testing.T) {
	response := v.open(t, "GET", "/beats", "", "")
	defer response.Body.Close()
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); line != "data: first\n" {
		t.Errorf("%s: %q, %v", response.Status, line, err)
	}
}

// testWebSocket sends two frames of text and reads the answers (RFC 6455, section 5.2).
func (v *visited) testWebSocket(t *testing.T) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(v.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", strings.TrimPrefix(v.url, "http://"))
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %+v, %v", response, err)
	}
	for _, text := range []string{"one", "two"} {
		frame := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...) // masked with zeros
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
		want := "\x81\x08echo " + text
		got := make([]byte, len(want))
		if _, err := io.ReadFull(reader, got); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

// testUploads uploads a file that the host stores, and one that the Space's own server stores, and calls the app with each.
func (v *visited) testUploads(t *testing.T, m queue.Manifest) {
	for content, kind := range map[string]string{"stored by the host": "multipart/form-data; boundary=B", "stored by the Space": "multipart/form-data; boundary=B; charset=latin-1"} {
		before := v.connections.Load()
		body := "--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.txt\"\r\n\r\n" + content + "\r\n--B--\r\n"
		status, text := v.do(t, "POST", m.Prefix+"/upload", kind, body)
		if status != http.StatusOK || !strings.HasPrefix(text, `["`+v.uploads+"/") {
			t.Fatalf("%s: %d %s", content, status, text)
		}
		if passed := v.connections.Load() > before; passed != strings.HasSuffix(content, "Space") {
			t.Errorf("%s: passed through %v", content, passed)
		}
		name := strings.Trim(text, `["]`)
		call := fmt.Sprintf(`{"data":[{"path":%q,"meta":{"_type":"gradio.FileData"}}]}`, name)
		status, text = v.do(t, "POST", m.Prefix+"/call/read", "application/json", call)
		event := strings.TrimSuffix(strings.TrimPrefix(text, `{"event_id":"`), `"}`)
		if status != http.StatusOK || len(event) != 32 {
			t.Fatalf("%s: %d %s", content, status, text)
		}
		if status, text = v.do(t, "GET", m.Prefix+"/call/read/"+event, "", ""); status != http.StatusOK || !strings.Contains(text, "event: complete\ndata: [\""+content+"\"]") {
			t.Errorf("%s: %d %s", content, status, text)
		}
		if status, text = v.do(t, "GET", m.Prefix+"/file="+name, "", ""); status != http.StatusOK || text != content {
			t.Errorf("%s: %d %q", content, status, text)
		}
	}
}

// testUnload opens a heartbeat and closes it: the host's own request lets the app notice it.
func (v *visited) testUnload(t *testing.T, m queue.Manifest) {
	response := v.open(t, "GET", m.Prefix+"/heartbeat/s", "", "")
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); line != "data: ALIVE\n" {
		t.Errorf("%s: %q, %v", response.Status, line, err)
	}
	response.Body.Close()
	eventually(t, "the app has unloaded the visitor", func() bool { return strings.Contains(v.printed(), "a visitor has left") })
}
