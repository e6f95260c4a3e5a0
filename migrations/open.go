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

// pragmas are part of the DSN because a PRAGMA by Exec applies to one pooled connection only.
//
//   - _txlock=immediate: a transaction that begins with a read and then writes would fail with BUSY at once, regardless of
//     the timeout.
//   - _synchronous=FULL: committed data survives a power cut, which WAL with NORMAL does not guarantee. Package lease
//     relaxes it for data that need not survive.
//   - _stmt_cache_size: preparing a statement takes as long as running it.
const pragmas = "_busy_timeout=5000&_journal_mode=WAL&_foreign_keys=on&_txlock=immediate&_synchronous=FULL&_stmt_cache_size=100"

//go:embed *.sql
var files embed.FS

// Open returns the only writing handle of the host, with the database checked and all migrations applied. A database that
// fails the checks is refused (*CorruptError, *NewerError, *RemoteError) and not changed.
//
// Call it once per state folder, under the host's lock on that folder: migrations take no lock of their own.
func Open(ctx context.Context, path string) (*sql.DB, error) {
	return open(ctx, path, files)
}

func open(ctx context.Context, path string, steps fs.FS) (*sql.DB, error) {
	if err := checkThisLibrary(); err != nil {
		return nil, err
	}
	if err := checkLocal(path); err != nil {
		return nil, wrapError(path, err)
	}
	if err := ensureFile(ctx, path); err != nil {
		return nil, wrapError(path, err)
	}
	db, err := connect(path)
	if err != nil {
		return nil, wrapError(path, err)
	}
	if err := prepare(ctx, db, path, steps); err != nil {
		return nil, errors.Join(wrapError(path, err), db.Close())
	}
	return db, nil
}

// readers is the number of connections of OpenReads.
const readers = 4

// OpenReads returns a second, read-only handle on the database that Open has opened. It reads committed data, even while
// a transaction writes or waits to write. Close it before the writing handle.
func OpenReads(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", "file:"+escaped(path)+"?mode=ro&_query_only=on&_busy_timeout=5000&_stmt_cache_size=100")
	if err != nil {
		return nil, wrapError(path, err)
	}
	db.SetMaxOpenConns(readers)
	db.SetMaxIdleConns(readers)
	return db, nil
}

// Syncer returns a function that syncs all commits to the database at path to the disk. It is for commits that were made
// with synchronous=NORMAL. The function may be called from any goroutine.
func Syncer(path string) func() error {
	return func() error {
		wal, err := os.Open(path + "-wal") // SQLite's locks are on the other files: closing this one releases none
		if errors.Is(err, fs.ErrNotExist) {
			return nil // SQLite syncs the database before it removes the log
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

// connect opens the pool, which has one connection. SQLite allows one writer at a time anyway, and each transaction takes
// the write lock when it begins. Several connections would poll for that lock inside SQLite in no order. With one
// connection, transactions wait in the pool in FIFO order.
//
// Code that holds a transaction must query through it: a query through the pool would deadlock.
func connect(path string) (*sql.DB, error) {
	db, err := sql.Open(driverName(), dsn(path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// dsn escapes the path, because SQLite parses it as a URI: a folder may be named "50%" or "what?".
func dsn(path string) string {
	return "file:" + escaped(path) + "?" + pragmas
}

func escaped(path string) string { return (&url.URL{Path: filepath.Clean(path)}).EscapedPath() }

func prepare(ctx context.Context, db *sql.DB, path string, steps fs.FS) error {
	if err := checkOK(ctx, db, path, "PRAGMA quick_check(3)"); err != nil { // checks the whole file before the first write
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

// oldestSQLite is the first version without the WAL-reset bug, which loses committed rows
// (sqlite.org/wal.html#walresetbug).
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
