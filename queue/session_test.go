package queue

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// next fails the test if a Session that should have a Message has none.
func next(t *testing.T, s *Session) (Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	m, err := s.Next(ctx, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("the session has no message")
	}
	return m, err
}

func expectNext(t *testing.T, s *Session, kind Kind, event EventID, want error) {
	t.Helper()
	if m, err := next(t, s); m.Kind != kind || m.Event != event || !errors.Is(err, want) {
		t.Errorf("got %s of %q (%v), want %s of %q (%v)", m.Kind, m.Event, err, kind, event, want)
	}
}

func expectNoMessage(t *testing.T, s *Session) {
	t.Helper()
	if m, wake, err := s.pop(); wake == nil {
		t.Errorf("got %s of %q (%v), want no message", m.Kind, m.Event, err)
	}
}

func expecting(events ...EventID) *Session {
	s := newSession("s", time.Now)
	for _, e := range events {
		s.expect(e)
	}
	return s
}

func completed(event EventID) Message {
	return Message{Kind: Completed, Event: event, Raw: []byte(`{}`)}
}

func TestCloseStreamFollowsLastDelivery(t *testing.T) {
	s := expecting("a", "b")
	s.put(completed("a"))
	s.put(Message{Kind: Log, Event: "b"})
	s.put(completed("b"))
	expectNext(t, s, Completed, "a", nil)
	expectNext(t, s, Log, "b", nil)
	expectNext(t, s, Completed, "b", nil)
	expectNext(t, s, CloseStream, "", io.EOF)
	expectNoMessage(t, s)
}

// The join of b comes when the result of a is pending but unread.
func TestJoinBeforeLastDeliveryKeepsStreamOpen(t *testing.T) {
	s := expecting("a")
	s.put(completed("a"))
	s.expect("b")
	expectNext(t, s, Completed, "a", nil)
	expectNoMessage(t, s)
	s.put(completed("b"))
	expectNext(t, s, Completed, "b", nil)
	expectNext(t, s, CloseStream, "", io.EOF)
}

func TestJoinAfterLastDeliveryKeepsStreamOpen(t *testing.T) {
	s := expecting("a")
	s.put(completed("a"))
	expectNext(t, s, Completed, "a", nil)
	s.expect("b") // close_stream is due, but not delivered yet
	expectNoMessage(t, s)
	s.put(completed("b"))
	expectNext(t, s, Completed, "b", nil)
	expectNext(t, s, CloseStream, "", io.EOF)
}

func TestStreamReopensAfterClose(t *testing.T) {
	s := expecting("a")
	s.put(completed("a"))
	drain(s)
	s.expect("b")
	s.put(completed("b"))
	expectNext(t, s, Completed, "b", nil)
	expectNext(t, s, CloseStream, "", io.EOF)
}

func TestUnreadSessionIsEvicted(t *testing.T) {
	s, mega := expecting("a"), make([]byte, 1<<20)
	for range 64 { // the last one may have any size
		s.put(Message{Kind: Generating, Event: "a", Raw: mega})
	}
	if s.isGone() {
		t.Fatal("evicted below 64 MiB and one message")
	}
	s.put(Message{Kind: Generating, Event: "a", Raw: mega})
	if !s.isGone() || s.messages != nil {
		t.Fatalf("above 64 MiB: gone %v, %d messages kept", s.isGone(), len(s.messages))
	}
	s.put(completed("a"))
	expectNext(t, s, "", "", io.ErrUnexpectedEOF)
	expectNext(t, s, "", "", io.ErrUnexpectedEOF)
}

func TestReadSessionIsNotEvicted(t *testing.T) {
	s, mega := expecting("a"), make([]byte, 1<<20)
	for range 200 {
		s.put(Message{Kind: Generating, Event: "a", Raw: mega})
		expectNext(t, s, Generating, "a", nil)
	}
	if s.size != 0 {
		t.Errorf("got %d bytes for an empty session, want 0", s.size)
	}
}

// The last message of a generator is as large as all that it has yielded. The client reads an earlier one meanwhile.
func TestSingleMessageMayHaveAnySize(t *testing.T) {
	s := expecting("a")
	s.put(Message{Kind: Generating, Event: "a", Raw: make([]byte, 1<<20)})
	s.put(Message{Kind: Completed, Event: "a", Raw: make([]byte, sessionBytes+1)})
	expectNext(t, s, Generating, "a", nil)
	expectNext(t, s, Completed, "a", nil)
	expectNext(t, s, CloseStream, "", io.EOF)
}

