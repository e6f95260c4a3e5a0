package gradioapi_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"spacehost/queue"
)

func TestDataContainsOnlyDataFrames(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	s := h.data("s")
	if s.status != http.StatusOK || s.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("got %d %s", s.status, s.header)
	}
	h.started()
	odd := `{"msg":"log","event_id":"$ID","log":"1e-7 \u0000 é <b> \\n","level":"info","x":1E400,"x":NaN}` // spliced in unchanged
	h.queue.Message(event, queue.Message{Kind: queue.Log, Event: event, Raw: []byte(odd)})
	h.finish(event)
	s.expect(event, firstEstimation)
	s.expect("$ID", "data: "+odd+"\n\n")
	s.expect(event, completed, closeStream)
	s.expectEnd()
}

func TestLineBreakBecomesASpace(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	h.started()
	for _, raw := range []string{"{\"a\":\n1}", "{\"a\":\r1}"} {
		h.queue.Message(event, queue.Message{Kind: queue.Log, Event: event, Raw: []byte(raw)})
	}
	h.finish(event)
	s := h.data("s")
	s.expect(event, firstEstimation, "data: {\"a\": 1}\n\n", "data: {\"a\": 1}\n\n", completed, closeStream)
}

func TestDataSendsHeartbeats(t *testing.T) {
	h := newHost(t, func(s *setup) { s.config.Heartbeat = 20 * time.Millisecond })
	event := h.join(quick, "s", `["a"]`)
	s := h.data("s")
	beat := `data: {"msg":"heartbeat","event_id":null}` + "\n\n"
	s.expect(event, firstEstimation, beat, beat)
	h.finish(event)
	frames, err := s.remaining()
	frames = slices.DeleteFunc(frames, func(f string) bool { return f == beat })
	if want := []string{strings.ReplaceAll(completed, "$ID", string(event)), closeStream}; !slices.Equal(frames, want) || !errors.Is(err, io.EOF) {
		t.Errorf("got %q (%v), want %q", frames, err, want)
	}
}

func TestDataOfAnUnknownSessionBreaksOff(t *testing.T) {
	h := newHost(t)
	s := h.data("nosuch")
	if s.status != http.StatusOK || s.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("got %d %s", s.status, s.header)
	}
	s.expect("", notFound)
	s.expectBroken()
	h.expectNoRequests()
}

