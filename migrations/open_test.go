package migrations

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/mattn/go-sqlite3"
)

func mustOpen(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatalf("Open(%s): %v", path, err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func exec(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestOpenKeepsRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	db := mustOpen(t, path)
	exec(t, db, "INSERT INTO windows (identity) VALUES ('local')")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, path)
	if got := count(t, again, "SELECT count(*) FROM windows"); got != 1 {
		t.Errorf("rows after the second Open: got %d, want 1", got)
	}
	for _, table := range []string{"leases", "runners", "windows", "ledger", "people", "tokens"} {
		count(t, again, "SELECT count(*) FROM "+table)
	}
}

func TestOpenSetsPragmas(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "spacehost.db"))
	for pragma, want := range map[string]string{
		"busy_timeout": "5000", "journal_mode": "wal", "foreign_keys": "1", "synchronous": "2",
	} {
		var got string
		if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("PRAGMA %s: got %q (%v), want %q", pragma, got, err, want)
		}
	}
	if got := db.Stats().MaxOpenConnections; got != 1 {
		t.Errorf("connections: got %d, want 1", got)
	}
}

// Transactions take the write lock when they begin, so that a transaction which reads first cannot fail on its first write.
func TestTransactionsAreImmediate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	tx, err := mustOpen(t, path).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	other, err := sql.Open("sqlite3", strings.Replace(dsn(path), "_busy_timeout=5000", "_busy_timeout=1", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, err = other.BeginTx(t.Context(), nil)
	var lite sqlite3.Error
	if !errors.As(err, &lite) || lite.Code != sqlite3.ErrBusy {
		t.Errorf("a second transaction began: got %v, want busy", err)
	}
}

func TestOpenEscapesThePath(t *testing.T) {
	for _, name := range []string{"plain", "with space", "50%", "a%20b", "what?x=1&y", "a#b", "ü & 漢", "a+b;c", "file:x", "quote'\""} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name+".db")
		mustOpen(t, path)
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("no database at %s: %v", path, err)
		}
	}
}

func TestOpenTakesARelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	mustOpen(t, "spacehost.db")
	if _, err := os.Stat("spacehost.db"); err != nil {
		t.Error(err)
	}
}

func TestNewFileIsPrivateWithoutTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, filepath.Join(dir, "spacehost.db"))
	exec(t, db, "INSERT INTO windows (identity) VALUES ('local')")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if perm := info.Mode().Perm(); perm != 0o600 || !strings.HasPrefix(e.Name(), "spacehost.db") {
			t.Errorf("%s has mode %o, want 0600 and the database's name", e.Name(), perm)
		}
	}
}

// The host's lock prevents a second host. This test shows that concurrent creation loses no file even without it.
func TestConcurrentCreationKeepsOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := ensureFile(t.Context(), path); err != nil {
				t.Errorf("ensureFile: %v", err)
			}
		})
	}
	all.Wait()
	mustOpen(t, path)
}

func TestOpenRefusesANewerDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	later, err := open(t.Context(), path, withSteps(t, "CREATE TABLE a (x INTEGER);", "CREATE TABLE b (x INTEGER);"))
	if err != nil {
		t.Fatal(err)
	}
	later.Close()
	before := read(t, path)

	_, err = Open(t.Context(), path)
	var newer *NewerError
	last := int64(lastOf(t, ownSteps(t)))
	if !errors.As(err, &newer) || newer.Database != last+2 || newer.Binary != last || newer.Path != path {
		t.Fatalf("got %#v (%v), want versions %d and %d of %s", newer, err, last+2, last, path)
	}
	for _, word := range []string{path, fmt.Sprintf("version %d", last+2), fmt.Sprintf("up to %d", last)} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not name %q", err, word)
		}
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("the refused database was changed")
	}
}

func TestOpenUpgradesAnOlderDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	db := mustOpen(t, path)
	exec(t, db, "INSERT INTO windows (identity) VALUES ('local')")
	db.Close()
	later, err := open(t.Context(), path, withSteps(t, "ALTER TABLE windows ADD COLUMN note TEXT;"))
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	if got := count(t, later, "SELECT count(*) FROM windows WHERE note IS NULL"); got != 1 {
		t.Errorf("rows after the upgrade: got %d, want 1", got)
	}
}

// A migration is applied completely or not at all, and earlier ones stay applied.
func TestFailedMigrationIsRolledBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	_, err := open(t.Context(), path, withSteps(t, "CREATE TABLE good (x INTEGER);",
		"CREATE TABLE half (x INTEGER);\nINSERT INTO no_such_table VALUES (1);"))
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want an error that names %s", err, path)
	}
	healed, err := open(t.Context(), path, withSteps(t, "CREATE TABLE good (x INTEGER);", "CREATE TABLE half (x INTEGER);"))
	if err != nil {
		t.Fatalf("after the migration was corrected: %v", err)
	}
	healed.Close()
}

// ownSteps returns the binary's migrations.
func ownSteps(t *testing.T) fstest.MapFS {
	t.Helper()
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	steps := fstest.MapFS{}
	for _, name := range names {
		data, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		steps[name] = &fstest.MapFile{Data: data}
	}
	return steps
}

