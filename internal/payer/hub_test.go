package payer

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"spacehost/queue"
)

// TestWhatTravelsOnTheHub is the rule by itself: which requests of a browser bring its sign-in.
func TestWhatTravelsOnTheHub(t *testing.T) {
	s := newStage(t, openStops(t))
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
			"POST /gradio_api/queue/join user": false, "POST /gradio_api/queue/join http://h/": true, "POST /gradio_api/queue/join http://h/own": false,
			"POST /gradio_api/run/greet http://h/": false,
		},
	} {
		s.queue.Attach(queue.Manifest{Gradio: gradio, Prefix: "/gradio_api", Frontend: pages, MaxThreads: 1})
		for asked, want := range rows {
			words := strings.Fields(asked)
			r, err := http.NewRequest(words[0], "http://h"+words[1], nil)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(words, "user") {
				r.Header.Set("X-Gradio-User", "app")
			} else if len(words) == 3 {
				r.Header.Set("Referer", words[2])
			}
			if lost := lossCause(r, at); (lost == "") != want {
				t.Errorf("%s: %s: lost %q", gradio, asked, lost)
			}
		}
	}
}
