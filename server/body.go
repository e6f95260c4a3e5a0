package server

import (
	"io"
	"net/http"
	"time"
)

// bodyPatience is how long the next bytes of a request may take: who says nothing in the middle of an upload holds a
// connection and a half file for nothing.
const bodyPatience = time.Minute

// hurried cuts requests whose body has stopped coming.
func (s *Server) hurried(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &hurriedBody{r.Body, http.NewResponseController(w), s.bodyPatience}
		}
		next.ServeHTTP(w, r)
	})
}

type hurriedBody struct {
	io.ReadCloser
	conn     *http.ResponseController
	patience time.Duration
}

// Read has no deadline after the last byte: then net/http waits for the visitor to leave.
func (b *hurriedBody) Read(p []byte) (int, error) {
	_ = b.conn.SetReadDeadline(time.Now().Add(b.patience)) // not every connection of a test has one
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}
