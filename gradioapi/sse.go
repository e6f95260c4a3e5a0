package gradioapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sys/unix"

	"spacehost/internal/web"
)

// sse is one open event stream. It has taken the connection over from net/http: the buffers and the deep stack of
// net/http are most of the cost of a visitor that only waits.
type sse struct {
	streams      *streams
	ctx          context.Context // ends when the client has gone or sends more
	cancel       context.CancelFunc
	conn         net.Conn
	encrypted    bool          // TLS: net.Buffers would write past it, to the TCP connection inside
	chunked      bool          // false: the end of the stream is the end of the connection (HTTP/1.0)
	head         []byte        // response head, sent with the first write
	writeTimeout time.Duration // limit for a client to take minWritten bytes
	pollInterval time.Duration
	notFoundText string // error text for an unknown Session, as the Space's Gradio words it

	release  func()      // of the grant
	refused  atomic.Bool // the stream lost its authorisation; ctx has ended
	returner returner    // nil: the connection is not reused
	ending   atomic.Bool // set: the client may send its next request
	complete bool        // the end of the stream was written
	ended    chan bool   // sent once, by close: whether the connection is kept
}

// returner is a connection that can be returned to its server for a further request. early is the beginning of that
// request. Return reports false if the server accepts no connection any more (package server).
type returner interface{ Return(early []byte) bool }

// streams are the open event streams. net/http and the request handlers do not wait for them.
type streams struct {
	open sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool // true: the stream has ended and the connection waits for the next request
	closed bool
}

// idleConnTimeout is the time that a connection is kept after its stream has ended. The server keeps its other idle
// connections as long.
const idleConnTimeout = 2 * time.Minute

// add registers a connection. It reports false after close: no stream may begin.
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

// idle marks a connection as waiting for its next request. It reports false after close.
func (s *streams) idle(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = !s.closed
	return !s.closed
}

// forget removes a connection. It must run before the connection is returned, because the next request may open a
// stream too.
func (s *streams) forget(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// close ends all streams and waits for them. Open streams first get the grace period to end by themselves.
func (s *streams) close(grace time.Duration) {
	s.closeConns(false)
	late := time.AfterFunc(grace, func() { s.closeConns(true) })
	defer late.Stop()
	s.open.Wait()
}

// closeConns closes the idle connections, and with all also those of open streams. Blocked reads and writes then
// return.
func (s *streams) closeConns(all bool) {
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
		return nil, fmt.Errorf("hijack connection for a stream: %w", err)
	}
	d := dialectOf(c.manifest)
	s := &sse{
		streams: &h.streams, conn: conn, writeTimeout: h.config.WriteTimeout, notFoundText: d.notFoundText(), pollInterval: d.pollInterval(),
		chunked: c.Request().ProtoAtLeast(1, 1), encrypted: c.Request().TLS != nil, ended: make(chan bool, 1),
	}
	if s.chunked && !c.Request().Close && early.Reader.Buffered() == 0 {
		s.returner, _ = conn.(returner)
	}
	s.head = s.headOf(c.Response().Header())
	s.ctx, s.cancel = context.WithCancel(context.Background())
	limitUnsent(conn)
	if !h.streams.add(conn) {
		_ = conn.Close()
		panic(http.ErrAbortHandler) // the connection is closed
	}
	s.release = h.grant(c.Request(), func() { s.refused.Store(true); s.cancel() })
	go s.listen() // until the connection closes or its next request arrives
	return s, nil
}

func (s *sse) headOf(head http.Header) []byte {
	head.Set(echo.HeaderContentType, "text/event-stream; charset=utf-8")
	web.KeepFlowing(head)
	head.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if s.returner == nil {
		head.Set("Connection", "close")
	}
	if s.chunked {
		head.Set("Transfer-Encoding", "chunked")
	}
	var out bytes.Buffer
	out.WriteString("HTTP/1.1 200 OK\r\n")
	_ = head.Write(&out) // cannot fail: it writes to memory
	out.WriteString("\r\n")
	return out.Bytes()
}

// listen detects that the client has gone, and reads the beginning of its next request.
func (s *sse) listen() {
	defer s.streams.open.Done()
	var early [16]byte
	n, err := s.conn.Read(early[:])
	reusable := true
	for err == nil && !s.ending.Load() {
		reusable = false // the client sent more before the end of the stream; those bytes are dropped
		n, err = s.conn.Read(early[:])
	}
	s.cancel()
	kept := <-s.ended
	s.streams.forget(s.conn)
	if kept && err == nil && reusable && s.returner.Return(early[:n]) {
		return
	}
	_ = s.conn.Close()
}

// write sends frames. An error means that the client has gone or does not read.
func (s *sse) write(frames []byte) error { return s.send(s.chunk(frames)...) }

func (s *sse) chunk(frames []byte) [][]byte {
	if !s.chunked || len(frames) == 0 {
		return [][]byte{frames}
	}
	return [][]byte{strconv.AppendInt(nil, int64(len(frames)), 16), lineEnd, frames, lineEnd}
}

var lineEnd = []byte("\r\n")

// minWritten is the part of a long frame that a client must take within writeTimeout. A slow client then still
// receives a result of any size.
const minWritten = 64 << 10

func (s *sse) writeParts(rest *net.Buffers) (int64, error) {
	if s.encrypted {
		n, err := s.conn.Write((*rest)[0])
		return int64(n), err
	}
	return rest.WriteTo(s.conn)
}

func (s *sse) send(parts ...[]byte) error {
	if s.head != nil {
		parts = append([][]byte{s.head}, parts...)
		s.head = nil
	}
	if s.encrypted {
		parts = [][]byte{slices.Concat(parts...)} // one record; the server's connection bounds the time of each part of a long one
	}
	for rest := (net.Buffers)(parts); ; {
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.writeTimeout)); err != nil {
			return err
		}
		written, err := s.writeParts(&rest)
		if s.encrypted || !errors.Is(err, os.ErrDeadlineExceeded) || written < minWritten {
			return err
		}
	}
}

// unsentBytes bounds the unsent data that the kernel buffers for a stream (TCP_NOTSENT_LOWAT). The kernel accepts
// more only after a third of its buffer has drained. Without the limit the buffer holds megabytes, so a slow client
// would cause a minute without progress.
const unsentBytes = 128 << 10

// limitUnsent also applies to the next stream on conn. It does nothing if conn is not a TCP connection.
func limitUnsent(conn net.Conn) {
	tcp, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // an old kernel buffers more
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
		})
	}
}

// end writes the last frames and the end of the body. A stream that is closed without it is a broken response.
func (s *sse) end(frames []byte) {
	parts := s.chunk(frames)
	if s.chunked {
		parts = append(parts, []byte("0\r\n\r\n"))
	}
	s.ending.Store(true)
	s.complete = s.send(parts...) == nil // on error the client has gone
}

// close is called once. Nothing may be written after it.
func (s *sse) close() {
	s.release()
	kept := s.complete && s.returner != nil && s.streams.idle(s.conn)
	if kept {
		_ = s.conn.SetDeadline(time.Now().Add(idleConnTimeout)) // fails on a closed connection
	} else {
		_ = s.conn.Close()
	}
	s.ended <- kept
}
