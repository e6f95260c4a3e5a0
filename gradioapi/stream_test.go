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

func TestDataIsNothingButDataFrames(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	s := h.data("s")
	if s.status != http.StatusOK || s.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("got %d %s", s.status, s.header)
	}
	h.started()
	odd := `{"msg":"log","event_id":"$ID","log":"1e-7 \u0000 é <b> \\n","level":"info","x":1E400,"x":NaN}` // spliced as it comes, whatever it is
	h.queue.Message(event, queue.Message{Kind: queue.Log, Event: event, Raw: []byte(odd)})
	h.finish(event)
	s.expect(event, firstInLine)
	s.expect("$ID", "data: "+odd+"\n\n")
	s.expect(event, completed, closeStream)
	s.ends()
}

func TestALineBreakDoesNotBreakTheFrame(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	h.started()
	for _, raw := range []string{"{\"a\":\n1}", "{\"a\":\r1}"} {
		h.queue.Message(event, queue.Message{Kind: queue.Log, Event: event, Raw: []byte(raw)})
	}
	h.finish(event)
	s := h.data("s")
	s.expect(event, firstInLine, "data: {\"a\": 1}\n\n", "data: {\"a\": 1}\n\n", completed, closeStream)
}

func TestDataBeatsWhenNothingIsSaid(t *testing.T) {
	h := newHost(t, func(s *setup) { s.config.Heartbeat = 20 * time.Millisecond })
	event := h.join(quick, "s", `["a"]`)
	s := h.data("s")
	beat := `data: {"msg":"heartbeat","event_id":null}` + "\n\n"
	s.expect(event, firstInLine, beat, beat)
	h.finish(event)
	frames, err := s.rest()
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
	s.breaksOff()
	h.nothingArrived()
}

func TestDataWithoutASessionIsTheSpaces422(t *testing.T) {
	h := newHost(t)
	if got := h.get(api + "/queue/data?session=s"); got.body != "the Space answers "+api+"/queue/data" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// One session, two calls, a stream that was open all the time: it closes once, at the end of the last.
func TestOneCloseStreamForAllCallsOfASession(t *testing.T) {
	h := newHost(t)
	first := h.join(quick, "s", `["a"]`)
	s := h.data("s")
	s.expect(first, firstInLine)
	second := h.join(slow, "s", `["b"]`)
	s.expect(second, firstInLine)
	h.finish(first)
	s.expect(first, completed)
	h.finish(second)
	s.expect(second, completed, closeStream)
	s.ends()
	third := h.join(quick, "s", `["c"]`)
	h.finish(third)
	s = h.data("s")
	s.expect(third, firstInLine, completed, closeStream)
	s.ends()
}

// The first word about a call on a stream that is open already must not outrun the answer to its join.
func TestAnOpenStreamOfOlderGradiosRests(t *testing.T) {
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
			t.Errorf("gradio %s: the end came %s after the join", gradio, took)
		}
		h.finish(first)
	}
}

func TestAVisitorWhoGoesLeavesTheirSession(t *testing.T) {
	h := newHost(t)
	event := h.join(slow, "s", `["a"]`)
	waits := h.join(slow, "s", `["b"]`)
	s := h.data("s")
	s.expect(event, firstInLine)
	s.close()
	if got := receive(t, h.runner.gone, "news of the visitor"); !slices.Equal(got, []queue.EventID{event}) {
		t.Errorf("gone: got %v, want the running %s", got, event)
	}
	if h.queue.Session("s") != nil || h.queue.Size() != 0 {
		t.Errorf("session %v and %d waiting events stay", h.queue.Session("s"), h.queue.Size())
	}
	again := h.data("s")
	again.expect("", notFound)
	again.breaksOff()
	if h.queue.Alive(waits) || !h.queue.Alive(event) {
		t.Error("the running event goes on, the waiting one is gone")
	}
}

func TestTheOtherStreamOfALeftSessionBreaksOff(t *testing.T) {
	h := newHost(t)
	event := h.join(slow, "s", `["a"]`)
	one := h.data("s")
	one.expect(event, firstInLine)
	other := h.data("s")
	one.close()
	other.expect("", notFound)
	other.breaksOff()
}

