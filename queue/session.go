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

// The Kinds that the host itself makes or acts upon; a Space may send others, which pass through.
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

// Level is how a Log is shown (gradio/helpers.py, log_message).
type Level string

// The Levels that the host uses.
const (
	Info    Level = "info"
	Warning Level = "warning"
)

// Message is one line of a Session's stream.
type Message struct {
	Kind  Kind
	Event EventID
	// Raw is the JSON that Gradio made. The host's own Messages have none: the dialect writes the fields below.
	Raw []byte

	Rank, Size int      // Estimation
	ETA        *float64 // Estimation, in seconds
	Success    bool     // Completed
	Failure    *Failure // Completed without Raw; nil: cancelled, an empty output
	Title      string   // Log
	Level      Level    // Log
	// Beside is when its Event joined, by the true clock, if a stream was open then: it may be read before the
	// answer to the join. Else zero.
	Beside time.Time
	Text   string // Log, UnexpectedError
}

// Failure is an error that the host shows a visitor.
type Failure struct{ Title, Text string }

// sessionBytes bounds what is kept for a Session whose stream is not read, beside the last Message. What is beyond is
// a client that has stopped reading, and it is cut. messageBytes is what a Message takes beside its Raw: a visitor who only
// waits is told a new rank at each start.
const (
	sessionBytes = 64 << 20
	messageBytes = 256
)

// Session is one client connection: the Messages that wait for it and its Events that are not yet told to their end.
type Session struct {
	Hash  SessionHash
	owner string // whose it is, in line.owners; empty: nobody is counted

	mu       sync.Mutex
	pending  map[EventID]bool // true: its end is among messages
	beside   map[EventID]time.Time
	messages []Message
	size     int
	total    *atomic.Int64 // of all Sessions' sizes; nil: of nobody's interest
	wake     chan struct{}
	streams  int
	closing  bool // the last pending Event was told; close_stream comes next
	gone     bool
	now      func() time.Time
	idle     time.Time // when a stream or an Event last ended
}

func newSession(hash SessionHash, now func() time.Time) *Session {
	return &Session{Hash: hash, pending: map[EventID]bool{}, wake: make(chan struct{}), now: now, idle: now()}
}

// expect makes the stream stay open until event has been told to its end.
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

// put appends m, unless the Session is gone; one that does not read is cut here. A single Message may have any
// size: how large a Frame is allowed to be is not decided here.
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

// weight is what is kept for who reads it.
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

// end makes the Session gone: readers get io.ErrUnexpectedEOF, further Messages are dropped.
func (s *Session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goneLocked()
}

// Open says that a stream reads this Session; close says that it no longer does.
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

// Next blocks for the next Message, or until beat, which may be nil, asks for a Heartbeat. After the last pending
// Event has been told it returns CloseStream, then io.EOF (gradio/routes.py, queue_data_helper: decided at delivery,
// so that a join in between keeps the stream open). io.ErrUnexpectedEOF: the Session is gone. Else ctx's error.
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
	return s.gone || s.closing || len(s.messages) > 0
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
	case len(s.messages) == 0:
		return Message{}, s.wake, nil
	}
	m := s.messages[0]
	s.messages[0] = Message{} // the array may live long, its Raw need not
	if s.messages = s.messages[1:]; len(s.messages) == 0 {
		s.messages = nil // whoever waits long has mostly nothing to hear
	}
	s.grow(-m.cost())
	if m.Kind == Completed {
		delete(s.pending, m.Event)
		delete(s.beside, m.Event)
		s.closing = len(s.pending) == 0
	}
	return m, nil, nil
}

// isIdle reports whether nobody has needed the Session for so long that it may go; one that was cut goes at once.
func (s *Session) isIdle(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.streams > 0 {
		return s.gone
	}
	life := sessionLife
	for _, ended := range s.pending {
		if !ended {
			return false
		}
		life = unreadLife
	}
	return now.Sub(s.idle) > life
}

func (s *Session) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

func (s *Session) isPending(event EventID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.pending[event]
	return ok
}
