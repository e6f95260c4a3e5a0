package gradioapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"spacehost/gradioapi"
	"spacehost/queue"
)

// gradioInfo is the answer of Gradio 6.31 for a function with three inputs, shortened.
const gradioInfo = `{"named_endpoints": {
	"/zoom": {"parameters": [], "returns": []},
	"/greet": {"parameters": [
		{"label": "Name", "parameter_name": "name", "parameter_has_default": false, "parameter_default": null, "type": {"type": "string"}, "python_type": {"type": "str", "description": ""}, "component": "Textbox", "example_input": "Hello!!"},
		{"label": "Times", "parameter_name": "times", "parameter_has_default": true, "parameter_default": 3, "python_type": {"type": "float"}, "component": "Slider", "example_input": 1}
	], "returns": [{"label": "out"}]}
}, "unnamed_endpoints": {}}`

// TestInfo reads the endpoints of a Space.
func TestInfo(t *testing.T) {
	var asked atomic.Int64
	answer := atomic.Pointer[string]{}
	set := with(func(m *queue.Manifest) {
		m.Frontend = &queue.Frontend{Pages: map[string]bool{m.Prefix + "/info": true}}
	})
	h := newHost(t, set)
	h.space.route("/gradio_api/info", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, *answer.Load())
	})
	text := gradioInfo
	answer.Store(&text)
	for range 3 {
		info, err := h.handler.Info(t.Context())
		if err != nil || info.Prefix != "/gradio_api" || len(info.Endpoints) != 2 || info.Endpoints[0].Name != "/greet" || len(info.Endpoints[1].Parameters) != 0 {
			t.Fatalf("%+v, %v", info, err)
		}
		name, times := info.Endpoints[0].Parameters[0], info.Endpoints[0].Parameters[1]
		if name.Name != "name" || name.Label != "Name" || name.Type != "str" || name.HasDefault || string(name.Example) != `"Hello!!"` || name.Component != "Textbox" {
			t.Errorf("the first parameter: %+v", name)
		}
		if !times.HasDefault || string(times.Default) != "3" || times.Type != "float" {
			t.Errorf("the second parameter: %+v", times)
		}
	}
	if n := asked.Load(); n < 1 || n > 3 {
		t.Errorf("the Space was asked %d times", n)
	}
}

// TestInfoEndsWithItsContext asks a Space that does not answer.
func TestInfoEndsWithItsContext(t *testing.T) {
	h := newHost(t, with(func(m *queue.Manifest) {
		m.Frontend = &queue.Frontend{Pages: map[string]bool{m.Prefix + "/info": true}}
	}))
	release, answered := make(chan struct{}), make(chan struct{})
	h.space.route("/gradio_api/info", func(http.ResponseWriter, *http.Request) { <-release; close(answered) })
	timer := time.AfterFunc(10*time.Second, func() { close(release) }) // otherwise a call that ignores its context never ends
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := h.handler.Info(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the error of the context", err)
	}
	if timer.Stop() {
		close(release)
	}
	<-answered
}

// TestNoInfo asks Spaces whose endpoints are not known.
func TestNoInfo(t *testing.T) {
	wrong := newHost(t, with(func(m *queue.Manifest) {
		m.Frontend = &queue.Frontend{Pages: map[string]bool{m.Prefix + "/info": true}}
	}))
	wrong.space.route("/gradio_api/info", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") })
	login := newHost(t, with(func(m *queue.Manifest) { m.Frontend = nil }))
	for name, h := range map[string]*host{"an answer that is no JSON": wrong, "an app with a login": login} {
		if info, err := h.handler.Info(t.Context()); !errors.Is(err, gradioapi.ErrNoInfo) {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}