// Each frame comes on one of them; the one without close_stream stays open, as Gradio's does.
func TestTwoStreamsShareTheFrames(t *testing.T) {
	h := newHost(t)
	event := h.join(slow, "s", `["a"]`)
	one := h.data("s")
	one.expect(event, firstInLine)
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
		said := fmt.Sprintf(`{"msg":"log","event_id":"%s","log":"%d"}`, event, n)
		h.say(event, said)
		want = append(want, "data: "+said+"\n\n")
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

func TestStreamsAreToldThatTheHostEnds(t *testing.T) {
	h := newHost(t)
	event := h.join(slow, "s", `["a"]`)
	s := h.data("s")
	s.expect(event, firstInLine)
	h.stopQueue()
	s.expect("", `data: {"msg":"unexpected_error","event_id":null,"message":"Server stopped unexpectedly.","session_not_found":false,"success":false}`+"\n\n")
	s.ends()
}

// readSlowly opens the stream of the Session "s" and reads until it has begun; the rest is the test's.
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

// A client that does not read is cut, and its running call is told that nobody listens.
func TestASlowClientIsCut(t *testing.T) {
	h := newHost(t, func(s *setup) { s.config.WriteTimeout = 100 * time.Millisecond })
	event := h.join(slow, "s", `["a"]`)
	h.started()
	h.readSlowly("1.1")
	big := fmt.Sprintf(`{"msg":"log","event_id":"$ID","log":"%s"}`, strings.Repeat("x", 1<<20))
	for range 32 { // more than the sockets keep
		h.say(event, big)
	}
	if got := receive(t, h.runner.gone, "news of the slow visitor"); !slices.Equal(got, []queue.EventID{event}) {
		t.Errorf("gone: got %v, want %s", got, event)
	}
}

// A client that takes its time for a long frame gets all of it.
func TestASlowClientGetsALargeResult(t *testing.T) {
	const size = 24 << 20
	h := newHost(t, func(s *setup) { s.config.WriteTimeout = 250 * time.Millisecond })
	event := h.join(slow, "s", `["a"]`)
	h.started()
	reader := h.readSlowly("1.0")
	began := time.Now()
	h.say(event, fmt.Sprintf(`{"msg":"log","event_id":"$ID","log":"%s"}`, strings.Repeat("x", size)))
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
		t.Errorf("it was all there after %s, so nothing was slow", took)
	}
}

// returning is a listener whose connections can be given back. It keeps what they were given back with.
type returning struct {
	net.Listener
	said chan string
	read *atomic.Int64 // bytes, by the host
}

func (l returning) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return returned{c, l}, err
}

type returned struct {
	net.Conn
	of returning
}

func (c returned) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.of.read.Add(int64(n))
	return n, err
}

func (c returned) Return(said []byte) bool {
	c.of.said <- string(said)
	return false // so that who gave it closes it
}

// A stream that has ended leaves its connection to the client's next request, if the client waits for its answer
// before and wants the connection to stay; at the end of the host it is closed at once.
func TestAStreamLeavesItsConnection(t *testing.T) {
	for name, row := range map[string]struct {
		header, early, next string
		left                bool
	}{
		"to the next request":               {next: "GET /next HTTP/1.1", left: true},
		"not to who has said close":         {header: "Connection: close\r\n"},
		"not to who does not wait":          {early: "GET /early HTTP/1.1\r\n", next: "Host: x"},
		"not to who hangs up":               {next: "hang up"},
		"and the host's end closes it then": {next: "end"},
	} {
		t.Run(name, func(t *testing.T) {
			said, read := make(chan string, 1), &atomic.Int64{}
			h := newHost(t, func(s *setup) {
				s.listener = func(l net.Listener) net.Listener { return returning{l, said, read} }
			})
			event := h.join(quick, "s", `["a"]`)
			conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			fmt.Fprintf(conn, "GET %s/queue/data?session_hash=s HTTP/1.1\r\nHost: x\r\n%s\r\n", api, row.header)
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if wants := row.header != ""; answer.Close != wants {
				t.Errorf("the answer closes the connection: %t, want %t", answer.Close, wants)
			}
			before := read.Load()
			if _, err := io.WriteString(conn, row.early); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the early bytes read", func() bool { return read.Load() == before+int64(len(row.early)) })
			h.finish(event)
			if body, err := io.ReadAll(answer.Body); err != nil || !strings.Contains(string(body), "close_stream") {
				t.Fatalf("got %q (%v)", body, err)
			}
			switch row.next {
			case "hang up":
				_ = conn.(*net.TCPConn).CloseWrite()
			case "end":
				h.handler.Close()
			default:
				_, _ = io.WriteString(conn, row.next) // it may be closed
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection: %v, want its end", err)
			}
			select {
			case got := <-said:
				if !row.left || !strings.HasPrefix(row.next, got) || got == "" {
					t.Errorf("given back with %q", got)
				}
			default:
				if row.left {
					t.Error("not given back")
				}
			}
		})
	}
}

