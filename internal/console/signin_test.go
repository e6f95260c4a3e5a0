package console

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/migrations"
)

// testHost implements SignInHost with people of a real database and two Spaces.
type testHost struct {
	SignInHost
	people *people.Store
}

func (h testHost) Authenticate(r *http.Request) (people.Proof, error) {
	text, _ := people.Bearer(r.Header)
	return h.people.ProofOf(r.Context(), text)
}

func (testHost) VisibleSpaces(identity.Identity) []SignInSpace {
	return []SignInSpace{testSpace{name: "demo"}, testSpace{name: "other"}}
}

func (testHost) IsConsole(origin string) bool { return origin == "http://console" }

// testSpace implements SignInSpace. Each visitor is refused with err.
type testSpace struct {
	SignInSpace
	name string
	err  error
}

func (s testSpace) Name() string  { return s.name }
func (testSpace) URL() string     { return "http://demo" }
func (testSpace) Origin() string  { return "http://demo" }
func (testSpace) Page() string    { return "/" }
func (testSpace) SubPath() string { return "" }
func (testSpace) HasBar() bool    { return true }
func (testSpace) Hidden() bool    { return false }
func (s testSpace) PageVisitor(*http.Request) (identity.Identity, bool, error) {
	return identity.Identity{}, false, s.err
}
func (s testSpace) Visitor(*http.Request) (identity.Identity, bool, error) {
	return identity.Identity{}, false, s.err
}

// newTestSignIn returns the sign-in of a host with the person ada.
func newTestSignIn(t *testing.T) (*SignIn, *people.Store) {
	t.Helper()
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	store := people.NewStore(db)
	t.Cleanup(store.Close)
	if _, err := store.Add(t.Context(), "ada", "free", "operator"); err != nil {
		t.Fatal(err)
	}
	return NewSignIn(SignInConfig{Host: testHost{people: store}, People: store}), store
}

func createToken(t *testing.T, store *people.Store, rights people.Rights) (string, people.Token) {
	t.Helper()
	text, made, err := store.CreateToken(t.Context(), "ada", "", rights)
	if err != nil {
		t.Fatal(err)
	}
	return text, made
}

func withBearer(text string) *http.Request {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/login/me", nil)
	r.RemoteAddr = "127.0.0.1:5000"
	r.Header.Set("Authorization", "Bearer "+text)
	return r
}

