package server

import (
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"
)

// AddHeaders adds headers to every response of a Site, errors, passed-through responses and event streams included. A
// header replaces the app's own, except Content-Security-Policy: a browser enforces all policies, so it is added. Responses
// of middleware that was added before do not get them. Call it before Run. headersNow is called for each request, and returns
// a value that nothing changes.
//
//  1. A stream takes the connection over and sends what is set by then.
//  2. Other handlers may set or copy headers until the response begins.
func AddHeaders(e *echo.Echo, headersNow func() http.Header) {
	e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			headers, response := headersNow(), c.Response()
			if len(headers) == 0 {
				return next(c)
			}
			setHeaders(response.Header(), headers)                             // 1
			response.Before(func() { setHeaders(response.Header(), headers) }) // 2
			return next(c)
		}
	})
}

func setHeaders(into, headers http.Header) {
	for name, values := range headers {
		if name != echo.HeaderContentSecurityPolicy {
			into[name] = slices.Clone(values)
			continue
		}
		for _, value := range values {
			if !slices.Contains(into[name], value) {
				into.Add(name, value)
			}
		}
	}
}
