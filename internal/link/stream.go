package link

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// stream is a connection beside the control connection.
type stream struct {
	*tls.Conn
	closed func() // called once
	once   sync.Once
}

func newStream(conn *tls.Conn, closed func()) *stream { return &stream{Conn: conn, closed: closed} }

// Close closes the stream in order: the other end reads io.EOF.
func (s *stream) Close() error {
	s.once.Do(s.closed)
	return s.Conn.Close()
}

// abort closes the stream at once, without a last message that a dead peer would have to accept.
func (s *stream) abort() {
	s.once.Do(s.closed)
	s.NetConn().Close()
}

// adopt makes a stream one of the link, which closes it when the link ends. It reports false if the link is down.
func (l *Link) adopt(s *stream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	closed := s.closed
	s.closed = func() {
		l.mu.Lock()
		delete(l.streams, s)
		l.mu.Unlock()
		closed()
	}
	l.streams[s] = struct{}{}
	return true
}

// serveStream lets the Handler serve an adopted stream.
func (l *Link) serveStream(s *stream, hello json.RawMessage) {
	defer s.Close()
	l.mu.Lock()
	down := l.err != nil
	if !down {
		l.running.Add(1) // read is running, so Wait has not returned
	}
	l.mu.Unlock()
	if down {
		return
	}
	defer l.running.Done()
	defer func() { l.recovered(recover(), "stream") }()
	l.handler.Stream(l, hello, s)
}

// spare is a connection at the front that becomes a stream when the front writes a line.
type spare struct {
	*stream
	idle chan struct{} // closed when nothing reads the connection any more
	dead bool          // read after idle
}

// watch notices the end of a spare, until take.
func (s *spare) watch() {
	_, err := s.Read(make([]byte, 1)) // the agent sends nothing
	s.dead = !isTimeout(err)
	close(s.idle)
}

// take ends watch. It reports false if the connection has ended.
func (s *spare) take() bool {
	_ = s.SetReadDeadline(time.Unix(1, 0)) // fails only if it is closed, which watch notices
	<-s.idle
	return !s.dead && s.SetReadDeadline(time.Time{}) == nil
}

// spares are the spares of a link at the front.
type spares struct {
	mu      sync.Mutex
	idle    []*spare
	waiting []chan *spare // of calls of Open, in order
	closed  bool
}

// put adds a spare, or hands it to the call of Open that waits longest. It reports false if there are enough.
func (p *spares) put(s *spare) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return false
	case len(p.waiting) > 0:
		p.waiting[0] <- s
		p.waiting = p.waiting[1:]
	case len(p.idle) >= maxSpares:
		return false
	default:
		p.idle = append(p.idle, s)
	}
	return true
}

func (p *spares) remove(s *spare) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = slices.DeleteFunc(p.idle, func(other *spare) bool { return other == s })
}

// get returns the spare that has come last, or waits for one.
func (p *spares) get(ctx context.Context, l *Link) (*spare, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	here := make(chan *spare, 1)
	p.waiting = append(p.waiting, here)
	p.mu.Unlock()
	select {
	case s := <-here:
		return s, nil
	case <-ctx.Done():
		p.leave(here)
		return nil, context.Cause(ctx)
	case <-l.ctx.Done():
		return nil, l.downError() // which closes what has just come
	}
}

// leave ends the wait of a call of Open. A spare that has just come for it is for the next.
func (p *spares) leave(here chan *spare) {
	p.mu.Lock()
	n := len(p.waiting)
	p.waiting = slices.DeleteFunc(p.waiting, func(other chan *spare) bool { return other == here })
	handed := n == len(p.waiting)
	p.mu.Unlock()
	if !handed {
		return
	}
	if s := <-here; !p.put(s) {
		s.Close()
	}
}

// shrink closes all spares but the number that the agent wants.
func (p *spares) shrink(body json.RawMessage) {
	var keep int
	if json.Unmarshal(body, &keep) != nil {
		return // the agent keeps more than it wants
	}
	p.mu.Lock()
	surplus := max(0, len(p.idle)-max(0, keep))
	closing := p.idle[:surplus]
	p.idle = slices.Clone(p.idle[surplus:])
	p.mu.Unlock()
	for _, s := range closing {
		s.Close()
	}
}

// close lets go of all spares. The link closes their connections.
func (p *spares) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.idle = true, nil
}

// openSpare opens a stream at the front.
func (l *Link) openSpare(ctx context.Context, hello json.RawMessage) (*stream, error) {
	for {
		s, err := l.spares.get(ctx, l)
		if err != nil {
			return nil, err
		}
		if !s.take() {
			s.Close()
			continue
		}
		if err := writeLine(withDeadline(ctx, s.Conn), wanted{hello}); err != nil { // it has ended since
			s.Close()
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			continue
		}
		if err := s.SetWriteDeadline(time.Time{}); err != nil {
			s.Close()
			continue
		}
		return s.stream, nil
	}
}

// withDeadline sets the deadline of the first write on a stream.
func withDeadline(ctx context.Context, conn *tls.Conn) *tls.Conn {
	deadline := time.Now().Add(handshakeTimeout)
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(deadline) {
		deadline = earlier
	}
	_ = conn.SetWriteDeadline(deadline) // fails only if it is closed, which the write reports
	return conn
}
