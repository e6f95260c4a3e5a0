package identity

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func (w *town) signedIn(space, text string) string {
	w.t.Helper()
	who, ok, err := w.SignedIn(context.Background(), space, text)
	if err != nil {
		w.t.Fatal(err)
	}
	if !ok {
		return ""
	}
	return who.Key() + " " + who.Tier
}

// TestASignInIsAsGoodAsItsToken: for one Space, for thirty days, until the token is revoked or the browser is signed out.
func TestASignInIsAsGoodAsItsToken(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	token, row := w.token("ada")
	signIn := func() string {
		proof, err := w.ProofOf(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		text, err := w.SignIn(t.Context(), "demo", proof)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	want := func(when, space, text, who string) {
		t.Helper()
		if got := w.signedIn(space, text); got != who {
			t.Errorf("%s: got %q, want %q", when, got, who)
		}
	}
	first, second := signIn(), signIn()
	want("at once", "demo", first, "user:ada free")
	want("at another Space", "other", first, "")
	for _, made := range []string{"", "x", first + "0", strings.ToUpper(first), token, row.ID, strings.Repeat("0", 64)} {
		want("made up", "demo", made, "")
	}
	if err := w.SignOut(t.Context(), "other", first); err != nil {
		t.Fatal(err)
	}
	want("signed out of another Space", "demo", first, "user:ada free")
	if err := w.SignOut(t.Context(), "demo", first); err != nil {
		t.Fatal(err)
	}
	want("signed out", "demo", first, "")
	want("the other browser", "demo", second, "user:ada free")
	w.pass(SignInLife - time.Second)
	want("just before thirty days", "demo", second, "user:ada free")
	w.pass(time.Second)
	want("after thirty days", "demo", second, "")
	third := signIn()
	proof, err := w.ProofOf(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Revoke(t.Context(), row.ID); err != nil {
		t.Fatal(err)
	}
	want("with the token revoked", "demo", third, "")
	var unknown *UnknownTokenError
	if _, err := w.SignIn(t.Context(), "demo", proof); !errors.As(err, &unknown) {
		t.Errorf("a sign-in with a token that was revoked meanwhile: %v", err)
	}
	local, err := w.SignIn(t.Context(), "demo", LocalProof())
	if err != nil {
		t.Fatal(err)
	}
	want("the local visitor", "demo", local, "local ")
	w.pass(LocalLife)
	want("the local visitor after twelve hours", "demo", local, "")
}

func TestManySignInsOfOneToken(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	token, _ := w.token("ada")
	proof, err := w.ProofOf(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for range signInsEach + 3 {
		text, err := w.SignIn(t.Context(), "demo", proof)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	if got := w.count("SELECT count(*) FROM sign_ins"); got != signInsEach {
		t.Errorf("%d are kept", got)
	}
	if w.signedIn("demo", texts[2]) != "" || w.signedIn("demo", texts[3]) == "" {
		t.Error("it is not the oldest that have gone")
	}
}

func TestCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCodes(30*time.Second, nil)
		take := func(what, place, code string, want bool) {
			t.Helper()
			if proof, ok := c.Take(place, code); ok != want || ok && proof != LocalProof() {
				t.Errorf("%s: %v", what, ok)
			}
		}
		code := c.Give("demo", LocalProof())
		take("made up", "demo", "x", false)
		take("too long", "demo", strings.Repeat("x", 1<<20), false)
		take("in time", "demo", code, true)
		take("again", "demo", code, false)
		code = c.Give("demo", LocalProof())
		take("for another Space", "other", code, false)
		take("after somebody has tried it elsewhere", "demo", code, false)
		code = c.Give("demo", LocalProof())
		time.Sleep(30 * time.Second)
		take("late", "demo", code, false)
	})
}

// TestOurCookiesReachNoSpace, and those of others reach it as they came.
func TestOurCookiesReachNoSpace(t *testing.T) {
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
		t.Errorf("a Space sets %q", h["Set-Cookie"])
	}
}

// TestCookiesOfASpace are read back at that Space alone, and not if there are two.
func TestCookiesOfASpace(t *testing.T) {
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
			t.Error("another Space reads them")
		}
		r.Header.Add("Cookie", mine.cookieName(signInCookie, r)+"=tossed")
		if mine.SignIn(r) != "" {
			t.Errorf("of two: %q", mine.SignIn(r))
		}
	}
	plain, tls := httptest.NewRequest(http.MethodGet, "http://demo.example/", nil), httptest.NewRequest(http.MethodGet, "https://demo.example/", nil)
	tls.Header.Set("Cookie", Cookies{"demo"}.cookieName(signInCookie, plain)+"=x")
	if (Cookies{"demo"}).SignIn(tls) != "" {
		t.Error("what plain http may have set counts with TLS")
	}
}

// Whatever stands in a Cookie line, nothing of ours goes on, and what counts is a short word of visible ASCII.
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
		if len(value) > maxCookie || strings.IndexFunc(value, isInvisible) >= 0 || value != "" && !strings.Contains(one+";"+two, name) {
			t.Errorf("%q, %q: got %q", one, two, value)
		}
		StripCookies(r.Header)
		for _, line := range r.Header["Cookie"] {
			for _, pair := range strings.Split(line, ";") {
				if given, _, _ := strings.Cut(pair, "="); IsOurCookie(given) {
					t.Errorf("%q, %q: %q goes on", one, two, line)
				}
			}
		}
		if (Cookies{"demo"}).SignIn(r) != "" {
			t.Errorf("%q, %q: still %q", one, two, r.Header["Cookie"])
		}
	})
}
