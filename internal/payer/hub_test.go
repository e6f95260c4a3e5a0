package payer

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"spacehost/queue"
)

// Each row is a browser's request, and whether its page would have requested the token on the Hub.
func TestLossCause(t *testing.T) {
	s := newTestRule(t, openDenyList(t))
	at := s.spaces["a"]
	pages := &queue.Frontend{Pages: map[string]bool{"/": true, "/more": true, "/config": true, "/theme.css": true}}
	for gradio, rows := range map[string]map[string]bool{
		"6.31.0": {
			"POST /gradio_api/queue/join user": true, "POST /gradio_api/queue/join http://h/": true, "POST /gradio_api/queue/join http://h/more": true,
			"POST /gradio_api/queue/join": false, "POST /gradio_api/queue/join http://h/own": false, "POST /gradio_api/queue/join http://h/config": false,
			"POST /gradio_api/queue/join http://h/theme.css": false, "POST /gradio_api/queue/join http://other/": false,
			"POST /gradio_api/run/greet user": false, "POST /gradio_api/call/greet user": false, "POST /gradio_api/call/greet http://h/": false,
			"POST /generate user": false, "GET /gradio_api/queue/join user": false, "POST /other/gradio_api/queue/join user": false,
		},
		"5.49.1": {
			"POST /gradio_api/queue/join user": true, "POST /gradio_api/queue/join http://h/": true, "POST /gradio_api/queue/join http://h/own": false,
			"POST /gradio_api/run/greet http://h/": false,
		},
	} {
		s.queue.Attach(queue.Manifest{Gradio: gradio, Prefix: "/gradio_api", Frontend: pages, MaxThreads: 1})
		for request, want := range rows {
			words := strings.Fields(request)
			r, err := http.NewRequest(words[0], "http://h"+words[1], nil)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(words, "user") {
				r.Header.Set("X-Gradio-User", "app")
			} else if len(words) == 3 {
				r.Header.Set("Referer", words[2])
			}
			if cause := lossCause(r, at); (cause == "") != want {
				t.Errorf("Gradio %s: %s: got loss cause %q, want the sign-in kept: %t", gradio, request, cause, want)
			}
		}
	}
}
