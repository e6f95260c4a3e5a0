package host

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/internal/web"
)

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