// A visitor that waits in a long queue and never opens a stream receives a new rank at each start.
func TestHostMessagesCountTowardsBound(t *testing.T) {
	s, sent := expecting("a"), 0
	for ; !s.isGone() && sent < 1_000_000; sent++ {
		s.put(Message{Kind: Estimation, Event: "a", Rank: sent})
	}
	if !s.isGone() {
		t.Errorf("a session with %d unread estimates was not evicted", sent)
	}
}

// reading is the Messages that one stream received, and the error that ended it.
type reading struct {
	ranks []int
	err   error
}

func readToTheEnd(ctx context.Context, s *Session) <-chan reading {
	done := make(chan reading, 1)
	go func() {
		var r reading
		for {
			m, err := s.Next(ctx, nil)
			if err != nil {
				r.err = err
				done <- r
				return
			}
			r.ranks = append(r.ranks, m.Rank)
		}
	}()
	return done
}

func TestTwoReadersShareTheMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := expecting("a")
		first, second := readToTheEnd(t.Context(), s), readToTheEnd(t.Context(), s)
		for rank := range 100 {
			s.put(Message{Kind: Estimation, Event: "a", Rank: rank})
		}
		s.put(Message{Kind: Completed, Event: "a", Rank: 100})
		synctest.Wait()
		s.end() // ends the reader that did not receive close_stream
		one, other := <-first, <-second
		read := slices.Sorted(slices.Values(append(one.ranks, other.ranks...)))
		if len(read) != 101 || len(slices.Compact(read)) != 101 {
			t.Errorf("got %d messages, want each of 101 once: %v", len(read), read)
		}
		if ends := []error{one.err, other.err}; !slices.Contains(ends, io.EOF) || !slices.Contains(ends, io.ErrUnexpectedEOF) {
			t.Errorf("the readers ended with %v, want one close and one that is gone", ends)
		}
	})
}

func TestNextEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := expecting("a")
	if _, err := s.Next(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	s.put(completed("a"))
	if m, err := s.Next(ctx, nil); m.Kind != Completed || err != nil {
		t.Errorf("a pending message was lost: got %s, %v", m.Kind, err)
	}
}

func TestOpenCountsStreams(t *testing.T) {
	s := newSession("s", time.Now)
	first, second := s.Open(), s.Open()
	first()
	first() // may be called twice
	if s.streams != 1 {
		t.Errorf("got %d streams, want 1", s.streams)
	}
	second()
	if s.streams != 0 {
		t.Errorf("got %d streams, want 0", s.streams)
	}
}

// Each row has a reason to keep a Session, and for how long. sessionTTL is 60 s and unreadTTL 15 min.
func TestIsIdle(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(*Session)
		ttl  time.Duration // 0: forever
	}{
		{"nothing", func(*Session) {}, sessionTTL},
		{"an event goes on", func(s *Session) { s.expect("a") }, 0},
		{"one goes on, one has ended", func(s *Session) { s.expect("a"); s.expect("b"); s.put(completed("b")) }, 0},
		{"an unread result", func(s *Session) { s.expect("a"); s.put(completed("a")) }, unreadTTL},
		{"all is delivered", func(s *Session) { s.expect("a"); s.put(completed("a")); drain(s) }, sessionTTL},
		{"a stream is open", func(s *Session) { s.Open() }, 0},
		{"a stream was open", func(s *Session) { s.Open()() }, sessionTTL},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSession("s", time.Now)
			time.Sleep(time.Hour) // in the bubble's time: the TTL counts from the end of the last use
			row.do(s)
			if row.name == "nothing" {
				s.idle = time.Now()
			}
			idle := func(after time.Duration) bool { return s.isIdle(time.Now().Add(after)) }
			if row.ttl == 0 && idle(1000*time.Hour) {
				t.Errorf("%s: idle after 1000 h", row.name)
			}
			if row.ttl > 0 && (idle(row.ttl) || !idle(row.ttl+1)) {
				t.Errorf("%s: idle at %s: %v, a moment later: %v", row.name, row.ttl, idle(row.ttl), idle(row.ttl+1))
			}
		})
	}
}
