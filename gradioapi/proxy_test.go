package gradioapi_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/internal/web"
	"spacehost/queue"
)

func TestPassThroughForwardsTheRequest(t *testing.T) {
	h := newHost(t)
	for _, target := range []string{"/", "/config?__theme=dark", "/a%2Fb/c%20d?x=%2F&y", "/gradio_api/file=/tmp/a.png", "/gradio_api/file=https://example.org//x", "//double//slash", "/q?a=1;b=2&c=%zz"} {
		h.get(target)
		got := h.space.arrived()
		if last := got[len(got)-1]; last.target != target {
			t.Errorf("the Space got %s, want %s", last.target, target)
		}
	}
	if got := h.do(http.MethodPut, "/custom", "body", "X-Custom: 1"); got.body != "the Space answers /custom" {
		t.Errorf("got %s", got.body)
	}
	got := h.space.arrived()
	if last := got[len(got)-1]; last.method != http.MethodPut || last.body != "body" || last.header.Get("X-Custom") != "1" {
		t.Errorf("the Space got %+v", last)
	}
}

func TestPassThroughForwardsTheResponse(t *testing.T) {
	h := newHost(t)
	h.space.route("/logout", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://elsewhere/")
		w.Header().Add("Set-Cookie", "a=1; Path=/")
		w.Header().Add("Set-Cookie", "b=2; Path=/")
		w.WriteHeader(http.StatusFound)
	})
	h.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	got := h.get("/logout")
	if got.status != http.StatusFound || got.header.Get("Location") != "http://elsewhere/" || len(got.header.Values("Set-Cookie")) != 2 {
		t.Errorf("got %d %v", got.status, got.header)
	}
}

// TestNoTypeIsAdded: a response that the Space sends without Content-Type reaches the visitor without one, as Gradio's response to
// an unsupported file extension (gradio/routes.py, stream). The guess of net/http depends on timing, hence the number of requests.
func TestNoTypeIsAdded(t *testing.T) {
	h := newHost(t)
	h.space.route("/untyped", func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "Unsupported file extension")
	})
	for range 100 {
		got := h.get("/untyped")
		if values := got.header.Values("Content-Type"); len(values) != 0 || got.body != "Unsupported file extension" {
			t.Fatalf("Content-Type is %q, body %q", values, got.body)
		}
	}
}

