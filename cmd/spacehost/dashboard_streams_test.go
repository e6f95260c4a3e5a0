package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"spacehost/internal/dashboard"
)

// consoleStream is an open stream of the console.
type consoleStream struct {
	answer *http.Response
	lines  *bufio.Reader
	lastID string
	seen   []string // kinds of events
	close  func()
}

// stream opens a stream, after an event if last is not "".
func (l consoleLab) stream(t *testing.T, token, last string) *consoleStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.Console+"/api/spacehost/changes", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range bearer(token) {
		r.Header.Set(name, value)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	s := &consoleStream{answer: answer, lines: bufio.NewReader(answer.Body), close: func() { cancel(); answer.Body.Close() }}
	t.Cleanup(s.close)
	return s
}

// until reads events up to one of this kind whose data contains a text.
func (s *consoleStream) until(t *testing.T, kind, text string) {
	t.Helper()
	for now := ""; ; {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			t.Fatalf("no event %s with %q: %v; events: %v", kind, text, err, s.seen)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			now = value
			s.seen = append(s.seen, now)
		case "id":
			s.lastID = value
		case "data":
			if now == kind && strings.Contains(value, text) {
				return
			}
		}
	}
}

// checkStreams opens one stream too many for a token, and changes the host while a console does not read.
func (l consoleLab) checkStreams(t *testing.T) {
	t.Helper()
	var open []*consoleStream
	for range dashboard.MostStreams {
		s := l.stream(t, l.ben, "")
		s.until(t, "account", "user:ben")
		open = append(open, s)
	}
	if head := open[0].answer.Header; head.Get("Cache-Control") != "no-store, no-transform" || head.Get("X-Accel-Buffering") != "no" {
		t.Errorf("headers of a stream: %v", head)
	}
	refused := l.stream(t, l.ben, "")
	if text, _ := refused.lines.ReadString('\n'); refused.answer.StatusCode != http.StatusTooManyRequests || !strings.Contains(text, "close other pages of the console") {
		t.Errorf("one stream too many: %d %s", refused.answer.StatusCode, text)
	}
	for _, s := range open {
		s.close()
	}
	eventually(t, "closed streams count no more", patience, func() bool {
		s := l.stream(t, l.ben, "")
		defer s.close()
		return s.answer.StatusCode == http.StatusOK
	})

	slow := l.stream(t, l.ada, "")
	slow.until(t, "account", "user:ada")
	for n := range 40 {
		l.drain(t, fmt.Sprintf("reason %d", n))
	}
	l.drain(t, "the last reason")
	slow.until(t, "gpus", "the last reason")

	l.drain(t, "after the gap")
	resumed := l.stream(t, l.ada, slow.lastID)
	resumed.until(t, "gpus", "after the gap")
	if strings.Contains(strings.Join(resumed.seen, " "), "people") {
		t.Errorf("a resumed stream sends what has not changed: %v", resumed.seen)
	}
	began := time.Now()
	l.drain(t, "quick")
	resumed.until(t, "gpus", "quick")
	t.Logf("a change reached a console after %s", time.Since(began).Round(time.Millisecond))
}

// drain drains the first GPU for a reason.
func (l consoleLab) drain(t *testing.T, reason string) {
	t.Helper()
	if status, body := request(t, "POST", l.Console+"/api/spacehost/admin/gpu/drain", fmt.Sprintf(`{"uuid":"0","reason":%q}`, reason), bearer(l.ada)); status != http.StatusOK {
		t.Fatalf("drain: %d %s", status, body)
	}
}
