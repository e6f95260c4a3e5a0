package gradioapi_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"spacehost/queue"
)

const joinPath = api + "/queue/join"

func TestJoinForwardsTheRequest(t *testing.T) {
	h := newHost(t)
	body := `{"data":["a", 1e-7, "é"], "fn_index":0, "session_hash":"s", "trigger_id":null}`
	event := h.eventOf(h.post(joinPath+"?__theme=dark&x=%20", body, "X-Custom: caf\xe9", "X-Custom: two", "Cookie: a=b"))
	got := h.started()
	if got.ID != event || got.Session != "s" || string(got.Body) != body || got.Endpoint.APIName != "quick" || got.Payer.Name != "ada" {
		t.Errorf("the runner got %+v", got)
	}
	r := got.Request
	if r.Path != joinPath || r.Query != "__theme=dark&x=%20" || r.Scheme != "http" || r.Client != "127.0.0.1" {
		t.Errorf("the runner got request %+v", r)
	}
	headers := fmt.Sprint(r.Headers)
	for _, want := range []string{"[host " + h.url[7:] + "]", "[x-custom café] [x-custom two]", "[cookie a=b]", "[content-type application/json]", "[x-forwarded-for 127.0.0.1]", "[x-forwarded-host " + h.url[7:] + "]", "[x-forwarded-proto http]"} {
		if !strings.Contains(headers, want) {
			t.Errorf("%s is not among the headers %s", want, headers)
		}
	}
	h.expectNoRequests()
}

func TestJoinOfAFullQueue(t *testing.T) {
	h := newHost(t, maxSize(1))
	h.join(slow, "s1", `["a"]`)
	h.join(slow, "s2", `["b"]`)
	full := `{"detail":"Queue is full. Max size is 1 and size is 1."}`
	for _, to := range []struct{ path, body string }{
		{joinPath, `{"data":[],"fn_index":1,"session_hash":"s3"}`},
		{joinPath, `{"data":[],"fn_index":30,"session_hash":"s3"}`},
		{api + "/call/slow", `{"data":[]}`},
		{api + "/call/v2/slow", `{"x":1}`},
	} {
		got := h.post(to.path, to.body)
		if got.status != http.StatusServiceUnavailable || got.body != full || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: got %d %s", to.path, to.body, got.status, got.body)
		}
	}
	h.expectNoRequests()
}

// TestUnreadableJoinIsPassedThrough: a request whose refusal Gradio words is passed through unchanged, and names a
// direct call. Gradio reads "0" as a number and admits the request, so a payer is needed.
func TestUnreadableJoinIsPassedThrough(t *testing.T) {
	const good = `{"data":["a"],"fn_index":0,"session_hash":"s"}`
	for _, row := range []struct{ name, body, kind string }{
		{"no JSON", `{"data":["a"],`, ""},
		{"not UTF-8", "{\"data\":[\"\xff\"],\"fn_index\":0,\"session_hash\":\"s\"}", ""},
		{"nothing", ``, ""},
		{"a list", `[]`, ""},
		{"no session", `{"data":["a"],"fn_index":0}`, ""},
		{"an empty session", `{"data":["a"],"fn_index":0,"session_hash":""}`, ""},
		{"a session null", `{"data":["a"],"fn_index":0,"session_hash":null}`, ""},
		{"no function", `{"data":["a"],"session_hash":"s"}`, ""},
		{"a function in text", `{"data":["a"],"fn_index":"0","session_hash":"s"}`, ""},
		{"a function and a half", `{"data":["a"],"fn_index":1.5,"session_hash":"s"}`, ""},
		{"names in capitals", `{"data":["a"],"FN_INDEX":0,"session_hash":"s"}`, ""},
		{"no data", `{"fn_index":0,"session_hash":"s"}`, ""},
		{"data null", `{"data":null,"fn_index":0,"session_hash":"s"}`, ""},
		{"data an object", `{"data":{},"fn_index":0,"session_hash":"s"}`, ""},
		{"a trigger in text", `{"data":["a"],"fn_index":0,"session_hash":"s","trigger_id":"5"}`, ""},
		{"batched in text", `{"data":["a"],"fn_index":0,"session_hash":"s","batched":"yes"}`, ""},
		{"plain text", good, "text/plain"},
		{"a form", good, "application/x-www-form-urlencoded"},
		{"no content type", good, "-"},
	} {
		h := newHost(t)
		h.space.route(joinPath, func(w http.ResponseWriter, r *http.Request) {
			if payer, ok := h.queue.Payer(queue.EventID(r.Header.Get("X-Spacehost-Call"))); !ok || payer.Name != "ada" {
				t.Errorf("%s: the direct call has no payer, and the Space may admit it", row.name)
			}
			http.Error(w, fmt.Sprintf("%d bytes", r.ContentLength), http.StatusUnprocessableEntity)
		})
		got := h.joinAs(row.body, row.kind)
		if want := fmt.Sprintf("%d bytes\n", len(row.body)); got.status != http.StatusUnprocessableEntity || got.body != want {
			t.Errorf("%s: got %d %q, want the Space's 422 %q", row.name, got.status, got.body, want)
		}
		if len(h.runner.jobs) > 0 {
			t.Errorf("%s: the host started a job", row.name)
		}
	}
}

