package host

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/internal/web"
)

// belowSubPath removes the Space's sub-path from requests that contain it. The Space also answers without it.
func (s *spaceRun) belowSubPath(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		*c.Request() = *web.BelowSubPath(c.Request(), s.settings().SubPath) // in place: echo routes the request that it has received
		return next(c)
	}
}

// openFolder redirects a request for the sub-path itself to the same path with a slash: pages load their assets from below it.
func openFolder(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		path := web.SubPath(r)
		if path == "" || r.URL.Path != "" {
			return next(c)
		}
		if r.URL.RawQuery != "" {
			return c.Redirect(http.StatusPermanentRedirect, path+"/?"+r.URL.RawQuery)
		}
		return c.Redirect(http.StatusPermanentRedirect, path+"/")
	}
}
