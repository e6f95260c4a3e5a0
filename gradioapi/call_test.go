package gradioapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"spacehost/queue"
)

// admittedCall starts a /call that the Space admits, because an input is missing.
func (h *host) admittedCall(session string) queue.EventID {
	h.Helper()
	h.space.route(api+"/call/quick", h.admitRoute(session, captured().Endpoints[quick]))
	event := h.eventOf(h.post(api+"/call/quick", `{"data":[]}`))
	if got := h.started(); got.ID != event {
		h.Fatalf("got %s started, want %s", got.ID, event)
	}
	return event
}

// nativeCall starts a /call that the host admits itself.
func (h *host) nativeCall(session string) queue.EventID {
	h.Helper()
	body := `{"data":["a"]}`
	if session != "" {
		body = fmt.Sprintf(`{"data":["a"],"session_hash":%q}`, session)
	}
	event := h.eventOf(h.post(api+"/call/quick", body))
	if got := h.started(); got.ID != event || got.Admitted {
		h.Fatalf("got %+v started, want %s as the host admitted it", got, event)
	}
	return event
}

// bothWays are the two ways to admit a /call.
var bothWays = map[string]func(h *host, session string) queue.EventID{"native": (*host).nativeCall, "by the Space": (*host).admittedCall}

// TestCallBecomesAJoin: the runner receives what Gradio's own route would have passed to push.
func TestCallBecomesAJoin(t *testing.T) {
	for _, row := range []struct{ body, session, want string }{
		{`{"data":["a"]}`, "$ID", `{"data":["a"],"session_hash":"$ID","fn_index":0,"simple_format":true}`},
		{`{"data":["a"],"session_hash":null}`, "$ID", `{"data":["a"],"session_hash":"$ID","fn_index":0,"simple_format":true}`},
		{`{"session_hash":"s","data":[ {"x":1e-7,"y":"<é>"} ]}`, "s", `{"data":[{"x":1e-7,"y":"<é>"}],"session_hash":"s","fn_index":0,"simple_format":true}`},
		{`{"data":["a"],"oauth_token":"t"}`, "$ID", `{"data":["a"],"session_hash":"$ID","fn_index":0,"simple_format":true,"oauth_token":"t"}`},
		// Gradio ignores these fields too (gradio/data_classes.py, SimplePredictBody).
		{`{"data":["a"],"fn_index":30,"trigger_id":1,"event_data":{},"simple_format":false,"batched":true}`, "$ID", `{"data":["a"],"session_hash":"$ID","fn_index":0,"simple_format":true}`},
	} {
		h := newHost(t)
		event := h.eventOf(h.post(api+"/call/quick?x=1", row.body))
		got := h.started()
		named := strings.NewReplacer("$ID", string(event))
		if got.ID != event || string(got.Session) != named.Replace(row.session) || string(got.Body) != named.Replace(row.want) {
			t.Errorf("%s:\ngot  %s of session %s\nwant %s", row.body, got.Body, got.Session, row.want)
		}
		if got.Admitted || got.Payer.Name != "ada" || got.Request.Path != api+"/call/quick" || got.Request.Query != "x=1" {
			t.Errorf("%s: got %+v", row.body, got)
		}
		h.expectNoRequests()
	}
}

func TestCallsAdmittedOnlyByTheSpace(t *testing.T) {
	const good = `{"data":["a"]}`
	asIs := func(*setup) {}
	for _, row := range []struct {
		name, path, body string
		set              func(*setup)
	}{
		{"a value left out", "/call/quick", `{"data":[]}`, asIs},
		{"a value too many", "/call/quick", `{"data":["a",null]}`, asIs},
		{"a validator", "/call/validated", `{"data":[]}`, asIs},
		{"named values", "/call/v2/quick", `{"x":"a"}`, asIs},
		{"an unknown name", "/call/nosuch", good, asIs},
		{"no data", "/call/quick", `{}`, asIs},
		{"data null", "/call/quick", `{"data":null}`, asIs},
		{"data an object", "/call/quick", `{"data":{}}`, asIs},
		{"data in capitals", "/call/quick", `{"DATA":["a"]}`, asIs},
		{"no JSON", "/call/quick", `{"data":[NaN]}`, asIs},
		{"an empty session", "/call/quick", `{"data":["a"],"session_hash":""}`, asIs},
		{"a session that is no text", "/call/quick", `{"data":["a"],"session_hash":1}`, asIs},
		{"a login", "/call/quick", good, with(func(m *queue.Manifest) { m.Native = false })},
	} {
		h := newHost(t, row.set)
		h.space.route(api+row.path, h.admitRoute("", captured().Endpoints[quick]))
		event := h.eventOf(h.post(api+row.path, row.body))
		if got := h.started(); got.ID != event || !got.Admitted {
			t.Errorf("%s: the runner got %+v", row.name, got)
		}
	}
}