func TestDataWithoutSessionIsPassedThrough(t *testing.T) {
	h := newHost(t)
	if got := h.get(api + "/queue/data?session=s"); got.body != "the Space answers "+api+"/queue/data" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// TestOneCloseStreamPerSession: a stream that is open during two calls of a Session closes once, after the last.
func TestOneCloseStreamPerSession(t *testing.T) {
	h := newHost(t)
	first := h.join(quick, "s", `["a"]`)
	s := h.data("s")
	s.expect(first, firstEstimation)
	second := h.join(slow, "s", `["b"]`)
	s.expect(second, firstEstimation)
	h.finish(first)
	s.expect(first, completed)
	h.finish(second)
	s.expect(second, completed, closeStream)
	s.expectEnd()
	third := h.join(quick, "s", `["c"]`)
	h.finish(third)
	s = h.data("s")
	s.expect(third, firstEstimation, completed, closeStream)
	s.expectEnd()
}

// TestOpenStreamOfOlderGradiosIsDelayed: on an open stream the first Message of a call must not overtake the response
// to its join.
func TestOpenStreamOfOlderGradiosIsDelayed(t *testing.T) {
	for _, gradio := range []string{"4.44.1", "5.49.1"} {
		h := newHost(t, func(s *setup) { s.manifest.Gradio = gradio })
		first := h.join(slow, "s", `["a"]`)
		s := h.data("s")
		s.frame()
		began := time.Now()
		second := h.join(quick, "s", `["b"]`)
		h.finish(second)
		s.frame()
		s.frame()
		if took := time.Since(began); took < 50*time.Millisecond {
			t.Errorf("gradio %s: the last Message came %s after the join, want at least 50ms", gradio, took)
		}
		h.finish(first)
	}
}

func TestDisconnectLeavesTheSession(t *testing.T) {
	h := newHost(t)
	event := h.join(slow, "s", `["a"]`)
	waiting := h.join(slow, "s", `["b"]`)
	s := h.data("s")
	s.expect(event, firstEstimation)
	s.close()
	if got := receive(t, h.runner.gone, "the report of the disconnect"); !slices.Equal(got, []queue.EventID{event}) {
		t.Errorf("gone: got %v, want the running %s", got, event)
	}
	if h.queue.Session("s") != nil || h.queue.Size() != 0 {
		t.Errorf("got session %v and %d waiting events, want none", h.queue.Session("s"), h.queue.Size())
	}
	again := h.data("s")
	again.expect("", notFound)
	again.expectBroken()
	if h.queue.Alive(waiting) || !h.queue.Alive(event) {
		t.Error("want the running event alive and the waiting one gone")
	}
}

func TestOtherStreamOfALeftSessionBreaksOff(t *testing.T) {
	h := newHost(t)
	event := h.join(slow, "s", `["a"]`)
	one := h.data("s")
	one.expect(event, firstEstimation)
	other := h.data("s")
	one.close()
	other.expect("", notFound)
	other.expectBroken()
}

// TestTwoStreamsShareTheFrames: each frame arrives on one of the streams. The stream without close_stream stays open,
// as Gradio's does.
func TestTwoStreamsShareTheFrames(t *testing.T) {
	h := newHost(t)
	event := h.join(slow, "s", `["a"]`)
	one := h.data("s")
	one.expect(event, firstEstimation)
	other := h.data("s")
	frames := make(chan string, 22)
	for _, s := range []*stream{one, other} {
		go func() {
			for {
				frame, err := s.next()
				if err != nil {
					return
				}
				frames <- frame
			}
		}()
	}
	want := []string{strings.ReplaceAll(completed, "$ID", string(event)), closeStream}
	for n := range 20 {
		message := fmt.Sprintf(`{"msg":"log","event_id":"%s","log":"%d"}`, event, n)
		h.emit(event, message)
		want = append(want, "data: "+message+"\n\n")
	}
	h.finish(event)
	var all []string
	for range want {
		all = append(all, receive(t, frames, "the frames of both streams"))
	}
	slices.Sort(all)
	slices.Sort(want)
	if !slices.Equal(all, want) {
		t.Errorf("got  %q\nwant %q", all, want)
	}
}

func TestStreamsReportTheEndOfTheHost(t *testing.T) {
	h := newHost(t)
	event := h.join(slow, "s", `["a"]`)
	s := h.data("s")
	s.expect(event, firstEstimation)
	h.stopQueue()
	s.expect(event, `data: {"msg":"process_completed","event_id":"$ID","output":{"error":"The host has stopped. Send the call again when it answers.","duration":10,"visible":true,"title":"Space stopped"},"success":false,"title":"Space stopped","used_cache":null,"cache_duration":null,"avg_time":null}`+"\n\n", closeStream)
	s.expectEnd()
}

// readSlowly opens the stream of Session "s" and reads its beginning. The test reads the rest.
func (h *host) readSlowly(version string) *bufio.Reader {
	h.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s/queue/data?session_hash=s HTTP/%s\r\nHost: x\r\n\r\n", api, version)
	reader := bufio.NewReader(conn)
	if _, err := reader.ReadString('{'); err != nil {
		h.Fatal(err)
	}
	return reader
}

// TestSlowClientIsDisconnected: a client that does not read is disconnected, and its running call is reported as
// gone.
func TestSlowClientIsDisconnected(t *testing.T) {
	h := newHost(t, func(s *setup) { s.config.WriteTimeout = 100 * time.Millisecond })
	event := h.join(slow, "s", `["a"]`)
	h.started()
	h.readSlowly("1.1")
	big := fmt.Sprintf(`{"msg":"log","event_id":"$ID","log":"%s"}`, strings.Repeat("x", 1<<20))
	for range 32 { // more than the socket buffers hold
		h.emit(event, big)
	}
	if got := receive(t, h.runner.gone, "the report of the disconnect"); !slices.Equal(got, []queue.EventID{event}) {
		t.Errorf("gone: got %v, want %s", got, event)
	}
}

// TestSlowClientReceivesALargeResult: a client that reads a long frame slowly receives all of it.
func TestSlowClientReceivesALargeResult(t *testing.T) {
	const size = 24 << 20
	h := newHost(t, func(s *setup) { s.config.WriteTimeout = 250 * time.Millisecond })
	event := h.join(slow, "s", `["a"]`)
	h.started()
	reader := h.readSlowly("1.0")
	began := time.Now()
	h.emit(event, fmt.Sprintf(`{"msg":"log","event_id":"$ID","log":"%s"}`, strings.Repeat("x", size)))
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	got, some := 0, make([]byte, 1<<20)
	for got < size {
		n, err := io.ReadFull(reader, some)
		if got += n; err != nil {
			t.Fatalf("after %s and %d bytes: %v", time.Since(began), got, err)
		}
		<-pace.C
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("all bytes were read after %s, so the client was not slow", took)
	}
}

// returningListener accepts connections that can be returned. It records the bytes that they are returned with.
type returningListener struct {
	net.Listener
	early chan string
	read  *atomic.Int64 // bytes read by the host
}

func (l returningListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return returningConn{c, l}, err
}

type returningConn struct {
	net.Conn
	from returningListener
}

func (c returningConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.from.read.Add(int64(n))
	return n, err
}

func (c returningConn) Return(early []byte) bool {
	c.from.early <- string(early)
	return false // so that the host closes the connection
}

// returnCase is a client that opens a stream with header, sends early during the stream and next after it.
type returnCase struct {
	header, early, next string
	returned            bool
}

// TestStreamReturnsItsConnection: after its end a stream returns the connection for the client's next request. The
// client must have waited for the end and must not have requested a close. At the end of the host the connection is
// closed at once.
func TestStreamReturnsItsConnection(t *testing.T) {
	for name, row := range map[string]returnCase{
		"the next request":               {next: "GET /next HTTP/1.1", returned: true},
		"Connection: close":              {header: "Connection: close\r\n"},
		"a request during the stream":    {early: "GET /early HTTP/1.1\r\n", next: "Host: x"},
		"the client disconnects":         {next: "disconnect"},
		"the host ends after the stream": {next: "end"},
	} {
		t.Run(name, func(t *testing.T) { row.test(t) })
	}
}

func (row returnCase) test(t *testing.T) {
	early, read := make(chan string, 1), &atomic.Int64{}
	h := newHost(t, func(s *setup) {
		s.listener = func(l net.Listener) net.Listener { return returningListener{l, early, read} }
	})
	conn := row.readStream(h, read)
	switch row.next {
	case "disconnect":
		_ = conn.(*net.TCPConn).CloseWrite()
	case "end":
		h.handler.Close()
	default:
		_, _ = io.WriteString(conn, row.next) // the connection may be closed
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read from the connection: got %v, want its end", err)
	}
	select {
	case got := <-early:
		if !row.returned || !strings.HasPrefix(row.next, got) || got == "" {
			t.Errorf("the connection was returned with %q", got)
		}
	default:
		if row.returned {
			t.Error("the connection was not returned")
		}
	}
}

// readStream opens a stream, sends row.early during it and reads it to its end.
func (row returnCase) readStream(h *host, read *atomic.Int64) net.Conn {
	h.Helper()
	event := h.join(quick, "s", `["a"]`)
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(waitLimit))
	fmt.Fprintf(conn, "GET %s/queue/data?session_hash=s HTTP/1.1\r\nHost: x\r\n%s\r\n", api, row.header)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		h.Fatal(err)
	}
	if want := row.header != ""; response.Close != want {
		h.Errorf("the response closes the connection: %t, want %t", response.Close, want)
	}
	before := read.Load()
	if _, err := io.WriteString(conn, row.early); err != nil {
		h.Fatal(err)
	}
	eventually(h.T, "the early bytes read", func() bool { return read.Load() == before+int64(len(row.early)) })
	h.finish(event)
	if body, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(body), "close_stream") {
		h.Fatalf("got %q (%v)", body, err)
	}
	return conn
}

