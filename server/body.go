package server

import (
	"io"
	"net/http"
	"time"
)

// Limits of the time that a request body may take. A client that stops in the middle of an upload, or sends a byte now
// and then, would hold a connection and a partial file for nothing.
const (
	bodyGrace   = time.Minute // for the next bytes, and for the whole body before the rate counts
	minBodyRate = 1 << 10     // bytes per second of waiting time
)

// limitBodyTime fails requests whose body has stopped or arrives too slowly.
func (s *Server) limitBodyTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &timedBody{ReadCloser: r.Body, setDeadline: http.NewResponseController(w).SetReadDeadline, grace: s.bodyGrace}
		}
		next.ServeHTTP(w, r)
	})
}

type timedBody struct {
	io.ReadCloser
	setDeadline func(time.Time) error // reads fail after the deadline
	grace       time.Duration
	waited      time.Duration // inside Read; the time between reads is the handler's own
	got         int64
}

// Read clears the deadline after the last byte: from then on net/http reads to detect that the client disconnects.
func (b *timedBody) Read(p []byte) (int, error) {
	now := time.Now()
	_ = b.setDeadline(now.Add(b.allowance())) // a test connection may have no deadlines
	n, err := b.ReadCloser.Read(p)
	b.waited, b.got = b.waited+time.Since(now), b.got+int64(n)
	if err == io.EOF {
		_ = b.setDeadline(time.Time{})
	}
	return n, err
}

// allowance returns the time that the next bytes may take.
func (b *timedBody) allowance() time.Duration {
	earned := time.Duration(b.got/minBodyRate) * time.Second
	return min(b.grace, b.grace+earned-b.waited)
}