func (h *host) joinAs(body, kind string) answer {
	h.Helper()
	switch kind {
	case "":
		return h.post(joinPath, body)
	case "-":
		r := h.request(h.Context(), http.MethodPost, joinPath, strings.NewReader(body))
		r.Header.Del("Content-Type")
		return h.send(r)
	}
	r := h.request(h.Context(), http.MethodPost, joinPath, strings.NewReader(body))
	r.Header.Set("Content-Type", kind)
	return h.send(r)
}

func TestJoinAcceptsEveryJSONContentType(t *testing.T) {
	h := newHost(t)
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"} {
		h.eventOf(h.joinAs(`{"data":["a"],"fn_index":0,"session_hash":"s"}`, kind))
	}
	h.expectNoRequests()
}

func TestJoinsAdmittedOnlyByTheSpace(t *testing.T) {
	for _, row := range []struct {
		name string
		fn   int
		set  func(*setup)
	}{
		{"a function with a validator", validated, func(*setup) {}},
		{"a function that this host does not know", 4711, func(*setup) {}},
		{"an app with a login", quick, with(func(m *queue.Manifest) { m.Native = false })},
	} {
		h := newHost(t, row.set)
		h.space.route(joinPath, h.admitRoute("s", queue.Endpoint{ID: row.fn, APIName: "x", Group: "x", Limit: 1}))
		event := h.join(row.fn, "s", `["a"]`)
		if got := h.started(); got.ID != event || !got.Admitted || got.Payer.Name != "ada" || got.Token != "token-"+string(event) {
			t.Errorf("%s: the runner got %+v", row.name, got)
		}
	}
}

// TestCapitalsDoNotBypassAValidator: Python runs function 30 of this body, while encoding/json would also accept
// FN_INDEX.
func TestCapitalsDoNotBypassAValidator(t *testing.T) {
	h := newHost(t)
	h.space.route(joinPath, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnprocessableEntity) })
	h.post(joinPath, `{"data":[],"fn_index":30,"FN_INDEX":0,"session_hash":"s"}`)
	if got := h.onlyRequest(); got.target != joinPath || h.queue.Session("s") != nil {
		t.Errorf("the host admitted it; the Space got %+v", got)
	}
}

// TestIncompleteCallsAreAdmittedByTheSpace: Gradio fills in a missing input.
func TestIncompleteCallsAreAdmittedByTheSpace(t *testing.T) {
	h := newHost(t)
	for _, path := range []string{"/call/quick", "/call/quick/", "/call/v2/quick"} {
		h.space.route(api+path, h.admitRoute("", captured().Endpoints[quick]))
		event := h.eventOf(h.post(api+path, `{"data":[]}`))
		if got := h.started(); got.ID != event || got.Session != queue.SessionHash(event) {
			t.Errorf("%s: the runner got %+v, want event %s", path, got, event)
		}
		h.finish(event)
	}
}

