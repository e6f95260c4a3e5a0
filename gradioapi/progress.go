package gradioapi

import (
	"sync"
	"time"
)

// progress tells how far uploads are, by the id that the client chose (gradio/route_utils.py, FileUploadProgress).
type progress struct {
	mu       sync.Mutex
	trackers map[string]*tracker
	appeared chan struct{} // closed, and replaced, when one comes
}

func newProgress() *progress {
	return &progress{trackers: map[string]*tracker{}, appeared: make(chan struct{})}
}

// tracker is one upload's; nil is that of an upload without an id.
type tracker struct {
	of *progress
	id string

	mu      sync.Mutex
	name    string
	size    int
	pending bool
	done    bool
}

func (p *progress) track(id string) *tracker {
	if id == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &tracker{of: p, id: id}
	p.trackers[id] = t
	close(p.appeared)
	p.appeared = make(chan struct{})
	return t
}

func (p *progress) find(id string) (*tracker, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trackers[id], p.appeared
}

func (t *tracker) forget() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if t.of.trackers[t.id] == t {
		delete(t.of.trackers, t.id)
	}
}

// add counts n bytes; those of the file before, which nobody has asked for, are forgotten, as Gradio does.
func (t *tracker) add(name string, n int) {
	if t == nil || n == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.pending || t.name != name {
		t.size = 0
	}
	t.name, t.size, t.pending = name, t.size+n, true
}

// stale is how long an upload's progress waits for somebody to read its end.
const stale = time.Minute

// end keeps the tracker for a reader who is about to come.
func (t *tracker) end() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.done = true
	t.mu.Unlock()
	time.AfterFunc(stale, t.forget)
}

type progressUpdate struct {
	Msg       string `json:"msg"`
	OrigName  string `json:"orig_name"`
	ChunkSize int    `json:"chunk_size"`
}

// next is the message that is due: nil if there is none. The last is "done".
func (t *tracker) next() (message any, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.done:
		return map[string]string{"msg": "done"}, true
	case t.pending:
		t.pending = false
		return progressUpdate{"update", t.name, t.size}, false
	}
	return nil, false
}

// Gradio's own times (gradio/routes.py, get_upload_progress).
const (
	progressWait = 3 * time.Second
	progressTick = 50 * time.Millisecond
)

// uploadProgress is a stream about an upload whose POST is under way, or about to come.
func (h *Handler) uploadProgress(c call) error {
	id := c.QueryParam("upload_id")
	f := h.files(c)
	if id == "" || f == nil || f.Expires || namingOf(f) == nil {
		return h.pass(c)
	}
	t := h.progress.await(c, id)
	if t == nil {
		allowOrigin(c)
		return dialectOf(c.manifest).noUpload(c)
	}
	s, err := h.openSSE(c)
	if err != nil {
		return err
	}
	go func() {
		defer s.close()
		defer t.forget()
		h.pourProgress(s, t)
	}()
	return nil
}

func (h *Handler) pourProgress(s *sse, t *tracker) {
	_ = s.send() // the head
	tick, beat := time.NewTicker(progressTick), time.NewTicker(h.config.Heartbeat)
	defer tick.Stop()
	defer beat.Stop()
	for {
		message, done := t.next()
		if message != nil && s.write(progressFrame(message)) != nil {
			return
		}
		if done {
			s.end(nil)
			return
		}
		select {
		case <-tick.C:
		case <-beat.C:
			if s.write(progressFrame(map[string]string{"msg": "heartbeat"})) != nil {
				return
			}
		case <-s.ctx.Done():
			return
		}
	}
}

func progressFrame(message any) []byte {
	return append(append([]byte("data: "), pythonJSON(mustJSON(message))...), "\n\n"...)
}

func (p *progress) await(c call, id string) *tracker {
	late := time.NewTimer(progressWait)
	defer late.Stop()
	for {
		t, appeared := p.find(id)
		if t != nil {
			return t
		}
		select {
		case <-appeared:
		case <-late.C:
			return nil
		case <-c.Request().Context().Done():
			return nil
		}
	}
}
