package gradioapi

import (
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
	var ended atomic.Bool
	r.Body = &watchedBody{r.Body, &ended}
	w.Before(func() {
		if !ended.Load() {
			w.Header().Set("Connection", "close")
		}
	})
}
