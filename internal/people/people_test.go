package people

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/migrations"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// town is a Store in a real database, with a clock that the test moves.
type town struct {
	*Store
	t    *testing.T
	path string
	at   atomic.Int64 // unix seconds
}

func newTown(t *testing.T) *town {
	t.Helper()
	w := &town{t: t, path: filepath.Join(t.TempDir(), "spacehost.db")}
	w.at.Store(noon.Unix())
	w.open()
	return w
}

// open is a start of the host on the same database.
func (w *town) open() {
	w.t.Helper()
	db, err := migrations.Open(w.t.Context(), w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { db.Close() })
	w.Store = NewStore(db)
	w.Now = func() time.Time { return time.Unix(w.at.Load(), 0) }
}

func (w *town) pass(d time.Duration) { w.at.Add(int64(d.Seconds())) }

func (w *town) add(names ...string) {
	w.t.Helper()
	for _, name := range names {
		if _, err := w.Add(w.t.Context(), name, "free", "operator"); err != nil {
			w.t.Fatalf("Add(%s): %v", name, err)
		}
	}
}

func (w *town) token(person string) (string, Token) {
	w.t.Helper()
	text, token, err := w.CreateToken(w.t.Context(), person, "laptop")
	if err != nil {
		w.t.Fatalf("CreateToken(%s): %v", person, err)
	}
	return text, token
}

func (w *town) wantPayer(token, key, tier string) {
	w.t.Helper()
	who, err := w.ByToken(w.t.Context(), token)
	if err != nil || who.Key() != key || who.Tier != tier {
		w.t.Errorf("ByToken: got %s of tier %q (%v), want %s of tier %s", who, who.Tier, err, key, tier)
	}
}

func (w *town) wantUnknown(what, token string) {
	w.t.Helper()
	who, err := w.ByToken(w.t.Context(), token)
	if _, refused := errors.AsType[*UnknownTokenError](err); !refused || who != (identity.Identity{}) {
		w.t.Errorf("%s: got %+v (%v), want an UnknownTokenError", what, who, err)
	}
}

