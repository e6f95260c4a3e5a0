package server

import (
	"io"
	"net/http"
	"time"
)

// What a body has to come at: who says nothing in the middle of an upload, or a byte now and then, holds a connection and a
// half file for nothing.
const (
	bodyPatience = time.Minute // for the next bytes, and for all of it before the rate counts
	slowestBody  = 1 << 10     // bytes a second, of the time that was waited for them
)

// hurried cuts requests whose body has stopped coming, or comes too slowly.
func (s *Server) hurried(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &hurriedBody{ReadCloser: r.Body, until: http.NewResponseController(w).SetReadDeadline, patience: s.bodyPatience}
		}
		next.ServeHTTP(w, r)
	})
}

type hurriedBody struct {
	io.ReadCloser
	until    func(time.Time) error // lets reads fail from that moment on
	patience time.Duration
	waited   time.Duration // in Read: whoever reads may take their time
	got      int64
}

// Read has no deadline after the last byte: then net/http waits for the visitor to leave.
func (b *hurriedBody) Read(p []byte) (int, error) {
	now := time.Now()
	_ = b.until(now.Add(b.mayWait())) // not every connection of a test has one
	n, err := b.ReadCloser.Read(p)
	b.waited, b.got = b.waited+time.Since(now), b.got+int64(n)
	if err == io.EOF {
		_ = b.until(time.Time{})
	}
	return n, err
}

// mayWait is how long the next bytes may take.
func (b *hurriedBody) mayWait() time.Duration {
	earned := time.Duration(b.got/slowestBody) * time.Second
	return min(b.patience, b.patience+earned-b.waited)
}
