package gradioapi_test

import (
	"net/http"
	"testing"
	"time"

	"spacehost/queue"
)

// admittedCall is a /call under way, as the Space has admitted it.
func (h *host) admittedCall(session string) queue.EventID {
	h.Helper()
	h.space.route(api+"/call/quick", h.admits(session, captured().Endpoints[quick]))
	event := h.eventOf(h.post(api+"/call/quick", `{"data":["a"]}`))
	if got := h.started(); got.ID != event {
		h.Fatalf("got %s started, want %s", got.ID, event)
	}
	return event
}

func TestCallFramesSpeakPythonsJSON(t *testing.T) {
	h := newHost(t)
	event := h.admittedCall("")
	h.say(event, `{"msg":"process_generating","event_id":"$ID","output":{"data":["é",{"a":[1,2]},"tab\t, \"x\": 1e-7"],"is_generating":true},"success":true}`)
	h.say(event, `{"msg":"process_streaming","event_id":"$ID","output":{"data":[0.5]},"success":true,"time_limit":2}`)
	h.say(event, `{"msg":"process_completed","event_id":"$ID","output":{"data":["😀",null]},"success":true}`)
	s := h.open(api + "/call/quick/" + string(event))
	if s.status != http.StatusOK || s.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("got %d %s", s.status, s.header)
	}
	s.expect(event,
		"event: generating\ndata: [\"\\u00e9\", {\"a\": [1, 2]}, \"tab\\t, \\\"x\\\": 1e-7\"]\n\n",
		"event: generating\ndata: [0.5]\n\n",
		"event: complete\ndata: [\"\\ud83d\\ude00\", null]\n\n")
	s.ends()
}

func TestCallIsSilentOnTheRest(t *testing.T) {
	h := newHost(t)
	event := h.admittedCall("")
	h.say(event, `{"msg":"process_starts","event_id":"$ID","eta":null}`)
	h.say(event, `{"msg":"progress","event_id":"$ID","progress_data":[]}`)
	h.say(event, `{"msg":"log","event_id":"$ID","log":"x"}`)
	h.queue.Warn(event, "title", "text")
	h.finish(event)
	s := h.open(api + "/call/quick/" + string(event))
	s.expect(event, "event: complete\ndata: [\"hi\"]\n\n")
	s.ends()
}

func TestCallBeatsWhenNothingIsSaid(t *testing.T) {
	h := newHost(t, func(s *setup) { s.config.Heartbeat = 20 * time.Millisecond })
	event := h.admittedCall("")
	s := h.open(api + "/call/quick/" + string(event))
	s.expect(event, "event: heartbeat\ndata: null\n\n", "event: heartbeat\ndata: null\n\n")
	h.finish(event)
}

func TestCallFailures(t *testing.T) {
	for _, row := range []struct{ said, want string }{
		{`{"msg":"process_completed","output":{"error":null},"success":false}`, "event: error\ndata: {\"error\": null}\n\n"},
		{`{"msg":"process_completed","success":false}`, "event: error\ndata: null\n\n"},
		{`{"msg":"process_completed","output":{},"success":true}`, "event: complete\ndata: null\n\n"}, // cancelled
		{`{"msg":"process_completed","output":{"data":null},"success":true}`, "event: complete\ndata: null\n\n"},
	} {
		h := newHost(t)
		event := h.admittedCall("")
		h.say(event, row.said)
		s := h.open(api + "/call/quick/" + string(event))
		s.expect(event, row.want)
		s.ends()
	}
}

func TestCallTellsTheHostsOwnFailure(t *testing.T) {
	h := newHost(t)
	event := h.admittedCall("")
	h.queue.Lost("killed")
	s := h.open(api + "/call/quick/" + string(event))
	s.expect(event, "event: error\ndata: {\"error\": \"killed\", \"duration\": 10, \"visible\": true, \"title\": \"Space stopped\"}\n\n")
	s.ends()
}

func TestCallOfAnUnknownEventBreaksOff(t *testing.T) {
	h := newHost(t)
	s := h.open(api + "/call/quick/nosuch")
	s.expect("", "event: error\ndata: \"404: Not Found\"\n\n")
	s.breaksOff()
}

// The name in the path is not looked at, v2 is the same stream, and a caller may have a Session of their own.
func TestCallFindsItsSessionByTheEvent(t *testing.T) {
	for _, path := range []string{"/call/quick/", "/call/other/", "/call/v2/quick/"} {
		h := newHost(t)
		event := h.admittedCall("my-session")
		h.finish(event)
		s := h.open(api + path + string(event))
		s.expect(event, "event: complete\ndata: [\"hi\"]\n\n")
		s.ends()
	}
}

func TestWhatIsNoCallIsTheSpaces(t *testing.T) {
	h := newHost(t)
	for _, path := range []string{"/call", "/call/", "/call/quick", "/call/v2/quick", "/call/a/b/c/d"} {
		if got := h.get(api + path); got.body != "the Space answers "+api+path {
			t.Errorf("%s: got %d %q", path, got.status, got.body)
		}
	}
}
