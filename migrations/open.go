// Package migrations opens the database and brings its tables up to date.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/mattn/go-sqlite3"
	"github.com/pressly/goose/v3"
)

// pragmas stand in the DSN because a PRAGMA by Exec reaches one pooled connection only.
//
// Immediate: a transaction that begins as a reader and then writes is answered BUSY at once, whatever the timeout.
// Full: what was answered survives a power cut, which WAL with NORMAL does not promise; internal/lease knows what need not.
// Statements are kept: making one takes as long as running it.
const pragmas = "_busy_timeout=5000&_journal_mode=WAL&_foreign_keys=on&_txlock=immediate&_synchronous=FULL&_stmt_cache_size=100"

//go:embed *.sql
var files embed.FS

// Open returns the one database handle of this host that writes, checked and with every migration applied.
// A database that it cannot vouch for is refused (*CorruptError, *NewerError) and left as it is.
//
// Call it once per state folder, under the host's lock on that folder: migrations take no lock of their own.
func Open(ctx context.Context, path string) (*sql.DB, error) {
	return open(ctx, path, files)
}

func open(ctx context.Context, path string, steps fs.FS) (*sql.DB, error) {
	if err := checkThisLibrary(); err != nil {
		return nil, err
	}
	if err := refuseRemote(path); err != nil {
		return nil, explain(path, err)
	}
	if err := lay(ctx, path); err != nil {
		return nil, explain(path, err)
	}
	db, err := connect(path)
	if err != nil {
		return nil, explain(path, err)
	}
	if err := prepare(ctx, db, path, steps); err != nil {
		return nil, errors.Join(explain(path, err), db.Close())
	}
	return db, nil
}

// readers is how many questions are answered at once.
const readers = 4

// OpenReads returns a second handle on the database that Open has opened, for questions alone: they are answered with
// what is committed, also while somebody writes or waits for it. It refuses to write. Close it before the other one.
func OpenReads(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", "file:"+escaped(path)+"?mode=ro&_query_only=on&_busy_timeout=5000&_stmt_cache_size=100")
	if err != nil {
		return nil, explain(path, err)
	}
	db.SetMaxOpenConns(readers)
	db.SetMaxIdleConns(readers)
	return db, nil
}

// Syncer returns what makes the disk keep all that was committed so far to the database at path, for whoever has
// committed with synchronous=NORMAL. It may be called from any goroutine.
func Syncer(path string) func() error {
	return func() error {
		wal, err := os.Open(path + "-wal") // SQLite's locks are on the other files: closing this one drops none
		if errors.Is(err, fs.ErrNotExist) {
			return nil // all of it is in the database, which SQLite syncs before it removes this
		}
		if err != nil {
			return fmt.Errorf("sync %s: %w", path, err)
		}
		defer wal.Close()
		if err := wal.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", path, err)
		}
		return nil
	}
}

// connect opens the pool, which holds one connection. SQLite has one writer at a time anyway, and a transaction here
// takes the write lock when it begins. With more connections they would poll for that lock inside SQLite, in no
// order; with one they wait in the pool, first come first served.
//
// So whoever holds a transaction must ask through it: to ask the pool meanwhile is to wait for oneself.
func connect(path string) (*sql.DB, error) {
	db, err := sql.Open(driverName(), dsn(path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// dsn escapes the path, since SQLite reads it as a URI: a folder may be called "50%" or "what?".
func dsn(path string) string {
	return "file:" + escaped(path) + "?" + pragmas
}

func escaped(path string) string { return (&url.URL{Path: filepath.Clean(path)}).EscapedPath() }

func prepare(ctx context.Context, db *sql.DB, path string, steps fs.FS) error {
	if err := answersOK(ctx, db, path, "PRAGMA quick_check(3)"); err != nil { // the whole file once, before anything is written
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, steps,
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	database, binary, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if database > binary {
		return &NewerError{Path: path, Database: database, Binary: binary}
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("apply migrations: %w", err)
	}
	return nil
}

// oldestSQLite is the first without the WAL-reset bug, which loses committed rows (sqlite.org/wal.html#walresetbug).
const oldestSQLite = 3_051_003

func checkThisLibrary() error {
	version, number, _ := sqlite3.Version()
	return checkLibrary(version, number)
}

func checkLibrary(version string, number int) error {
	if number < oldestSQLite {
		return fmt.Errorf("sqlite %s can lose committed rows (the WAL-reset bug): "+
			"build spacehost with SQLite 3.51.3 or later", version)
	}
	return nil
}

// SQLiteVersion returns the version of the SQLite library in this binary.
func SQLiteVersion() string {
	version, _, _ := sqlite3.Version()
	return version
}
