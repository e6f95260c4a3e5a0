package payer

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
)

// TestTokenOfThePageAroundASpace checks that the token names its visitor at its own Space alone, for a minute and the tolerance for
// clocks, and that no `via` is recorded.
func TestTokenOfThePageAroundASpace(t *testing.T) {
	denied := openDenyList(t)
	synctest.Test(t, func(t *testing.T) {
		s := newTestRule(t, denied)
		bearer, err := s.SignPage("b", visitor)
		if err != nil {
			t.Fatal(err)
		}
		for _, pause := range []time.Duration{0, token.PageLifetime + time.Minute - time.Second} {
			time.Sleep(pause)
			if payer, err := s.callerWith(bearer); err != nil || payer != (identity.Identity{Kind: identity.Local, Tier: "free"}) {
				t.Errorf("after %s: got %+v (%v), want the visitor", pause, payer, err)
			}
		}
		time.Sleep(time.Second)
		s.wantRefused(token.Expired, "after the tolerance", bearer)
		elsewhere, err := s.SignPage("a", visitor)
		if err != nil {
			t.Fatal(err)
		}
		s.wantRefused(token.WrongAudience, "at another Space", elsewhere)
		if again, err := s.SignPage("b", visitor); err != nil || again == bearer {
			t.Errorf("two tokens are equal, or none is signed: %v", err)
		}
	})
}

// TestPageVisitor checks for whom the page around a Space requests tokens: under `serve` only for people who have signed in.
func TestPageVisitor(t *testing.T) {
	s := newTestRule(t, openDenyList(t))
	s.config.People = people.NewStore(openDB(t))
	removed, err := s.SignPage("b", identity.Identity{Kind: identity.User, Name: "zoe", Tier: "free"})
	if err != nil {
		t.Fatal(err)
	}
	s.wantRefused(token.Ended, "of a person whom the host does not have", removed)
	if _, err := s.config.People.Add(t.Context(), "zoe", "free", "root"); err != nil {
		t.Fatal(err)
	}
	if payer, err := s.callerWith(removed); err != nil || payer.Name != "zoe" {
		t.Errorf("got %+v (%v), want zoe", payer, err)
	}
	if _, err := s.config.People.Remove(t.Context(), "zoe"); err != nil {
		t.Fatal(err)
	}
	s.wantRefused(token.Ended, "of a person who was removed", removed)
	for _, row := range []struct {
		from   string
		shared bool
		known  bool
	}{{"127.0.0.1:1", false, true}, {"[::1]:1", false, true}, {"192.0.2.7:1", false, false}, {"127.0.0.1:1", true, false}} {
		s.config.Shared = row.shared
		r := httptest.NewRequest(http.MethodPost, "/__spacehost/token", nil)
		r.RemoteAddr = row.from
		visitor, known, err := s.PageVisitor(r, "a")
		if err != nil || known != row.known || known && visitor.Kind != identity.Local {
			t.Errorf("%+v: got %v, known %v (%v)", row, visitor, known, err)
		}
	}
}