// count asks the database behind the back of People.
func (w *town) count(query string) (n int) {
	w.t.Helper()
	w.Store.lastUsed.writing.Wait()
	if err := w.db.QueryRowContext(w.t.Context(), query).Scan(&n); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// withoutDatabase takes the one connection away while do runs.
func (w *town) withoutDatabase(do func(ctx context.Context)) {
	w.t.Helper()
	conn, err := w.db.Conn(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 50*time.Millisecond)
	defer cancel()
	do(ctx)
}

func TestAPersonIsKept(t *testing.T) {
	w := newTown(t)
	added, err := w.Add(t.Context(), "ada", "pro", "uid 1000")
	want := Person{Name: "ada", Tier: "pro", CreatedAt: noon, CreatedBy: "uid 1000", Source: Operator}
	if err != nil || added != want {
		t.Fatalf("Add: got %+v (%v), want %+v", added, err, want)
	}
	w.add("zoe", "ben")
	w.open()
	if got, err := w.Get(t.Context(), "ada"); err != nil || got != want {
		t.Errorf("Get after a restart: got %+v (%v), want %+v", got, err, want)
	}
	all, err := w.List(t.Context())
	if err != nil || len(all) != 3 || all[0] != want || all[1].Name != "ben" || all[2].Name != "zoe" {
		t.Errorf("List: got %+v (%v), want ada, ben, zoe", all, err)
	}
}

func TestNames(t *testing.T) {
	w := newTown(t)
	for _, name := range []string{"a", "0", "ada", "ada.l_o-velace9", strings.Repeat("a", 64)} {
		person, err := w.Add(t.Context(), name, "free", "operator")
		if back, parsed := identity.ParseKey(person.Identity().Key()); err != nil || parsed != nil || back.Name != name {
			t.Errorf("Add(%s): got %v, its key comes back as %+v (%v)", name, err, back, parsed)
		}
	}
	for _, name := range []string{
		"", "Ada", "a b", " a", "a\n", "é", "a/b", "a:b", ".", "..", ".a", "-a", "--help", "_a", "a\x00", "\xff", "a'--", "a%2f",
		strings.Repeat("a", 65), strings.Repeat("a", 1<<20),
	} {
		_, err := w.Add(t.Context(), name, "free", "operator")
		if _, bad := errors.AsType[*BadNameError](err); !bad || !strings.Contains(err.Error(), "1 to 64 of a-z") || len(err.Error()) > 500 {
			t.Errorf("Add(%.40q): got %.300v, want the rule", name, err)
		}
	}
}

func TestWhatIsNotThereIsExplained(t *testing.T) {
	w := newTown(t)
	w.add("ada", "adam", "zoe")
	_, again := w.Add(t.Context(), "ada", "pro", "operator")
	_, unknown := w.SetTier(t.Context(), "adda", "pro")
	_, noTokens := w.Tokens(t.Context(), "ben")
	_, _, noOwner := w.CreateToken(t.Context(), "ben", "")
	_, noToken := w.Revoke(t.Context(), "abc")
	_, _, longLabel := w.CreateToken(t.Context(), "ada", strings.Repeat("a", maxLabel+1))
	_, _, forgedLabel := w.CreateToken(t.Context(), "ada", "a\nb")
	for _, row := range []struct {
		err  error
		want string // in the words
	}{
		{again, "`spacehost user tier ada TIER`"},
		{unknown, `called "adda"; did you mean ada or adam?`},
		{noTokens, `called "ben"; ` + "`spacehost user list`"},
		{noOwner, `called "ben"; ` + "`spacehost user list`"},
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
	if got, err := w.Get(t.Context(), "ada"); err != nil || got.Tier != "free" {
		t.Errorf("after a second Add: got %+v (%v), want the first", got, err)
	}
}

func TestATokenSpeaksForItsPerson(t *testing.T) {
	w := newTown(t)
	w.add("ada", "ben")
	text, token := w.token("ada")
	if !regexp.MustCompile(`^sph_[0-9a-f]{64}$`).MatchString(text) || !regexp.MustCompile(`^[a-z2-7]{10}$`).MatchString(token.ID) {
		t.Errorf("got a token of %d bytes with ID %q", len(text), token.ID)
	}
	want := Token{ID: token.ID, Person: "ada", Label: "laptop", CreatedAt: noon}
	if token != want {
		t.Errorf("got %+v, want %+v", token, want)
	}
	bens, _ := w.token("ben")
	w.wantPayer(text, "user:ada", "free")
	w.wantPayer(bens, "user:ben", "free")
	w.open()
	w.wantPayer(text, "user:ada", "free")
}

func TestWhatIsNoGoodTokenIsUnknown(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	text, token := w.token("ada")
	var hash []byte
	if err := w.db.QueryRowContext(t.Context(), "SELECT hash FROM tokens").Scan(&hash); err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"nothing": "", "prefix": "sph_", "another": newToken(), "cut": text[:len(text)-1], "longer": text + "0", "upper case": strings.ToUpper(text),
		"without prefix": strings.TrimPrefix(text, "sph_"), "a space": text + " ", "NUL": text + "\x00", "its ID": token.ID, "its hash": "sph_" + hex.EncodeToString(hash),
		"its hash, raw": string(hash), "Hugging Face's": "hf_" + text[4:], "huge": "sph_" + strings.Repeat("a", 1<<20), "SQL": "sph_' OR 1=1 --",
	} {
		w.wantUnknown(what, token)
	}
	w.wantPayer(text, "user:ada", "free")
}

// What an operator changes holds from the next call on, although tokens are kept in memory.
func TestAChangeHoldsAtOnce(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	first, one := w.token("ada")
	w.wantPayer(first, "user:ada", "free")
	second, two := w.token("ada")
	w.wantPayer(second, "user:ada", "free")

	if person, err := w.SetTier(t.Context(), "ada", "pro"); err != nil || person.Tier != "pro" {
		t.Errorf("SetTier: got %+v (%v)", person, err)
	}
	w.wantPayer(first, "user:ada", "pro")

	w.pass(time.Hour)
	revoked, err := w.Revoke(t.Context(), one.ID)
	if err != nil || revoked.ID != one.ID || !revoked.RevokedAt.Equal(noon.Add(time.Hour)) {
		t.Errorf("Revoke: got %+v (%v)", revoked, err)
	}
	w.wantUnknown("revoked", first)
	w.wantPayer(second, "user:ada", "pro")
	w.pass(time.Hour)
	if again, err := w.Revoke(t.Context(), one.ID); err != nil || !again.RevokedAt.Equal(revoked.RevokedAt) {
		t.Errorf("revoked twice: got %+v (%v), want the time of the first", again, err)
	}
	w.open()
	w.wantUnknown("revoked, after a restart", first)

	list, err := w.Tokens(t.Context(), "ada")
	if err != nil || len(list) != 2 || list[0].ID != two.ID || list[1].RevokedAt.IsZero() {
		t.Errorf("Tokens: got %+v (%v), want the newest first and the revoked one", list, err)
	}
}

func TestTokensAreListedByPerson(t *testing.T) {
	w := newTown(t)
	w.add("ada", "ben", "zoe")
	w.token("ada")
	_, bens := w.token("ben")
	for person, want := range map[string]int{"ada": 1, "ben": 1, "zoe": 0, "": 2} {
		list, err := w.Tokens(t.Context(), person)
		if err != nil || len(list) != want || person == "ben" && list[0].ID != bens.ID {
			t.Errorf("Tokens(%q): got %+v (%v), want %d", person, list, err, want)
		}
	}
}

// Good tokens and made-up ones are told apart in memory: whoever floods us keeps nobody from the database.
func TestTheHotPathDoesNotAskTheDatabase(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	text, _ := w.token("ada")
	w.withoutDatabase(func(ctx context.Context) {
		if _, err := w.ByToken(ctx, text); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("first call without a database: got %v", err)
		}
	})
	w.wantPayer(text, "user:ada", "free")
	w.withoutDatabase(func(ctx context.Context) {
		for range 1000 {
			if who, err := w.ByToken(ctx, text); err != nil || who.Key() != "user:ada" {
				t.Fatalf("got %s (%v)", who, err)
			}
			if _, err := w.ByToken(ctx, newToken()); !errors.As(err, new(*UnknownTokenError)) {
				t.Fatalf("made up: got %v", err)
			}
		}
	})
	w.pass(time.Hour)
	w.withoutDatabase(func(ctx context.Context) {
		if who, err := w.ByToken(ctx, text); err != nil || who.Key() != "user:ada" {
			t.Errorf("when its use cannot be written down: got %s (%v)", who, err)
		}
	})
}

