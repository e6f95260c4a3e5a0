package gradioapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"spacehost/gradioapi"
	"spacehost/queue"
)

// revocable is a setup in which requests with the header X-Token are authorised until revoked is set.
func revocable(revoked *atomic.Bool) func(*setup) {
	return func(s *setup) {
		s.config.Credential = func(r *http.Request) gradioapi.Credential {
			return gradioapi.Credential{Bearer: r.Header.Get("X-Token")}
		}
		s.config.Allowed = func(c gradioapi.Credential) bool { return c.Bearer == "" || !revoked.Load() }
	}
}

// TestStreamOfARevokedToken checks that the stream ends all calls of its Session with a sentence and closes cleanly, and that
// streams with another authorisation continue.
func TestStreamOfARevokedToken(t *testing.T) {
	var revoked atomic.Bool
	h := newHost(t, revocable(&revoked))
	running, waiting := h.join(slow, "s", `["a"]`), h.join(slow, "s", `["b"]`)
	h.started()
	other := h.join(quick, "other", `["c"]`)
	authorised := h.open(api+"/queue/data?session_hash=s", "X-Token: t")
	open := h.data("other")
	open.expect(other, firstEstimation)

	h.handler.EndRefused() // nothing has changed
	revoked.Store(true)
	h.handler.EndRefused()
	frames, _ := authorised.remaining()
	text := strings.Join(frames, "")
	for _, want := range []string{string(running), string(waiting), gradioapi.CredentialEnded, `"success":false`, `"msg":"close_stream"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the stream has no %q: %s", want, text)
		}
	}
	if got := receive(t, h.runner.cancelled, "the end of the running call"); got != running {
		t.Errorf("%s was cancelled, want %s", got, running)
	}
	h.finish(other)
	open.expect(other, completed, closeStream)
	open.expectEnd()
}

// TestRequestOfARevokedToken checks that a passed-through request ends, and a later one, which is admitted before the
// revocation is known, ends too.
func TestRequestOfARevokedToken(t *testing.T) {
	var revoked atomic.Bool
	h := newHost(t, revocable(&revoked))
	ended := make(chan struct{}, 2)
	h.space.route("/long", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- struct{}{}
	})
	s := h.open("/long", "X-Token: t")
	s.expect("", "\n")
	revoked.Store(true)
	h.handler.EndRefused()
	receive(t, ended, "the end of the request at the Space")
	if got := h.get("/long", "X-Token: t"); got.status != http.StatusUnauthorized || !strings.Contains(got.body, gradioapi.CredentialEnded) {
		t.Errorf("a request with a revoked token: %d %s, want 401", got.status, got.body)
	}
}

// TestEventsOfARevokedToken checks that calls without an open stream end: the running one is cancelled, the waiting one never
// starts. A call that is admitted before the revocation is known ends too. Those of others continue.
func TestEventsOfARevokedToken(t *testing.T) {
	var revoked atomic.Bool
	h := newHost(t, revocable(&revoked))
	running, waiting := h.join(slow, "s", `["a"]`, "X-Token: t"), h.join(slow, "s", `["b"]`, "X-Token: t")
	h.started()
	other := h.join(slow, "other", `["c"]`)
	revoked.Store(true)
	h.handler.EndRefused()
	if got := receive(t, h.runner.cancelled, "the end of the running call"); got != running {
		t.Errorf("%s was cancelled, want %s", got, running)
	}
	h.finish(running)
	if got := h.started().ID; got != other {
		t.Errorf("%s has started, want %s: %s waited with a revoked token", got, other, waiting)
	}
	late := h.join(quick, "late", `["d"]`, "X-Token: t")
	if got := receive(t, h.runner.cancelled, "the end of a call with a revoked token"); got != late {
		t.Errorf("%s was cancelled, want %s", got, late)
	}
}

// TestEventsOfARevokedTokenAdmittedBySpace is the same for a call that the Space admits.
func TestEventsOfARevokedTokenAdmittedBySpace(t *testing.T) {
	var revoked atomic.Bool
	h := newHost(t, revocable(&revoked))
	h.space.route(joinPath, h.admitRoute("s", queue.Endpoint{ID: validated, APIName: "x", Group: "x", Limit: 1}))
	over := h.join(validated, "s", `["a"]`, "X-Token: t")
	h.started()
	h.finish(over)
	running := h.join(validated, "s", `["b"]`, "X-Token: t")
	if got := h.started().ID; got != running {
		t.Fatalf("%s has started, want %s", got, running)
	}
	revoked.Store(true)
	h.handler.EndRefused()
	if got := receive(t, h.runner.cancelled, "the end of the running call"); got != running {
		t.Errorf("%s was cancelled, want %s", got, running)
	}
}
