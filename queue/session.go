package queue

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is the `msg` of a Message on the wire (gradio/server_messages.py).
type Kind string

// The Kinds that the host creates or handles. A Space may send other Kinds, which are passed through.
const (
	Estimation      Kind = "estimation"
	Generating      Kind = "process_generating"
	Streaming       Kind = "process_streaming"
	Completed       Kind = "process_completed"
	Log             Kind = "log"
	CloseStream     Kind = "close_stream"
	Heartbeat       Kind = "heartbeat"
	UnexpectedError Kind = "unexpected_error"
)

// Level is the severity of a Log message (gradio/helpers.py, log_message).
type Level string

// The Levels used by the host.
const (
	Info    Level = "info"
	Warning Level = "warning"
)

// Message is one line of a Session's stream.
type Message struct {
	Kind  Kind
	Event EventID
	// Raw is JSON written by Gradio. Messages of the host have no Raw: the dialect writes the fields below.
	Raw []byte

	Rank, Size int      // Estimation
	ETA        *float64 // Estimation, in seconds
	Success    bool     // Completed
	Failure    *Failure // Completed without Raw; nil: cancelled, with an empty output
	Title      string   // Log
	Level      Level    // Log
	// Beside is the real time at which its Event joined, if a stream was open at that time: the Message may then arrive
	// before the response to the join. Otherwise it is zero.
	Beside time.Time
	Text   string // Log, UnexpectedError
}

// Failure is an error that the host shows to a visitor.
type Failure struct{ Title, Text string }

// sessionBytes bounds the undelivered bytes of one Session, apart from its last Message. A client beyond this bound has stopped reading, and its
// Session is evicted. messageBytes is the cost of a Message apart from its Raw: a waiting visitor receives a new rank at
// each start.
const (
	sessionBytes = 64 << 20
	messageBytes = 256
)

// Session is one client connection with its undelivered Messages and its Events whose result is undelivered.
type Session struct {
	Hash  SessionHash
	owner string // key in scheduler.owners; empty: the payer has no bound

	mu       sync.Mutex
	pending  map[EventID]bool // true: its result is in messages
	beside   map[EventID]time.Time
	messages []Message
	size     int
	total    *atomic.Int64 // sum of all Sessions' sizes; nil: not counted
	wake     chan struct{}
	streams  int
	closing  bool // the last pending result was delivered; close_stream comes next
	gone     bool
	stopped  bool // the queue has ended: nothing follows what is in messages
	now      func() time.Time
	idle     time.Time // when a stream or an Event last ended
}

func newSession(hash SessionHash, now func() time.Time) *Session {
	return &Session{Hash: hash, pending: map[EventID]bool{}, wake: make(chan struct{}), now: now, idle: now()}
}

// expect keeps the stream open until the result of event has been delivered.
func (s *Session) expect(event EventID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[event] = false
	s.closing = false
	if s.streams > 0 {
		if s.beside == nil {
			s.beside = map[EventID]time.Time{}
		}
		s.beside[event] = time.Now()
	}
}

// put appends m unless the Session is gone. It evicts a Session that is not read. A single Message may have any size,
// because the size of frames is bounded elsewhere.
func (s *Session) put(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	unread := s.size
	if s.grow(m.cost()); unread > sessionBytes {
		s.goneLocked()
		return
	}
	if m.Kind == Completed {
		s.pending[m.Event], s.idle = true, s.now()
	}
	m.Beside = s.beside[m.Event]
	s.messages = append(s.messages, m)
	s.wakeLocked()
}

func (m Message) cost() int { return len(m.Raw) + messageBytes }

func (s *Session) grow(by int) {
	s.size += by
	if s.total != nil {
		s.total.Add(int64(by))
	}
}

// weight returns the undelivered bytes.
func (s *Session) weight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

func (s *Session) wakeLocked() {
	close(s.wake)
	s.wake = make(chan struct{})
}

func (s *Session) goneLocked() {
	s.grow(-s.size)
	s.gone, s.messages = true, nil
	clear(s.pending)
	clear(s.beside)
	s.wakeLocked()
}

// end marks the Session as gone: readers get io.ErrUnexpectedEOF, further Messages are dropped.
func (s *Session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goneLocked()
}

// stop is called when the queue has ended and its last Messages are there.
func (s *Session) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.wakeLocked()
}

// Open registers a stream that reads this Session. close unregisters it and may be called twice.
func (s *Session) Open() (close func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.streams--
		s.idle = s.now()
	})
}

// Next blocks until a Message is available. A tick of beat, which may be nil, returns a Heartbeat.
//
// After the last pending result Next returns CloseStream with io.EOF. This is decided at delivery, so that a join in
// between keeps the stream open (gradio/routes.py, queue_data_helper). Other errors: io.ErrUnexpectedEOF if the Session
// is gone or the queue has ended, otherwise that of ctx.
func (s *Session) Next(ctx context.Context, beat <-chan time.Time) (Message, error) {
	for {
		m, wake, err := s.pop()
		if wake == nil {
			return m, err
		}
		select {
		case <-wake:
		case <-beat:
			return Message{Kind: Heartbeat}, nil
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

// Ready reports whether Next would return at once.
func (s *Session) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone || s.stopped || s.closing || len(s.messages) > 0
}

func (s *Session) pop() (Message, chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone:
		return Message{}, nil, io.ErrUnexpectedEOF
	case s.closing:
		s.closing = false
		return Message{Kind: CloseStream}, nil, io.EOF
	case len(s.messages) == 0 && s.stopped:
		return Message{}, nil, io.ErrUnexpectedEOF
	case len(s.messages) == 0:
		return Message{}, s.wake, nil
	}
	m := s.messages[0]
	s.messages[0] = Message{} // the array may be kept long; this frees the Raw
	if s.messages = s.messages[1:]; len(s.messages) == 0 {
		s.messages = nil // waiting Sessions are empty most of the time
	}
	s.grow(-m.cost())
	if m.Kind == Completed {
		delete(s.pending, m.Event)
		delete(s.beside, m.Event)
		s.closing = len(s.pending) == 0
	}
	return m, nil, nil
}

// isIdle reports whether the Session has been unused beyond its TTL. An evicted Session is idle at once.
func (s *Session) isIdle(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.streams > 0 {
		return s.gone
	}
	ttl := sessionTTL
	for _, ended := range s.pending {
		if !ended {
			return false
		}
		ttl = unreadTTL
	}
	return now.Sub(s.idle) > ttl
}

func (s *Session) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// isDone reports whether nothing of the Session is undelivered and no stream is open. onSweep removes an evicted Session.
func (s *Session) isDone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.gone && s.streams == 0 && len(s.pending) == 0 && len(s.messages) == 0
}

// hasPending reports whether the result of an Event is undelivered.
func (s *Session) hasPending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending) > 0
}

func (s *Session) isPending(event EventID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.pending[event]
	return ok
}