func TestAUseIsWrittenOnceAMinute(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	text, _ := w.token("ada")
	w.watchMarks()
	if w.lastUsed() != (time.Time{}) {
		t.Errorf("before the first use: got %v", w.lastUsed())
	}
	for _, row := range []struct {
		after   time.Duration
		restart bool
		marks   int
		used    time.Time
	}{
		{marks: 1, used: noon},
		{after: 59 * time.Second, marks: 1, used: noon},
		{restart: true, marks: 1, used: noon},
		{after: time.Second, marks: 2, used: noon.Add(time.Minute)},
		{after: -time.Hour, marks: 3, used: noon.Add(-59 * time.Minute)}, // a clock that steps back
		{after: 59 * time.Second, marks: 3, used: noon.Add(-59 * time.Minute)},
		{after: time.Second, restart: true, marks: 4, used: noon.Add(-58 * time.Minute)},
	} {
		w.pass(row.after)
		if row.restart {
			w.open()
		}
		w.wantPayer(text, "user:ada", "free")
		w.wantPayer(text, "user:ada", "free")
		if marks := w.count("SELECT count(*) FROM marks"); marks != row.marks || !w.lastUsed().Equal(row.used) {
			t.Errorf("%+v: got %d marks, last used %v", row, marks, w.lastUsed())
		}
	}
}

// watchMarks makes every write of last_used_at a row of its own.
func (w *town) watchMarks() {
	w.t.Helper()
	_, err := w.db.ExecContext(w.t.Context(), `CREATE TABLE marks (at INTEGER);
		CREATE TRIGGER watch AFTER UPDATE OF last_used_at ON tokens BEGIN INSERT INTO marks VALUES (NEW.last_used_at); END`)
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *town) lastUsed() time.Time {
	w.t.Helper()
	w.Store.lastUsed.writing.Wait()
	list, err := w.Tokens(w.t.Context(), "")
	if err != nil || len(list) != 1 {
		w.t.Fatalf("Tokens: got %+v (%v), want one", list, err)
	}
	return list[0].LastUsedAt
}

const crowd = 50

