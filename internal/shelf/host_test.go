package shelf_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
	"spacehost/queue"
)

// host is a front with a Shelf at a real address. Whatever is passed to the Space's own server gets its status teapot.
type host struct {
	*testing.T
	url    string
	client *http.Client
}

// newHost serves requests with a Call, whose Pass and CORS headers are the host's.
func newHost(t *testing.T, s shelftest.Shelf, known shelf.Call) *host {
	t.Helper()
	known.Pass = teapot
	known.AllowOrigin = func(head http.Header) { head.Set("Access-Control-Allow-Origin", "any") }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(w, shelf.With(r, known, r.URL.Path))
	}))
	h := &host{t, server.URL, &http.Client{Transport: &http.Transport{DisableCompression: true}}}
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		server.CloseClientConnections()
		server.Close()
	})
	return h
}

// teapot is the response of the Space's own server, which shows that a request was passed through.
func teapot(w http.ResponseWriter, _ *http.Request, _ func(*http.Response)) {
	w.WriteHeader(http.StatusTeapot)
}

// newFileHost is a host whose Space has its own folders. Its file names follow Gradio 6.
func newFileHost(t *testing.T, change ...func(*queue.Files)) (h *host, storage shelf.Storage) {
	t.Helper()
	storage, files := shelftest.Folders(t)
	for _, c := range change {
		c(files)
	}
	return newHost(t, shelftest.New(t, shelf.Config{Storage: storage}), shelf.Call{Files: files, Native: true}), storage
}

func (h *host) file(path string, header ...string) *http.Response {
	h.Helper()
	return shelftest.Get(h, h.client, h.url+"/file="+path, header...)
}
