package gradioapi

import (
	"sync"
	"time"
)

// progress holds the progress of uploads, by the id that the client chose (gradio/route_utils.py,
// FileUploadProgress).
type progress struct {
	mu       sync.Mutex
	trackers map[string]*tracker
	appeared chan struct{} // closed and replaced when a tracker is added
}

func newProgress() *progress {
	return &progress{trackers: map[string]*tracker{}, appeared: make(chan struct{})}
}

// tracker is the progress of one upload. nil stands for an upload without an id.
type tracker struct {
	set *progress
	id  string

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
	t := &tracker{set: p, id: id}
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
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	if t.set.trackers[t.id] == t {
		delete(t.set.trackers, t.id)
	}
}

// add counts n bytes. Bytes of the previous file that no reader has fetched are dropped, as in Gradio.
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

// progressRetention is the time that the progress of an ended upload is kept for a reader.
const progressRetention = time.Minute

// end marks the upload as done. A reader may still arrive within progressRetention.
func (t *tracker) end() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.done = true
	t.mu.Unlock()
	time.AfterFunc(progressRetention, t.forget)
}

type progressUpdate struct {
	Msg       string `json:"msg"`
	OrigName  string `json:"orig_name"`
	ChunkSize int    `json:"chunk_size"`
}

// next returns the message that is due, or nil. The last message is "done".
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

// Wait and poll interval of Gradio (gradio/routes.py, get_upload_progress).
const (
	progressWait = 3 * time.Second
	progressTick = 50 * time.Millisecond
)

// uploadProgress streams the progress of an upload that is under way or about to begin.
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
		h.streamProgress(s, t)
	}()
	return nil
}

func (h *Handler) streamProgress(s *sse, t *tracker) {
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
