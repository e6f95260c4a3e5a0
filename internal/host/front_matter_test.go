package host

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/gpu"
	"spacehost/internal/config"
	"spacehost/internal/space"
)

// TestHiddenSpacesSendNoHeaders checks that custom_headers and disable_embedding do not reveal a private Space: its 404 for
// strangers has no header that the 404 of an unknown name lacks.
func TestHiddenSpacesSendNoHeaders(t *testing.T) {
	dir := t.TempDir()
	readme := "---\nsdk: gradio\ncustom_headers:\n  cross-origin-opener-policy: same-origin\ndisable_embedding: true\n---\n"
	for name, text := range map[string]string{"README.md": readme, "app.py": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, visibility := range []config.Visibility{config.Private, config.Public} {
		response := answerOf(t, dir, visibility)
		header := response.Header()
		header.Del("Content-Type")
		sent := slices.Sorted(maps.Keys(header))
		hidden := visibility == config.Private
		if hidden && (response.Code != http.StatusNotFound || len(sent) > 0) {
			t.Errorf("private: status %d, headers %q, want 404 and none", response.Code, sent)
		}
		if !hidden && (header.Get("Cross-Origin-Opener-Policy") != "same-origin" || header.Get("Content-Security-Policy") != "frame-ancestors 'self'") {
			t.Errorf("public: status %d, headers %q", response.Code, header)
		}
	}
}

// answerOf returns the answer of the Space in dir to a stranger.
func answerOf(t *testing.T, dir string, visibility config.Visibility) *httptest.ResponseRecorder {
	t.Helper()
	state, err := os.MkdirTemp("", "front") // t.TempDir() is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	h, err := New(config.Settings{
		State: state, Spaces: []config.SpaceSettings{{Dir: dir, Addr: config.Setting{Value: "127.0.0.1:0"}, Visibility: visibility}},
		Console: config.Setting{Value: "127.0.0.1:0"}, GPUs: config.Setting{Value: "mock:1xH200"}, Hardware: config.Setting{Value: gpu.AutoHardware},
		Preset: config.Setting{Value: "2026-04"}, LocalTier: config.Setting{Value: "free"}, Share: 1, QueueTimeout: time.Minute, IdentityMode: "direct",
	}, t.Output(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()       // New made this process a subreaper
	r := httptest.NewRequest(http.MethodGet, "http://localhost/startup-events", nil) // no queue runs here
	r.RemoteAddr = "203.0.113.5:1234"
	w := httptest.NewRecorder()
	h.all()[0].site().ServeHTTP(w, r)
	return w
}

func TestPageOfASpace(t *testing.T) {
	for path, want := range map[string]string{"": "/", "/": "/", "/about": "/about", "/a/?b=c": "/a/?b=c", "about": "/", "//evil.test": "/", "/a b": "/"} {
		s := newSpaceRun(nil, config.SpaceSettings{}, &space.Space{BasePath: path})
		if got := s.page(); got != want {
			t.Errorf("base_path %q: page %q, want %q", path, got, want)
		}
	}
}