// TestStreamClosesItsConnection: if the server accepts no returned connection, the stream closes it and announces
// that in the response head. Otherwise a client would send its next request there and wait in vain.
func TestStreamClosesItsConnection(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	h.finish(event)
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s/queue/data?session_hash=s HTTP/1.1\r\nHost: x\r\n\r\n", api)
	_ = conn.SetReadDeadline(time.Now().Add(waitLimit))
	all, err := io.ReadAll(conn) // to the end of the connection
	head, body, _ := strings.Cut(string(all), "\r\n\r\n")
	if err != nil || !strings.Contains(head, "\r\nConnection: close") || !strings.HasSuffix(body, "\r\n0\r\n\r\n") {
		t.Errorf("got %q (%v)", all, err)
	}
}

// TestStreamOverHTTP10: HTTP/1.0 has no chunked encoding.
func TestStreamOverHTTP10(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	h.finish(event)
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s/queue/data?session_hash=s HTTP/1.0\r\nHost: x\r\n\r\n", api)
	_ = conn.SetReadDeadline(time.Now().Add(waitLimit))
	all, err := io.ReadAll(conn)
	_, body, _ := strings.Cut(string(all), "\r\n\r\n")
	want := strings.ReplaceAll(firstEstimation+completed+closeStream, "$ID", string(event))
	if err != nil || body != want {
		t.Errorf("got %q (%v), want %q", body, err, want)
	}
}

func TestStatusCountsWaitingEvents(t *testing.T) {
	h := newHost(t)
	for n := range 3 {
		got := h.get(api + "/queue/status")
		want := fmt.Sprintf(`{"msg":"estimation","event_id":null,"rank":null,"queue_size":%d,"rank_eta":null}`, max(0, n-1))
		if got.status != http.StatusOK || got.body != want || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("after %d joins: got %d %s, want %s", n, got.status, got.body, want)
		}
		h.join(slow, fmt.Sprint("s", n), `["a"]`)
	}
}

