package gradioapi_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spacehost/queue"
)

// withFrontend is a Space whose frontend is in a folder of the test.
func withFrontend(t *testing.T) (root string, set func(*setup)) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "gradio", "templates", "frontend")
	return root, with(func(m *queue.Manifest) {
		m.Frontend = &queue.Frontend{
			Pages: map[string]bool{"/": true, "/config": true}, Root: root,
			Folders: map[string]string{"/static/": "static"}, Types: map[string]string{".js": "application/javascript", ".css": "text/css"},
		}
	})
}

// countRequests makes the Space answer a path with its number of requests.
func (h *host) countRequests(path string) *atomic.Int64 {
	var n atomic.Int64
	h.space.route(path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"n":%d,"host":%q}`, n.Add(1), r.Host)
	})
	return &n
}

// TestPageIsRequestedOnce: visitors with an equal request share one request to the Space, which contains no data of
// theirs.
func TestPageIsRequestedOnce(t *testing.T) {
	_, set := withFrontend(t)
	h := newHost(t, set)
	release := make(chan struct{})
	h.space.route("/config", func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.Header().Set("X-Made-By", "gradio")
		fmt.Fprint(w, "config")
	})
	var visitors sync.WaitGroup
	answers := make(chan answer, 20)
	for range 20 {
		visitors.Go(func() {
			answers <- h.get("/config", "Cookie: session=secret", "Authorization: Bearer secret", "X-Private: secret", "Origin: http://localhost:1")
		})
	}
	eventually(t, "the request to the Space", func() bool { return len(h.space.arrived()) > 0 })
	close(release)
	visitors.Wait()
	close(answers)
	for got := range answers {
		if got.status != http.StatusOK || got.body != "config" || got.header.Get("X-Made-By") != "gradio" || got.header.Get("Access-Control-Allow-Origin") != "http://localhost:1" {
			t.Errorf("got %d %q %v", got.status, got.body, got.header)
		}
	}
	if asked := len(h.space.arrived()); asked == 20 {
		t.Errorf("got %d requests for 20 visitors", asked)
	}
	for _, asked := range h.space.arrived() {
		if strings.Contains(fmt.Sprint(asked.header), "secret") || asked.header.Get("X-Ip-Token") != "" {
			t.Errorf("the Space got %v", asked.header)
		}
	}
}

func TestCachedPagesAreNotMixedUp(t *testing.T) {
	_, set := withFrontend(t)
	h := newHost(t, set)
	h.countRequests("/config")
	first := h.get("/config").body
	for name, other := range map[string]answer{
		"another host":  h.get("/config", "Host: space.example"),
		"another query": h.get("/config?page=x"),
	} {
		if other.body == first {
			t.Errorf("%s: got the cached %s", name, first)
		}
	}
	if got := h.get("/config", "Host: space.example").body; !strings.Contains(got, "space.example") {
		t.Errorf("got %s for space.example", got)
	}
}

// TestUncacheablePages: each visitor's own request is passed through completely.
func TestUncacheablePages(t *testing.T) {
	_, set := withFrontend(t)
	for name, ask := range map[string]func(*host) answer{
		"a deep link":     func(h *host) answer { return h.get("/config?deep_link=x") },
		"a hidden link":   func(h *host) answer { return h.get("/config?deep%5Flink=x") },
		"an encoded path": func(h *host) answer { return h.get("/%63onfig") },
		"a range":         func(h *host) answer { return h.get("/config", "Range: bytes=0-1") },
		"another method":  func(h *host) answer { return h.do(http.MethodHead, "/config", "") },
		"no such page":    func(h *host) answer { return h.get("/other") },
		"a cookie": func(h *host) answer {
			h.space.route("/config", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Set-Cookie", "a=b") })
			return h.get("/config")
		},
		"an error": func(h *host) answer {
			h.space.route("/config", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
			return h.get("/config")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, set)
			h.T = t
			for range 2 {
				ask(h)
			}
			passed := 0
			for _, asked := range h.space.arrived() {
				if asked.header.Get("X-Ip-Token") != "" { // only a passed-through request has one
					passed++
				}
			}
			if passed != 2 {
				t.Errorf("%d of 2 requests were passed through: %v", passed, h.space.arrived())
			}
		})
	}
}

func TestCachedPageExpires(t *testing.T) {
	_, set := withFrontend(t)
	var m queue.Manifest
	h := newHost(t, set, with(func(given *queue.Manifest) { m = *given }))
	h.countRequests("/config")
	began := time.Now()
	first := h.get("/config").body
	h.queue.Changed(m.App + 1) // another app
	if got := h.get("/config").body; got != first && time.Since(began) < 500*time.Millisecond {
		t.Errorf("got %s, want the cached %s", got, first)
	}
	for name, change := range map[string]func(){
		"attached again": func() { h.queue.Attach(m) }, "made anew": func() { h.queue.Changed(m.App) },
	} {
		before := h.get("/config").body
		change()
		if got := h.get("/config").body; got == before {
			t.Errorf("%s: got the cached %s", name, got)
		}
	}
	last := h.get("/config").body // unreported changes become visible after pageMaxAge
	eventually(t, "a new request for the page", func() bool { return h.get("/config").body != last })
	h.space.down.Store(true)
	soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if got, err := h.client.Do(h.request(soon, http.MethodGet, "/config", nil)); err == nil { // the request waits for the Space
		t.Errorf("the Space is down: got %d", got.StatusCode)
		got.Body.Close()
	}
}

// TestAssetsOfTheFrontend checks that a file of the frontend comes from its folder, with the CORS headers of Gradio, and that the
// Space answers where the folder is no frontend's.
func TestAssetsOfTheFrontend(t *testing.T) {
	root, set := withFrontend(t)
	h := newHost(t, set)
	if got := h.get("/static/a.js"); got.body != "the Space answers /static/a.js" {
		t.Errorf("without a folder: got %d %s", got.status, got.body)
	}
	writeFile(t, filepath.Join(root, "static", "a.js"), "a")
	got := h.get("/static/a.js", "Origin: http://localhost:1")
	if got.status != http.StatusOK || got.body != "a" || got.header.Get("Access-Control-Allow-Origin") != "http://localhost:1" {
		t.Errorf("got %d %s, %v", got.status, got.body, got.header)
	}
	h.onlyRequest()
}
