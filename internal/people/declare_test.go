package people

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func (f *storeFixture) declare(people ...Declared) {
	f.t.Helper()
	if err := f.Declare(f.t.Context(), people); err != nil {
		f.t.Fatalf("Declare(%v): %v", people, err)
	}
}

// TestDeclareOverSeveralStarts follows one file over several starts of the host.
func TestDeclareOverSeveralStarts(t *testing.T) {
	f := newFixture(t)
	laptop, laptopHash := NewToken()
	phone, phoneHash := NewToken()
	f.add("zoe")
	theirs, _ := f.token("zoe")

	f.declare(Declared{Name: "ada", Tier: "pro", Tokens: []string{laptopHash, phoneHash}, Overrides: Overrides{}}, Declared{Name: "ben", Tier: "free", Tokens: nil, Overrides: Overrides{}})
	f.wantPayer(laptop, "user:ada", "pro")
	f.wantPayer(phone, "user:ada", "pro")

	f.pass(time.Hour)
	f.declare(Declared{Name: "ada", Tier: "free", Tokens: []string{phoneHash}, Overrides: Overrides{}}) // the file drops the laptop's token and ben
	f.wantUnknown("a token that the file has dropped", laptop)
	f.wantPayer(phone, "user:ada", "free")
	f.wantPayer(theirs, "user:zoe", "free")
	if ben, err := f.Get(t.Context(), "ben"); err != nil || ben.Source != Former {
		t.Errorf("ben: %+v (%v), want a former person", ben, err)
	}

	f.open() // another start
	f.declare(Declared{Name: "ben", Tier: "free", Tokens: []string{laptopHash}, Overrides: Overrides{}})
	f.wantPayer(laptop, "user:ben", "free")
	f.wantUnknown("a token of a person dropped from the file", phone)
	f.declare()
	f.wantUnknown("the last token", laptop)
	f.wantPayer(theirs, "user:zoe", "free")
	if got := f.count("SELECT count(*) FROM tokens WHERE revoked_at IS NULL"); got != 1 {
		t.Errorf("%d tokens are valid, want only zoe's", got)
	}
}

// TestClashingConfigurationChangesNothing: a configuration cannot take over the operator's persons and tokens.
func TestClashingConfigurationChangesNothing(t *testing.T) {
	f := newFixture(t)
	f.add("zoe")
	text, zoes := f.token("zoe")
	if _, _, err := f.Revoke(t.Context(), zoes.ID); err != nil {
		t.Fatal(err)
	}
	revoked, _ := HashToken(text)
	mine, mineHash := NewToken()
	f.declare(Declared{Name: "ada", Tier: "pro", Tokens: []string{mineHash}, Overrides: Overrides{}})
	for _, row := range []struct {
		people []Declared
		want   string
	}{
		{[]Declared{{Name: "ben", Tier: "free", Tokens: nil}, {Name: "zoe", Tier: "free", Tokens: nil}}, "user zoe was created with `spacehost user add`"},
		{[]Declared{{Name: "ben", Tier: "free", Tokens: []string{revoked}}}, "a token of ben was created for zoe with `spacehost token create`"},
		{[]Declared{{Name: "ben", Tier: "free", Tokens: []string{"sha256:12"}}}, "not sha256: and 64"},
		{[]Declared{{Name: "Ben", Tier: "free", Tokens: nil}}, `"Ben" cannot be a name`},
	} {
		err := f.Declare(t.Context(), row.people)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("Declare(%v): %v, want %q", row.people, err, row.want)
		}
		f.wantPayer(mine, "user:ada", "pro")
	}
	f.wantUnknown("a token that the operator has revoked", text)
	if _, err := f.Get(t.Context(), "ben"); err == nil {
		t.Error("ben exists, though the configuration was refused")
	}
}

// TestOperatorCannotChangeConfiguredPersons: the operator may use the name, with its account, only after the configuration
// has dropped the person.
func TestOperatorCannotChangeConfiguredPersons(t *testing.T) {
	f := newFixture(t)
	text, hash := NewToken()
	f.declare(Declared{Name: "ada", Tier: "pro", Tokens: []string{hash}, Overrides: Overrides{}})
	refused := func(source Source, deeds map[string]func() error) {
		t.Helper()
		for what, do := range deeds {
			if no, ok := errors.AsType[*ConfiguredPersonError](do()); !ok || no.Source != source {
				t.Errorf("%s of a person of source %s: %v", what, source, no)
			}
		}
	}
	create := func() error { _, _, err := f.CreateToken(t.Context(), "ada", "", FullRights()); return err }
	tier := func() error { _, err := f.SetTier(t.Context(), "ada", "free"); return err }
	refused(Config, map[string]func() error{
		"add": func() error { _, err := f.Add(t.Context(), "ada", "free", "operator"); return err }, "tier": tier, "token": create,
	})
	f.wantPayer(text, "user:ada", "pro")
	f.declare()
	refused(Former, map[string]func() error{"tier": tier, "token": create})
	f.add("ada")
	own, _ := f.token("ada")
	f.wantPayer(own, "user:ada", "free")
	f.wantUnknown("the configuration's old token", text)
}

// TestRevokedTokenOfTheConfiguration checks that the operator's revocation outlasts declarations and the retention, while a
// token that the file dropped becomes valid with it again. Ended is called for each.
func TestRevokedTokenOfTheConfiguration(t *testing.T) {
	f := newFixture(t)
	ended := 0
	f.Ended = func() { ended++ }
	revoked, revokedHash := NewToken()
	dropped, droppedHash := NewToken()
	both := Declared{Name: "ada", Tier: "pro", Tokens: []string{revokedHash, droppedHash}, Overrides: Overrides{}}
	f.declare(both)
	f.declare(Declared{Name: "ada", Tier: "pro", Tokens: []string{revokedHash}, Overrides: Overrides{}})
	f.wantUnknown("a dropped token", dropped)
	tokens, err := f.Tokens(t.Context(), "ada")
	if err != nil || len(tokens) != 2 {
		t.Fatalf("Tokens: %v (%v)", tokens, err)
	}
	for _, token := range tokens {
		if token.RevokedAt.IsZero() {
			if _, _, err := f.Revoke(t.Context(), token.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.wantUnknown("a revoked token", revoked)
	if _, err := f.Forget(t.Context(), noon.Add(1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	f.declare(both)
	f.wantUnknown("a revoked token that the file still declares", revoked)
	f.wantPayer(dropped, "user:ada", "pro")
	if ended != 4 {
		t.Errorf("Ended was called %d times, want 4", ended)
	}
}

func TestOnlySpacehostTokensAreHashed(t *testing.T) {
	text, hash := NewToken()
	if again, err := HashToken(text); err != nil || again != hash || CheckHash(hash) != nil {
		t.Errorf("HashToken: %s (%v), want %s", again, err, hash)
	}
	for _, bad := range []string{"", "secret", text[:60], text + "0", "sph_" + strings.Repeat("g", 64), " " + text} {
		if hash, err := HashToken(bad); err == nil {
			t.Errorf("HashToken(%q): %s", bad, hash)
		}
	}
	for _, bad := range []string{"", "sha256:", hash + "00", strings.TrimPrefix(hash, "sha256:"), "sha512:" + hash[7:]} {
		if CheckHash(bad) == nil {
			t.Errorf("CheckHash accepts %q", bad)
		}
	}
	if err := CheckHash(text); err == nil || strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "a token itself") {
		t.Errorf("CheckHash of a token: %v", err)
	}
}
