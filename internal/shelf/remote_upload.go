package shelf

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// upload answers an upload by frames (answerUpload). Its error comes before the first byte of a response.
func (r *Remote) upload(c call) (stored bool, err error) {
	ctx, cancel := lingering(c.r.Context())
	defer cancel()
	answer, err := r.ask(ctx, c, opUpload)
	if err != nil {
		return false, err
	}
	conn, ok := answer.Body.(io.ReadWriteCloser)
	if answer.StatusCode != http.StatusSwitchingProtocols || !ok {
		defer answer.Body.Close()
		return false, resultOf(answer)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	link := newFramed(conn, nil)
	var sending bodySender
	for {
		kind, content, err := link.next()
		if err != nil || kind != frameGo && kind != framePass { // the node reads no more
			_ = conn.Close()
			sending.stop(c.w)
		}
		switch {
		case err != nil:
			return false, fmt.Errorf("upload to the machine of the Space: %w", err)
		case kind == frameGo:
			sending.start(link, c.r.Body)
		case kind == framePass:
			order, err := decodeJSON[passOrder](content)
			if err != nil {
				return false, err
			}
			return r.passUpload(c, link, order), nil
		case kind == frameResponse:
			response, err := decodeJSON[uploadResponse](content)
			if err != nil {
				return false, err
			}
			if response.Status < http.StatusOK || response.Status > 599 { // net/http panics at many others
				return false, fmt.Errorf("upload to the machine of the Space: status %d", response.Status)
			}
			c.copyHeader(response.Header, response.AllowOrigin)
			c.w.WriteHeader(response.Status)
			_, _ = c.w.Write(response.Body) // fails if the visitor has left
			return response.Status == http.StatusOK, nil
		default:
			return false, fmt.Errorf("upload to the machine of the Space: unexpected frame %q", kind)
		}
	}
}

// leaveGrace is the time that an upload may take after the context of its request has ended. The end of a visitor's connection fails
// the body, too, and the response to that still reaches a visitor with a half-closed connection.
const leaveGrace = 10 * time.Second

// lingering returns a context that ends leaveGrace after ctx.
func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		late := time.NewTimer(leaveGrace)
		defer late.Stop()
		select {
		case <-late.C:
			cancel()
		case <-out.Done():
		}
	})
	return out, func() {
		stop()
		cancel()
	}
}

// bodySender sends the body of an upload in a goroutine. The zero value sends nothing.
type bodySender struct {
	ended chan struct{} // nil: not started
	link  *framed
}

func (s *bodySender) start(link *framed, body io.Reader) {
	if s.ended != nil {
		return
	}
	s.ended, s.link = make(chan struct{}), link
	go func() {
		defer close(s.ended)
		sendBody(link, body)
	}()
}

const (
	// stopGrace is the time that a visitor may take for the next bytes of a body that nothing reads any more.
	stopGrace = time.Second
	// stopInterval is the time between two tries to stop a Read of a visitor's body.
	stopInterval = 50 * time.Millisecond
)

// stop returns when no goroutine uses the body of the request any more. The connection is closed, so that no Write blocks.
func (s *bodySender) stop(w http.ResponseWriter) {
	if s.ended == nil {
		return
	}
	late := time.NewTimer(stopGrace)
	defer late.Stop()
	select {
	case <-s.ended:
		return
	case <-late.C:
	}
	control := http.NewResponseController(w)
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	again := time.NewTicker(stopInterval) // a body may set its own deadline before each Read
	defer again.Stop()
	for {
		_ = control.SetReadDeadline(time.Now()) // not every request has deadlines
		select {
		case <-s.ended:
			return
		case <-again.C:
		}
	}
}

// sendBody sends a body to its end.
func sendBody(link *framed, body io.Reader) {
	chunk := newChunk()
	defer chunks.Put(chunk)
	for {
		n, err := body.Read(chunk[frameHeader:])
		if n > 0 && link.writeReserved(frameBody, chunk[:frameHeader+n]) != nil {
			return // the reader of the frames reports it
		}
		switch {
		case err == io.EOF:
			_ = link.write(frameEnd, nil)
			return
		case err != nil:
			_ = link.writeJSON(frameBodyError, newBodyError(err))
			return
		}
	}
}

// passUpload lets the Space's own server take an upload, while the node counts its bytes and marks the paths of the answer. stored
// reports whether the server has answered with 200.
func (r *Remote) passUpload(c call, link *framed, order passOrder) (stored bool) {
	for _, name := range order.Drop {
		c.r.Header.Del(name)
	}
	body := &passedBody{ReadCloser: c.r.Body, link: link, taken: make(chan struct{}), marked: make(chan struct{}), broken: make(chan struct{})}
	var reading sync.WaitGroup
	reading.Go(body.readFrames)
	defer reading.Wait()
	defer link.conn.Close()
	defer body.left.Store(true)
	c.r.Body = body
	c.pass(func(response *http.Response) {
		stored = true
		if link.write(frameAnswered, nil) == nil {
			response.Body = &answeredPaths{ReadCloser: response.Body, whole: body.mark}
		}
	})
	return stored
}

// passedBody is the body of an upload that is passed through. It reports the bytes that are read, and fails once the node refuses
// more. Its end waits for the node.
type passedBody struct {
	io.ReadCloser
	link  *framed
	fresh int // bytes that the node does not know yet
	ended bool
	left  atomic.Bool // Pass has returned: net/http gives the connection to the next request

	taken, marked, broken chan struct{} // closed when the frame has come; broken: when the connection has ended

	mu      sync.Mutex
	refused error
}

// passedInterval is the number of bytes that are reported at once.
const passedInterval = 64 << 10

func (b *passedBody) Read(p []byte) (int, error) {
	if err := b.refusal(); err != nil {
		return 0, err
	}
	if b.ended {
		return 0, io.EOF
	}
	if b.left.Load() { // a transport may read longer than its request takes
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	if b.fresh += n; b.fresh >= passedInterval || err != nil && b.fresh > 0 {
		_ = b.link.write(frameCount, binary.AppendUvarint(nil, uint64(b.fresh))) // readFrames reports it
		b.fresh = 0
	}
	switch {
	case err == io.EOF:
		_ = b.link.write(frameEnd, nil)
		select {
		case <-b.taken:
			b.ended = true
		case <-b.broken:
		}
		if refused := b.refusal(); refused != nil {
			return n, refused
		}
	case err != nil:
		_ = b.link.writeJSON(frameBodyError, newBodyError(err))
	}
	return n, err
}

func (b *passedBody) refusal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

func (b *passedBody) refuse(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refused == nil {
		b.refused = err
	}
}

// readFrames reads until the connection ends. An upload fails if its node is lost.
func (b *passedBody) readFrames() {
	defer close(b.broken)
	for {
		kind, content, err := b.link.next()
		switch {
		case err != nil:
			b.refuse(fmt.Errorf("upload to the machine of the Space: %w", err))
			return
		case kind == frameRefusal:
			b.refuse(decodeBodyError(content))
			closeOnce(b.taken)
		case kind == frameTaken:
			closeOnce(b.taken)
		case kind == frameMarked:
			closeOnce(b.marked)
		}
	}
}

// closeOnce closes a channel. One goroutine calls it.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// mark sends the text of an answer, and waits until its paths are marked.
func (b *passedBody) mark(text []byte) {
	if b.link.write(frameText, text) != nil {
		return
	}
	select {
	case <-b.marked:
	case <-b.broken:
	}
}
