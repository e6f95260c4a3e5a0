package web

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestBelowSubPath(t *testing.T) {
	for _, row := range []struct{ target, path, rawPath, sub string }{
		{"/hello/config?x=y", "/config", "", "/hello"}, {"/hello/", "/", "", "/hello"}, {"/hello", "", "", "/hello"},
		{"/hellos/config", "/hellos/config", "", ""}, {"/config", "/config", "", ""}, {"/", "/", "", ""},
		{"/hello/file=/a%2Fb", "/file=/a/b", "/file=/a%2Fb", "/hello"}, {"/hell%6F/x%2Fy", "/hello/x/y", "/hell%6F/x%2Fy", ""},
		{"/hello/hello/x", "/hello/x", "", "/hello"}, {"/hello//evil.example/", "//evil.example/", "", "/hello"},
	} {
		r := httptest.NewRequest(http.MethodGet, row.target, nil)
		before := r.URL.String()
		got := BelowSubPath(r, "/hello")
		if got.URL.Path != row.path || got.URL.RawPath != row.rawPath || SubPath(got) != row.sub || r.URL.String() != before {
			t.Errorf("%s: got path %q, raw %q, sub-path %q; want %+v", row.target, got.URL.Path, got.URL.RawPath, SubPath(got), row)
		}
		if got := BelowSubPath(r, ""); got != r {
			t.Errorf("%s without a sub-path: changed to %v", row.target, got.URL)
		}
	}
}

// TestAddSubPath: redirects of a Space stay below its sub-path, and other sites are not changed.
func TestAddSubPath(t *testing.T) {
	r := BelowSubPath(httptest.NewRequest(http.MethodGet, "http://lab.example/hello/x", nil), "/hello")
	for location, want := range map[string]string{
		"/": "/hello/", "/login?next=/a": "/hello/login?next=/a", "http://lab.example/x/": "http://lab.example/hello/x/", "/a%2Fb": "/hello/a%2Fb",
		"/hello/x": "/hello/x", "https://lab.example/hello/": "https://lab.example/hello/", "https://other.example/x": "https://other.example/x",
		"//other.example/x": "//other.example/x", "relative": "relative", "": "", "https://lab.example:1/x": "https://lab.example:1/x",
	} {
		if got := AddSubPath(r, location); got != want {
			t.Errorf("%q: got %q, want %q", location, got, want)
		}
	}
	if got := AddSubPath(httptest.NewRequest(http.MethodGet, "http://lab.example/x", nil), "/y"); got != "/y" {
		t.Errorf("without a sub-path: got %q", got)
	}
}
