package migrations

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

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

// TargetError says why a copy cannot be written.
type TargetError struct {
	Path string
	Err  error
}

func (e *TargetError) Error() string {
	why, next := e.Err.Error(), "choose another file"
	var path *fs.PathError
	if errors.As(e.Err, &path) {
		why = path.Err.Error()
	}
	var lite sqlite3.Error
	switch {
	case errors.Is(e.Err, fs.ErrExist):
		return fmt.Sprintf("%s exists already: choose another name", e.Path)
	case errors.Is(e.Err, fs.ErrNotExist):
		why, next = "there is no folder "+filepath.Dir(e.Path), "make it, or choose another file"
	case errors.Is(e.Err, syscall.ENOSPC), errors.As(e.Err, &lite) && (lite.Code == sqlite3.ErrFull || lite.SystemErrno == syscall.ENOSPC):
		why, next = "its disk is full", "make room there, or choose a file on another disk"
	case errors.Is(e.Err, fs.ErrPermission), errors.Is(e.Err, syscall.EROFS):
		next = "choose a file in a folder that you may write to"
	}
	return fmt.Sprintf("cannot write %s: %s; %s", e.Path, why, next)
}

func (e *TargetError) Unwrap() error { return e.Err }

// isOfTarget tells what SQLite says of the copy that it writes from what it says of the database that it reads.
func isOfTarget(err error) bool {
	var lite sqlite3.Error
	if !errors.As(err, &lite) {
		return false
	}
	switch lite.SystemErrno { // those that come of writing alone, and the database is only read
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS:
		return true
	}
	return lite.Code == sqlite3.ErrFull
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
