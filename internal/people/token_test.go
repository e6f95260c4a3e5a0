package people

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"spacehost/migrations"
)

func TestTokenIdentifiesPerson(t *testing.T) {
	f := newFixture(t)
	f.add("ada", "ben")
	text, token := f.token("ada")
	if !regexp.MustCompile(`^sph_[0-9a-f]{64}$`).MatchString(text) || !regexp.MustCompile(`^[a-z2-7]{10}$`).MatchString(token.ID) {
		t.Errorf("got a token of %d bytes with ID %q", len(text), token.ID)
	}
	want := Token{ID: token.ID, Person: "ada", Label: "laptop", CreatedAt: noon, Rights: FullRights()}
	if !reflect.DeepEqual(token, want) {
		t.Errorf("got %+v, want %+v", token, want)
	}
	bens, _ := f.token("ben")
	f.wantPayer(text, "user:ada", "free")
	f.wantPayer(bens, "user:ben", "free")
	f.open()
	f.wantPayer(text, "user:ada", "free")
}

func TestInvalidTokensAreUnknown(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	text, token := f.token("ada")
	var hash []byte
	if err := f.db.QueryRowContext(t.Context(), "SELECT hash FROM tokens").Scan(&hash); err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"nothing": "", "prefix": "sph_", "another": newToken(), "cut": text[:len(text)-1], "longer": text + "0", "upper case": strings.ToUpper(text),
		"without prefix": strings.TrimPrefix(text, "sph_"), "a space": text + " ", "NUL": text + "\x00", "its ID": token.ID, "its hash": "sph_" + hex.EncodeToString(hash),
		"its hash, raw": string(hash), "Hugging Face's": "hf_" + text[4:], "huge": "sph_" + strings.Repeat("a", 1<<20), "SQL": "sph_' OR 1=1 --",
	} {
		f.wantUnknown(what, token)
	}
	f.wantPayer(text, "user:ada", "free")
}

// An operator's change applies from the next call on, although tokens are cached.
func TestChangesApplyImmediately(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	first, one := f.token("ada")
	f.wantPayer(first, "user:ada", "free")
	second, two := f.token("ada")
	f.wantPayer(second, "user:ada", "free")

	if person, err := f.SetTier(t.Context(), "ada", "pro"); err != nil || person.Tier != "pro" {
		t.Errorf("SetTier: got %+v (%v)", person, err)
	}
	f.wantPayer(first, "user:ada", "pro")

	f.pass(time.Hour)
	revoked, _, err := f.Revoke(t.Context(), one.ID)
	if err != nil || revoked.ID != one.ID || !revoked.RevokedAt.Equal(noon.Add(time.Hour)) {
		t.Errorf("Revoke: got %+v (%v)", revoked, err)
	}
	f.wantUnknown("revoked", first)
	f.wantPayer(second, "user:ada", "pro")
	f.pass(time.Hour)
	if again, _, err := f.Revoke(t.Context(), one.ID); err != nil || !again.RevokedAt.Equal(revoked.RevokedAt) {
		t.Errorf("revoked twice: got %+v (%v), want the time of the first", again, err)
	}
	f.open()
	f.wantUnknown("revoked, after a restart", first)

	list, err := f.Tokens(t.Context(), "ada")
	if err != nil || len(list) != 2 || list[0].ID != two.ID || list[1].RevokedAt.IsZero() {
		t.Errorf("Tokens: got %+v (%v), want the newest first and the revoked one", list, err)
	}
}

func TestTokensAreListedByPerson(t *testing.T) {
	f := newFixture(t)
	f.add("ada", "ben", "zoe")
	f.token("ada")
	_, bens := f.token("ben")
	for person, want := range map[string]int{"ada": 1, "ben": 1, "zoe": 0, "": 2} {
		list, err := f.Tokens(t.Context(), person)
		if err != nil || len(list) != want || person == "ben" && list[0].ID != bens.ID {
			t.Errorf("Tokens(%q): got %+v (%v), want %d", person, list, err, want)
		}
	}
}

func TestTokenLimit(t *testing.T) {
	f := newFixture(t)
	f.add("ada", "ben")
	_, first := f.token("ada")
	for range maxTokens - 1 {
		f.token("ada")
	}
	_, _, err := f.CreateToken(t.Context(), "ada", "", FullRights())
	if !errors.As(err, new(*TooManyTokensError)) || !strings.Contains(err.Error(), "ada has 100 tokens") {
		t.Errorf("got %v, want a TooManyTokensError", err)
	}
	f.token("ben")
	if _, _, err := f.Revoke(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	f.token("ada")
}

// TestTokensAreNotStoredOrLogged looks for tokens in the files of the database and in error texts.
func TestTokensAreNotStoredOrLogged(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	marker, token, err := f.CreateToken(t.Context(), "ada", "markedlabel", FullRights())
	if err != nil {
		t.Fatal(err)
	}
	f.wantPayer(marker, "user:ada", "free")
	if !bytes.Contains(f.files(), []byte("markedlabel")) {
		t.Error("the label is not in the files: this test looks in the wrong place")
	}
	var texts []string
	report := func(err error) { texts = append(texts, fmt.Sprintf("%v %+v %#v", err, err, errors.Unwrap(err))) }
	_, err = f.Add(t.Context(), marker, "free", "operator")
	report(err)
	_, err = f.Get(t.Context(), marker)
	report(err)
	_, _, err = f.Revoke(t.Context(), strings.ToUpper(marker))
	report(err)
	_, _, err = f.CreateToken(t.Context(), "ada", marker, FullRights())
	report(err)
	_, err = f.ByToken(t.Context(), marker+"x")
	report(err)
	if _, _, err := f.Revoke(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	texts = append(texts, fmt.Sprintf("%+v", token), string(f.files()))
	raw, err := hex.DecodeString(marker[4:])
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{marker, marker[4:20], strings.ToUpper(marker[4:20]), string(raw)} {
		for _, text := range texts {
			if strings.Contains(text, secret) {
				t.Errorf("part of a token in %.200q", text)
			}
		}
	}
}

// TestForgetTokens: tokens that were revoked long ago are deleted with their sign-ins. Valid and recently revoked tokens stay.
func TestForgetTokens(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	old, first := f.token("ada")
	_, second := f.token("ada")
	good, _ := f.token("ada")
	revoke := func(id string) {
		t.Helper()
		if _, _, err := f.Revoke(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	revoke(first.ID)
	f.pass(100 * 24 * time.Hour)
	revoke(second.ID)
	for _, row := range []struct {
		before time.Time
		want   int64
	}{{time.Time{}, 0}, {f.now().Add(-90 * 24 * time.Hour), 1}, {f.now().Add(-90 * 24 * time.Hour), 0}} {
		if got, err := f.Forget(t.Context(), row.before); err != nil || got != row.want {
			t.Errorf("forget before %v: got %d (%v), want %d", row.before, got, err, row.want)
		}
	}
	if n := f.count("SELECT count(*) FROM tokens"); n != 2 {
		t.Errorf("%d tokens are left, want the valid one and the recently revoked one", n)
	}
	f.wantUnknown("a deleted token", old)
	f.wantPayer(good, "user:ada", "free")
}

func BenchmarkByToken(b *testing.B) {
	db, err := migrations.Open(b.Context(), filepath.Join(b.TempDir(), "spacehost.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	people := NewStore(db)
	if _, err := people.Add(b.Context(), "ada", "free", "operator"); err != nil {
		b.Fatal(err)
	}
	text, _, err := people.CreateToken(b.Context(), "ada", "", FullRights())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := people.ByToken(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
}
