package bundle

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"spacehost/internal/printable"
)

// magic begins the connection. Its last byte is the version of the protocol.
const magic = "shbundl\x01"

// The messages of both ends (see the package comment).
const (
	replyExists   = 'h'
	replyManifest = 'm'
	replyWants    = 'w'
	replyDone     = 'd'
	replyError    = 'e'

	contentComplete = 'k'
	contentChanged  = 'r'
	contentFailed   = 'x'
)

// chunkSize bounds the bytes of one chunk of a content. A chunk has 32 bits of length before it; a length of 0 ends the content.
const chunkSize = 256 << 10

// stallLimit ends a connection whose other end neither reads nor writes. It includes the time in which the receiver waits for its disk.
const stallLimit = 5 * time.Minute

var errStalled = errors.New("the other end of the bundle's connection neither reads nor writes for " + stallLimit.String())

// stream is a connection that ends with a context, and fails when it makes no progress.
type stream struct {
	ctx   context.Context
	conn  net.Conn
	r     *bufio.Reader
	w     *bufio.Writer
	limit time.Duration // for reads; 0: none
	stop  func() bool

	mu    sync.Mutex
	cause error // set once: reads and writes fail with it
}

func newStream(ctx context.Context, conn net.Conn) *stream {
	s := &stream{ctx: ctx, conn: conn}
	s.r, s.w = bufio.NewReaderSize(reader{s}, chunkSize), bufio.NewWriterSize(writer{s}, chunkSize)
	s.stop = context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })
	return s
}

// fail lets all reads and writes fail, the waiting ones too.
func (s *stream) fail(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		s.cause = cause
		_ = s.conn.SetDeadline(time.Unix(1, 0))
	}
}

// failure returns the first cause of fail.
func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// close ends the use of the connection, which stays open and has no deadline.
func (s *stream) close() {
	s.stop()
	_ = s.conn.SetDeadline(time.Time{})
}

// extend sets a deadline from now, unless the stream has failed.
func (s *stream) extend(set func(time.Time) error, limit time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil && limit > 0 {
		return set(time.Now().Add(limit))
	}
	return s.cause
}

// explain replaces the error of a deadline by its reason.
func (s *stream) explain(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return err
	case s.cause != nil:
		return s.cause
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errStalled
	}
	return err
}

type reader struct{ *stream }

func (r reader) Read(p []byte) (int, error) {
	if err := r.extend(r.conn.SetReadDeadline, r.limit); err != nil {
		return 0, err
	}
	n, err := r.conn.Read(p)
	return n, r.explain(err)
}

type writer struct{ *stream }

func (w writer) Write(p []byte) (int, error) {
	if err := w.extend(w.conn.SetWriteDeadline, stallLimit); err != nil {
		return 0, err
	}
	n, err := w.conn.Write(p)
	return n, w.explain(err)
}

// send writes a message and flushes it.
func (s *stream) send(message ...byte) error {
	if _, err := s.w.Write(message); err != nil {
		return err
	}
	return s.w.Flush()
}

// sendReason writes a message with the text of an error.
func (s *stream) sendReason(kind byte, reason error) error {
	text := reason.Error()
	text = text[:min(len(text), maxReason)]
	return s.send(append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(text))), text...)...)
}

// readReason reads what follows the kind of such a message.
func (s *stream) readReason() error {
	var length [2]byte
	if _, err := io.ReadFull(s.r, length[:]); err != nil {
		return readError("reason", err)
	}
	size := binary.BigEndian.Uint16(length[:])
	if size > maxReason {
		return protocolError("a reason of %d bytes", size)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(s.r, text); err != nil {
		return readError("reason", err)
	}
	return &PeerError{printable.Line(string(text))}
}

func (s *stream) readUint32(what string) (uint32, error) {
	var number [4]byte
	if _, err := io.ReadFull(s.r, number[:]); err != nil {
		return 0, readError(what, err)
	}
	return binary.BigEndian.Uint32(number[:]), nil
}

// Progress is called from one goroutine, after each chunk, with the bytes of contents that have passed the connection and those that
// will pass it in all. A content that is read again counts once. It must not block.
type Progress func(done, total int64)

// transfer counts for a Progress, which may be nil.
type transfer struct {
	report      Progress
	done, total int64
}

func (t *transfer) add(n int64) {
	t.done += n
	if t.report != nil {
		t.report(t.done, t.total)
	}
}
