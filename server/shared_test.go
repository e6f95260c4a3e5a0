package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
)

// TestRoutesFind checks which Site answers a request at a shared address.
func TestRoutesFind(t *testing.T) {
	long := "/" + strings.Repeat("a", 199)
	sites := Routes{}
	for _, route := range []string{"lab.example", "lab.example/a", "lab.example/a/b", "other.example/a", "gpu.example/c", "gpu.example" + long, "10.0.0.5"} {
		sites[route] = echo.New()
	}
	for _, row := range []struct{ host, path, want string }{
		{"lab.example", "/", "lab.example"}, {"LAB.example.:44443", "/config", "lab.example"}, {"lab.example", "/a", "lab.example/a"}, {"lab.example", "/a/", "lab.example/a"},
		{"lab.example", "/ab", "lab.example"}, {"lab.example", "/a/b/c", "lab.example/a/b"}, {"lab.example", "/a/bc", "lab.example/a"}, {"lab.example", "", "lab.example"},
		{"other.example", "/a/b", "other.example/a"}, {"other.example", "/", ""}, {"other.example", "/b", ""}, {"unknown.example", "/c", ""},
		{"gpu.example", long + "/config", "gpu.example" + long}, {"gpu.example", long + "a/config", ""}, {"gpu.example", "/c/" + strings.Repeat("x/", 4000), "gpu.example/c"},
		{"127.0.0.1:7860", "/c/config", "gpu.example/c"}, {"localhost", "/c", "gpu.example/c"}, {"[::1]:7860", "/c", "gpu.example/c"}, // a proxy has replaced the name
		{"127.0.0.1", "/a/x", ""}, {"127.0.0.1", "/a/b", "lab.example/a/b"}, {"127.0.0.1", "/", ""}, {"127.0.0.1", "/cc", ""}, {"10.0.0.5", "/x", "10.0.0.5"}, {"10.0.0.5", "/c", "10.0.0.5"},
	} {
		if got := sites.find(row.host, row.path); got != sites[row.want] {
			t.Errorf("%s%.80s: got another Site than %q", row.host, row.path, row.want)
		}
	}
	for range 20 { // the order of a map differs
		if sites.find("127.0.0.1", "/a/x") != nil {
			t.Fatal("a path of two names finds one of their Sites")
		}
	}
}

// TestPlainRequestsWhereTLSIsRequired checks that only this machine and trusted proxies may send plain requests.
func TestPlainRequestsWhereTLSIsRequired(t *testing.T) {
	s := New(nil)
	s.TLS = &Certificate{}
	s.TrustProxy = trustOnly("10.0.0.9")
	handler := s.requireTLS(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, row := range []struct {
		client, method string
		want           int
	}{
		{"127.0.0.1:1", "POST", 204}, {"10.0.0.1:1", "POST", 204}, {"10.0.0.9:1", "POST", 204}, {"10.0.0.8:1", "GET", 307}, {"10.0.0.8:1", "POST", 403},
	} {
		r := httptest.NewRequest(row.method, "http://lab.example/a?b=c", nil)
		r = r.WithContext(plainConn(r.Context(), row.client, "10.0.0.1:7860"))
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		if answer.Code != row.want || row.want == 307 && answer.Header().Get("Location") != "https://lab.example/a?b=c" {
			t.Errorf("%s from %s: got %d %q, want %d", row.method, row.client, answer.Code, answer.Header().Get("Location"), row.want)
		}
	}
}
