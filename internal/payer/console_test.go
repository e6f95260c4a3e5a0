package payer

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"spacehost/internal/identity"
	"spacehost/internal/people"
)

// TestAccountReader reads an account without a token, by a link of the host, and with tokens of several rights.
func TestAccountReader(t *testing.T) {
	s := newTestRule(t, openDenyList(t))
	s.config.People = people.NewStore(openDB(t))
	t.Cleanup(s.config.People.Close)
	if _, err := s.config.People.Add(t.Context(), "ada", "free", "root"); err != nil {
		t.Fatal(err)
	}
	token := func(rights people.Rights) string {
		text, _, err := s.config.People.CreateToken(t.Context(), "ada", "", rights)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	link, ok := s.RedeemLink(s.NewLinkCode())
	if !ok {
		t.Fatal("the link has no bearer")
	}
	spaces := []string{"a", "b"}
	for _, row := range []struct {
		bearer string
		kind   identity.Kind
		limit  []string
	}{
		{"", identity.Address, nil},
		{link, identity.Local, nil},
		{token(people.FullRights()), identity.User, nil},
		{token(people.Rights{Scope: people.ScopeRead, Spaces: spaces}), identity.User, spaces},
	} {
		r := httptest.NewRequest(http.MethodGet, "/api/spacehost/quota", nil)
		if row.bearer != "" {
			r.Header.Set("Authorization", "Bearer "+row.bearer)
		}
		who, limit, err := s.AccountReader(r)
		if err != nil || who.Kind != row.kind || !slices.Equal(limit, row.limit) {
			t.Errorf("%q: %v limited to %v (%v), want kind %v limited to %v", row.bearer, who, limit, err, row.kind, row.limit)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/api/spacehost/quota", nil)
	r.Header.Set("Authorization", "Bearer "+token(people.Rights{Scope: people.ScopeCall}))
	if _, _, err := s.AccountReader(r); !errors.As(err, new(*people.RightsError)) {
		t.Errorf("a token that only calls: %v, want *people.RightsError", err)
	}
}
