package gradioapi_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"spacehost/queue"
)

const refusal = `{"detail":{"error":"Not authenticated","auth_message":null}}` // captures/v6/mode_auth.txt

func withLogin(t *testing.T) *host {
	h := newHost(t, with(func(m *queue.Manifest) { m.Native = false }))
	h.space.route(api+"/login_check", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Cookie") != "access-token=x" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, refusal)
			return
		}
		fmt.Fprint(w, "null")
	})
	return h
}

func TestStreamsRequireALogin(t *testing.T) {
	h := withLogin(t)
	h.space.route(joinPath, h.admitRoute("s", captured().Endpoints[quick]))
	event := h.join(quick, "s", `["a"]`) // the Space admitted it
	for _, path := range []string{"/queue/data?session_hash=s", "/queue/data?session_hash=nosuch", "/queue/status", "/call/quick/" + string(event), "/call/v2/quick/nosuch"} {
		got := h.get(api+path, "Cookie: access-token=wrong")
		if got.status != http.StatusUnauthorized || got.body != refusal || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
	if h.queue.Session("s") == nil {
		t.Error("a refused request ended the session")
	}
}

func TestSignedInVisitorReadsStreams(t *testing.T) {
	h := withLogin(t)
	h.space.route(joinPath, h.admitRoute("s", captured().Endpoints[quick]))
	event := h.join(quick, "s", `["a"]`)
	if got := h.get(api+"/queue/status?x=1", "Cookie: access-token=x"); got.status != http.StatusOK {
		t.Errorf("status: got %d %s", got.status, got.body)
	}
	s := h.open(api+"/queue/data?session_hash=s", "Cookie: access-token=x")
	s.expect(event, firstEstimation)
	h.finish(event)
	s.expect(event, completed, closeStream)
	s.expectEnd()
	asked := h.space.arrived()[1:]
	if len(asked) != 2 || asked[0].target != api+"/login_check?x=1" || asked[1].target != api+"/login_check?session_hash=s" {
		t.Errorf("the Space received %v", asked) // an auth_dependency receives the query
	}
	if asked[1].header.Get("X-Spacehost-Key") != spaceKey || asked[1].header.Get("Content-Type") != "" {
		t.Errorf("the Space received headers %v", asked[1].header)
	}
}

// TestLoginCheckEndsBeforeTheStream: the direct call of the login check does not last as long as the stream.
func TestLoginCheckEndsBeforeTheStream(t *testing.T) {
	h := withLogin(t)
	h.space.route(joinPath, h.admitRoute("s", captured().Endpoints[quick]))
	event := h.join(quick, "s", `["a"]`)
	s := h.open(api+"/queue/data?session_hash=s", "Cookie: access-token=x")
	s.expect(event, firstEstimation)
	if asked := h.space.arrived(); h.queue.Alive(asked[len(asked)-1].call()) {
		t.Error("the direct call of the login check has not ended")
	}
}

func TestUnavailableLoginCheck(t *testing.T) {
	h := withLogin(t)
	h.space.down.Store(true)
	if got := h.get(api+"/queue/status", "Cookie: access-token=x"); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// TestFailedLoginsAreLimited: Gradio accepts any number of guesses.
func TestFailedLoginsAreLimited(t *testing.T) {
	h := withLogin(t)
	h.space.route("/login", func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err != nil || !strings.HasSuffix(string(body), "password=right") {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	guess := func(password string) int {
		return h.post("/login", "username=ada&password="+password).status
	}
	for range 19 {
		if got := guess("wrong"); got != http.StatusBadRequest {
			t.Fatalf("a wrong password: got %d, want 400", got)
		}
	}
	if got := guess("right"); got != http.StatusOK {
		t.Errorf("the right password after 19 wrong ones: got %d, want 200", got)
	}
	guess("wrong")
	for _, password := range []string{"wrong", "right"} {
		if got := guess(password); got != http.StatusTooManyRequests {
			t.Errorf("a %s password after 20 wrong ones: got %d, want 429", password, got)
		}
	}
}
