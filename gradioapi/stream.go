package gradioapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/queue"
)

// sse is a stream under way. It has taken the connection over from net/http, whose buffers and deep stack are most
// of what a visitor who only waits would cost.
type sse struct {
	streams  *streams
	ctx      context.Context // ends with the connection
	leave    context.CancelFunc
	conn     net.Conn
	chunked  bool          // else its end is that of the connection: HTTP/1.0
	head     []byte        // of the answer; goes out with what is said first
	patience time.Duration // what a client gets to take a frame
	rests    time.Duration
	notFound string // what the stream of an unknown Session says, in the words of its Gradio
}

// streams are those under way. Neither net/http nor their request's handler waits for them.
type streams struct {
	open sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// add reports false once no stream may begin any more.
func (s *streams) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.conns == nil {
		s.conns = map[net.Conn]struct{}{}
	}
	s.conns[conn] = struct{}{}
	s.open.Add(1)
	return true
}

func (s *streams) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	s.open.Done()
}

// close ends all and waits for them; they get patience to end by themselves.
func (s *streams) close(patience time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	late := time.AfterFunc(patience, s.cut)
	defer late.Stop()
	s.open.Wait()
}

// cut closes the connections: whoever reads or writes there ends.
func (s *streams) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
}

func (h *Handler) openSSE(c call) (*sse, error) {
	allowOrigin(c)
	head := c.Response().Header()
	head.Set(echo.HeaderContentType, "text/event-stream; charset=utf-8")
	head.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	head.Set("Connection", "close") // it is used for nothing after
	d := dialectOf(c.manifest)
	s := &sse{streams: &h.streams, patience: h.config.Patience, notFound: d.notFound(), rests: d.rests(), chunked: c.Request().ProtoAtLeast(1, 1)}
	if s.chunked {
		head.Set("Transfer-Encoding", "chunked")
	}
	var out bytes.Buffer
	out.WriteString("HTTP/1.1 200 OK\r\n")
	_ = head.Write(&out) // into memory
	out.WriteString("\r\n")
	conn, _, err := http.NewResponseController(c.Response().Writer).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take the connection for a stream: %w", err)
	}
	s.conn = conn
	s.ctx, s.leave = context.WithCancel(context.Background())
	if !h.streams.add(conn) {
		_ = conn.Close()
		panic(http.ErrAbortHandler) // there is nobody left to answer
	}
	s.head = out.Bytes()
	go s.listen() // until close
	return s, nil
}

// listen notices that the client has gone. It has nothing more to say.
func (s *sse) listen() {
	defer s.leave()
	var ignored [16]byte
	for {
		if _, err := s.conn.Read(ignored[:]); err != nil {
			return
		}
	}
}

// write sends frames; an error means that the client has gone or does not read.
func (s *sse) write(frames []byte) error { return s.send(s.chunk(frames)...) }

func (s *sse) chunk(frames []byte) [][]byte {
	if !s.chunked || len(frames) == 0 {
		return [][]byte{frames}
	}
	return [][]byte{strconv.AppendInt(nil, int64(len(frames)), 16), lineEnd, frames, lineEnd}
}

var lineEnd = []byte("\r\n")

func (s *sse) send(parts ...[]byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.patience)); err != nil {
		return err
	}
	if s.head != nil {
		parts = append([][]byte{s.head}, parts...)
		s.head = nil
	}
	_, err := (*net.Buffers)(&parts).WriteTo(s.conn)
	return err
}

// end writes the last frames and that they were it. A stream that is closed without it breaks off.
func (s *sse) end(frames []byte) {
	parts := s.chunk(frames)
	if s.chunked {
		parts = append(parts, []byte("0\r\n\r\n"))
	}
	_ = s.send(parts...) // the client may have gone
}

func (s *sse) close() {
	_ = s.conn.Close()
	<-s.ctx.Done() // listen has ended
	s.streams.remove(s.conn)
}

