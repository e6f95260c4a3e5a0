package migrations

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ensureFile creates the database file if it does not exist. It never replaces a damaged one.
//
//  1. The file is missing while its write-ahead log exists: one of the two was moved.
//  2. The file is empty: SQLite would treat it as a new one and begin with an empty ledger.
//  3. Both are missing: the state folder is new.
func ensureFile(ctx context.Context, path string) error {
	// The log is checked before the file: a host that starts concurrently creates the file before the log.
	_, walErr := os.Stat(path + "-wal")
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && walErr == nil: // 1
		return &CorruptError{Path: path, Detail: "the file is missing while its write-ahead log still exists"}
	case errors.Is(err, fs.ErrNotExist): // 3
		return create(ctx, path)
	case err != nil:
		return err
	case info.Size() == 0: // 2
		return &CorruptError{Path: path, Detail: "the file is empty"}
	}
	return nil
}

// create writes an empty database under a temporary name and links it into place when SQLite has written its header. A
// crash in between leaves no file at path, so an empty file there is always damage. CreateTemp uses mode 0600, and SQLite
// gives its log the same mode.
func create(ctx context.Context, path string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*.db")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(f.Close(), writeHeader(ctx, f.Name())); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// writeHeader connects once: turning on WAL writes the first page.
func writeHeader(ctx context.Context, path string) error {
	db, err := connect(path)
	if err != nil {
		return err
	}
	return errors.Join(db.PingContext(ctx), db.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
