package gradioapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"spacehost/queue"
)

// passUnknown serves a Space whose Gradio version the runner does not know and which keeps its own queue. Every
// request is passed through. A call runs long after the response to its join, so the join's token stays valid while
// its stream is read.
//
// Such a Space has not reported its API prefix, so the routes are recognized by the end of their paths.
func (h *Handler) passUnknown(c call) error {
	folder, last := path.Split(strings.TrimSuffix(c.Request().URL.Path, "/"))
	inQueue, byName := strings.HasSuffix(folder, "/queue/"), strings.Contains(folder, "/call/")
	switch c.Request().Method {
	case http.MethodPost:
		if inQueue && last == "join" || byName {
			return h.passJoin(c, inQueue)
		}
		if last == "upload" {
			return h.upload(c)
		}
	case http.MethodGet:
		if inQueue && last == "data" {
			if err := h.requireOwner(c, queue.SessionHash(c.QueryParam("session_hash"))); err != nil {
				return err
			}
			defer h.passThroughCalls.read(c.QueryParam("session_hash"))()
		} else if byName {
			defer h.passThroughCalls.read(last)()
		}
	}
	return h.pass(c)
}

// passJoin keeps the direct call of a join open after Gradio has accepted it. A /call is read by its Event, a call of
// the queue by its Session.
func (h *Handler) passJoin(c call, bySession bool) error {
	raw, err := h.readBody(c)
	if err != nil {
		return err
	}
	if err := h.requireBodyOwner(c, raw); err != nil {
		return err
	}
	body, _ := parseJoin(raw) // Gradio reports errors in it
	id, end := h.config.Queue.Direct(c.payer, false)
	kept := false
	defer func() {
		if !kept {
			end()
		}
	}()
	return h.forward(c, destination{token: h.config.SignToken(queue.Event{ID: id, Payer: c.payer}), mount: c.manifest.Mount, onResponse: func(response *http.Response) {
		reader := eventIn(response)
		if bySession && body.SessionHash != nil {
			reader = *body.SessionHash
		}
		if reader != "" {
			kept = true
			h.passThroughCalls.keep(reader, end)
		}
	}})
}

// eventIn returns the Event named by the response to a join and restores the body. It returns "" if there is none.
func eventIn(response *http.Response) string {
	raw, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), response.Body), response.Body}
	var body struct {
		EventID string `json:"event_id"`
	}
	if err != nil || json.Unmarshal(raw, &body) != nil {
		return ""
	}
	return body.EventID
}

// unreadTimeout is the time that a call's token stays valid without a reader: before the first reader and after the
// last.
const unreadTimeout = 10 * time.Minute

// passThroughCalls are direct calls that outlive their request, by the reader of their stream (an Event or a
// Session). The zero value is ready to use.
type passThroughCalls struct {
	mu   sync.Mutex
	open map[string]*passThroughCall
}

type passThroughCall struct {
	ends    []func()
	readers int
	timer   *time.Timer // runs while there are no readers
}

// keep ends a direct call after its stream has had no reader for unreadTimeout.
func (t *passThroughCalls) keep(reader string, end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	call := t.open[reader]
	if call == nil {
		call = t.start(reader)
	}
	call.ends = append(call.ends, end)
}

// read registers a reader until done is called.
func (t *passThroughCalls) read(reader string) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	call := t.open[reader]
	if call == nil {
		return func() {} // no such call
	}
	call.readers++
	call.timer.Stop()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if call.readers--; call.readers == 0 {
			call.timer.Reset(unreadTimeout)
		}
	}
}

func (t *passThroughCalls) start(reader string) *passThroughCall {
	if t.open == nil {
		t.open = map[string]*passThroughCall{}
	}
	call := &passThroughCall{}
	call.timer = time.AfterFunc(unreadTimeout, func() { t.end(reader, call) })
	t.open[reader] = call
	return call
}

func (t *passThroughCalls) end(reader string, call *passThroughCall) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if call.readers > 0 { // a reader arrived while the timer fired
		return
	}
	delete(t.open, reader)
	for _, end := range call.ends {
		end()
	}
}
