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

// passUnknown serves a Space whose Gradio queues by itself: everything is passed through. A call runs long after
// its join was answered, so the join's token goes on paying while somebody reads what comes of it.
//
// Where its API begins, the Space has not said: the paths are known by their ends.
func (h *Handler) passUnknown(c call) error {
	folder, last := path.Split(strings.TrimSuffix(c.Request().URL.Path, "/"))
	inQueue, byName := strings.HasSuffix(folder, "/queue/"), strings.Contains(folder, "/call/")
	switch c.Request().Method {
	case http.MethodPost:
		if inQueue && last == "join" || byName {
			return h.passJoin(c, inQueue)
		}
	case http.MethodGet:
		if inQueue && last == "data" {
			if err := h.owns(c, queue.SessionHash(c.QueryParam("session_hash"))); err != nil {
				return err
			}
			defer h.tails.read(c.QueryParam("session_hash"))()
		} else if byName {
			defer h.tails.read(last)()
		}
	}
	return h.pass(c)
}

// passJoin keeps the direct call that pays, once Gradio has taken the call in: a /call is read by its Event, a
// call of the queue by its Session.
func (h *Handler) passJoin(c call, bySession bool) error {
	raw, err := readBody(c)
	if err != nil {
		return err
	}
	if err := h.ownsNamed(c, raw); err != nil {
		return err
	}
	body, _ := parseJoin(raw) // what is wrong with it, Gradio says
	id, end := h.config.Queue.Direct(c.payer)
	kept := false
	defer func() {
		if !kept {
			end()
		}
	}()
	return h.forward(c, destination{token: h.config.Sign(queue.Event{ID: id, Payer: c.payer}), mount: c.manifest.Mount, answered: func(answer *http.Response) {
		reader := eventIn(answer)
		if bySession && body.SessionHash != nil {
			reader = *body.SessionHash
		}
		if reader != "" {
			kept = true
			h.tails.keep(reader, end)
		}
	}})
}

// eventIn reads the Event that the answer to a join names, and puts its body back; "" if it names none.
func eventIn(answer *http.Response) string {
	raw, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), answer.Body), answer.Body}
	var said struct {
		EventID string `json:"event_id"`
	}
	if err != nil || json.Unmarshal(raw, &said) != nil {
		return ""
	}
	return said.EventID
}

// tailLife is how long a call may still pay without anybody reading its stream: until the first reader comes,
// and after the last one has gone.
const tailLife = 10 * time.Minute

// tails are direct calls that outlive their request, by who will read what comes of them. The zero value is ready.
type tails struct {
	mu   sync.Mutex
	open map[string]*tail
}

type tail struct {
	ends    []func()
	readers int
	timer   *time.Timer // runs while there are no readers
}

// keep ends a direct call only when its reader has been gone for tailLife.
func (t *tails) keep(reader string, end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.open[reader]
	if one == nil {
		one = t.start(reader)
	}
	one.ends = append(one.ends, end)
}

// read says that somebody reads, until done.
func (t *tails) read(reader string) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.open[reader]
	if one == nil {
		return func() {} // of nothing that could pay
	}
	one.readers++
	one.timer.Stop()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.readers--; one.readers == 0 {
			one.timer.Reset(tailLife)
		}
	}
}

func (t *tails) start(reader string) *tail {
	if t.open == nil {
		t.open = map[string]*tail{}
	}
	one := &tail{}
	one.timer = time.AfterFunc(tailLife, func() { t.end(reader, one) })
	t.open[reader] = one
	return one
}

func (t *tails) end(reader string, one *tail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.readers > 0 { // came while the timer rang
		return
	}
	delete(t.open, reader)
	for _, end := range one.ends {
		end()
	}
}