// data is the stream of a Session: nothing but `data:` frames, and a heartbeat when nothing else is said.
func (h *Handler) data(c call) error {
	if !c.Request().URL.Query().Has("session_hash") {
		return h.pass(c) // 422 in FastAPI's words
	}
	session := h.config.Queue.Session(queue.SessionHash(c.QueryParam("session_hash")))
	d := dialectOf(c.manifest)
	return h.tell(c, session, func(m queue.Message) []byte { return dataFrame(d, m) })
}

// dataFrame splices what Gradio made as it is; a line break in it would end the frame, and in JSON it stands
// only where a space may.
func dataFrame(d dialect, m queue.Message) []byte {
	data := d.encode(m)
	if bytes.IndexByte(data, '\n') >= 0 || bytes.IndexByte(data, '\r') >= 0 {
		data = bytes.Map(breakToSpace, data)
	}
	return fmt.Appendf(nil, "data: %s\n\n", data)
}

func breakToSpace(r rune) rune {
	if r == '\n' || r == '\r' {
		return ' '
	}
	return r
}

// callData is the stream of one /call; its path names the Event, the API's name in it is not looked at
// (gradio/routes.py, simple_predict_get).
func (h *Handler) callData(c call) error {
	parts := strings.Split(strings.Trim(c.rest, "/"), "/")
	if parts[1] == "v2" {
		parts = parts[1:]
	}
	if len(parts) != 3 {
		return h.pass(c)
	}
	session := h.config.Queue.SessionOf(queue.EventID(parts[2]))
	d := dialectOf(c.manifest)
	return h.tell(c, session, func(m queue.Message) []byte { return simpleFrame(d, m) })
}

// tell begins a Session's stream. It goes on after the request's handler has returned, and knows no more of the
// request than it needs: it may last for hours.
func (h *Handler) tell(c call, session *queue.Session, frame func(queue.Message) []byte) error {
	s, err := h.openSSE(c)
	if err != nil {
		return err
	}
	if session == nil {
		s.breakOff(frame)
		s.close()
		return nil
	}
	closed, leave := session.Open(), h.config.Queue.Visit(session.Hash)
	go func() {
		defer s.close()
		defer closed()
		defer leave()
		h.pour(s, session, frame)
	}()
	return nil
}

// pour writes a Session's Messages until its last Event is told. A client that goes earlier leaves its Session.
func (h *Handler) pour(s *sse, session *queue.Session, frame func(queue.Message) []byte) {
	beat := time.NewTimer(h.config.Heartbeat)
	defer beat.Stop()
	if !session.Ready() {
		_ = s.send() // the head goes out at once, as Gradio's, though there may be nothing to say for long
	}
	for {
		beat.Reset(h.config.Heartbeat)
		frames, m, err := s.gather(session, beat.C, frame)
		switch {
		case errors.Is(err, io.EOF), err == nil && m.Kind == queue.UnexpectedError:
			s.end(frames)
			return
		case errors.Is(err, io.ErrUnexpectedEOF): // left on another stream, or cut
			_ = s.write(frames)
			s.breakOff(frame)
			return
		case err != nil || s.write(frames) != nil:
			h.config.Queue.Leave(session)
			return
		}
	}
}

// gatherBytes is how much is said in one write, where much is to be said.
const gatherBytes = 64 << 10

// gather returns the next frames, all that are due, with the last Message among them and Next's error.
func (s *sse) gather(session *queue.Session, beat <-chan time.Time, frame func(queue.Message) []byte) (frames []byte, m queue.Message, err error) {
	for first := true; first || err == nil && m.Kind != queue.UnexpectedError && len(frames) < gatherBytes && session.Ready(); first = false {
		m, err = session.Next(s.ctx, beat)
		if !m.Beside.IsZero() && s.rests > 0 {
			s.rest(m.Beside)
		}
		if err == nil || errors.Is(err, io.EOF) {
			frames = append(frames, frame(m)...)
		}
	}
	return frames, m, err
}

