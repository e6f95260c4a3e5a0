package people

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func (f *storeFixture) signedIn(space, text string) string {
	f.t.Helper()
	who, ok, err := f.SignedIn(context.Background(), space, text)
	if err != nil {
		f.t.Fatal(err)
	}
	if !ok {
		return ""
	}
	return who.Key() + " " + who.Tier
}

// signInFixture is a storeFixture with the user ada, who has one token.
type signInFixture struct {
	*storeFixture
	token string
	row   Token
}

func newSignInFixture(t *testing.T) signInFixture {
	t.Helper()
	f := newFixture(t)
	f.add("ada")
	token, row := f.token("ada")
	return signInFixture{f, token, row}
}

// signIn signs a browser in at the Space demo with the token.
func (f signInFixture) signIn() string {
	f.t.Helper()
	proof, err := f.ProofOf(f.t.Context(), f.token)
	if err != nil {
		f.t.Fatal(err)
	}
	text, err := f.SignIn(f.t.Context(), "demo", proof)
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}

func (f signInFixture) want(when, space, text, key string) {
	f.t.Helper()
	if got := f.signedIn(space, text); got != key {
		f.t.Errorf("%s: got %q, want %q", when, got, key)
	}
}

// TestSignIn: a sign-in is valid at one Space for thirty days, or until the browser is signed out.
func TestSignIn(t *testing.T) {
	f := newSignInFixture(t)
	first, second := f.signIn(), f.signIn()
	f.want("at once", "demo", first, "user:ada free")
	f.want("at another Space", "other", first, "")
	for _, made := range []string{"", "x", first + "0", strings.ToUpper(first), f.token, f.row.ID, strings.Repeat("0", 64)} {
		f.want("made up", "demo", made, "")
	}
	if err := f.SignOut(t.Context(), "other", first); err != nil {
		t.Fatal(err)
	}
	f.want("signed out of another Space", "demo", first, "user:ada free")
	if err := f.SignOut(t.Context(), "demo", first); err != nil {
		t.Fatal(err)
	}
	f.want("signed out", "demo", first, "")
	f.want("the other browser", "demo", second, "user:ada free")
	f.pass(SignInLife - time.Second)
	f.want("just before thirty days", "demo", second, "user:ada free")
	f.pass(time.Second)
	f.want("after thirty days", "demo", second, "")
	f.want("signed in again", "demo", f.signIn(), "user:ada free")
}

// TestSignInDependsOnItsToken: a revoked token ends its sign-ins. The local visitor's sign-in has no token.
func TestSignInDependsOnItsToken(t *testing.T) {
	f := newSignInFixture(t)
	text := f.signIn()
	proof, err := f.ProofOf(t.Context(), f.token)
	if err != nil {
		t.Fatal(err)
	}
	f.want("before the revocation", "demo", text, "user:ada free")
	if _, _, err := f.Revoke(t.Context(), f.row.ID); err != nil {
		t.Fatal(err)
	}
	f.want("with the token revoked", "demo", text, "")
	var unknown *UnknownTokenError
	if _, err := f.SignIn(t.Context(), "demo", proof); !errors.As(err, &unknown) {
		t.Errorf("a sign-in with a token that was revoked meanwhile: %v", err)
	}
	local, err := f.SignIn(t.Context(), "demo", LocalProof())
	if err != nil {
		t.Fatal(err)
	}
	f.want("the local visitor", "demo", local, "local ")
	f.pass(LocalLife)
	f.want("the local visitor after twelve hours", "demo", local, "")
}

func TestSignInsPerTokenAreBounded(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	token, _ := f.token("ada")
	proof, err := f.ProofOf(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for range maxSignIns + 3 {
		text, err := f.SignIn(t.Context(), "demo", proof)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	if got := f.count("SELECT count(*) FROM sign_ins"); got != maxSignIns {
		t.Errorf("%d sign-ins are stored", got)
	}
	if f.signedIn("demo", texts[2]) != "" || f.signedIn("demo", texts[3]) == "" {
		t.Error("the deleted sign-ins are not the oldest")
	}
}

func TestCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCodes(30*time.Second, nil)
		take := func(what, place, code string, want bool) {
			t.Helper()
			if proof, ok := c.Take(place, code); ok != want || ok && !reflect.DeepEqual(proof, LocalProof()) {
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
		take("after it was tried elsewhere", "demo", code, false)
		code = c.Give("demo", LocalProof())
		time.Sleep(30 * time.Second)
		take("late", "demo", code, false)
	})
}
