package dashboard

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/control"
	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/views"
	"spacehost/migrations"
)

// rightsHost implements Host and the part of control.Host that tokens need. Its admin is ada; its Spaces are demo and other.
type rightsHost struct{ control.Host }

func (rightsHost) AccessOf(person identity.Identity) Access {
	if person.Name == "ada" {
		return Admin
	}
	return Member
}
func (rightsHost) SpacesOf(*identity.Identity) []views.Space {
	return []views.Space{{Name: "demo"}, {Name: "other"}}
}
func (rightsHost) SpaceAPI(context.Context, *identity.Identity, string) (SpaceAPI, bool) {
	return SpaceAPI{}, true
}
func (rightsHost) SpaceNames(*identity.Identity) []string { return []string{"demo", "other"} }

// rightsLab is the API of a host with the people ada and ben.
type rightsLab struct {
	*echo.Echo
	t       *testing.T
	people  *people.Store
	actions []control.Action
}

func newRightsLab(t *testing.T) *rightsLab {
	t.Helper()
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	l := &rightsLab{Echo: echo.New(), t: t, people: people.NewStore(db)}
	t.Cleanup(l.people.Close)
	for _, name := range []string{"ada", "ben"} {
		if _, err := l.people.Add(t.Context(), name, "free", "operator"); err != nil {
			t.Fatal(err)
		}
	}
	authenticate := func(r *http.Request) (people.Proof, error) {
		text, _ := people.Bearer(r.Header)
		proof, err := l.people.ProofOf(r.Context(), text)
		if err != nil {
			err = echo.NewHTTPError(http.StatusUnauthorized, err.Error())
		}
		return proof, err
	}
	New(Config{
		Host: rightsHost{}, Authenticate: authenticate, Recheck: authenticate, People: l.people, Now: time.Now,
		Control: control.New(control.Config{Host: rightsHost{}, People: l.people, Now: time.Now}),
		Record:  func(a control.Action) { l.actions = append(l.actions, a) },
	}).Register(l.Echo)
	return l
}

func (l *rightsLab) token(person string, rights people.Rights) (string, people.Token) {
	l.t.Helper()
	text, made, err := l.people.CreateToken(l.t.Context(), person, "", rights)
	if err != nil {
		l.t.Fatal(err)
	}
	return text, made
}

// request sends a request below /api/spacehost.
func (l *rightsLab) request(token, method, path string, body io.Reader) (int, string) {
	r := httptest.NewRequest(method, "/api/spacehost"+path, body)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	l.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// slowBody runs do before its text is read.
type slowBody struct {
	do   func()
	text io.Reader
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.do != nil {
		b.do()
		b.do = nil
	}
	return b.text.Read(p)
}

// TestRevokedWhileSending revokes a token between the header and the body of its request.
func TestRevokedWhileSending(t *testing.T) {
	l := newRightsLab(t)
	for _, path := range []string{"/tokens", "/admin/people/ben/tokens", "/admin/gpu/drain"} {
		text, made := l.token("ada", people.FullRights())
		body := &slowBody{text: strings.NewReader(`{"label":"late"}`), do: func() {
			if _, _, err := l.people.Revoke(t.Context(), made.ID); err != nil {
				t.Error(err)
			}
		}}
		if status, answer := l.request(text, http.MethodPost, path, body); status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s, want 401", path, status, answer)
		}
	}
	all, err := l.people.Tokens(t.Context(), "")
	for _, token := range all {
		if token.Label == "late" || err != nil {
			t.Errorf("a revoked token has created %+v (%v)", token, err)
		}
	}
	text, _ := l.token("ben", people.FullRights())
	if status, _ := l.request(text, http.MethodPost, "/tokens", strings.NewReader(`{"label":"`+strings.Repeat("x", views.MaxBody)+`"}`)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a long body: %d, want 413", status)
	}
}

// TestRightsOfAdminTokens uses tokens of an admin that are limited.
func TestRightsOfAdminTokens(t *testing.T) {
	l := newRightsLab(t)
	full, token := l.token("ada", people.FullRights())
	brief, _ := l.token("ada", people.Rights{Scope: people.ScopeAll, ExpiresAt: time.Now().Add(time.Hour)})
	limited, _ := l.token("ada", people.Rights{Scope: people.ScopeRead, Spaces: []string{"other"}})
	for _, row := range []struct {
		token, method, path, body string
		status                    int
		has, hasNot               string
	}{
		{full, "GET", "/me", "", 200, `"role":"admin"`, "-"},
		{limited, "GET", "/me", "", 200, `"role":"member"`, "-"},
		{limited, "GET", "/admin/tokens", "", 404, "", "-"},
		{limited, "GET", "/spaces", "", 200, `"other"`, `"demo"`},
		{limited, "GET", "/spaces/demo/api", "", 404, "", "-"},
		{limited, "GET", "/spaces/other/api", "", 200, "", "-"},
		{brief, "POST", "/admin/people/ben/tokens", `{}`, 403, "choose an expiry that is not later", "-"},
		{brief, "POST", "/admin/people/ben/tokens", `{"expiresInSeconds":60}`, 201, "createdBy", "-"},
		{full, "POST", "/admin/people/ben/tokens", `{"label":"made"}`, 201, `"createdBy":"` + token.ID + `"`, "-"},
	} {
		if status, text := l.request(row.token, row.method, row.path, strings.NewReader(row.body)); status != row.status || !strings.Contains(text, row.has) || strings.Contains(text, row.hasNot) && row.hasNot != "-" {
			t.Errorf("%s %s %s: %d %s, want %d with %q", row.method, row.path, row.body, status, text, row.status, row.has)
		}
	}
	if last := l.actions[len(l.actions)-1]; last.Token != token.ID || last.Actor != "user:ada" || last.Status != 201 {
		t.Errorf("recorded %+v, want the token %s", last, token.ID)
	}
}

// TestTokensOfLimitedToken lists the person's tokens with one that is limited to Spaces: only those of its Spaces.
func TestTokensOfLimitedToken(t *testing.T) {
	l := newRightsLab(t)
	limited, _ := l.token("ben", people.Rights{Scope: people.ScopeRead, Spaces: []string{"demo"}})
	both, _ := l.token("ben", people.Rights{Scope: people.ScopeRead, Spaces: []string{"demo", "other"}})
	l.token("ben", people.Rights{Scope: people.ScopeCall, Spaces: []string{"other"}})
	full, _ := l.token("ben", people.FullRights())
	for token, want := range map[string]int{limited: 1, both: 3, full: 4} {
		if status, text := l.request(token, http.MethodGet, "/tokens", nil); status != http.StatusOK || strings.Count(text, `"id"`) != want {
			t.Errorf("%d %s, want %d tokens", status, text, want)
		}
	}
}

// TestRepeatedRevocation: only the first one changes something.
func TestRepeatedRevocation(t *testing.T) {
	l := newRightsLab(t)
	for person, path := range map[string]string{"ben": "/tokens/", "ada": "/admin/tokens/"} {
		text, _ := l.token(person, people.FullRights())
		_, other := l.token(person, people.FullRights())
		for i := range 3 {
			status, answer := l.request(text, http.MethodDelete, path+other.ID, nil)
			if last := l.actions[len(l.actions)-1]; status != http.StatusOK || last.Unchanged != (i > 0) {
				t.Errorf("%s, time %d: %d %s, recorded %+v", path, i+1, status, answer, last)
			}
		}
	}
}