// Where the server takes no connection back, a stream takes it along, and says so before: a client that would send its
// next request there would wait for nothing.
func TestAStreamIsTheLastOnItsConnection(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	h.finish(event)
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s/queue/data?session_hash=s HTTP/1.1\r\nHost: x\r\n\r\n", api)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	all, err := io.ReadAll(conn) // to the end of the connection
	head, body, _ := strings.Cut(string(all), "\r\n\r\n")
	if err != nil || !strings.Contains(head, "\r\nConnection: close") || !strings.HasSuffix(body, "\r\n0\r\n\r\n") {
		t.Errorf("got %q (%v)", all, err)
	}
}

// A client of HTTP/1.0 knows no chunks.
func TestAStreamOfHTTP10(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	h.finish(event)
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s/queue/data?session_hash=s HTTP/1.0\r\nHost: x\r\n\r\n", api)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	all, err := io.ReadAll(conn)
	_, body, _ := strings.Cut(string(all), "\r\n\r\n")
	want := strings.ReplaceAll(firstInLine+completed+closeStream, "$ID", string(event))
	if err != nil || body != want {
		t.Errorf("got %q (%v), want %q", body, err, want)
	}
}

func TestStatusTellsHowManyWait(t *testing.T) {
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

func TestCancelTakesExactlyOneEvent(t *testing.T) {
	h := newHost(t)
	runs, waits, next := h.join(slow, "s", `["a"]`), h.join(slow, "s", `["b"]`), h.join(slow, "s", `["c"]`)
	h.started()
	h.cancel("s", slow, waits)
	h.cancel("s", slow, "nosuch")
	h.cancel("thief", slow, runs)
	if len(h.runner.cancelled) > 0 {
		t.Error("the running event was cancelled with the waiting one") // as Gradio does: captures/v6/cancel_queued.txt
	}
	h.cancel("s", slow, runs)
	if got := receive(t, h.runner.cancelled, "the cancel"); got != runs {
		t.Errorf("got %s cancelled, want %s", got, runs)
	}
	h.queue.Done(runs, "cancelled", nil)
	if got := h.started(); got.ID != next {
		t.Errorf("got %s started, want %s", got.ID, next)
	}
	h.finish(next)
	frames, err := h.data("s").rest()
	end := `data: {"msg":"process_completed","event_id":"%s","output":{},"success":true,"title":null,"used_cache":null,"cache_duration":null,"avg_time":null}` + "\n\n"
	want := []string{fmt.Sprintf(end, waits), fmt.Sprintf(end, runs), strings.ReplaceAll(completed, "$ID", string(next)), closeStream}
	if got := withoutEstimates(frames); !slices.Equal(got, want) || !errors.Is(err, io.EOF) {
		t.Errorf("got %q (%v)\nwant %q", got, err, want)
	}
}

func withoutEstimates(frames []string) []string {
	return slices.DeleteFunc(frames, func(f string) bool { return strings.HasPrefix(f, `data: {"msg":"estimation"`) })
}

// What is not a cancel or a reset goes to the Space, which words the 422.
func TestCancelAndReset(t *testing.T) {
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
		if !row.native && (got.body != "the Space answers "+api+row.path || h.only().body != row.body) {
			t.Errorf("%s %s as %q: got %d %s, and the Space %v", row.path, row.body, row.kind, got.status, got.body, h.space.arrived())
		}
	}
}

// The Messages that the host makes itself, to the letter.
func TestTheHostsOwnMessages(t *testing.T) {
	h := newHost(t)
	event := h.join(quick, "s", `["a"]`)
	h.started()
	h.queue.Warn(event, "ZeroGPU", `over: 2 < 3 & "x"`)
	h.queue.Done(event, "ValueError: <b>", nil)
	h.data("s").expect(event, firstInLine,
		`data: {"msg":"log","event_id":"$ID","log":"over: 2 < 3 & \"x\"","level":"warning","duration":10,"visible":true,"title":"ZeroGPU"}`+"\n\n",
		`data: {"msg":"process_completed","event_id":"$ID","output":{"error":"The Space ended this call without an answer: ValueError: <b>","duration":10,"visible":true,"title":"Error"},"success":false,"title":"Error","used_cache":null,"cache_duration":null,"avg_time":null}`+"\n\n",
		closeStream)
}