// lastOf returns the highest number of steps: numbers may have gaps.
func lastOf(t *testing.T, steps fstest.MapFS) (last int) {
	t.Helper()
	for name := range steps {
		number, err := strconv.Atoi(name[:4])
		if err != nil {
			t.Fatal(err)
		}
		last = max(last, number)
	}
	return last
}

// withSteps returns the binary's migrations followed by further ones.
func withSteps(t *testing.T, further ...string) fstest.MapFS {
	t.Helper()
	steps := ownSteps(t)
	for _, step := range further {
		steps[fmt.Sprintf("%04d_step.sql", lastOf(t, steps)+1)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + step + "\n")}
	}
	return steps
}

func TestOpenRefusesDamage(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"not a database": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 8192), 0o600) },
		"no bytes":       func(path string) error { return os.Truncate(path, 0) },
		"half a page":    func(path string) error { return os.Truncate(path, 2048) },
		"cut in half":    func(path string) error { return truncateHalf(path) },
		"pages of noise": func(path string) error { return overwrite(path, 4096*3, bytes.Repeat([]byte{0xA5}, 4096*6)) },
		"schema of noise": func(path string) error {
			return overwrite(path, 100, bytes.Repeat([]byte{0xA5}, 3000))
		},
		"moved without its log": func(path string) error {
			return errors.Join(os.WriteFile(path+"-wal", []byte("log"), 0o600), os.Rename(path, path+".bak"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filled(t)
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			before := read(t, path)
			db, err := Open(t.Context(), path)
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || corrupt.Path != path || db != nil {
				t.Fatalf("got %v, want a CorruptError that names %s", err, path)
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") {
				t.Errorf("%q does not name the file and the next step", err)
			}
			if !bytes.Equal(before, read(t, path)) {
				t.Error("the damaged database was changed")
			}
		})
	}
}

// filled returns the path of a closed database of about fifty pages.
func filled(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spacehost.db")
	db := mustOpen(t, path)
	exec(t, db, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
		INSERT INTO windows (identity, opened_at, ends_at) SELECT 'user:someone-' || i, i, i + 1 FROM n`)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// read returns nil for a missing file, so that tests can check that a refusal does not create one.
func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return data
}

func truncateHalf(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/2)
}

func overwrite(path string, at int64, noise []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(noise, at)
	return errors.Join(err, f.Close())
}

func TestOpenErrorNamesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nowhere", "spacehost.db")
	if _, err := Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names %s", err, path)
	}
}

func TestOpenStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, filepath.Join(t.TempDir(), "spacehost.db")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestOldSQLiteIsRefused(t *testing.T) {
	if err := checkLibrary("3.51.2", 3_051_002); err == nil || !strings.Contains(err.Error(), "3.51.2") {
		t.Errorf("3.51.2: got %v, want a refusal", err)
	}
	if err := checkLibrary("3.51.3", 3_051_003); err != nil {
		t.Errorf("3.51.3: %v", err)
	}
}

func TestLedgerIsAppendOnly(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "spacehost.db"))
	exec(t, db, "INSERT INTO windows (id, identity) VALUES (1, 'local')")
	exec(t, db, "INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms) VALUES (1, 'local', 1, 'a', 'hold', 5)")
	for _, forbidden := range []string{
		"UPDATE ledger SET held_ms = 0",
		"DELETE FROM ledger",
		"DELETE FROM windows",
		"INSERT INTO windows (identity) VALUES ('local')",
		"INSERT INTO ledger (at, identity, window_id, kind) VALUES (1, 'local', 1, 'gift')",
		"INSERT INTO ledger (at, identity, window_id, kind) VALUES (1, 'local', 2, 'grant')",
		"INSERT INTO ledger (at, identity, window_id, kind) VALUES (1, 'local', 1, 'hold')",
		"INSERT INTO ledger (at, identity, window_id, lease_id, kind) VALUES (1, 'local', 1, 'a', 'hold')",
		"INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms, charged_ms) VALUES (1, 'local', 1, 'a', 'settle', 5, 6)",
	} {
		if _, err := db.ExecContext(t.Context(), forbidden); err == nil {
			t.Errorf("allowed: %s", forbidden)
		}
	}
	if got := count(t, db, "SELECT held_ms FROM windows"); got != 5 {
		t.Errorf("held after the refusals: got %d, want 5", got)
	}
}

// TestSyncerSyncsLog: while the database is open, commits are in its write-ahead log. After the close the log
// does not exist.
func TestSyncerSyncsLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	sync := Syncer(path)
	if _, err := os.Stat(path + "-wal"); err != nil {
		t.Fatalf("the log is missing: %v", err)
	}
	if err := sync(); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sync(); err != nil {
		t.Errorf("without a log: %v", err)
	}
	if err := Syncer(filepath.Join(path, "below a file"))(); err == nil {
		t.Error("Syncer succeeded for a log that cannot be opened")
	}
}
