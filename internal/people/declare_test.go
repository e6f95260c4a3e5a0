package people

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func (w *town) declare(people ...Declared) {
	w.t.Helper()
	if err := w.Declare(w.t.Context(), people); err != nil {
		w.t.Fatalf("Declare(%v): %v", people, err)
	}
}

// TestAConfigurationIsTakenAtItsWord follows one file over several starts of the host.
func TestAConfigurationIsTakenAtItsWord(t *testing.T) {
	w := newTown(t)
	laptop, laptopHash := NewToken()
	phone, phoneHash := NewToken()
	w.add("zoe")
	theirs, _ := w.token("zoe")

	w.declare(Declared{"ada", "pro", []string{laptopHash, phoneHash}, Overrides{}}, Declared{"ben", "free", nil, Overrides{}})
	w.wantPayer(laptop, "user:ada", "pro")
	w.wantPayer(phone, "user:ada", "pro")

	w.pass(time.Hour)
	w.declare(Declared{"ada", "free", []string{phoneHash}, Overrides{}}) // the laptop is lost, ben has left
	w.wantUnknown("a token that the file has dropped", laptop)
	w.wantPayer(phone, "user:ada", "free")
	w.wantPayer(theirs, "user:zoe", "free")
	if ben, err := w.Get(t.Context(), "ben"); err != nil || ben.Source != Former {
		t.Errorf("ben: %+v (%v), want a former person", ben, err)
	}

	w.open() // another start
	w.declare(Declared{"ben", "free", []string{laptopHash}, Overrides{}})
	w.wantPayer(laptop, "user:ben", "free")
	w.wantUnknown("a token of a person whom the file has dropped", phone)
	w.declare()
	w.wantUnknown("the last token", laptop)
	w.wantPayer(theirs, "user:zoe", "free")
	if got := w.count("SELECT count(*) FROM tokens WHERE revoked_at IS NULL"); got != 1 {
		t.Errorf("%d tokens are good, want zoe's alone", got)
	}
}

// TestAConfigurationThatClashesChangesNothing: people and tokens of the operator's are theirs.
func TestAConfigurationThatClashesChangesNothing(t *testing.T) {
	w := newTown(t)
	w.add("zoe")
	text, zoes := w.token("zoe")
	if _, err := w.Revoke(t.Context(), zoes.ID); err != nil {
		t.Fatal(err)
	}
	revoked, _ := HashToken(text)
	mine, mineHash := NewToken()
	w.declare(Declared{"ada", "pro", []string{mineHash}, Overrides{}})
	for _, row := range []struct {
		people []Declared
		want   string
	}{
		{[]Declared{{"ben", "free", nil, Overrides{}}, {"zoe", "free", nil, Overrides{}}}, "zoe is a person whom `spacehost user add` has added"},
		{[]Declared{{"ben", "free", []string{revoked}, Overrides{}}}, "a token of ben is one that `spacehost token create` made for zoe"},
		{[]Declared{{"ben", "free", []string{"sha256:12"}, Overrides{}}}, "not sha256: and 64"},
		{[]Declared{{"Ben", "free", nil, Overrides{}}}, `"Ben" cannot be a name`},
	} {
		err := w.Declare(t.Context(), row.people)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("Declare(%v): %v, want %q", row.people, err, row.want)
		}
		w.wantPayer(mine, "user:ada", "pro")
	}
	w.wantUnknown("a token that the operator has revoked", text)
	if _, err := w.Get(t.Context(), "ben"); err == nil {
		t.Error("ben is known, from a configuration that was refused")
	}
}

// TestTheOperatorLeavesTheConfigurationsPeopleAlone until it has dropped them; then their name is free, account and all.
func TestTheOperatorLeavesTheConfigurationsPeopleAlone(t *testing.T) {
	w := newTown(t)
	text, hash := NewToken()
	w.declare(Declared{"ada", "pro", []string{hash}, Overrides{}})
	tokens, err := w.Tokens(t.Context(), "ada")
	if err != nil || len(tokens) != 1 {
		t.Fatalf("Tokens: %v (%v)", tokens, err)
	}
	refused := func(source Source, deeds map[string]func() error) {
		t.Helper()
		for what, do := range deeds {
			if no, ok := errors.AsType[*ConfiguredPersonError](do()); !ok || no.Source != source {
				t.Errorf("%s of a person of source %s: %v", what, source, no)
			}
		}
	}
	create := func() error { _, _, err := w.CreateToken(t.Context(), "ada", ""); return err }
	tier := func() error { _, err := w.SetTier(t.Context(), "ada", "free"); return err }
	refused(Config, map[string]func() error{
		"add": func() error { _, err := w.Add(t.Context(), "ada", "free", "operator"); return err }, "tier": tier, "token": create,
		"revoke": func() error { _, err := w.Revoke(t.Context(), tokens[0].ID); return err },
	})
	w.wantPayer(text, "user:ada", "pro")
	w.declare()
	refused(Former, map[string]func() error{"tier": tier, "token": create})
	w.add("ada")
	own, _ := w.token("ada")
	w.wantPayer(own, "user:ada", "free")
	w.wantUnknown("the configuration's old token", text)
}

func TestOnlyTokensOfOursAreHashed(t *testing.T) {
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
			t.Errorf("CheckHash takes %q", bad)
		}
	}
	if err := CheckHash(text); err == nil || strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "a token itself") {
		t.Errorf("CheckHash of a token: %v", err)
	}
}