// TestAdmittedCallWaitsForTheReport: the Space's response and its runner's report arrive on different connections. A
// client that has the response must find the stream.
func TestAdmittedCallWaitsForTheReport(t *testing.T) {
	h := newHost(t)
	id := queue.NewEventID()
	h.space.route(api+"/call/quick", func(w http.ResponseWriter, r *http.Request) {
		named := r.Clone(context.Background())
		time.AfterFunc(50*time.Millisecond, func() {
			if err := h.report(named, id, "", captured().Endpoints[quick]); err != nil {
				t.Errorf("report: %v", err)
			}
		})
		fmt.Fprintf(w, `{"event_id":%q}`, id)
	})
	h.eventOf(h.post(api+"/call/quick", `{"data":[]}`))
	h.started()
	h.finish(id)
	s := h.open(api + "/call/quick/" + string(id))
	s.expect(id, "event: complete\ndata: [\"hi\"]\n\n")
	s.expectEnd()
}

func TestCallWithoutReportIsAnswered(t *testing.T) {
	h := newHost(t)
	if got := h.post(api+"/call/quick", `{"data":[]}`); got.status != http.StatusOK || got.body != "the Space answers "+api+"/call/quick" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestUnknownFunctionIsPassedThrough(t *testing.T) {
	h := newHost(t)
	h.space.route(joinPath, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "Internal Server Error", 500) })
	got := h.post(joinPath, `{"data":[],"fn_index":4711,"session_hash":"s"}`)
	if got.status != 500 || got.body != "Internal Server Error\n" || h.onlyRequest().header.Get("X-Spacehost-Call") == "" {
		t.Errorf("got %d %q, and the Space %v", got.status, got.body, h.onlyRequest())
	}
}

func TestTooLargeJoinIsRefusedUnread(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	r := h.request(ctx, http.MethodPost, joinPath, http.NoBody, "Expect: 100-continue") // so that the response never races with the body
	r.ContentLength, r.Body = 301<<20, endless{}
	if got := h.send(r); got.status != http.StatusRequestEntityTooLarge || !strings.Contains(got.body, "300 MiB") {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (endless) Close() error               { return nil }

func TestWaitingCallsSurviveACrash(t *testing.T) {
	h := newHost(t)
	h.join(slow, "s1", `["a"]`)
	h.join(slow, "s2", `["b"]`)
	h.started()
	h.queue.Lost("killed")
	h.queue.Attach(captured())
	if got := h.started(); got.Session != "s2" {
		t.Errorf("got %s started, want the call that waited", got.Session)
	}
	s := h.data("s1")
	s.frame()
	if got := s.frame(); !strings.Contains(got, `"output":{"error":"killed","duration":10,"visible":true,"title":"Space stopped"},"success":false,"title":"Space stopped"`) {
		t.Errorf("the call that ran got %s", got)
	}
	s.expect("", closeStream)
}

func TestTooManySessionsOfOneVisitor(t *testing.T) {
	h := newHost(t, maxSessions(2))
	h.join(quick, "a", `["x"]`)
	h.join(quick, "b", `["x"]`)
	body := `{"data":["x"],"fn_index":%d,"session_hash":%q}`
	for name, got := range map[string]answer{
		"admitted here":         h.post(api+"/queue/join", fmt.Sprintf(body, quick, "c")),
		"admitted by the Space": h.post(api+"/queue/join", fmt.Sprintf(body, validated, "c")),
		"a call":                h.post(api+"/call/quick", `{"data":["x"]}`),
	} {
		if got.status != http.StatusTooManyRequests || !strings.Contains(got.body, "2 open sessions") {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
	h.join(quick, "a", `["y"]`) // an existing session
	h.expectNoRequests()
	if got := h.post(api+"/queue/join", fmt.Sprintf(body, validated, "b")); got.status != http.StatusOK {
		t.Errorf("an existing session, admitted by the Space: got %d %s", got.status, got.body)
	}
	h.onlyRequest()
}
