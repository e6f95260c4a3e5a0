package shelf

import (
	"context"
	"net/http"
	"sync"
	"time"

	"spacehost/internal/pytext"
	"spacehost/internal/web"
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
func (s *Shelf) uploadProgress(c call) {
	id := c.r.URL.Query().Get("upload_id")
	f := s.files(c)
	if id == "" || f == nil || f.Expires || namingOf(f) == nil {
		c.pass(nil)
		return
	}
	t := s.progress.await(c.r.Context(), id)
	if t == nil {
		c.noUpload()
		return
	}
	defer t.forget()
	s.streamProgress(c, t)
}

// noUpload answers a request for the progress of an upload that does not come, as the Space's Gradio does. Gradio 4 ends its
// stream at once; the host first waits for an upload that is about to begin.
func (c call) noUpload() {
	c.allowOrigin()
	if c.EmptyProgress {
		c.answer(http.StatusOK, eventStream, nil)
		return
	}
	c.refuseText(http.StatusNotFound, "Upload not found")
}

const eventStream = "text/event-stream; charset=utf-8"

// streamProgress returns after the last message. It breaks the response off if the client has left, or does not read.
func (s *Shelf) streamProgress(c call, t *tracker) {
	c.allowOrigin()
	c.w.Header().Set("Content-Type", eventStream)
	web.KeepFlowing(c.w.Header())
	c.w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(c.w)
	send := func(frame []byte) {
		_ = control.SetWriteDeadline(time.Now().Add(s.config.WriteTimeout)) // not every response has deadlines
		if _, err := c.w.Write(frame); err != nil || control.Flush() != nil {
			panic(http.ErrAbortHandler)
		}
	}
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }() // of the next response on the connection
	send(nil)
	tick, beat := time.NewTicker(progressTick), time.NewTicker(s.config.Heartbeat)
	defer tick.Stop()
	defer beat.Stop()
	for {
		message, done := t.next()
		if message != nil {
			send(progressFrame(message))
		}
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-beat.C:
			send(progressFrame(map[string]string{"msg": "heartbeat"}))
		case <-c.r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}

func progressFrame(message any) []byte {
	return append(append([]byte("data: "), pytext.Dumps(pytext.JSON(message))...), "\n\n"...)
}

func (p *progress) await(ctx context.Context, id string) *tracker {
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
		case <-ctx.Done():
			return nil
		}
	}
}
