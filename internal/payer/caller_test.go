package payer

import (
	"bufio"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/migrations"
	"spacehost/queue"
	"spacehost/quota"
)

// testRule is a Rule with the Space "a", whose one Endpoint runs until the test ends it, and the Space "b".
type testRule struct {
	*Rule
	t      *testing.T
	signer *token.Signer
	denied *people.DelegationDenyList
	queue  *queue.Queue // a's
	jobs   chan queue.Job
	spaces map[string]*testSpace
}

// testSpace is a running Space with its real queue.
type testSpace struct {
	name  string
	queue *queue.Queue
}

func (s *testSpace) Name() string { return s.name }
func (s *testSpace) Account() identity.Identity {
	return identity.Identity{Kind: identity.Space, Name: s.name, Tier: "free"}
}
func (s *testSpace) ManifestAt(path string) (queue.Manifest, bool) { return s.queue.ManifestAt(path) }
func (s *testSpace) SignInLost(identity.Identity, string)          {}

func (s *testRule) Find(name string) (Space, bool) {
	found, ok := s.spaces[name]
	return found, ok
}

func (s *testRule) IsOpen(c token.Claims) bool {
	found, ok := s.spaces[c.Aud]
	switch {
	case !ok:
		return false
	case c.Session != "":
		return found.queue.IsOpen(c.Session)
	}
	return found.queue.IsRecent(queue.EventID(c.ID), c.IssuedAt)
}

func (s *testRule) Alive(space, event string) bool {
	found, ok := s.spaces[space]
	return ok && found.queue.Alive(queue.EventID(event))
}

func (s *testRule) Start(job queue.Job)       { s.jobs <- job }
func (s *testRule) Cancel(int, queue.EventID) {}
func (s *testRule) Gone(int, []queue.EventID) {}

var (
	_ queue.Runner = (*testRule)(nil)
	_ Spaces       = (*testRule)(nil)
)