// TestNonJSONCallIsPassedThrough: a page of another site can send such a body without a preflight. FastAPI refuses
// it.
func TestNonJSONCallIsPassedThrough(t *testing.T) {
	h := newHost(t)
	r := h.request(h.Context(), http.MethodPost, api+"/call/quick", strings.NewReader(`{"data":["a"]}`))
	r.Header.Set("Content-Type", "text/plain")
	if got := h.send(r); got.body != "the Space answers "+api+"/call/quick" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestCallFramesArePythonJSON(t *testing.T) {
	h := newHost(t)
	event := h.admittedCall("")
	h.emit(event, `{"msg":"process_generating","event_id":"$ID","output":{"data":["é",{"a":[1,2]},"tab\t, \"x\": 1e-7"],"is_generating":true},"success":true}`)
	h.emit(event, `{"msg":"process_streaming","event_id":"$ID","output":{"data":[0.5]},"success":true,"time_limit":2}`)
	h.emit(event, `{"msg":"process_completed","event_id":"$ID","output":{"data":["😀",null]},"success":true}`)
	s := h.open(api + "/call/quick/" + string(event))
	if s.status != http.StatusOK || s.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("got %d %s", s.status, s.header)
	}
	s.expect(event,
		"event: generating\ndata: [\"\\u00e9\", {\"a\": [1, 2]}, \"tab\\t, \\\"x\\\": 1e-7\"]\n\n",
		"event: generating\ndata: [0.5]\n\n",
		"event: complete\ndata: [\"\\ud83d\\ude00\", null]\n\n")
	s.expectEnd()
}

func TestCallOmitsOtherMessages(t *testing.T) {
	h := newHost(t)
	event := h.admittedCall("")
	h.emit(event, `{"msg":"process_starts","event_id":"$ID","eta":null}`)
	h.emit(event, `{"msg":"progress","event_id":"$ID","progress_data":[]}`)
	h.emit(event, `{"msg":"log","event_id":"$ID","log":"x"}`)
	h.queue.Warn(event, "title", "text")
	h.finish(event)
	s := h.open(api + "/call/quick/" + string(event))
	s.expect(event, "event: complete\ndata: [\"hi\"]\n\n")
	s.expectEnd()
}

func TestCallSendsHeartbeats(t *testing.T) {
	h := newHost(t, func(s *setup) { s.config.Heartbeat = 20 * time.Millisecond })
	event := h.admittedCall("")
	s := h.open(api + "/call/quick/" + string(event))
	s.expect(event, "event: heartbeat\ndata: null\n\n", "event: heartbeat\ndata: null\n\n")
	h.finish(event)
}

func TestCallFailures(t *testing.T) {
	for _, row := range []struct{ message, want string }{
		{`{"msg":"process_completed","output":{"error":null},"success":false}`, "event: error\ndata: {\"error\": null}\n\n"},
		{`{"msg":"process_completed","success":false}`, "event: error\ndata: null\n\n"},
		{`{"msg":"process_completed","output":{},"success":true}`, "event: complete\ndata: null\n\n"}, // cancelled
		{`{"msg":"process_completed","output":{"data":null},"success":true}`, "event: complete\ndata: null\n\n"},
	} {
		h := newHost(t)
		event := h.admittedCall("")
		h.emit(event, row.message)
		s := h.open(api + "/call/quick/" + string(event))
		s.expect(event, row.want)
		s.expectEnd()
	}
}

func TestCallReportsHostFailures(t *testing.T) {
	for line, want := range map[string]string{
		"v4": "event: error\ndata: null\n\n",
		"v5": "event: error\ndata: null\n\n",
		"v6": "event: error\ndata: {\"error\": \"killed\", \"duration\": 10, \"visible\": true, \"title\": \"Space stopped\"}\n\n",
	} {
		h := newHost(t, withGradio(line))
		event := h.admittedCall("")
		h.queue.Lost("killed")
		s := h.open(api + "/call/quick/" + string(event))
		s.expect(event, want)
		s.expectEnd()
	}
}

func TestCallOfUnknownEventBreaksOff(t *testing.T) {
	h := newHost(t)
	s := h.open(api + "/call/quick/nosuch")
	s.expect("", "event: error\ndata: \"404: Not Found\"\n\n")
	s.expectBroken()
}

// TestCallFindsItsSessionByEvent: the name in the path is ignored, v2 is the same stream, and a caller may have its
// own Session.
func TestCallFindsItsSessionByEvent(t *testing.T) {
	for way, admit := range bothWays {
		for _, session := range []string{"", "my-session"} {
			for _, path := range []string{"/call/quick/", "/call/other/", "/call/v2/quick/"} {
				t.Run(way+path+session, func(t *testing.T) {
					h := newHost(t)
					event := admit(h, session)
					h.finish(event)
					s := h.open(api + path + string(event))
					s.expect(event, "event: complete\ndata: [\"hi\"]\n\n")
					s.expectEnd()
				})
			}
		}
	}
}

func TestOtherCallPathsArePassedThrough(t *testing.T) {
	h := newHost(t)
	for _, path := range []string{"/call", "/call/", "/call/quick", "/call/v2/quick", "/call/a/b/c/d"} {
		if got := h.get(api + path); got.body != "the Space answers "+api+path {
			t.Errorf("%s: got %d %q", path, got.status, got.body)
		}
	}
}
