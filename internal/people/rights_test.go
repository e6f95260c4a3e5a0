package people

import (
	"errors"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
)

// TestRightsAllow compares what a token has with what is wanted.
func TestRightsAllow(t *testing.T) {
	soon, late := noon.Add(time.Hour), noon.Add(2*time.Hour)
	call, read, all := Rights{Scope: ScopeCall}, Rights{Scope: ScopeRead}, FullRights()
	demo := Rights{Scope: ScopeCall, Spaces: []string{"demo", "other"}}
	for _, row := range []struct {
		name        string
		has, wanted Rights
		why         string // part of the refusal; "": allowed
	}{
		{"all of all", all, all, ""},
		{"less", all, call, ""},
		{"more", call, read, "has scope call, and scope read is required"},
		{"most", read, all, "scope all is required"},
		{"an unknown scope has nothing", Rights{Scope: "root"}, call, "scope call is required"},
		{"one of the Spaces", demo, Rights{Scope: ScopeCall, Spaces: []string{"other"}}, ""},
		{"another Space", demo, Rights{Scope: ScopeCall, Spaces: []string{"demo", "hidden"}}, "not valid at the Space hidden, only at: demo, other"},
		{"all Spaces", demo, call, "limit the new token to these Spaces"},
		{"fewer Spaces", all, demo, ""},
		{"an earlier end", Rights{ScopeAll, nil, late}, Rights{ScopeAll, nil, soon}, ""},
		{"the same end", Rights{ScopeAll, nil, late}, Rights{ScopeAll, nil, late}, ""},
		{"a later end", Rights{ScopeAll, nil, soon}, Rights{ScopeAll, nil, late}, "expires at 2026-11-20T13:00:00Z"},
		{"no end", Rights{ScopeAll, nil, soon}, all, "choose an expiry"},
		{"an end of a token without one", all, Rights{ScopeAll, nil, late}, ""},
	} {
		err := row.has.Allow(row.wanted)
		if _, refused := errors.AsType[*RightsError](err); refused != (row.why != "") || refused && !strings.Contains(err.Error(), row.why) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.why)
		}
	}
}

