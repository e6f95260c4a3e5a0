package server

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
)

func statusOf(h http.Handler, host, origin string) int {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = host
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

func TestGate(t *testing.T) {
	e := echo.New()
	Gate(e, Names{"demo.lab.example"})
	e.GET("/", func(c echo.Context) error { return c.NoContent(http.StatusNoContent) })
	own := ownNames()
	good := append([]string{
		"localhost", "localhost:7860", "LOCALHOST", "127.0.0.1:7860", "192.0.2.7", "[::1]:7860", "[::1]", "demo.lab.example:7860", "Demo.Lab.Example.", "demo.lab.example",
	}, own...)
	for _, host := range good {
		if got := statusOf(e, host, ""); got != http.StatusNoContent {
			t.Errorf("Host %q: %d", host, got)
		}
	}
	for _, host := range []string{"rebind.evil.test:7860", "evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "xdemo.lab.example", "lab.example", "2130706433x", "[::1].evil.test"} {
		if got := statusOf(e, host, ""); got != http.StatusMisdirectedRequest {
			t.Errorf("Host %q: %d, want 421", host, got)
		}
	}
}

func TestSameOrigin(t *testing.T) {
	e := echo.New()
	SameOrigin(e)
	e.GET("/", func(c echo.Context) error { return c.NoContent(http.StatusNoContent) })
	for origin, want := range map[string]int{
		"": 204, "http://localhost:7870": 204, "http://localhost:7860": 403, "https://evil.test": 403, "null": 403,
	} {
		if got := statusOf(e, "localhost:7870", origin); got != want {
			t.Errorf("Origin %q: %d, want %d", origin, got, want)
		}
	}
}
