package server

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
)

func statusOf(h http.Handler, host string) int {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = host
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
		if got := statusOf(e, host); got != http.StatusNoContent {
			t.Errorf("Host %q: got %d, want 204", host, got)
		}
	}
	for _, host := range []string{"rebind.evil.test:7860", "evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "xdemo.lab.example", "lab.example", "2130706433x", "[::1].evil.test"} {
		if got := statusOf(e, host); got != http.StatusMisdirectedRequest {
			t.Errorf("Host %q: got %d, want 421", host, got)
		}
	}
}

func TestSameOrigin(t *testing.T) {
	e := echo.New()
	e.Pre(SameOrigin(func(*http.Request) string { return "127.0.0.1:7871" })) // as received; Host is the public one
	e.Any("/", func(c echo.Context) error { return c.NoContent(http.StatusNoContent) })
	link := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	for _, row := range []struct {
		method string
		header []string
		want   int
	}{
		{"GET", nil, 204}, {"POST", nil, 204},
		{"POST", []string{"Origin", "http://localhost:7870"}, 204},
		{"POST", []string{"Origin", "http://localhost:7870", "Sec-Fetch-Site", "same-origin"}, 204},
		{"POST", []string{"Origin", "http://127.0.0.1:7871", "Sec-Fetch-Site", "same-origin"}, 204},
		{"POST", []string{"Origin", "http://127.0.0.1:7872"}, 403},
		{"GET", []string{"Sec-Fetch-Site", "none"}, 204},
		{"GET", link, 204},
		{"POST", link, 403},
		{"GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		{"GET", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, 403},
		{"GET", []string{"Origin", "http://localhost:7860"}, 403},
		{"GET", []string{"Origin", "https://evil.test"}, 403},
		{"GET", []string{"Origin", "null"}, 403},
		{"POST", []string{"Origin", "http://localhost:7870", "Origin", "https://evil.test"}, 403},
	} {
		r := httptest.NewRequest(row.method, "/", nil)
		r.Host = "localhost:7870"
		for i := 0; i < len(row.header); i += 2 {
			r.Header.Add(row.header[i], row.header[i+1])
		}
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if w.Code != row.want {
			t.Errorf("%s %v: got %d, want %d", row.method, row.header, w.Code, row.want)
		}
	}
}

func TestIsOrigin(t *testing.T) {
	names := Names{"demo.lab.example"}
	for origin, want := range map[string]bool{
		"http://localhost:7860": true, "http://127.0.0.1:7860": true, "http://[::1]:7860": true, "http://demo.lab.example:7860": true,
		"https://demo.lab.example": true, "http://localhost:7861": false, "http://127.0.0.1:9": false, "https://demo.lab.example:9": false,
		"http://evil.test:7860": false, "http://192.0.2.7:7860": false, "javascript://localhost:7860": false, "http://localhost:7860/": false,
		"http://evil.test@localhost:7860": false, "http://localhost:7860?x": false, "null": false, "": false, "http://:7860": false,
	} {
		if got := names.IsOrigin(origin, 7860); got != want {
			t.Errorf("%q: got %v, want %v", origin, got, want)
		}
	}
}
