package gradioapi_test

import (
	"net/http"
	"strings"
	"testing"

	"spacehost/queue"
)

// expectCORS compares the granted access: "" none, "-" credentials only, else the origin too.
func expectCORS(t *testing.T, what string, h http.Header, want string) {
	t.Helper()
	credentials, origin, vary := h.Get("Access-Control-Allow-Credentials"), h.Get("Access-Control-Allow-Origin"), h.Get("Vary")
	got := "-"
	switch {
	case credentials == "" && origin == "" && vary == "":
		got = ""
	case credentials == "true" && origin != "" && vary == "Origin":
		got = origin
	case credentials != "true" || origin != "" || vary != "":
		t.Errorf("%s: got credentials %q, origin %q, vary %q", what, credentials, origin, vary)
	}
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// TestAllowedOrigins: the first rows are captures/v6/cors.txt, the others follow gradio/route_utils.py,
// is_valid_origin.
func TestAllowedOrigins(t *testing.T) {
	h := newHost(t)
	for _, row := range []struct{ host, origin, want string }{
		{"127.0.0.1:7901", "http://evil.com", "-"},
		{"127.0.0.1:7901", "http://localhost:3", "http://localhost:3"},
		{"127.0.0.1:7901", "null", "-"},
		{"127.0.0.1:7901", "", ""},
		{"localhost", "https://127.0.0.1", "https://127.0.0.1"},
		{"LOCALHOST:1", "http://evil.com", "-"},
		{"localhost:1", "http://LOCALHOST", "http://LOCALHOST"},
		{"0.0.0.0:1", "http://localhost.evil.com", "-"},
		{"localhost:1", "http://localhost@evil.com", "-"},
		{"localhost:1", "http://[::1]", "-"},
		{"foo.example:99", "http://evil.com", "http://evil.com"},
		{"foo.example", "null", "null"},
		{"[::1]:7901", "http://evil.com", "http://evil.com"},
	} {
		header := []string{"Host: " + row.host}
		if row.origin != "" {
			header = append(header, "Origin: "+row.origin)
		}
		expectCORS(t, row.origin+" at "+row.host, h.get(api+"/queue/status", header...).header, row.want)
	}
}

func TestEveryNativeResponseHasCORSHeaders(t *testing.T) {
	const origin = "http://localhost:3"
	h := newHost(t, maxSize(1))
	check := func(what string, header http.Header) { expectCORS(t, what, header, origin) }
	check("join", h.post(joinPath, `{"data":[],"fn_index":1,"session_hash":"s"}`, "Origin: "+origin).header)
	h.join(slow, "s", `[]`)
	check("a full queue", h.post(joinPath, `{"data":[],"fn_index":1,"session_hash":"s"}`, "Origin: "+origin).header)
	check("cancel", h.post(api+"/cancel", `{"session_hash":"s","fn_index":1,"event_id":"e"}`, "Origin: "+origin).header)
	check("reset", h.post(api+"/reset", `{"event_id":"e"}`, "Origin: "+origin).header)
	for _, path := range []string{"/queue/data?session_hash=s", "/queue/data?session_hash=nosuch", "/call/slow/nosuch", "/heartbeat/s"} {
		s := h.open(api+path, "Origin: "+origin)
		check(path, s.header)
		s.close()
	}
}

func TestLoginRefusalHasCORSHeaders(t *testing.T) {
	h := newHost(t, with(func(m *queue.Manifest) { m.Native = false }))
	h.space.route(api+"/login_check", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	expectCORS(t, "401", h.get(api+"/queue/status", "Origin: http://localhost:3").header, "http://localhost:3")
}

// TestPreflightsArePassedThrough: Gradio answers preflights, and its headers are not repeated.
func TestPreflightsArePassedThrough(t *testing.T) {
	h := newHost(t)
	h.space.route(joinPath, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Allow-Methods", "POST")
		_, _ = strings.NewReader("OK").WriteTo(w)
	})
	got := h.do(http.MethodOptions, joinPath, "", "Origin: http://localhost:3", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")
	if got.body != "OK" || len(got.header.Values("Access-Control-Allow-Credentials")) != 1 || got.header.Get("Access-Control-Allow-Methods") != "POST" {
		t.Errorf("got %d %s with %v", got.status, got.body, got.header)
	}
	if a := h.onlyRequest(); a.method != http.MethodOptions || a.header.Get("Access-Control-Request-Headers") != "content-type" || a.header.Get("Origin") != "http://localhost:3" {
		t.Errorf("the Space got %+v", a)
	}
}
