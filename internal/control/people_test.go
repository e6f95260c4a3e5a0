package control

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/goleak"

	"spacehost/internal/people"
	"spacehost/migrations"
)

// peopleServer is the API of people and tokens on a real listener, with a real database.
type peopleServer struct {
	t      *testing.T
	people *people.Store
	db     *sql.DB
	server *httptest.Server
}

func newPeopleServer(t *testing.T) *peopleServer {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	e, store := echo.New(), people.NewStore(db)
	New(Config{Host: &fakeHost{}, People: store, Now: time.Now}).Register(e)
	o := &peopleServer{t: t, people: store, db: db, server: httptest.NewServer(e)}
	t.Cleanup(o.server.Close)
	return o
}

// reply is the answer to a request.
type reply struct {
	status int
	header http.Header
	body   string
}

func (o *peopleServer) request(method, path, body string) reply {
	o.t.Helper()
	r, err := http.NewRequestWithContext(o.t.Context(), method, o.server.URL+path, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	got, err := o.server.Client().Do(r)
	if err != nil {
		o.t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return reply{got.StatusCode, got.Header, string(text)}
}

// want sends a request and decodes the answer.
func want[T any](o *peopleServer, status int, method, path, body string) (v T) {
	o.t.Helper()
	got := o.request(method, path, body)
	d := json.NewDecoder(strings.NewReader(got.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || got.status != status {
		o.t.Fatalf("%s %s %s: got %d %s (%v), want %d", method, path, body, got.status, got.body, err, status)
	}
	return v
}

func TestPeopleAndTokens(t *testing.T) {
	o := newPeopleServer(t)
	if got := o.request("GET", "/people", ""); got.status != 200 || strings.TrimSpace(got.body) != "[]" {
		t.Errorf("no people: got %d %s, want an empty list", got.status, got.body)
	}
	ada := want[Person](o, 201, "POST", "/people", `{"name":"ada","tier":"pro"}`)
	if ada.Name != "ada" || ada.Tier != "pro" || ada.CreatedBy != "uid 1000" || ada.CreatedAt.IsZero() {
		t.Errorf("added: got %+v", ada)
	}
	if got := want[Person](o, 200, "POST", "/people/ada/tier", `{"tier":"free"}`); got.Tier != "free" || got.CreatedAt != ada.CreatedAt {
		t.Errorf("tier: got %+v", got)
	}
	if got := want[[]Person](o, 200, "GET", "/people", ""); len(got) != 1 || got[0].Tier != "free" {
		t.Errorf("people: got %+v", got)
	}
	if got := o.request("GET", "/people/ada/tokens", ""); strings.TrimSpace(got.body) != "[]" {
		t.Errorf("no tokens: got %s, want an empty list", got.body)
	}
	made := want[CreatedToken](o, 201, "POST", "/people/ada/tokens", `{"label":"laptop"}`)
	payer, err := o.people.ByToken(t.Context(), made.Text)
	if err != nil || payer.Key() != "user:ada" || made.Person != "ada" || made.Label != "laptop" {
		t.Errorf("created %+v, which authenticates %s (%v)", made.Token, payer, err)
	}
	for _, path := range []string{"/tokens", "/people/ada/tokens"} {
		got := want[[]Token](o, 200, "GET", path, "")
		for end := time.Now().Add(10 * time.Second); len(got) == 1 && got[0].LastUsedAt == nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // the last use is written after the answer
			got = want[[]Token](o, 200, "GET", path, "")
		}
		if len(got) != 1 || got[0].ID != made.ID || got[0].LastUsedAt == nil || got[0].RevokedAt != nil {
			t.Errorf("%s: got %+v", path, got)
		}
	}
	if got := want[Token](o, 200, "DELETE", "/tokens/"+made.ID, ""); got.ID != made.ID || got.RevokedAt == nil {
		t.Errorf("revoked: got %+v", got)
	}
	if _, err := o.people.ByToken(t.Context(), made.Text); err == nil {
		t.Error("the revoked token is still valid")
	}
}

func TestMistakesAreExplained(t *testing.T) {
	o := newPeopleServer(t)
	want[Person](o, 201, "POST", "/people", `{"name":"ada","tier":"free"}`)
	made := want[CreatedToken](o, 201, "POST", "/people/ada/tokens", "")
	for _, row := range []struct {
		method, path, body string
		status             int
		detail             string // part of the text
	}{
		{"POST", "/people", `{"name":"Ada","tier":"free"}`, 400, "beginning with a letter or a digit"},
		{"POST", "/people", `{"name":"","tier":"free"}`, 400, "cannot be a name"},
		{"POST", "/people", `{"name":"local","tier":"free"}`, 400, "\"local\" cannot be a name: where accounts are named, as in `spacehost quota local`, it means this machine's visitor; choose another name"},
		{"POST", "/people", `{"name":"203.0.113.7","tier":"free"}`, 400, "it means the visitor at that address"},
		{"PATCH", "/people/ada", `{"quotaSeconds":-3}`, 400, "quota must be from 1s to 10000h0m0s, not -3 s"},
		{"PATCH", "/people/ada", `{"longestSeconds":1e300}`, 400, "longest must be from 1s to 10000h0m0s, not 1e+300 s"},
		{"PATCH", "/people/ada", `{"longestSeconds":0.5}`, 400, "not 0.5 s"},
		{"POST", "/people", ``, 400, `no tier "", there are: free, pro`},
		{"POST", "/people", `{"name":"ben","tier":"gold"}`, 400, "there are: free, pro"},
		{"POST", "/people", `{"name":"ben","teir":"free"}`, 400, "teir"},
		{"POST", "/people", `{"name":["ben"],"tier":"free"}`, 400, "not the expected JSON"},
		{"POST", "/people", `{"name":`, 400, "not the expected JSON"},
		{"POST", "/people", `name=ben&tier=free`, 400, "not the expected JSON"},
		{"POST", "/people", `{"name":"` + strings.Repeat("a", 64<<10) + `"}`, 400, "too large"},
		{"POST", "/people", `{"name":"ada","tier":"pro"}`, 409, "`spacehost user tier ada TIER`"},
		{"POST", "/people/adda/tier", `{"tier":"pro"}`, 404, "did you mean ada?"},
		{"POST", "/people/ada/tier", `{"tier":"gold"}`, 400, "there are: free, pro"},
		{"POST", "/people/a%2F..%2Fb/tier", `{"tier":"pro"}`, 404, `unknown user "a%2F..%2Fb"`},
		{"POST", "/people/Ada%20L/tier", `{"tier":"pro"}`, 404, `unknown user "Ada L"`},
		{"POST", "/people/ben/tokens", `{}`, 404, `unknown user "ben"`},
		{"POST", "/people/ada/tokens", `{"label":"a\nb"}`, 400, "cannot be a label"},
		{"GET", "/people/ben/tokens", ``, 404, `unknown user "ben"`},
		{"DELETE", "/tokens/abc", ``, 404, `no token has the ID "abc"`},
		{"DELETE", "/tokens/" + made.Text, ``, 404, `no token has the ID "sph_..."`},
		{"POST", "/people/" + made.Text + "/tier", `{"tier":"pro"}`, 404, `unknown user "sph_..."`},
	} {
		got := o.request(row.method, row.path, row.body)
		var refusal struct{ Detail string }
		err := json.Unmarshal([]byte(got.body), &refusal)
		if err != nil || got.status != row.status || !strings.Contains(refusal.Detail, row.detail) {
			t.Errorf("%s %s %.60s: got %d %s (%v), want %d with %q", row.method, row.path, row.body, got.status, got.body, err, row.status, row.detail)
		}
		if strings.Contains(got.body, made.Text[4:]) {
			t.Errorf("%s: the token is in %s", row.path, got.body)
		}
	}
}

// TestTokenIsShownOnce: one answer contains the text of a token, and is not cached.
func TestTokenIsShownOnce(t *testing.T) {
	o := newPeopleServer(t)
	want[Person](o, 201, "POST", "/people", `{"name":"ada","tier":"free"}`)
	got := o.request("POST", "/people/ada/tokens", `{}`)
	var made CreatedToken
	if err := json.Unmarshal([]byte(got.body), &made); err != nil || got.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("got %v (%v)", got.header, err)
	}
	if bytes.Count([]byte(got.body), []byte("sph_")) != 1 || !strings.HasPrefix(made.Text, "sph_") {
		t.Errorf("got %d bytes with ID %s", len(got.body), made.ID)
	}
	for _, r := range [][2]string{{"GET", "/people"}, {"GET", "/tokens"}, {"GET", "/people/ada/tokens"}, {"DELETE", "/tokens/" + made.ID}, {"GET", "/tokens"}} {
		if got := o.request(r[0], r[1], ""); got.status != 200 || strings.Contains(got.body, made.Text[4:24]) || strings.Contains(got.body, "hash") {
			t.Errorf("%s %s: got %d %s", r[0], r[1], got.status, got.body)
		}
	}
}

// TestHostErrorsAreNotExplained: an error of the host goes to its log, and not to the client.
func TestHostErrorsAreNotExplained(t *testing.T) {
	o := newPeopleServer(t)
	o.db.Close()
	for _, r := range [][3]string{
		{"GET", "/people"}, {"POST", "/people", `{"name":"ada","tier":"free"}`}, {"POST", "/people/ada/tier", `{"tier":"pro"}`},
		{"GET", "/tokens"}, {"POST", "/people/ada/tokens"}, {"DELETE", "/tokens/abc"},
	} {
		if got := o.request(r[0], r[1], r[2]); got.status != 500 || strings.Contains(got.body, "sql") || strings.Contains(got.body, "sph_") {
			t.Errorf("%s %s: got %d %s, want a bare 500", r[0], r[1], got.status, got.body)
		}
	}
}

func TestConcurrentAdds(t *testing.T) {
	o := newPeopleServer(t)
	var added atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			r, err := o.server.Client().Post(o.server.URL+"/people", "application/json", strings.NewReader(`{"name":"ada","tier":"free"}`))
			if err != nil {
				t.Errorf("POST: %v", err)
				return
			}
			defer r.Body.Close()
			switch r.StatusCode {
			case http.StatusCreated:
				added.Add(1)
			case http.StatusConflict:
			default:
				t.Errorf("got %s", r.Status)
			}
		})
	}
	all.Wait()
	if added.Load() != 1 {
		t.Errorf("ada was added %d times", added.Load())
	}
}
