package server

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/labstack/echo/v4"
)

func TestAddHeaders(t *testing.T) {
	e := echo.New()
	e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if c.Request().URL.Path == "/hidden" {
				return echo.ErrNotFound
			}
			return next(c)
		}
	})
	added := http.Header{"Cross-Origin-Opener-Policy": {"same-origin"}, "Content-Security-Policy": {"frame-ancestors 'self'"}}
	AddHeaders(e, func() http.Header { return added })
	e.GET("/plain", func(c echo.Context) error { return c.NoContent(http.StatusNoContent) })
	e.GET("/own", func(c echo.Context) error {
		c.Response().Header().Add("Cross-Origin-Opener-Policy", "unsafe-none") // as a proxy copies the app's
		c.Response().Header().Set("Content-Security-Policy", "sandbox")
		return c.NoContent(http.StatusOK)
	})
	e.GET("/stream", func(c echo.Context) error {
		conn, _, err := http.NewResponseController(c.Response().Writer).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		w := bufio.NewWriter(conn)
		_, _ = w.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\n")
		_ = c.Response().Header().Write(w)
		_, _ = w.WriteString("\r\n")
		return w.Flush()
	})
	site := httptest.NewServer(e)
	defer site.Close()
	rows := map[string][]string{
		"/plain": {"frame-ancestors 'self'"}, "/own": {"sandbox", "frame-ancestors 'self'"},
		"/stream": {"frame-ancestors 'self'"}, "/nothing": {"frame-ancestors 'self'"}, "/hidden": nil,
	}
	for path, policies := range rows {
		response, err := http.Get(site.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got := response.Header.Values("Content-Security-Policy"); !slices.Equal(got, policies) {
			t.Errorf("%s: policies %q, want %q", path, got, policies)
		}
		var opener []string
		if policies != nil {
			opener = []string{"same-origin"}
		}
		if got := response.Header.Values("Cross-Origin-Opener-Policy"); !slices.Equal(got, opener) {
			t.Errorf("%s: Cross-Origin-Opener-Policy %q, want %q", path, got, opener)
		}
	}
}