// rest lets the answer to a join reach its client before what this stream, which was open before, says of it: the
// Python client that belongs to Gradio 4 and 5 takes a call's first word for its last news, and waits for ever
// (gradio_client 1.13, stream_messages and submit). There a stream looks for Messages only now and then.
func (s *sse) rest(joined time.Time) {
	late := time.NewTimer(time.Until(joined.Add(s.rests)))
	defer late.Stop()
	select {
	case <-late.C:
	case <-s.ctx.Done():
	}
}

// breakOff says that there is no such Session (any more). Gradio raises there: the client sees an answer that
// ends in the middle (gradio/routes.py, queue_data_helper).
func (s *sse) breakOff(frame func(queue.Message) []byte) {
	_ = s.write(frame(queue.Message{Kind: queue.UnexpectedError, Text: s.notFound}))
}

// status answers with the number that waits, without a rank (gradio/queueing.py, get_status).
func (h *Handler) status(c call) error {
	allowOrigin(c)
	body := fmt.Sprintf(`{"msg":"estimation","event_id":null,"rank":null,"queue_size":%d,"rank_eta":null}`, h.config.Queue.Size())
	return c.JSONBlob(http.StatusOK, []byte(body))
}

// heartbeat tells a visitor that the Space lives, and the Space that its visitor does: one upstream heartbeat
// for each, opened again when the Space was started again. Its end runs unload functions and ages gr.State.
func (h *Handler) heartbeat(c call) error {
	leave := h.config.Queue.Visit(queue.SessionHash(strings.TrimPrefix(strings.TrimSuffix(c.rest, "/"), "/heartbeat/")))
	s, err := h.openSSE(c)
	if err != nil {
		leave()
		return err
	}
	c.Context = c.Echo().NewContext(c.Request(), nil) // echo gives the handler's own to the next request
	go func() {
		defer leave()
		h.beatOn(s, c)
	}()
	return nil
}

func (h *Handler) beatOn(s *sse, c call) {
	defer s.close()
	var upstream sync.WaitGroup
	upstream.Go(func() { h.keepUpstream(s.ctx, c) })
	defer upstream.Wait()
	defer s.conn.Close() // which ends ctx
	ticker := time.NewTicker(h.config.Heartbeat)
	defer ticker.Stop()
	for s.write([]byte("data: ALIVE\n\n")) == nil {
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// reopenAfter is the pause before an upstream heartbeat that broke off is opened again.
const reopenAfter = time.Second

func (h *Handler) keepUpstream(ctx context.Context, c call) {
	for {
		h.beat(ctx, c)
		select {
		case <-time.After(reopenAfter):
		case <-ctx.Done():
			return
		}
	}
}

// beat is one upstream heartbeat, until either side ends it. Who leaves at once has been there too: the Space
// hears of both.
func (h *Handler) beat(ctx context.Context, c call) {
	upstream, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	late := time.AfterFunc(askWait, cancel)
	answer, err := h.fetch(upstream, c, c.Request().URL.Path)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	if _, err := io.ReadFull(answer.Body, make([]byte, 1)); err != nil {
		return
	}
	late.Stop()
	defer context.AfterFunc(ctx, cancel)()
	_, _ = io.Copy(io.Discard, answer.Body) // its end says all
}

// behindLogin asks an app that signs people in whether this visitor may read (gradio/routes.py, login_check).
func (h *Handler) behindLogin(c call, then func(call) error) error {
	if c.manifest.Native {
		return then(c)
	}
	answer, body, err := h.checkLogin(c)
	if err != nil {
		return h.down(c)
	}
	if answer.StatusCode == http.StatusOK {
		return then(c)
	}
	allowOrigin(c)
	return c.Blob(answer.StatusCode, answer.Header.Get(echo.HeaderContentType), body)
}

// checkLogin ends its own request before the stream that it allows begins.
func (h *Handler) checkLogin(c call) (*http.Response, []byte, error) {
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	answer, err := h.fetch(ctx, c, c.manifest.Mount+c.manifest.Prefix+"/login_check")
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	return answer, body, err
}
