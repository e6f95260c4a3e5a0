package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestParseAddress checks the forms of an address. internal/config tests the mistakes.
func TestParseAddress(t *testing.T) {
	for text, want := range map[string]struct{ text, origin, name, port string }{
		"https://gpu.lab.example":              {"https://gpu.lab.example", "https://gpu.lab.example", "gpu.lab.example", "443"},
		"https://GPU.lab.example:443/survey/":  {"https://gpu.lab.example/survey", "https://gpu.lab.example", "gpu.lab.example", "443"},
		"http://gpu.lab.example:443":           {"http://gpu.lab.example:443", "http://gpu.lab.example:443", "gpu.lab.example", "443"},
		"http://10.0.0.5:80/a/b":               {"http://10.0.0.5/a/b", "http://10.0.0.5", "10.0.0.5", "80"},
		"https://[2001:DB8::1]:44443/":         {"https://[2001:db8::1]:44443", "https://[2001:db8::1]:44443", "2001:db8::1", "44443"},
		"https://gpu.lab.example:44443/survey": {"https://gpu.lab.example:44443/survey", "https://gpu.lab.example:44443", "gpu.lab.example", "44443"},
	} {
		a, err := ParseAddress(text)
		if err != nil || a.String() != want.text || a.Origin() != want.origin || a.HostName() != want.name || a.Port() != want.port || !a.IsSet() {
			t.Errorf("%s: got %s, %s, %s, %s (%v); want %v", text, a, a.Origin(), a.HostName(), a.Port(), err, want)
		}
	}
	for _, text := range []string{"", "gpu.lab.example", "//gpu.lab.example", "https:///a", "https://gpu.lab.example/a//b", "https://gpu.lab.example/../a", "https://a b/", "https://gpu.lab.example/a?b", "https://gpu.lab.example#a", "mailto:a@b"} {
		if a, err := ParseAddress(text); err == nil || a.IsSet() {
			t.Errorf("%q is accepted as %v", text, a)
		}
	}
	if (Address{}).String() != "" || (Address{}).IsSet() {
		t.Error("the zero value is an address")
	}
}

// TestAtAddress checks a request that a proxy has passed on in any of the usual forms.
func TestAtAddress(t *testing.T) {
	a := Address{"https", "gpu.lab.example:44443", "/survey"}
	for target, want := range map[string]string{
		"http://127.0.0.1:7861/survey/config?x=y": "/config?x=y", // a proxy that keeps the path
		"http://127.0.0.1:7861/config?x=y":        "/config?x=y", // one that removes it
		"http://gpu.lab.example/survey":           "",            // the folder, which is then redirected
		"http://127.0.0.1:7861/":                  "/",
		"http://127.0.0.1:7861/surveys":           "/surveys",
		"http://127.0.0.1:7861/survey/a%2Fb":      "/a%2Fb",
	} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		received := r.Host
		got := AtAddress(r, a)
		if got.URL.RequestURI() != want && (want != "" || got.URL.Path != "") || got.Host != a.Host || Scheme(got) != "https" || SubPath(got) != "/survey" || ReceivedHost(got) != received || r.Host != received {
			t.Errorf("%s: got %s %s below %s, received at %s; want %q at %s", target, Scheme(got)+"://"+got.Host, got.URL.RequestURI(), SubPath(got), ReceivedHost(got), want, a)
		}
	}
	root := AtAddress(httptest.NewRequest(http.MethodGet, "http://127.0.0.1/survey/config", nil), Address{"https", "gpu.lab.example", ""})
	if root.URL.Path != "/survey/config" || SubPath(root) != "" {
		t.Errorf("at an address without a path: %s below %q", root.URL.Path, SubPath(root))
	}
}

