package people

import (
	"errors"
	"testing"
	"time"
)

// TestEndedTokenCreatesNone: a token that is revoked or expires while its request is under way creates no token.
func TestEndedTokenCreatesNone(t *testing.T) {
	f := newFixture(t)
	f.add("ada", "ben")
	text, token := f.token("ada")
	revoked := f.proofOf(text)
	brief, _, err := f.CreateToken(t.Context(), "ada", "", Rights{Scope: ScopeAll, ExpiresAt: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	expired := f.proofOf(brief)
	if _, made, err := f.CreateTokenBy(t.Context(), revoked, "ben", "", FullRights()); err != nil || made.CreatedBy != token.ID {
		t.Errorf("a valid token creates one for another person: %+v (%v)", made, err)
	}
	if _, _, err := f.CreateTokenBy(t.Context(), expired, "ben", "", FullRights()); !errors.As(err, new(*RightsError)) {
		t.Errorf("a token that expires creates one without an end: %v", err)
	}
	if _, _, err := f.Revoke(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	f.pass(2 * time.Hour)
	before := f.count(`SELECT count(*) FROM tokens`)
	for name, proof := range map[string]Proof{"revoked": revoked, "expired": expired} {
		rights := Rights{Scope: ScopeAll, ExpiresAt: proof.ExpiresAt()}
		if name == "expired" {
			rights.ExpiresAt = noon.Add(time.Hour)
		}
		_, _, own := f.CreateOwnToken(t.Context(), proof, "", rights)
		_, _, others := f.CreateTokenBy(t.Context(), proof, "ben", "", rights)
		for _, err := range []error{own, others} {
			if !errors.As(err, new(*UnknownTokenError)) && !errors.As(err, new(*BadRightsError)) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
	for name, text := range map[string]string{"revoked": text, "expired": brief, "made up": newToken()} {
		_, err := f.ByToken(t.Context(), text)
		if unknown, ok := errors.AsType[*UnknownTokenError](err); !ok || unknown.Ended != (name != "made up") {
			t.Errorf("%s: %v, want Ended only of tokens of this host", name, err)
		}
	}
	if after := f.count(`SELECT count(*) FROM tokens`); after != before {
		t.Errorf("%d tokens, want %d", after, before)
	}
	all, err := f.Tokens(t.Context(), "ben")
	if err != nil || len(all) != 1 || all[0].CreatedBy != token.ID {
		t.Errorf("tokens of ben: %+v (%v), want the creating token %s", all, err, token.ID)
	}
}

// TestSecondRevocation: it calls Ended no second time, writes nothing, and reports that.
func TestSecondRevocation(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	text, _ := f.token("ada")
	proof := f.proofOf(text)
	_, other := f.token("ada")
	_, third := f.token("ada")
	ended := 0
	f.Ended = func() { ended++ }
	for _, row := range []struct {
		name   string
		revoke func() (Token, bool, error)
	}{
		{"own", func() (Token, bool, error) { return f.RevokeOwn(t.Context(), proof, other.ID) }},
		{"by an admin", func() (Token, bool, error) { return f.Revoke(t.Context(), third.ID) }},
	} {
		ended = 0
		for i := range 3 {
			if token, changed, err := row.revoke(); err != nil || changed != (i == 0) || token.RevokedAt.IsZero() {
				t.Errorf("%s, time %d: %+v, changed %v (%v)", row.name, i+1, token, changed, err)
			}
		}
		if ended != 1 {
			t.Errorf("%s: Ended was called %d times, want once", row.name, ended)
		}
	}
}
