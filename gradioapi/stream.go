package gradioapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sys/unix"

	"spacehost/queue"
)

// sse is a stream under way. It has taken the connection over from net/http, whose buffers and deep stack are most
// of what a visitor who only waits would cost.
type sse struct {
	streams  *streams
	ctx      context.Context // ends when the client has gone, or says more
	leave    context.CancelFunc
	conn     net.Conn
	chunked  bool          // else its end is that of the connection: HTTP/1.0
	head     []byte        // of the answer; goes out with what is said first
	patience time.Duration // what a client gets to take leastTaken
	rests    time.Duration
	notFound string // what the stream of an unknown Session says, in the words of its Gradio

	again  returner    // nil: the connection is used for nothing after
	ending atomic.Bool // from here on the client may send its next request
	whole  bool        // the end is said
	ended  chan bool   // told once, by close: whether the connection stays
}

// returner is a connection whose server will read a further request from it, of which said is the beginning; false if
// it no longer does (package server).
type returner interface{ Return(said []byte) bool }

// streams are those under way. Neither net/http nor their request's handler waits for them.
type streams struct {
	open sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool // true: its stream has ended, the client's next request may come
	closed bool
}

// idleTime is how long a connection is kept whose stream has ended, as long as the server keeps the others.
const idleTime = 2 * time.Minute

// add reports false once no stream may begin any more.
func (s *streams) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.conns == nil {
		s.conns = map[net.Conn]bool{}
	}
	s.conns[conn] = false
	s.open.Add(1)
	return true
}

// idle reports false once no connection is kept any more.
func (s *streams) idle(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = !s.closed
	return !s.closed
}

// forget comes before the connection is given back: its next request may be a stream, too.
func (s *streams) forget(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// close ends all and waits for them; they get patience to end by themselves.
func (s *streams) close(patience time.Duration) {
	s.cut(false)
	late := time.AfterFunc(patience, func() { s.cut(true) })
	defer late.Stop()
	s.open.Wait()
}

// cut closes the connections, those of streams under way only if all: whoever reads or writes there ends.
func (s *streams) cut(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for conn, idle := range s.conns {
		if all || idle {
			_ = conn.Close()
		}
	}
}

func (h *Handler) openSSE(c call) (*sse, error) {
	allowOrigin(c)
	conn, early, err := http.NewResponseController(c.Response().Writer).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take the connection for a stream: %w", err)
	}
	d := dialectOf(c.manifest)
	s := &sse{
		streams: &h.streams, conn: conn, patience: h.config.Patience, notFound: d.notFound(), rests: d.rests(),
		chunked: c.Request().ProtoAtLeast(1, 1), ended: make(chan bool, 1),
	}
	if s.chunked && !c.Request().Close && early.Reader.Buffered() == 0 {
		s.again, _ = conn.(returner)
	}
	s.head = s.headOf(c.Response().Header())
	s.ctx, s.leave = context.WithCancel(context.Background())
	keepLittle(conn)
	if !h.streams.add(conn) {
		_ = conn.Close()
		panic(http.ErrAbortHandler) // there is nobody left to answer
	}
	go s.listen() // until the connection has gone, or its next request has come
	return s, nil
}

func (s *sse) headOf(head http.Header) []byte {
	head.Set(echo.HeaderContentType, "text/event-stream; charset=utf-8")
	head.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if s.again == nil {
		head.Set("Connection", "close")
	}
	if s.chunked {
		head.Set("Transfer-Encoding", "chunked")
	}
	var out bytes.Buffer
	out.WriteString("HTTP/1.1 200 OK\r\n")
	_ = head.Write(&out) // into memory
	out.WriteString("\r\n")
	return out.Bytes()
}

// listen notices that the client has gone, and what it says after the stream.
func (s *sse) listen() {
	defer s.streams.open.Done()
	var said [16]byte
	n, err := s.conn.Read(said[:])
	patient := true
	for err == nil && !s.ending.Load() {
		patient = false // it did not wait for its answer, and what it said is lost
		n, err = s.conn.Read(said[:])
	}
	s.leave()
	stays := <-s.ended
	s.streams.forget(s.conn)
	if stays && err == nil && patient && s.again.Return(said[:n]) {
		return
	}
	_ = s.conn.Close()
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

// leastTaken is what a client that still reads takes of a long frame while the stream is patient, though its network be slow:
// a result may be as large as any file.
const leastTaken = 64 << 10

func (s *sse) send(parts ...[]byte) error {
	if s.head != nil {
		parts = append([][]byte{s.head}, parts...)
		s.head = nil
	}
	for rest := (net.Buffers)(parts); ; {
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.patience)); err != nil {
			return err
		}
		taken, err := rest.WriteTo(s.conn)
		if !errors.Is(err, os.ErrDeadlineExceeded) || taken < leastTaken {
			return err
		}
	}
}