// newTestRule wires a Rule as a host does. The caller opens the deny list outside the synctest bubble, because the database
// has goroutines of its own.
func newTestRule(t *testing.T, denied *people.DelegationDenyList) *testRule {
	t.Helper()
	s := &testRule{denied: denied, t: t, jobs: make(chan queue.Job, 1), spaces: map[string]*testSpace{}}
	var err error
	if s.signer, err = token.OpenSigner(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	tiers, err := quota.Presets("2026-04")
	if err != nil {
		t.Fatal(err)
	}
	s.Rule = New(Config{Spaces: s, Signer: s.signer, Denied: denied, Tiers: tiers, LocalTier: "free"})
	for _, name := range []string{"a", "b"} {
		one := &testSpace{name: name}
		one.queue = queue.New(queue.Config{Runner: s, Sign: func(e queue.Event) string { return s.Sign(name, e) }})
		ended := make(chan struct{})
		go func() { defer close(ended); _ = one.queue.Run(t.Context()) }()
		t.Cleanup(func() { <-ended })
		s.spaces[name] = one
	}
	s.queue = s.spaces["a"].queue
	s.queue.Attach(queue.Manifest{MaxThreads: 1, Endpoints: map[int]queue.Endpoint{0: {Limit: 1}}})
	return s
}

func openDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func openDenyList(t *testing.T) *people.DelegationDenyList {
	t.Helper()
	denied, err := people.OpenDelegationDenyList(t.Context(), openDB(t))
	if err != nil {
		t.Fatal(err)
	}
	return denied
}

// token returns the X-IP-Token of an Event of that Session. The Event has ended by then.
func (s *testRule) token(session string, payer identity.Identity) string {
	s.t.Helper()
	event := queue.Event{ID: queue.NewEventID(), Session: queue.SessionHash(session), Payer: payer}
	if err := s.queue.Join(&event); err != nil {
		s.t.Fatal(err)
	}
	job := <-s.jobs
	s.queue.Done(event.ID, "", nil)
	s.queue.Size() // returns after Done has taken effect
	return job.Events[0].Token
}

// callerWith returns the payer of a call to b with these X-IP-Tokens.
func (s *testRule) callerWith(tokens ...string) (identity.Identity, error) {
	r := httptest.NewRequest(http.MethodPost, "/gradio_api/queue/join", nil)
	for _, token := range tokens {
		r.Header.Add("X-IP-Token", token)
	}
	return s.Caller(r, s.spaces["b"])
}

func (s *testRule) wantRefused(reason token.Reason, when string, tokens ...string) {
	s.t.Helper()
	var refused *token.Error
	if payer, err := s.callerWith(tokens...); !errors.As(err, &refused) || refused.Reason != reason {
		s.t.Errorf("%s: got %v (%v), want a refusal with reason %s", when, payer, err, reason)
	}
}

var visitor = identity.Identity{Kind: identity.Local, Tier: "free"}

// A token is valid while its visitor's page is open and for ten minutes afterwards, but at most for a day.
func TestTokenIsValidWhileThePageIsOpen(t *testing.T) {
	denied := openDenyList(t)
	synctest.Test(t, func(t *testing.T) {
		s := newTestRule(t, denied)
		want := func(when, token string) {
			t.Helper()
			if payer, err := s.callerWith(token); err != nil || payer != (identity.Identity{Kind: identity.Local, Tier: "free", Via: "a"}) {
				t.Errorf("%s: got %+v (%v), want the visitor via a", when, payer, err)
			}
		}
		closePage := s.queue.Visit("page")
		bearer := s.token("page", visitor)
		want("at once", bearer)
		time.Sleep(time.Hour)
		want("after an hour", bearer)
		closePage()
		time.Sleep(10*time.Minute - time.Second)
		want("just before ten minutes have passed", bearer)
		time.Sleep(time.Second)
		s.wantRefused(token.Ended, "ten minutes after the page was closed", bearer)

		defer s.queue.Visit("day")()
		bearer = s.token("day", visitor)
		time.Sleep(24 * time.Hour)
		want("after a day", bearer)
		time.Sleep(2 * time.Minute) // the leeway for clocks is one
		s.wantRefused(token.Expired, "more than a day after it was made", bearer)
	})
}

// A direct call has no Session: its token is valid while the call runs and for ten minutes afterwards.
func TestTokenOfADirectCall(t *testing.T) {
	denied := openDenyList(t)
	synctest.Test(t, func(t *testing.T) {
		s := newTestRule(t, denied)
		call, end := s.queue.Direct(visitor, false)
		bearer := s.Sign("a", queue.Event{ID: call, Payer: visitor})
		time.Sleep(time.Hour)
		if _, err := s.callerWith(bearer); err != nil {
			t.Errorf("while the call runs: %v", err)
		}
		end()
		time.Sleep(10 * time.Minute)
		s.wantRefused(token.Ended, "ten minutes after the call", bearer)
	})
}

func TestInvalidTokensAreRefused(t *testing.T) {
	s, other := newTestRule(t, openDenyList(t)), newTestRule(t, nil)
	defer s.queue.Visit("page")()
	defer other.queue.Visit("page")()
	valid, foreign := s.token("page", visitor), other.token("page", visitor)
	head, _, _ := strings.Cut(valid, ".")
	gone, err := s.signer.Sign(token.Claims{Aud: "gone", Sub: "local", Tier: "free", ID: "e"})
	if err != nil {
		t.Fatal(err)
	}
	s.wantRefused(token.ForeignKey, "of another host", foreign)
	s.wantRefused(token.BadSignature, "altered", valid[:len(valid)-6]+"AAAAAA")
	s.wantRefused(token.Malformed, "cut in half", head)
	s.wantRefused(token.Malformed, "empty", "")
	s.wantRefused(token.Malformed, "sent twice", valid, valid)
	s.wantRefused(token.Ended, "of a Space that this start does not have", gone)
	if payer, err := s.callerWith(); err != nil || payer.Kind != identity.Address {
		t.Errorf("without a token: got %v (%v), want an address", payer, err)
	}
}

// Header names and schemes match in any case. Contradictory or malformed credentials are refused, or charged to the address;
// they never select another account.
func TestAttacksOnTheHeaders(t *testing.T) {
	s := newTestRule(t, openDenyList(t))
	store := people.NewStore(openDB(t))
	s.config.People = store
	if _, err := store.Add(t.Context(), "ada", "pro", "operator"); err != nil {
		t.Fatal(err)
	}
	good, row, err := store.CreateToken(t.Context(), "ada", "", people.FullRights())
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := store.CreateToken(t.Context(), "ada", "", people.FullRights())
	if err != nil {
		t.Fatal(err)
	}
	defer s.queue.Visit("page")()
	live := s.token("page", visitor)
	for _, row := range headerAttacks(good, row.ID, other, live) {
		text := "POST /gradio_api/queue/join HTTP/1.1\r\nHost: b\r\n" + row.headers + "\r\n"
		if row.headers != "" {
			text += "\r\n"
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		r.RemoteAddr = "192.0.2.1:1"
		payer, err := s.Caller(r.WithContext(t.Context()), s.spaces["b"])
		got := payer.Key()
		if err != nil {
			got = headersRefused
		}
		if got != row.want {
			t.Errorf("%s: got %s (%v), want %s", row.what, got, err, row.want)
		}
	}
}

// headerCase is a request with these headers, and the key of the account that pays.
type headerCase struct{ what, headers, want string }

// headersRefused is the want of a headerCase that is refused.
const headersRefused = "refused"

// headerAttacks returns requests with a valid bearer token of ada (its ID is public), another one of hers, and a live
// X-IP-Token of the local visitor.
func headerAttacks(good, id, other, live string) []headerCase {
	const address, ada, local, refused = "ip:192.0.2.1", "user:ada", "local", headersRefused
	long := strings.Repeat("x", 9<<10)
	return []headerCase{
		{"none", "", address},
		{"a bearer", "Authorization: Bearer " + good, ada},
		{"odd case", "aUTHORIZATION: bEARER " + good, ada},
		{"the Hub's name in odd case", "X-HF-AUTHORIZATION: Bearer " + good, ada},
		{"a tab", "Authorization: Bearer\t" + good, ada},
		{"twice the same", "Authorization: Bearer " + good + "\r\nauthorization: Bearer " + good, ada},
		{"two that differ", "Authorization: Bearer " + good + "\r\nAuthorization: Bearer " + other, address},
		{"one of this host and one of the Hub", "Authorization: Bearer " + good + "\r\nAuthorization: Bearer hf_x", address},
		{"two in one header", "Authorization: Bearer " + good + ", Bearer " + good, address},
		{"another scheme", "Authorization: Basic " + good, address},
		{"no scheme", "Authorization: " + good, address},
		{"an underscore", "X_Hf_Authorization: Bearer " + good, address},
		{"in a cookie", "Cookie: Authorization=Bearer " + good, address},
		{"as a sign-in", "Cookie: spacehost-in-0=" + good, address},
		{"in the proxy's header", "Proxy-Authorization: Bearer " + good, address},
		{"upper case", "Authorization: Bearer " + strings.ToUpper(good), address},
		{"cut", "Authorization: Bearer " + good[:len(good)-1], refused},
		{"longer", "Authorization: Bearer " + good + "0", refused},
		{"its prefix alone", "Authorization: Bearer sph_", refused},
		{"its public ID", "Authorization: Bearer sph_" + id, refused},
		{"oversized", "Authorization: Bearer sph_" + long, address},
		{"a wild card", "Authorization: Bearer sph_%", refused},
		{"SQL", "Authorization: Bearer sph_'OR'1'='1", refused},
		{"a visitor's token", "X-IP-Token: " + live, local},
		{"the same in odd case", "x-iP-tOKEN: " + live, local},
		{"the same with an underscore", "X_Ip_Token: " + live, address},
		{"the same as a bearer", "Authorization: Bearer " + live, address},
		{"twice", "X-IP-Token: " + live + "\r\nx-ip-token: " + live, refused},
		{"in a list", "X-IP-Token: " + live + ", " + live, refused},
		{"empty", "X-IP-Token: ", refused},
		{"beside an empty one", "X-IP-Token: " + live + "\r\nX-IP-Token:", refused},
		{"a bearer in its place", "X-IP-Token: " + good, refused},
		{"with a scheme", "X-IP-Token: Bearer " + live, refused},
		{"oversized token", "X-IP-Token: " + live + long, refused},
		{"alg none", "X-IP-Token: eyJhbGciOiJub25lIn0." + strings.Split(live, ".")[1] + ".", refused},
		{"beside a good bearer", "X-IP-Token: " + live + "\r\nAuthorization: Bearer " + good, local},
		{"beside a bad bearer", "X-IP-Token: " + live + "\r\nAuthorization: Bearer sph_x", refused},
		{"bad, beside a good bearer", "X-IP-Token: x\r\nAuthorization: Bearer " + good, refused},
		{"claimed user headers", "X-Spacehost-User: ada\r\nX-Authenticated: pro\r\nRemote-User: ada\r\nX-Forwarded-User: ada", address},
		{"claimed address headers", "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nTrue-Client-IP: 127.0.0.1", address},
	}
}

// In a chain of Spaces each token names the Space before it. A denied delegation of either Space applies at once, for one
// visitor or for all.
func TestChainOfSpaces(t *testing.T) {
	s := newTestRule(t, openDenyList(t))
	defer s.queue.Visit("b's client")()
	viaB := visitor
	viaB.Via = "b"
	token := s.token("b's client", viaB) // b has called a; now a calls another
	claims, err := s.signer.VerifyFor(token, "a")
	if err != nil || claims.Act != "b" {
		t.Fatalf("a's token: %+v (%v), want b as its actor", claims, err)
	}
	if payer, err := s.callerWith(token); err != nil || payer.Via != "a" {
		t.Errorf("got %+v (%v), want the visitor via a", payer, err)
	}
	for _, row := range []struct{ space, identity string }{{"a", ""}, {"b", ""}, {"a", "local"}, {"b", "local"}, {"a", "user:ada"}} {
		if err := s.denied.Forbid(t.Context(), row.space, row.identity, "operator"); err != nil {
			t.Fatal(err)
		}
		_, err := s.callerWith(token)
		var refused *people.DelegationDeniedError
		if want := row.identity != "user:ada"; errors.As(err, &refused) != want || want && refused.Space != row.space {
			t.Errorf("with delegation by %+v denied: got %v", row, err)
		}
		if err := s.denied.Allow(t.Context(), row.space, row.identity); err != nil {
			t.Fatal(err)
		}
		if _, err := s.callerWith(token); err != nil {
			t.Errorf("with delegation by %+v allowed again: %v", row, err)
		}
	}
}
