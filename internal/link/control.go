package link

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"spacehost/internal/outbox"
)

// tlsSocket is the connection below TLS.
type tlsSocket struct {
	net.Conn
	queue atomic.Pointer[outbox.Outbox] // of a control connection with a link; nil: writes block
}

func newTLSSocket(raw net.Conn) *tlsSocket { return &tlsSocket{Conn: outbox.Direct(raw)} }

// Write implements net.Conn.
func (s *tlsSocket) Write(p []byte) (int, error) {
	if queue := s.queue.Load(); queue != nil {
		return queue.Write(p)
	}
	return s.Conn.Write(p)
}

// controlWriter writes the messages of a control connection. put encrypts a message and hands it to the socket in the goroutine of the
// caller, so that the other end begins with it while the caller computes. What the socket does not accept at once waits in an Outbox.
type controlWriter struct {
	conn   *tls.Conn
	socket *tlsSocket
	out    *outbox.Outbox

	mu        sync.Mutex
	early     [][]byte // put before begin
	earlySize int      // bytes of early
}

func newControlWriter(conn *tls.Conn) *controlWriter {
	socket := conn.NetConn().(*tlsSocket)
	return &controlWriter{conn: conn, socket: socket, out: outbox.New(socket.Conn)}
}

// begin lets put write. Before that, others write to the connection.
func (w *controlWriter) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.socket.SetWriteDeadline(time.Time{}) // fails only if it is closed, which run reports
	w.socket.queue.Store(w.out)
	for _, frame := range w.early {
		_, _ = w.conn.Write(frame) // fails only once the Outbox is closed
	}
	w.early, w.earlySize = nil, 0
}

// put queues a message. It does not block. After close it drops the message.
func (w *controlWriter) put(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.socket.queue.Load() == nil {
		w.early, w.earlySize = append(w.early, frame), w.earlySize+len(frame)
		return
	}
	_, _ = w.conn.Write(frame) // fails only once the Outbox is closed
}

// waiting returns the number of bytes that the peer has not accepted.
func (w *controlWriter) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.earlySize + w.out.Waiting()
}

// run writes what the socket has not accepted at once, until close or an error. A peer that reads nothing for LostAfter is ErrLost.
func (w *controlWriter) run(failed func(error)) { w.out.Run(&slowWriter{w.socket.Conn, failed}) }

// close drops what is not written, and lets run return. It does not close the connection.
func (w *controlWriter) close() { w.out.Close() }

// slowWriter writes to a socket that is full.
type slowWriter struct {
	socket net.Conn
	failed func(error)
}

func (s *slowWriter) Write(data []byte) (int, error) {
	_ = s.socket.SetWriteDeadline(time.Now().Add(LostAfter)) // fails only if it is closed, which Write reports
	n, err := s.socket.Write(data)
	switch {
	case err == nil:
		_ = s.socket.SetWriteDeadline(time.Time{}) // the next write fails if this does
	case isTimeout(err):
		err = ErrLost
		fallthrough
	default:
		s.failed(err)
	}
	return n, err
}