// unsentBytes is what the kernel keeps of a stream beyond what is on its way. It takes more only when a third of all that it
// keeps has gone, which without this is megabytes, and so a minute of silence at a slow client.
const unsentBytes = 128 << 10

// keepLittle is for conn's next stream, too, and for nothing if conn is no TCP connection.
func keepLittle(conn net.Conn) {
	tcp, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // an old kernel keeps more
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
		})
	}
}

// end writes the last frames and that they were it. A stream that is closed without it breaks off.
func (s *sse) end(frames []byte) {
	parts := s.chunk(frames)
	if s.chunked {
		parts = append(parts, []byte("0\r\n\r\n"))
	}
	s.ending.Store(true)
	s.whole = s.send(parts...) == nil // else the client has gone
}

// close is called once, and nothing is written after.
func (s *sse) close() {
	stays := s.whole && s.again != nil && s.streams.idle(s.conn)
	if stays {
		_ = s.conn.SetDeadline(time.Now().Add(idleTime)) // a closed one refuses
	} else {
		_ = s.conn.Close()
	}
	s.ended <- stays
}

// data is the stream of a Session: nothing but `data:` frames, and a heartbeat when nothing else is said.
func (h *Handler) data(c call) error {
	if !c.Request().URL.Query().Has("session_hash") {
		return h.pass(c) // 422 in FastAPI's words
	}
	hash := queue.SessionHash(c.QueryParam("session_hash"))
	if err := h.owns(c, hash); err != nil {
		return err
	}
	session := h.config.Queue.Session(hash)
	if session == nil {
		h.guesses.Wrong(c.Request().RemoteAddr)
	}
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
	if err := h.ownsEvent(c, queue.EventID(parts[2])); err != nil {
		return err
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

// heartbeat tells a visitor that the Space lives. The Space hears of it once, when the visitor has left (farewell): until
// then Gradio's own heartbeat has no effect but its connection.
func (h *Handler) heartbeat(c call) error {
	hash := queue.SessionHash(strings.TrimPrefix(strings.TrimSuffix(c.rest, "/"), "/heartbeat/"))
	if err := h.owns(c, hash); err != nil {
		return err
	}
	leave := h.config.Queue.Visit(hash)
	s, err := h.openSSE(c)
	if err != nil {
		leave()
		return err
	}
	c.Context = c.Echo().NewContext(c.Request(), nil) // echo gives the handler's own to the next request
	h.visits.Go(func() {
		defer leave()
		h.beatOn(s, c)
	})
	return nil
}

func (h *Handler) beatOn(s *sse, c call) {
	ticker := time.NewTicker(h.config.Heartbeat)
	defer ticker.Stop()
	for s.write([]byte("data: ALIVE\n\n")) == nil {
		select {
		case <-ticker.C:
			continue
		case <-s.ctx.Done():
		}
		break
	}
	s.close()
	h.farewell(c)
}

// A Space is told of few visitors at once: a thousand may leave in the same second. One that hangs hears of few.
const (
	farewells        = 4
	farewellTime     = 10 * time.Second
	farewellPatience = time.Minute
)

// farewell opens the visitor's heartbeat at the Space and ends it, which runs unload functions and ages gr.State
// (gradio/routes.py, heartbeat). A Space that is down has nothing to unload.
func (h *Handler) farewell(c call) {
	waiting, cancel := context.WithTimeout(h.life, farewellPatience)
	defer cancel()
	select {
	case h.farewells <- struct{}{}:
		defer func() { <-h.farewells }()
	case <-waiting.Done():
		return
	}
	ctx, cancel := context.WithTimeout(h.life, farewellTime)
	defer cancel()
	answer, err := h.fetch(ctx, c, c.Request().URL.Path)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	_, _ = answer.Body.Read(make([]byte, 64)) // its first beat: only then does its end say anything
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
