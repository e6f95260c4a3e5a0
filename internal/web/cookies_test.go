package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"spacehost/internal/identity"
)

// TestHostCookiesAreStripped: other cookies are not changed.
func TestHostCookiesAreStripped(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"a=b", "a=b"}, {"a=b; c=d", "a=b; c=d"}, {`a="x y"; b; =c; d==e`, `a="x y"; b; =c; d==e`},
		{"spacehost-in-0=x", ""}, {"a=b; spacehost-in-0=x; c=d", "a=b; c=d"}, {"__Host-spacehost-visitor-0=x;a=b", "a=b"},
		{"SpaceHost-In-0=x; a=b", "a=b"}, {"__SECURE-spacehost-x=y;\ta=b", "a=b"}, {"spacehost-x", ""}, {" \t spacehost-x=1 ;a=b;", "a=b;"},
		{"myspacehost-x=1", "myspacehost-x=1"}, {"a=spacehost-in-0=x", "a=spacehost-in-0=x"},
	} {
		h := http.Header{"Cookie": {row.in}}
		if StripCookies(h); h.Get("Cookie") != row.want || row.want == "" && h["Cookie"] != nil {
			t.Errorf("%q: got %q, want %q", row.in, h["Cookie"], row.want)
		}
	}
	h := http.Header{"Set-Cookie": {"a=b; Path=/", "spacehost-in-0=evil", " __Host-spacehost-x=y; Secure", "c=d"}}
	if StripSetCookies(h); strings.Join(h["Set-Cookie"], "|") != "a=b; Path=/|c=d" {
		t.Errorf("a Space's response sets %q", h["Set-Cookie"])
	}
}

// TestCookiesOfSpace: cookies are read only at their Space, and only if they are unambiguous.
func TestCookiesOfSpace(t *testing.T) {
	for scheme, want := range map[string]string{"http": "", "https": "__Host-"} {
		r := httptest.NewRequest(http.MethodGet, scheme+"://demo.example/", nil)
		mine, others := Cookies{"demo"}, Cookies{"other"}
		h := http.Header{}
		mine.SetSignIn(h, r, "secret", 60)
		digest := mine.SetVisitor(h, r)
		for _, line := range h["Set-Cookie"] {
			if !strings.HasPrefix(line, want+"spacehost-") || !strings.Contains(line, "; HttpOnly; ") && !strings.Contains(line, "; HttpOnly;") ||
				!strings.Contains(line, "SameSite=Lax") || !strings.Contains(line, "Path=/") || strings.Contains(line, "Domain") || strings.Contains(line, "Secure") != (scheme == "https") {
				t.Errorf("%s: %s", scheme, line)
			}
			name, _, _ := strings.Cut(line, ";")
			r.Header.Add("Cookie", name)
		}
		if mine.SignIn(r) != "secret" || mine.Visitor(r) != digest {
			t.Errorf("%s: read back %q, %q", scheme, mine.SignIn(r), mine.Visitor(r))
		}
		if others.SignIn(r) != "" || others.Visitor(r) != "" {
			t.Error("another Space reads the cookies")
		}
		r.Header.Add("Cookie", mine.cookieName(signInCookie, r)+"=tossed")
		if mine.SignIn(r) != "" {
			t.Errorf("with two cookies: got %q, want none", mine.SignIn(r))
		}
	}
	plain, tls := httptest.NewRequest(http.MethodGet, "http://demo.example/", nil), httptest.NewRequest(http.MethodGet, "https://demo.example/", nil)
	tls.Header.Set("Cookie", Cookies{"demo"}.cookieName(signInCookie, plain)+"=x")
	if (Cookies{"demo"}).SignIn(tls) != "" {
		t.Error("a cookie that plain HTTP may have set is accepted over TLS")
	}
}

// For any Cookie line, no host cookie is passed on, and an accepted value is a short word of visible ASCII.
func FuzzCookies(f *testing.F) {
	r := httptest.NewRequest(http.MethodGet, "http://demo.example/", nil)
	name := Cookies{"demo"}.cookieName(signInCookie, r)
	for _, seed := range []string{"", "a=b", name + "=x", "a=b; " + name + "=x;c", name + "=x; " + name + "=y", "=;=;", name, ";\x00;", "__Host-" + name + "=x"} {
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		r := r.Clone(t.Context())
		r.Header["Cookie"] = []string{one, two}
		value := Cookies{"demo"}.SignIn(r)
		if len(value) > maxCookie || strings.IndexFunc(value, identity.IsInvisible) >= 0 || value != "" && !strings.Contains(one+";"+two, name) {
			t.Errorf("%q, %q: got %q", one, two, value)
		}
		StripCookies(r.Header)
		for _, line := range r.Header["Cookie"] {
			for _, pair := range strings.Split(line, ";") {
				if given, _, _ := strings.Cut(pair, "="); IsOurCookie(given) {
					t.Errorf("%q, %q: %q is passed on", one, two, line)
				}
			}
		}
		if (Cookies{"demo"}).SignIn(r) != "" {
			t.Errorf("%q, %q: sign-in is still in %q", one, two, r.Header["Cookie"])
		}
	})
}
