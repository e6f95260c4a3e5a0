package people

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"spacehost/internal/identity"
)

func TestAddedPersonIsStored(t *testing.T) {
	f := newFixture(t)
	added, err := f.Add(t.Context(), "ada", "pro", "uid 1000")
	want := Person{Name: "ada", Tier: "pro", CreatedAt: noon, CreatedBy: "uid 1000", Source: Operator}
	if err != nil || added != want {
		t.Fatalf("Add: got %+v (%v), want %+v", added, err, want)
	}
	f.add("zoe", "ben")
	f.open()
	if got, err := f.Get(t.Context(), "ada"); err != nil || got != want {
		t.Errorf("Get after a restart: got %+v (%v), want %+v", got, err, want)
	}
	all, err := f.List(t.Context())
	if err != nil || len(all) != 3 || all[0] != want || all[1].Name != "ben" || all[2].Name != "zoe" {
		t.Errorf("List: got %+v (%v), want ada, ben, zoe", all, err)
	}
}

func TestNames(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"a", "0", "ada", "ada.l_o-velace9", strings.Repeat("a", 64)} {
		person, err := f.Add(t.Context(), name, "free", "operator")
		if back, parsed := identity.ParseKey(person.Identity().Key()); err != nil || parsed != nil || back.Name != name {
			t.Errorf("Add(%s): got %v, its key comes back as %+v (%v)", name, err, back, parsed)
		}
	}
	for _, name := range []string{
		"", "Ada", "a b", " a", "a\n", "é", "a/b", "a:b", ".", "..", ".a", "-a", "--help", "_a", "a\x00", "\xff", "a'--", "a%2f",
		strings.Repeat("a", 65), strings.Repeat("a", 1<<20),
	} {
		_, err := f.Add(t.Context(), name, "free", "operator")
		if _, bad := errors.AsType[*BadNameError](err); !bad || !strings.Contains(err.Error(), "1 to 64 of a-z") || len(err.Error()) > 500 {
			t.Errorf("Add(%.40q): got %.300v, want the rule", name, err)
		}
	}
}

func TestErrorsNameTheNextStep(t *testing.T) {
	f := newFixture(t)
	f.add("ada", "adam", "zoe")
	_, again := f.Add(t.Context(), "ada", "pro", "operator")
	_, unknown := f.SetTier(t.Context(), "adda", "pro")
	_, noTokens := f.Tokens(t.Context(), "ben")
	_, _, noOwner := f.CreateToken(t.Context(), "ben", "", FullRights())
	_, _, noToken := f.Revoke(t.Context(), "abc")
	_, _, longLabel := f.CreateToken(t.Context(), "ada", strings.Repeat("a", maxLabel+1), FullRights())
	_, _, forgedLabel := f.CreateToken(t.Context(), "ada", "a\nb", FullRights())
	for _, row := range []struct {
		err  error
		want string // part of the text
	}{
		{again, "`spacehost user tier ada TIER`"},
		{unknown, `unknown user "adda"; did you mean ada or adam?`},
		{noTokens, `unknown user "ben"; ` + "`spacehost user list`"},
		{noOwner, `unknown user "ben"; ` + "`spacehost user list`"},
		{noToken, `ID "abc"; ` + "`spacehost token list`"},
		{longLabel, "at most 100"},
		{forgedLabel, `"a\nb" cannot be a label`},
		{&UnknownTokenError{}, "ask the operator"},
	} {
		if row.err == nil || !strings.Contains(row.err.Error(), row.want) {
			t.Errorf("got %v, want %q in it", row.err, row.want)
		}
	}
	var typed *UnknownPersonError
	if !errors.As(unknown, &typed) || !slices.Equal(typed.Near, []string{"ada", "adam"}) {
		t.Errorf("got %#v, want ada and adam near", unknown)
	}
	if got, err := f.Get(t.Context(), "ada"); err != nil || got.Tier != "free" {
		t.Errorf("after a second Add: got %+v (%v), want the first", got, err)
	}
}