// TestStreamsAreNotBufferedByProxies checks the headers of a stream, of the host's own and of one that the app sends. nginx buffers
// any other response.
func TestStreamsAreNotBufferedByProxies(t *testing.T) {
	h := newHost(t)
	h.space.route("/steps", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/event-stream") })
	h.space.route("/page", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") })
	h.finish(h.join(quick, "s", `["a"]`))
	for path, want := range map[string]string{api + "/queue/data?session_hash=s": "no", "/steps": "no", "/page": ""} {
		got := h.get(path)
		if got.header.Get("X-Accel-Buffering") != want || (got.header.Get("Cache-Control") == "no-cache, no-transform") != (want == "no") {
			t.Errorf("%s: %d %v, want X-Accel-Buffering %q", path, got.status, got.header, want)
		}
	}
}

// TestPassThroughHeaders: the host removes forged headers and sets its own.
func TestPassThroughHeaders(t *testing.T) {
	h := newHost(t)
	forged := []string{
		"X-Ip-Token: forged", "X-Spacehost-Key: forged", "X-Spacehost-Call: forged", "X-Spacehost-Anything: forged", "X-Authenticated: forged", "X-Hf-Authorization: forged",
		"X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: evil", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /x", "X-Forwarded-Server: evil", "X-Forwarded-User: root",
		"Forwarded: for=6.6.6.6", "X-Real-Ip: 6.6.6.6", "X-Gradio-Server: http://evil",
	}
	h.get("/config", append(forged, "Host: foo.example:99", "Authorization: Bearer hf_saved", "X-Gradio-User: app", "Te: trailers", "X-Hop: 1", "Connection: X-Hop")...)
	got := h.onlyRequest()
	for name, want := range map[string]string{
		"X-Spacehost-Key": spaceKey, "X-Ip-Token": "token-" + string(got.call()), "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "foo.example:99",
		"X-Gradio-User": "app", "Te": "trailers",
	} {
		if values := got.header.Values(name); len(values) != 1 || values[0] != want {
			t.Errorf("%s: got %q, want %s", name, values, want)
		}
	}
	for _, name := range []string{"X-Spacehost-Call", "X-Spacehost-Anything", "X-Authenticated", "X-Hf-Authorization", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-User", "Forwarded", "X-Real-Ip", "X-Gradio-Server", "Authorization", "X-Hop", "Connection"} {
		if values := got.header.Values(name); len(values) > 0 {
			t.Errorf("%s reached the Space: %q", name, values)
		}
	}
	if got.host != "foo.example:99" {
		t.Errorf("Host: got %s", got.host)
	}
}

func TestHubTokensDoNotReachTheSpace(t *testing.T) {
	h := newHost(t)
	for value, kept := range map[string]bool{
		"Bearer hf_abc": false, "bearer hf_abc": false, "Bearer  hf_abc": false, "Bearer sph_abc": false, "Bearer\thf_abc": false,
		"Bearer abc": true, "Basic aGZfOng=": true, "Bearer": true, "hf_abc": true, "Bearer xhf_": true,
	} {
		h.get("/config", "Authorization: "+value)
		got := h.space.arrived()
		if reached := got[len(got)-1].header.Get("Authorization"); (reached == value) != kept || !kept && reached != "" {
			t.Errorf("%q: the Space got %q, kept: %v", value, reached, kept)
		}
	}
	h.get("/config", "Authorization: Basic x", "Authorization: Bearer hf_second")
	got := h.space.arrived()
	if reached := got[len(got)-1].header.Values("Authorization"); len(reached) > 0 {
		t.Errorf("of two Authorization headers the Space got %q", reached)
	}
}

func TestRunnerAndSpaceReceiveTheSameHeaders(t *testing.T) {
	h := newHost(t)
	h.post(joinPath, `{"data":[],"fn_index":0,"session_hash":"s"}`, "X-Ip-Token: forged", "X-Gradio-Server: http://evil", "Authorization: Bearer hf_saved", "X-Forwarded-For: 6.6.6.6", "X-Spacehost-Key: k", "Upgrade: h2c", "X-Kept: 1")
	seen := map[string]string{}
	for _, pair := range h.started().Request.Headers {
		seen[pair[0]] += pair[1]
	}
	if seen["x-kept"] != "1" || seen["x-forwarded-for"] != "127.0.0.1" {
		t.Errorf("got %v", seen)
	}
	for _, name := range []string{"x-ip-token", "x-gradio-server", "authorization", "x-spacehost-key", "upgrade", "connection"} {
		if value, there := seen[name]; there {
			t.Errorf("%s reached the runner: %s", name, value)
		}
	}
}

// TestDirectCallPaysUntilItEnds: the token of a direct call is valid from the first to the last byte of the request.
func TestDirectCallPaysUntilItEnds(t *testing.T) {
	h := newHost(t)
	h.space.route(api+"/run/quick", func(w http.ResponseWriter, r *http.Request) {
		call := queue.EventID(strings.TrimPrefix(r.Header.Get("X-Ip-Token"), "token-"))
		fmt.Fprint(w, h.queue.Alive(call), r.Header.Values("X-Spacehost-Call"))
	})
	if got := h.post(api+"/run/quick", `{"data":["a"]}`); got.body != "true []" {
		t.Errorf("during the call: got %s", got.body)
	}
	eventually(t, "the end of the call", func() bool { return !h.queue.Alive(h.onlyRequest().call()) })
}

func TestResponsesAreStreamed(t *testing.T) {
	for _, length := range []string{"", "15"} { // chunked, and with a known length
		responseIsStreamed(t, length)
	}
}

func responseIsStreamed(t *testing.T, length string) {
	h := newHost(t)
	release := make(chan struct{})
	h.space.route("/stream", func(w http.ResponseWriter, r *http.Request) {
		if length != "" {
			w.Header().Set("Content-Length", length)
		}
		fmt.Fprint(w, "first\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
			fmt.Fprint(w, "second\n\n")
		case <-r.Context().Done():
		}
	})
	s := h.open("/stream")
	s.expect("", "first\n\n")
	close(release)
	s.expect("", "second\n\n")
	s.expectEnd()
}

func TestRequestsAreStreamed(t *testing.T) {
	h := newHost(t)
	first := make(chan string, 1)
	h.space.route(api+"/upload", func(w http.ResponseWriter, r *http.Request) {
		reader := bufio.NewReader(r.Body)
		line, _ := reader.ReadString('\n')
		first <- line
		rest, _ := io.ReadAll(reader)
		fmt.Fprintf(w, "%s, length %d", rest, r.ContentLength)
	})
	body, write := io.Pipe()
	go func() {
		fmt.Fprintln(write, "part one")
		receive(t, first, "the first part at the Space") // the second part is sent after it
		fmt.Fprint(write, "part two")
		write.Close()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if got := h.send(h.request(ctx, http.MethodPost, api+"/upload", body)); got.body != "part two, length -1" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestBrokenResponseStaysBroken(t *testing.T) {
	h := newHost(t)
	h.space.route("/broken", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half an ans")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if got := h.get("/broken"); got.body != "half an ans" || !errors.Is(got.err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q (%v)", got.body, got.err)
	}
}

func TestDisconnectCancelsTheRequest(t *testing.T) {
	h := newHost(t)
	ended := make(chan struct{})
	h.space.route("/long", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	})
	s := h.open("/long")
	s.expect("", "\n")
	s.close()
	receive(t, ended, "the end of the request at the Space")
}

func TestWebSocketsArePassedThrough(t *testing.T) {
	h := newHost(t)
	h.space.route("/ws", func(w http.ResponseWriter, r *http.Request) {
		conn, both, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(both, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		both.Flush()
		line, _ := both.ReadString('\n')
		fmt.Fprintf(both, "echo %s", line)
		both.Flush()
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(waitLimit))
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("got %+v (%v)", answer, err)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := reader.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("got %q (%v)", line, err)
	}
	if up := h.onlyRequest(); up.header.Get("Connection") != "Upgrade" || up.header.Get("Sec-Websocket-Key") != "k" || up.header.Get("X-Spacehost-Key") != spaceKey {
		t.Errorf("the Space got %v", up.header)
	}
}

func TestStartupEventsAreHidden(t *testing.T) {
	for name, set := range map[string]func(*setup){
		"no login": func(*setup) {}, "a login": with(func(m *queue.Manifest) { m.Native = false }),
	} {
		h := newHost(t, set)
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead} {
			if got := h.do(method, api+"/startup-events", ""); got.status != http.StatusNotFound {
				t.Errorf("%s, %s: got %d %s", name, method, got.status, got.body)
			}
		}
		if got := h.get(api + "/startup-events"); got.body != `{"detail":"Not Found"}` {
			t.Errorf("got %s", got.body)
		}
		h.expectNoRequests()
	}
}

// TestUnknownGradioIsPassedThrough: a Gradio version that the runner does not know keeps its own queue. Every request
// is passed through as a direct call.
func TestUnknownGradioIsPassedThrough(t *testing.T) {
	h := newHost(t, with(func(m *queue.Manifest) { *m = queue.Manifest{PassThrough: true, MaxThreads: 1} }))
	for _, path := range []string{"/gradio_api/queue/data?session_hash=s", "/gradio_api/queue/status", "/queue/status", "/gradio_api/heartbeat/s", "/gradio_api/call/x/y"} {
		if got := h.get(path); !strings.HasPrefix(got.body, "the Space answers ") {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
	for _, path := range []string{joinPath, api + "/cancel", api + "/reset", api + "/call/quick"} {
		h.post(path, `{"data":[],"fn_index":0,"session_hash":"s","event_id":"e"}`)
		got := h.space.arrived()
		if last := got[len(got)-1]; last.target != path || last.header.Get("X-Spacehost-Call") != "" || last.header.Get("X-Ip-Token") == "" {
			t.Errorf("%s: the Space got %+v", path, last)
		}
	}
}

func TestMountAndPrefix(t *testing.T) {
	const status = `{"msg":"estimation","event_id":null,"rank":null,"queue_size":0,"rank_eta":null}`
	for _, row := range []struct{ mount, prefix, native, passed string }{
		{"", "/gradio_api", "/gradio_api/queue/status", "/queue/status"},
		{"", "", "/queue/status", "/gradio_api/queue/status"}, // 4.x
		{"/sub", "/gradio_api", "/sub/gradio_api/queue/status", "/gradio_api/queue/status"},
		{"", "/gradio_api", "/gradio_api/queue/status/", "/gradio_apiqueue/status"},
	} {
		h := newHost(t, with(func(m *queue.Manifest) { m.Mount, m.Prefix = row.mount, row.prefix }))
		if got := h.get(row.native); got.body != status {
			t.Errorf("%s: got %d %s", row.native, got.status, got.body)
		}
		h.expectNoRequests()
		if got := h.get(row.passed); got.body != "the Space answers "+row.passed {
			t.Errorf("%s: got %d %s", row.passed, got.status, got.body)
		}
	}
}

func TestIdentityErrors(t *testing.T) {
	rows := []struct {
		err    error
		status int
		text   string
	}{
		{&people.UnknownTokenError{}, http.StatusUnauthorized, "spacehost token create"},
		{&token.Error{Reason: token.Ended}, http.StatusUnauthorized, `"Expired ZeroGPU proxy token"`},
		{&people.DelegationDeniedError{Space: "front"}, http.StatusForbidden, "forbidden the Space front"},
		{errors.New("the database is locked"), http.StatusInternalServerError, ""},
	}
	for _, row := range rows {
		h := newHost(t, func(s *setup) {
			s.config.Identify = func(*http.Request) (identity.Identity, error) { return identity.Identity{}, row.err }
		})
		if got := h.get("/config"); got.status != row.status || !strings.Contains(got.body, row.text) || strings.Contains(got.body, "database") {
			t.Errorf("%v: got %d %s", row.err, got.status, got.body)
		}
		h.expectNoRequests()
	}
}

func TestStartingSpaceReportsItsStage(t *testing.T) {
	h := newHost(t, neverStarted)
	h.space.down.Store(true)
	h.space.stage = [2]string{"BUILDING", "pip <installs> torch"}
	page := h.get("/", "Accept: text/html,application/xhtml+xml;q=0.9")
	if page.status != http.StatusServiceUnavailable || page.header.Get("Content-Type") != "text/html; charset=UTF-8" || page.header.Get("Retry-After") != "2" || page.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d with %v", page.status, page.header)
	}
	for _, want := range []string{`<meta http-equiv="refresh" content="2">`, "demo", "BUILDING", "pip &lt;installs&gt; torch"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("%s is not on the page %s", want, page.body)
		}
	}
	for _, got := range []answer{h.get("/config", "Accept: application/json"), h.post(joinPath, `{"data":[],"fn_index":0,"session_hash":"s"}`)} {
		if got.status != http.StatusServiceUnavailable || got.header.Get("Content-Type") != "application/json" || got.body != `{"detail":"BUILDING: pip <installs> torch"}` {
			t.Errorf("got %d %s with %v", got.status, got.body, got.header)
		}
	}
}

func TestStageWithoutAReason(t *testing.T) {
	h := newHost(t, neverStarted)
	h.space.down.Store(true)
	h.space.stage = [2]string{"APP_STARTING", ""}
	if got := h.get("/config"); got.body != `{"detail":"APP_STARTING: The Space is starting."}` {
		t.Errorf("got %s", got.body)
	}
}

// TestUnreachableSpace: a Space that has just crashed may still be reported as running.
func TestUnreachableSpace(t *testing.T) {
	h := newHost(t)
	h.space.stage = [2]string{"RUNNING", "the reason is unknown"}
	h.space.Close()
	got := h.get("/config")
	if got.status != http.StatusServiceUnavailable || got.body != `{"detail":"RUNNING: the reason is unknown"}` {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestRequestWaitsForARestart(t *testing.T) {
	h := newHost(t)
	h.space.down.Store(true)
	time.AfterFunc(100*time.Millisecond, func() { h.space.down.Store(false) })
	if got := h.get("/config"); got.status != http.StatusOK || got.body != "the Space answers /config" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestDisconnectEndsTheWaitForARestart(t *testing.T) {
	h := newHost(t)
	h.space.down.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var timeout *url.Error
	got, err := h.client.Do(h.request(ctx, http.MethodGet, "/config", nil))
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v and %v, want a client timeout", got, err)
	}
	h.expectNoRequests()
	began := time.Now()
	h.server.Close() // waits for its handlers
	if took := time.Since(began); took > waitLimit/2 {
		t.Errorf("the handler returned %s after the disconnect", took)
	}
}

// TestPassedResponsesAtAPublicAddress checks that a page of another site reads nothing at the host's own address, although Gradio
// believes that the request came to the public one.
func TestPassedResponsesAtAPublicAddress(t *testing.T) {
	h := newHost(t)
	h.space.route("/page", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		_, _ = w.Write([]byte(r.Host))
	})
	public, received := h.server.Config.Handler, strings.TrimPrefix(h.url, "http://")
	h.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		public.ServeHTTP(w, web.AtAddress(r, web.Address{Scheme: "https", Host: "hello.lab.example"}))
	})
	for _, row := range []struct{ host, origin, want string }{
		{received, "https://evil.example", ""}, {received, "https://hello.lab.example", "https://hello.lab.example"}, {"hello.lab.example", "https://evil.example", "https://evil.example"},
	} {
		got := h.get("/page", "Host: "+row.host, "Origin: "+row.origin)
		if got.body != "hello.lab.example" || got.header.Get("Access-Control-Allow-Origin") != row.want {
			t.Errorf("%s reads at %s: %s, allowed %q, want %q", row.origin, row.host, got.body, got.header.Get("Access-Control-Allow-Origin"), row.want)
		}
	}
}
