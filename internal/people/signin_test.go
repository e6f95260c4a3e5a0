package people

import (
	"context"
	"errors"
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

// TestSignInDependsOnItsToken: a sign-in is valid at one Space for thirty days, until its token is revoked or the browser is signed out.
func TestSignInDependsOnItsToken(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	token, row := f.token("ada")
	signIn := func() string {
		proof, err := f.ProofOf(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		text, err := f.SignIn(t.Context(), "demo", proof)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	want := func(when, space, text, who string) {
		t.Helper()
		if got := f.signedIn(space, text); got != who {
			t.Errorf("%s: got %q, want %q", when, got, who)
		}
	}
	first, second := signIn(), signIn()
	want("at once", "demo", first, "user:ada free")
	want("at another Space", "other", first, "")
	for _, made := range []string{"", "x", first + "0", strings.ToUpper(first), token, row.ID, strings.Repeat("0", 64)} {
		want("made up", "demo", made, "")
	}
	if err := f.SignOut(t.Context(), "other", first); err != nil {
		t.Fatal(err)
	}
	want("signed out of another Space", "demo", first, "user:ada free")
	if err := f.SignOut(t.Context(), "demo", first); err != nil {
		t.Fatal(err)
	}
	want("signed out", "demo", first, "")
	want("the other browser", "demo", second, "user:ada free")
	f.pass(SignInLife - time.Second)
	want("just before thirty days", "demo", second, "user:ada free")
	f.pass(time.Second)
	want("after thirty days", "demo", second, "")
	third := signIn()
	proof, err := f.ProofOf(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Revoke(t.Context(), row.ID); err != nil {
		t.Fatal(err)
	}
	want("with the token revoked", "demo", third, "")
	var unknown *UnknownTokenError
	if _, err := f.SignIn(t.Context(), "demo", proof); !errors.As(err, &unknown) {
		t.Errorf("a sign-in with a token that was revoked meanwhile: %v", err)
	}
	local, err := f.SignIn(t.Context(), "demo", LocalProof())
	if err != nil {
		t.Fatal(err)
	}
	want("the local visitor", "demo", local, "local ")
	f.pass(LocalLife)
	want("the local visitor after twelve hours", "demo", local, "")
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
		take("after it was tried elsewhere", "demo", code, false)
		code = c.Give("demo", LocalProof())
		time.Sleep(30 * time.Second)
		take("late", "demo", code, false)
	})
}
