package people

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/migrations"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// storeFixture is a Store in a real database with a clock that the test sets.
type storeFixture struct {
	*Store
	t    *testing.T
	path string
	at   atomic.Int64 // unix seconds
}

func newFixture(t *testing.T) *storeFixture {
	t.Helper()
	f := &storeFixture{t: t, path: filepath.Join(t.TempDir(), "spacehost.db")}
	f.at.Store(noon.Unix())
	f.open()
	return f
}

// open opens the same database again, as a restarted host does.
func (f *storeFixture) open() {
	f.t.Helper()
	db, err := migrations.Open(f.t.Context(), f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { db.Close() })
	f.Store = NewStore(db)
	f.Now = func() time.Time { return time.Unix(f.at.Load(), 0) }
}

func (f *storeFixture) pass(d time.Duration) { f.at.Add(int64(d.Seconds())) }

func (f *storeFixture) add(names ...string) {
	f.t.Helper()
	for _, name := range names {
		if _, err := f.Add(f.t.Context(), name, "free", "operator"); err != nil {
			f.t.Fatalf("Add(%s): %v", name, err)
		}
	}
}

func (f *storeFixture) token(person string) (string, Token) {
	f.t.Helper()
	text, token, err := f.CreateToken(f.t.Context(), person, "laptop", FullRights())
	if err != nil {
		f.t.Fatalf("CreateToken(%s): %v", person, err)
	}
	return text, token
}

func (f *storeFixture) wantPayer(token, key, tier string) {
	f.t.Helper()
	who, err := f.ByToken(f.t.Context(), token)
	if err != nil || who.Key() != key || who.Tier != tier {
		f.t.Errorf("ByToken: got %s of tier %q (%v), want %s of tier %s", who, who.Tier, err, key, tier)
	}
}

func (f *storeFixture) wantUnknown(what, token string) {
	f.t.Helper()
	who, err := f.ByToken(f.t.Context(), token)
	if _, refused := errors.AsType[*UnknownTokenError](err); !refused || who != (identity.Identity{}) {
		f.t.Errorf("%s: got %+v (%v), want an UnknownTokenError", what, who, err)
	}
}

// count queries the database without the Store.
func (f *storeFixture) count(query string) (n int) {
	f.t.Helper()
	f.Store.lastUsed.writing.Wait()
	if err := f.db.QueryRowContext(f.t.Context(), query).Scan(&n); err != nil {
		f.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// withoutDatabase occupies the only connection while do runs.
func (f *storeFixture) withoutDatabase(do func(ctx context.Context)) {
	f.t.Helper()
	conn, err := f.db.Conn(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(f.t.Context(), 50*time.Millisecond)
	defer cancel()
	do(ctx)
}

// watchUses records every write of last_used_at in the table uses.
func (f *storeFixture) watchUses() {
	f.t.Helper()
	_, err := f.db.ExecContext(f.t.Context(), `CREATE TABLE uses (at INTEGER);
		CREATE TRIGGER watch AFTER UPDATE OF last_used_at ON tokens BEGIN INSERT INTO uses VALUES (NEW.last_used_at); END`)
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *storeFixture) lastUsed() time.Time {
	f.t.Helper()
	f.Store.lastUsed.writing.Wait()
	list, err := f.Tokens(f.t.Context(), "")
	if err != nil || len(list) != 1 {
		f.t.Fatalf("Tokens: got %+v (%v), want one", list, err)
	}
	return list[0].LastUsedAt
}

const parallelism = 50

// inParallel runs do in many goroutines concurrently.
func inParallel(do func(i int)) {
	var all sync.WaitGroup
	for i := range parallelism {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// files returns every byte of the database, its write-ahead log and its index.
func (f *storeFixture) files() (all []byte) {
	f.t.Helper()
	found, err := filepath.Glob(f.path + "*")
	if err != nil || len(found) < 2 {
		f.t.Fatalf("files of the database: got %v (%v), want it and its log", found, err)
	}
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, data...)
	}
	return all
}