// together runs do in many goroutines at once.
func together(do func(i int)) {
	var all sync.WaitGroup
	for i := range crowd {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

func TestOfManyWhoAddAPersonOneDoes(t *testing.T) {
	w := newTown(t)
	var added, refused atomic.Int32
	together(func(i int) {
		_, err := w.Add(t.Context(), "ada", "free", fmt.Sprint("uid ", i))
		switch {
		case err == nil:
			added.Add(1)
		case errors.As(err, new(*DuplicatePersonError)):
			refused.Add(1)
		default:
			t.Errorf("Add: %v", err)
		}
	})
	if added.Load() != 1 || refused.Load() != crowd-1 {
		t.Errorf("got %d added and %d refused, want 1 and %d", added.Load(), refused.Load(), crowd-1)
	}
}

func TestManyTokensAtOnce(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	w.watchMarks()
	var texts, ids sync.Map
	together(func(i int) {
		text, token, err := w.CreateToken(t.Context(), "ada", "")
		if err != nil {
			t.Errorf("CreateToken: %v", err)
			return
		}
		texts.Store(text, true)
		ids.Store(token.ID, true)
		w.wantPayer(text, "user:ada", "free")
		if i%2 == 0 {
			if _, err := w.Revoke(t.Context(), token.ID); err != nil {
				t.Errorf("Revoke: %v", err)
			}
			w.wantUnknown("revoked", text)
		}
	})
	for _, set := range []*sync.Map{&texts, &ids} {
		n := 0
		set.Range(func(any, any) bool { n++; return true })
		if n != crowd {
			t.Errorf("got %d different ones, want %d", n, crowd)
		}
	}
	if got := w.count("SELECT count(*) FROM tokens WHERE revoked_at IS NULL"); got != crowd/2 {
		t.Errorf("good ones: got %d, want %d", got, crowd/2)
	}
	if got := w.count("SELECT count(*) FROM marks"); got != crowd {
		t.Errorf("marks of one use each: got %d, want %d", got, crowd)
	}
}

func TestManyUsesAreOneMark(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	text, _ := w.token("ada")
	w.watchMarks()
	for minute := range 3 {
		together(func(i int) {
			if i == crowd/2 { // what is in memory is forgotten in the middle of it
				w.bearers.forget()
			}
			w.wantPayer(text, "user:ada", "free")
		})
		if got := w.count("SELECT count(*) FROM marks"); got != minute+1 {
			t.Errorf("minute %d: got %d marks in all", minute, got)
		}
		w.pass(time.Minute)
	}
}

// Whoever reads the tokens while one is revoked must not bring it back.
func TestARevokedTokenDoesNotComeBack(t *testing.T) {
	w := newTown(t)
	w.add("ada", "ben")
	bens, _ := w.token("ben")
	for range 10 {
		text, token := w.token("ada")
		w.wantPayer(text, "user:ada", "free")
		var revoked atomic.Bool
		var all sync.WaitGroup
		for range 3 { // more would leave Revoke no processor
			all.Go(func() {
				for late := false; !late; {
					late = revoked.Load()
					if who, err := w.ByToken(t.Context(), text); late && err == nil || err != nil && !errors.As(err, new(*UnknownTokenError)) {
						t.Errorf("revoked: %v, got %s (%v)", late, who, err)
					}
				}
				w.wantPayer(bens, "user:ben", "free")
			})
		}
		if _, err := w.Revoke(t.Context(), token.ID); err != nil {
			t.Errorf("Revoke: %v", err)
		}
		revoked.Store(true)
		all.Wait()
	}
}

// A read that began before a change was committed may end after it.
func TestWhatWasReadBeforeAChangeIsForgotten(t *testing.T) {
	var b cache[map[digest]*bearer]
	reading, goOn, forgotten := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_, err := b.get(t.Context(), func(context.Context) (map[digest]*bearer, error) {
			close(reading)
			<-goOn
			return map[digest]*bearer{}, nil
		})
		if err != nil {
			t.Errorf("get: %v", err)
		}
	})
	<-reading
	all.Go(func() {
		b.forget()
		close(forgotten)
	})
	select {
	case <-forgotten:
		t.Error("forgot before the read was kept")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	all.Wait()
	if b.known.Load() != nil {
		t.Error("what was read before the change is still known")
	}
}

// Each of the two guards holds alone: the claim in memory, and the question in SQL after a claim was forgotten.
func TestAMarkIsClaimedOnceAndWrittenOnce(t *testing.T) {
	var b bearer
	var claimed atomic.Int32
	together(func(int) {
		if b.claimMark(noon) {
			claimed.Add(1)
		}
	})
	if claimed.Load() != 1 {
		t.Errorf("claimed %d times", claimed.Load())
	}
	w := newTown(t)
	w.add("ada")
	_, token := w.token("ada")
	w.watchMarks()
	for range 3 {
		if err := w.mark(t.Context(), token.ID, noon); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.count("SELECT count(*) FROM marks"); got != 1 {
		t.Errorf("got %d marks", got)
	}
}

func TestAPersonHasSoManyTokens(t *testing.T) {
	w := newTown(t)
	w.add("ada", "ben")
	_, first := w.token("ada")
	for range maxLive - 1 {
		w.token("ada")
	}
	_, _, err := w.CreateToken(t.Context(), "ada", "")
	if !errors.As(err, new(*TooManyTokensError)) || !strings.Contains(err.Error(), "ada has 100 tokens") {
		t.Errorf("got %v, want a TooManyTokensError", err)
	}
	w.token("ben")
	if _, err := w.Revoke(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	w.token("ada")
}

// TestTokensAreNowhere looks for tokens in the files of the database, and in what is said about them.
func TestTokensAreNowhere(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	marker, token, err := w.CreateToken(t.Context(), "ada", "markedlabel")
	if err != nil {
		t.Fatal(err)
	}
	w.wantPayer(marker, "user:ada", "free")
	if !bytes.Contains(w.files(), []byte("markedlabel")) {
		t.Error("the label is not in the files: this test looks in the wrong place")
	}
	var said []string
	say := func(err error) { said = append(said, fmt.Sprintf("%v %+v %#v", err, err, errors.Unwrap(err))) }
	_, err = w.Add(t.Context(), marker, "free", "operator")
	say(err)
	_, err = w.Get(t.Context(), marker)
	say(err)
	_, err = w.Revoke(t.Context(), strings.ToUpper(marker))
	say(err)
	_, _, err = w.CreateToken(t.Context(), "ada", marker)
	say(err)
	_, err = w.ByToken(t.Context(), marker+"x")
	say(err)
	if _, err := w.Revoke(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	said = append(said, fmt.Sprintf("%+v", token), string(w.files()))
	raw, err := hex.DecodeString(marker[4:])
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{marker, marker[4:20], strings.ToUpper(marker[4:20]), string(raw)} {
		for _, text := range said {
			if strings.Contains(text, secret) {
				t.Errorf("part of a token in %.200q", text)
			}
		}
	}
}

// files is every byte of the database, its log and its index.
func (w *town) files() (all []byte) {
	w.t.Helper()
	found, err := filepath.Glob(w.path + "*")
	if err != nil || len(found) < 2 {
		w.t.Fatalf("files of the database: got %v (%v), want it and its log", found, err)
	}
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, data...)
	}
	return all
}

// A database that fails is an error of the host, not a verdict on a token.
func TestAClosedDatabaseIsNoVerdict(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	text, token := w.token("ada")
	w.db.Close()
	ctx := t.Context()
	for what, do := range map[string]func() error{
		"Add":         func() error { _, err := w.Add(ctx, "ben", "free", ""); return err },
		"SetTier":     func() error { _, err := w.SetTier(ctx, "ada", "pro"); return err },
		"List":        func() error { _, err := w.List(ctx); return err },
		"Get":         func() error { _, err := w.Get(ctx, "ada"); return err },
		"CreateToken": func() error { _, _, err := w.CreateToken(ctx, "ada", ""); return err },
		"Revoke":      func() error { _, err := w.Revoke(ctx, token.ID); return err },
		"Tokens":      func() error { _, err := w.Tokens(ctx, ""); return err },
		"ByToken":     func() error { _, err := w.ByToken(ctx, text); return err },
	} {
		err := do()
		if err == nil || errors.As(err, new(*UnknownTokenError)) || errors.As(err, new(*UnknownPersonError)) || errors.Is(err, sql.ErrNoRows) {
			t.Errorf("%s: got %v, want an error of the database", what, err)
		}
	}
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
	text, _, err := people.CreateToken(b.Context(), "ada", "")
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

// TestForgetTokens: what was revoked long ago goes, with what it had signed in; what is good stays, and so does a new revocation.
func TestForgetTokens(t *testing.T) {
	w := newTown(t)
	w.add("ada")
	old, first := w.token("ada")
	_, second := w.token("ada")
	good, _ := w.token("ada")
	revoke := func(id string) {
		t.Helper()
		if _, err := w.Revoke(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	revoke(first.ID)
	w.pass(100 * 24 * time.Hour)
	revoke(second.ID)
	for _, row := range []struct {
		before time.Time
		want   int64
	}{{time.Time{}, 0}, {w.now().Add(-90 * 24 * time.Hour), 1}, {w.now().Add(-90 * 24 * time.Hour), 0}} {
		if got, err := w.Forget(t.Context(), row.before); err != nil || got != row.want {
			t.Errorf("forget before %v: got %d (%v), want %d", row.before, got, err, row.want)
		}
	}
	if n := w.count("SELECT count(*) FROM tokens"); n != 2 {
		t.Errorf("%d tokens are left, want the good one and the one that was revoked today", n)
	}
	w.wantUnknown("a token that is forgotten", old)
	w.wantPayer(good, "user:ada", "free")
}