// TestUseOfToken looks a token up for requests to Spaces and to the console.
func TestUseOfToken(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	text, _, err := f.CreateToken(t.Context(), "ada", "", Rights{Scope: ScopeRead, Spaces: []string{"demo"}})
	if err != nil {
		t.Fatal(err)
	}
	f.open()
	for _, row := range []struct {
		scope Scope
		space string
		ok    bool
	}{{ScopeCall, "demo", true}, {ScopeCall, "other", false}, {ScopeCall, "", true}, {ScopeRead, "", true}, {ScopeAll, "", false}} {
		who, err := f.Use(t.Context(), text, row.scope, row.space)
		if ok := err == nil && who.Key() == "user:ada"; ok != row.ok || !ok && !errors.As(err, new(*RightsError)) {
			t.Errorf("scope %s at %q: got %s (%v), want %v", row.scope, row.space, who, err, row.ok)
		}
	}
	proof, err := f.ProofOf(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.SignIn(t.Context(), "other", proof); !errors.As(err, new(*RightsError)) {
		t.Errorf("sign-in at another Space: got %v, want a RightsError", err)
	}
	if _, err := f.SignIn(t.Context(), "demo", proof); err != nil {
		t.Errorf("sign-in at its Space: %v", err)
	}
}

// TestWrongRights tries to create tokens that nobody may have.
func TestWrongRights(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	for what, rights := range map[string]Rights{
		"no scope": {}, "an unknown scope": {Scope: "root"}, "all at one Space": {Scope: ScopeAll, Spaces: []string{"demo"}},
		"many Spaces": {Scope: ScopeCall, Spaces: make([]string, maxSpaces+1)}, "an end in the past": {Scope: ScopeCall, ExpiresAt: noon},
		"an end in a century": {Scope: ScopeCall, ExpiresAt: noon.Add(100 * 365 * 24 * time.Hour)},
	} {
		if _, _, err := f.CreateToken(t.Context(), "ada", "", rights); !errors.As(err, new(*BadRightsError)) {
			t.Errorf("%s: got %v, want a BadRightsError", what, err)
		}
	}
	if list, err := f.Tokens(t.Context(), "ada"); err != nil || len(list) != 0 {
		t.Errorf("tokens after refusals: %+v (%v)", list, err)
	}
}

// TestExpiry lets a token and its sign-in expire.
func TestExpiry(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	ended := 0
	f.Ended = func() { ended++ }
	text, token, err := f.CreateToken(t.Context(), "ada", "", Rights{Scope: ScopeAll, ExpiresAt: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	f.wantPayer(text, "user:ada", "free")
	proof, err := f.ProofOf(t.Context(), text)
	if err != nil || !proof.ExpiresAt().Equal(noon.Add(time.Hour)) {
		t.Fatalf("proof until %v (%v)", proof.ExpiresAt(), err)
	}
	cookie, err := f.SignIn(t.Context(), "demo", proof)
	if err != nil || f.signedIn("demo", cookie) == "" {
		t.Fatalf("sign-in: %v", err)
	}
	seen := f.endExpired(t.Context(), noon)
	f.pass(time.Hour - time.Second)
	if seen = f.endExpired(t.Context(), seen); ended != 0 {
		t.Error("Ended was called before the expiry")
	}
	f.pass(time.Second)
	f.wantUnknown("expired", text)
	if f.signedIn("demo", cookie) != "" {
		t.Error("the sign-in outlives its token")
	}
	if seen = f.endExpired(t.Context(), seen); ended != 1 {
		t.Errorf("Ended was called %d times after the expiry, want once", ended)
	}
	f.pass(time.Second)
	if f.endExpired(t.Context(), seen); ended != 1 {
		t.Errorf("Ended was called %d times, want once", ended)
	}
	if _, err := f.SignIn(t.Context(), "demo", proof); !errors.As(err, new(*UnknownTokenError)) {
		t.Errorf("sign-in with the expired token: %v", err)
	}
	f.open()
	f.wantUnknown("expired, after a restart", text)
	if list, err := f.Tokens(t.Context(), "ada"); err != nil || len(list) != 1 || list[0].ID != token.ID || !list[0].Rights.ExpiresAt.Equal(noon.Add(time.Hour)) {
		t.Errorf("Tokens: %+v (%v)", list, err)
	}
	if gone, err := f.Forget(t.Context(), f.now()); err != nil || gone != 1 {
		t.Errorf("Forget: %d (%v), want the expired token", gone, err)
	}
}

// proofOf returns the Proof of a token.
func (f *storeFixture) proofOf(token string) Proof {
	f.t.Helper()
	proof, err := f.ProofOf(f.t.Context(), token)
	if err != nil {
		f.t.Fatal(err)
	}
	return proof
}

// TestOwnTokens: people create and revoke their own tokens, within the Rights of the one they use. Those of a person of the
// configuration outlast a reload and end when the file drops the person.
func TestOwnTokens(t *testing.T) {
	f := newFixture(t)
	fileToken, hash := NewToken()
	declared := []Declared{{Name: "zoe", Tier: "free", Tokens: []string{hash}}}
	if err := f.Declare(t.Context(), declared); err != nil {
		t.Fatal(err)
	}
	f.add("ada")
	adas, adasToken := f.token("ada")
	own, created, err := f.CreateOwnToken(t.Context(), f.proofOf(fileToken), "ci", Rights{Scope: ScopeRead})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Declare(t.Context(), declared); err != nil {
		t.Fatal(err)
	}
	f.wantPayer(own, "user:zoe", "free")
	f.wantPayer(fileToken, "user:zoe", "free")

	if _, _, err := f.CreateOwnToken(t.Context(), f.proofOf(own), "", FullRights()); !errors.As(err, new(*RightsError)) {
		t.Errorf("a token of scope read creates one of scope all: %v", err)
	}
	if _, _, err := f.CreateOwnToken(t.Context(), LocalProof(), "", FullRights()); !errors.As(err, new(*NoPersonError)) {
		t.Errorf("the local visitor creates a token: %v", err)
	}
	all, current, err := f.OwnTokens(t.Context(), f.proofOf(fileToken))
	if err != nil || len(all) != 2 || all[0].ID != created.ID || all[0].Declared || !all[1].Declared || current != all[1].ID {
		t.Errorf("own tokens: %+v, current %q (%v)", all, current, err)
	}
	for id, want := range map[string]any{
		all[1].ID: new(*DeclaredTokenError), adasToken.ID: new(*UnknownTokenIDError), "none": new(*UnknownTokenIDError),
	} {
		if _, _, err := f.RevokeOwn(t.Context(), f.proofOf(fileToken), id); !errors.As(err, want) {
			t.Errorf("revoke %s: got %v, want %T", id, err, want)
		}
	}
	f.wantPayer(adas, "user:ada", "free")
	f.Store.lastUsed.writing.Wait()
	if got, err := f.Activity(t.Context()); err != nil || len(got) != 2 || got["zoe"].Tokens != 2 || got["ada"] != (Activity{1, noon}) {
		t.Errorf("Activity: %+v (%v)", got, err)
	}
	if _, _, err := f.RevokeOwn(t.Context(), f.proofOf(fileToken), created.ID); err != nil {
		t.Error(err)
	}
	f.wantUnknown("revoked by its person", own)

	second, _, err := f.CreateOwnToken(t.Context(), f.proofOf(fileToken), "", FullRights())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Declare(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	f.wantUnknown("of a dropped person", second)
	if err := f.Declare(t.Context(), declared); err != nil {
		t.Fatal(err)
	}
	f.wantUnknown("of a person that was dropped and declared again", second)
	f.wantPayer(fileToken, "user:zoe", "free")
}

// TestOwnTokensOfADay bounds the tokens that a person creates and revokes.
func TestOwnTokensOfADay(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	text, _ := f.token("ada")
	proof := f.proofOf(text)
	create := func() error {
		_, token, err := f.CreateOwnToken(t.Context(), proof, "", Rights{Scope: ScopeCall})
		if err == nil {
			_, _, err = f.RevokeOwn(t.Context(), proof, token.ID)
		}
		return err
	}
	for range maxOwnTokens - 1 {
		if err := create(); err != nil {
			t.Fatal(err)
		}
	}
	if err := create(); !errors.As(err, new(*TooManyTokensError)) || !strings.Contains(err.Error(), "in 24 hours") {
		t.Errorf("got %v, want a TooManyTokensError", err)
	}
	f.pass(25 * time.Hour)
	if err := create(); err != nil {
		t.Errorf("a day later: %v", err)
	}
	if proof.Who.Kind != identity.User {
		t.Errorf("%+v", proof.Who)
	}
}
