package gradioapi

import (
	"io"
	"net/http"
	"sync/atomic"

	"github.com/labstack/echo/v4"
)

// closeAfterUnread closes the visitor's connection after a response that begins before the end of the request's body. net/http
// would read the rest, because the connection has full duplex, and panic at the next request (golang/go#68560). The body is
// replaced.
func closeAfterUnread(w *echo.Response, r *http.Request) {
	if r.ContentLength == 0 || r.ProtoMajor != 1 {
		return // there is no body, or the connection has other requests
	}
	body := &watchedRequest{ReadCloser: r.Body}
	r.Body = body
	w.Before(func() {
		if !body.ended.Load() {
			w.Header().Set("Connection", "close")
		}
	})
}

// watchedRequest is a body that knows whether it was read to its end.
type watchedRequest struct {
	io.ReadCloser
	ended atomic.Bool
}

func (b *watchedRequest) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}