func TestConcurrentAddsCreateOnePerson(t *testing.T) {
	f := newFixture(t)
	var added, refused atomic.Int32
	inParallel(func(i int) {
		_, err := f.Add(t.Context(), "ada", "free", fmt.Sprint("uid ", i))
		switch {
		case err == nil:
			added.Add(1)
		case errors.As(err, new(*DuplicatePersonError)):
			refused.Add(1)
		default:
			t.Errorf("Add: %v", err)
		}
	})
	if added.Load() != 1 || refused.Load() != parallelism-1 {
		t.Errorf("got %d added and %d refused, want 1 and %d", added.Load(), refused.Load(), parallelism-1)
	}
}

// A failing database is an error of the host, not a verdict on a token.
func TestDatabaseErrorIsNotAVerdict(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	text, token := f.token("ada")
	f.db.Close()
	ctx := t.Context()
	for what, do := range map[string]func() error{
		"Add":         func() error { _, err := f.Add(ctx, "ben", "free", ""); return err },
		"SetTier":     func() error { _, err := f.SetTier(ctx, "ada", "pro"); return err },
		"List":        func() error { _, err := f.List(ctx); return err },
		"Get":         func() error { _, err := f.Get(ctx, "ada"); return err },
		"CreateToken": func() error { _, _, err := f.CreateToken(ctx, "ada", "", FullRights()); return err },
		"Revoke":      func() error { _, _, err := f.Revoke(ctx, token.ID); return err },
		"Tokens":      func() error { _, err := f.Tokens(ctx, ""); return err },
		"ByToken":     func() error { _, err := f.ByToken(ctx, text); return err },
	} {
		err := do()
		if err == nil || errors.As(err, new(*UnknownTokenError)) || errors.As(err, new(*UnknownPersonError)) || errors.Is(err, sql.ErrNoRows) {
			t.Errorf("%s: got %v, want an error of the database", what, err)
		}
	}
}

// TestRemovedPerson: all tokens end for good, the name may be used again, and a person of the file is not removed.
func TestRemovedPerson(t *testing.T) {
	f := newFixture(t)
	f.add("ada", "ben")
	text, _ := f.token("ada")
	kept, _ := f.token("ben")
	ended := 0
	f.Ended = func() { ended++ }
	removed, err := f.Remove(t.Context(), "ada")
	if err != nil || removed.Source != Former || ended != 1 {
		t.Fatalf("Remove: %+v, %v, Ended was called %d times", removed, err, ended)
	}
	f.wantUnknown("the token of a removed person", text)
	f.wantPayer(kept, "user:ben", "free")
	if _, _, err := f.CreateToken(t.Context(), "ada", "", FullRights()); err == nil || err.Error() != "create token: user ada was removed; run `spacehost user add ada`, or add the user to the configuration of `spacehost serve`" {
		t.Errorf("a token of a removed person: %v", err)
	}
	if _, err := f.Remove(t.Context(), "ada"); !errors.As(err, new(*ConfiguredPersonError)) {
		t.Errorf("the second time: %v", err)
	}
	if _, err := f.Remove(t.Context(), "cy"); !errors.As(err, new(*UnknownPersonError)) {
		t.Errorf("an unknown person: %v", err)
	}
	if _, err := f.Add(t.Context(), "ada", "pro", "operator"); err != nil {
		t.Fatal(err)
	}
	f.wantUnknown("the former token of a person who was added again", text)
	hash, err := HashToken(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Remove(t.Context(), "ada"); err != nil {
		t.Fatal(err)
	}
	if err := f.Declare(t.Context(), []Declared{{Name: "ada", Tier: "pro", Tokens: []string{hash}}}); err != nil {
		t.Fatal(err)
	}
	f.wantUnknown("a revoked token that the file declares", text)
	if _, err := f.Remove(t.Context(), "ada"); err == nil || !strings.Contains(err.Error(), "change the entry under `people` there and run `spacehost reload`") {
		t.Errorf("a person of the file: %v", err)
	}
}