func TestCancelEndsExactlyOneEvent(t *testing.T) {
	h := newHost(t)
	running, waiting, next := h.join(slow, "s", `["a"]`), h.join(slow, "s", `["b"]`), h.join(slow, "s", `["c"]`)
	h.started()
	h.cancel("s", slow, waiting)
	h.cancel("s", slow, "nosuch")
	h.cancel("thief", slow, running)
	if len(h.runner.cancelled) > 0 {
		t.Error("the running event was cancelled with the waiting one") // as in Gradio: captures/v6/cancel_queued.txt
	}
	h.cancel("s", slow, running)
	if got := receive(t, h.runner.cancelled, "the cancel"); got != running {
		t.Errorf("got %s cancelled, want %s", got, running)
	}
	h.queue.Done(running, "cancelled", nil)
	if got := h.started(); got.ID != next {
		t.Errorf("got %s started, want %s", got.ID, next)
	}
	h.finish(next)
	frames, err := h.data("s").remaining()
	end := `data: {"msg":"process_completed","event_id":"%s","output":{},"success":true,"title":null,"used_cache":null,"cache_duration":null,"avg_time":null}` + "\n\n"
	want := []string{fmt.Sprintf(end, waiting), fmt.Sprintf(end, running), strings.ReplaceAll(completed, "$ID", string(next)), closeStream}
	if got := withoutEstimates(frames); !slices.Equal(got, want) || !errors.Is(err, io.EOF) {
		t.Errorf("got %q (%v)\nwant %q", got, err, want)
	}
}

func withoutEstimates(frames []string) []string {
	return slices.DeleteFunc(frames, func(f string) bool { return strings.HasPrefix(f, `data: {"msg":"estimation"`) })
}

// TestCancelAndResetValidation: an invalid cancel or reset is passed through, and the Space words the 422.
func TestCancelAndResetValidation(t *testing.T) {
	for _, row := range []struct {
		path, body, kind string
		native           bool
	}{
		{"/cancel", `{"session_hash":"s","fn_index":1,"event_id":"e"}`, "", true},
		{"/cancel", `{"session_hash":"s","event_id":"e"}`, "", false},
		{"/cancel", `{"session_hash":"s","fn_index":"x","event_id":"e"}`, "", false},
		{"/cancel", `{"session_hash":"s","fn_index":1}`, "", false},
		{"/cancel", `{"fn_index":1,"event_id":"e"}`, "", false},
		{"/cancel", `{"session_hash":"s","fn_index":1,"event_id":"e"}`, "text/plain", false},
		{"/cancel", ``, "", false},
		{"/reset", `{"event_id":"e"}`, "", true},
		{"/reset/", `{"event_id":"e"}`, "", true},
		{"/reset", `{}`, "", false},
		{"/reset", `{"event_id":1}`, "", false},
		{"/reset", `{"event_id":"e"}`, "text/plain", false},
	} {
		h := newHost(t)
		r := h.request(t.Context(), http.MethodPost, api+row.path, strings.NewReader(row.body))
		if row.kind != "" {
			r.Header.Set("Content-Type", row.kind)
		}
		got := h.send(r)
		if row.native && (got.body != `{"success":true}` || len(h.space.arrived()) > 0) {
			t.Errorf("%s %s: got %d %s, and the Space %v", row.path, row.body, got.status, got.body, h.space.arrived())
		}
		if !row.native && (got.body != "the Space answers "+api+row.path || h.onlyRequest().body != row.body) {
			t.Errorf("%s %s as %q: got %d %s, and the Space %v", row.path, row.body, row.kind, got.status, got.body, h.space.arrived())
		}
	}
}

// TestHostMessages compares the Messages that the host makes itself, byte for byte.
func TestHostMessages(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	h.started()
	h.queue.Warn(event, "ZeroGPU", `over: 2 < 3 & "x"`)
	h.queue.Done(event, "ValueError: <b>", nil)
	h.data("s").expect(event, firstEstimation,
		`data: {"msg":"log","event_id":"$ID","log":"over: 2 < 3 & \"x\"","level":"warning","duration":10,"visible":true,"title":"ZeroGPU"}`+"\n\n",
		`data: {"msg":"process_completed","event_id":"$ID","output":{"error":"The Space ended this call without an answer: ValueError: <b>","duration":10,"visible":true,"title":"Error"},"success":false,"title":"Error","used_cache":null,"cache_duration":null,"avg_time":null}`+"\n\n",
		closeStream)
}
