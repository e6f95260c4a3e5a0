package migrations

import (
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// NewerError says that a later spacehost has already migrated this database.
type NewerError struct {
	Path     string
	Database int64 // the version that the database is at
	Binary   int64 // the last version that this binary knows
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("database %s is at version %d, this spacehost knows versions up to %d: "+
		"run the newer spacehost, or restore the backup from before the upgrade", e.Path, e.Database, e.Binary)
}

// CorruptError says that the database is damaged. Nothing was changed: to begin anew is the operator's decision,
// because an empty ledger gives everybody's seconds back.
type CorruptError struct {
	Path   string
	Detail string // what SQLite found
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("database %s is damaged (%s): stop spacehost, move %s, %s-wal and %s-shm aside together, "+
		"then put a backup in their place with `spacehost db restore FILE` (or try sqlite3's .recover on the copy); "+
		"without one, usage begins at zero", e.Path, e.Detail, e.Path, e.Path, e.Path)
}

// explain names the file once: the errors of this package do so themselves.
func explain(path string, err error) error {
	var newer *NewerError
	var corrupt *CorruptError
	var lite sqlite3.Error
	switch {
	case err == nil, errors.As(err, &newer), errors.As(err, &corrupt), errors.As(err, new(*RemoteError)):
		return err
	case errors.As(err, &lite) && lite.Code == sqlite3.ErrProtocol:
		return &RemoteError{Path: path, FileSystem: "a file system without locks"}
	case errors.As(err, &lite) && (lite.Code == sqlite3.ErrCorrupt || lite.Code == sqlite3.ErrNotADB):
		return &CorruptError{Path: path, Detail: lite.Error()}
	}
	return fmt.Errorf("open database %s: %w", path, err)
}