// TestWrongBearers sends bearers from one address until unknown ones are refused.
func TestWrongBearers(t *testing.T) {
	s, store := newTestSignIn(t)
	valid, _ := createToken(t, store, people.FullRights())
	ended, made := createToken(t, store, people.FullRights())
	if _, _, err := store.Revoke(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	unknown, _ := people.NewToken()
	want := func(what string, do func(*http.Request) (people.Proof, error), bearer string, status int) {
		t.Helper()
		_, err := do(withBearer(bearer))
		refused, _ := errors.AsType[*echo.HTTPError](err)
		if status == 0 && err != nil || status != 0 && (refused == nil || refused.Code != status) {
			t.Errorf("%s: %v, want %d", what, err, status)
		}
	}
	for range 2 * maxWrong {
		want("a revoked token", s.Authenticate, ended, http.StatusUnauthorized)
		want("an unknown token of an open stream", s.Recheck, unknown, http.StatusUnauthorized)
	}
	for range maxWrong {
		want("an unknown token", s.Authenticate, unknown, http.StatusUnauthorized)
	}
	want("one unknown token too many", s.Authenticate, unknown, http.StatusTooManyRequests)
	want("a valid token after them", s.Authenticate, valid, 0)
	want("a revoked token after them", s.Authenticate, ended, http.StatusUnauthorized)
	want("an open stream", s.Recheck, valid, 0)
}

// TestSpacesOfLimitedToken lists the Spaces at which a token is valid.
func TestSpacesOfLimitedToken(t *testing.T) {
	s, store := newTestSignIn(t)
	e := echo.New()
	s.RegisterConsole(e)
	text, _ := createToken(t, store, people.Rights{Scope: people.ScopeCall, Spaces: []string{"other"}})
	w := httptest.NewRecorder()
	e.ServeHTTP(w, withBearer(text))
	if body := w.Body.String(); w.Code != http.StatusOK || strings.Contains(body, `"demo"`) || !strings.Contains(body, `"name":"other"`) {
		t.Errorf("%d %s, want only the Space other", w.Code, body)
	}
}

// TestRefusedVisitors opens the pages of a Space as visitors whose token is refused there.
func TestRefusedVisitors(t *testing.T) {
	s, store := newTestSignIn(t)
	s.config.Hub = true
	text, _ := createToken(t, store, people.Rights{Scope: people.ScopeCall, Spaces: []string{"other"}})
	_, elsewhere := store.Use(t.Context(), text, people.ScopeCall, "demo")
	for err, status := range map[error]int{
		elsewhere:                        http.StatusForbidden,
		&people.DelegationDeniedError{}:  http.StatusForbidden,
		&people.UnknownTokenError{}:      http.StatusUnauthorized,
		&token.Error{}:                   http.StatusUnauthorized,
		errors.New("database is locked"): http.StatusInternalServerError,
	} {
		e := echo.New()
		s.RegisterSpace(e.Group("/__spacehost"), func(next echo.HandlerFunc) echo.HandlerFunc { return next }, testSpace{name: "demo", err: err})
		for _, at := range []struct{ method, path string }{{"GET", "/"}, {"GET", "/whoami"}, {"GET", "/bar"}, {"GET", "/bar?around=1"}, {"POST", "/token"}} {
			w := httptest.NewRecorder()
			e.ServeHTTP(w, httptest.NewRequest(at.method, "/__spacehost"+at.path, nil))
			if w.Code != status {
				t.Errorf("%s %s after %T: %d %s, want %d", at.method, at.path, err, w.Code, w.Body, status)
			}
		}
	}
}

// TestTokenEndsBeforeSession signs in with codes whose token has ended, or is not valid at the Space.
func TestTokenEndsBeforeSession(t *testing.T) {
	s, store := newTestSignIn(t)
	e := echo.New()
	s.RegisterSpace(e.Group("/__spacehost"), func(next echo.HandlerFunc) echo.HandlerFunc { return next }, testSpace{name: "demo"})
	signIn := func(rights people.Rights, ends bool) *httptest.ResponseRecorder {
		text, made := createToken(t, store, rights)
		proof, err := store.ProofOf(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		code := s.codes.Give("demo http://demo", proof)
		if ends {
			if _, _, err := store.Revoke(t.Context(), made.ID); err != nil {
				t.Fatal(err)
			}
		}
		r := httptest.NewRequest(http.MethodPost, "http://demo/__spacehost/session", strings.NewReader("code="+code))
		r.RemoteAddr = "127.0.0.1:5000"
		r.Header.Set("Origin", "http://console")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		return w
	}
	for _, row := range []struct {
		rights people.Rights
		ends   bool
		status int
		text   string
	}{
		{people.FullRights(), false, http.StatusOK, "demo"},
		{people.FullRights(), true, http.StatusUnauthorized, "this token is not known here: it was revoked"},
		{people.Rights{Scope: people.ScopeCall, Spaces: []string{"other"}}, false, http.StatusForbidden, "only at: other"},
	} {
		w := signIn(row.rights, row.ends)
		cookie := w.Header().Get("Set-Cookie")
		if w.Code != row.status || !strings.Contains(w.Body.String(), row.text) || (cookie != "") != (row.status == http.StatusOK) {
			t.Errorf("%+v, ends %v: %d %q %s, want %d with %q", row.rights, row.ends, w.Code, cookie, w.Body, row.status, row.text)
		}
	}
}