// TestPlainAtAnEncryptedAddress checks that the scheme of an address does not hide that a proxy has received plain http.
func TestPlainAtAnEncryptedAddress(t *testing.T) {
	network, err := ParseProxy("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	for named, want := range map[string]bool{"http": true, "ws": true, "https": false, "": false} {
		r := httptest.NewRequest(http.MethodGet, "http://lab.example/", nil)
		r.RemoteAddr = "10.1.2.3:1"
		if named != "" {
			r.Header.Set("X-Forwarded-Proto", named)
		}
		r, err := Proxies{network}.Visitor(r)
		if err != nil {
			t.Fatal(err)
		}
		if at := AtAddress(r, Address{"https", "lab.example", ""}); IsPlain(at) != want || Scheme(at) != "https" {
			t.Errorf("named %q: plain %v, scheme %s, want plain %v", named, IsPlain(at), Scheme(at), want)
		}
	}
	if r := httptest.NewRequest(http.MethodGet, "http://lab.example/", nil); !IsPlain(r) || IsPlain(AtAddress(r, Address{"https", "lab.example", ""})) {
		t.Error("the scheme of a request without a proxy is wrong")
	}
}

// TestPrefix checks that only a trusted proxy names the path that it has removed.
func TestPrefix(t *testing.T) {
	network, err := ParseProxy("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ peer, prefix, path, want, refused string }{
		{"10.1.2.3:1", "/survey", "/config", "/survey", ""},
		{"10.1.2.3:1", "/evil, /lab/survey/", "/config", "/lab/survey", ""}, // the last one is the peer's
		{"10.1.2.3:1", "/", "/config", "", ""},
		{"10.1.2.3:1", "", "/config", "", ""},
		{"203.0.113.5:1", "/survey", "/config", "", ""},
		{"203.0.113.5:1", "//evil.example", "/config", "", ""},
		{"10.1.2.3:1", "//evil.example", "/config", "", "X-Forwarded-Prefix"},
		{"10.1.2.3:1", "https://evil.example/a", "/config", "", "X-Forwarded-Prefix"},
		{"10.1.2.3:1", "/__spacehost", "/config", "", "X-Forwarded-Prefix"},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://lab.example"+row.path, nil)
		r.RemoteAddr = row.peer
		r.Header.Set("X-Forwarded-Prefix", row.prefix)
		got, err := Proxies{network}.Visitor(r)
		if row.refused != "" {
			if err == nil || !strings.Contains(err.Error(), row.refused) {
				t.Errorf("%+v: got %v, want it refused", row, err)
			}
			continue
		}
		if err != nil || SubPath(BelowPrefix(got)) != row.want || BelowPrefix(got).URL.Path != row.path {
			t.Errorf("%+v: got %q (%v)", row, SubPath(BelowPrefix(got)), err)
		}
		below := BelowPrefix(BelowSubPath(got, "/config"))
		if SubPath(below) != "/config" {
			t.Errorf("%+v: a request below a configured path is at %q", row, SubPath(below))
		}
	}
}

// TestCookiesKeepToTheirPath checks the path and the guard of a cookie's name at a sub-path.
func TestCookiesKeepToTheirPath(t *testing.T) {
	for address, want := range map[Address]string{
		{"https", "lab.example", "/survey"}: "__Secure-spacehost-in-", {"http", "lab.example", "/survey"}: "spacehost-in-", {"https", "lab.example", ""}: "__Host-spacehost-in-",
	} {
		r := AtAddress(httptest.NewRequest(http.MethodGet, "http://127.0.0.1/config", nil), address)
		h := http.Header{}
		Cookies{"demo"}.SetSignIn(h, r, "secret", 60)
		line := h.Get("Set-Cookie")
		path := "; Path=" + address.Path
		if address.Path == "" {
			path = "; Path=/"
		}
		if !strings.HasPrefix(line, want) || !strings.Contains(line+";", path+";") || strings.Contains(line, "Secure;") != (address.Scheme == "https") && !strings.HasSuffix(line, "Secure") {
			t.Errorf("%s: %s", address, line)
		}
		name, _, _ := strings.Cut(line, ";")
		if r.Header.Set("Cookie", name); (Cookies{"demo"}).SignIn(r) != "secret" {
			t.Errorf("%s: the cookie %q is not read back", address, name)
		}
		if StripCookies(r.Header); r.Header.Get("Cookie") != "" {
			t.Errorf("%s: the Space receives %q", address, r.Header.Get("Cookie"))
		}
	}
}
