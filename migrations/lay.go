package migrations

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// lay sees to it that a database file lies at path, without ever taking the place of one that was damaged.
//
//  1. The file is gone while its write-ahead log is there: somebody moved one of the two.
//  2. The file has no bytes: SQLite would take it for a new one and begin with an empty ledger.
//  3. There is neither: this state folder is new.
func lay(ctx context.Context, path string) error {
	// Asked before the file, which a host that starts beside us creates before its log.
	_, walErr := os.Stat(path + "-wal")
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && walErr == nil: // 1
		return &CorruptError{Path: path, Detail: "the file is gone while its write-ahead log is still there"}
	case errors.Is(err, fs.ErrNotExist): // 3
		return create(ctx, path)
	case err != nil:
		return err
	case info.Size() == 0: // 2
		return &CorruptError{Path: path, Detail: "the file has no bytes"}
	}
	return nil
}

// create makes an empty database under another name and links it into place once SQLite has written its header. A
// crash in between leaves nothing at path, so a file of no bytes there is always damage. CreateTemp makes it 0600;
// SQLite gives its log the same mode.
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
