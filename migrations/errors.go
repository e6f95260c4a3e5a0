package migrations

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

// NewerError refuses a database that a newer spacehost has migrated.
type NewerError struct {
	Path     string
	Database int64 // version of the database
	Binary   int64 // last version of this binary
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("database %s has version %d, this spacehost supports versions up to %d: "+
		"run the newer spacehost, or restore the backup from before the upgrade", e.Path, e.Database, e.Binary)
}

// CorruptError refuses a damaged database. Nothing was changed: starting with an empty ledger would refund all charges, so
// this is the operator's decision.
type CorruptError struct {
	Path   string
	Detail string // the finding of SQLite
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("database %s is damaged (%s): stop spacehost, move %s, %s-wal and %s-shm aside together, "+
		"then put a backup in their place with `spacehost db restore FILE` (or try sqlite3's .recover on the copy); "+
		"without a backup, usage starts at zero", e.Path, e.Detail, e.Path, e.Path, e.Path)
}

// TargetError reports that the copy of a database cannot be written.
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
		return fmt.Sprintf("%s already exists; choose another name", e.Path)
	case errors.Is(e.Err, fs.ErrNotExist):
		why, next = "folder "+filepath.Dir(e.Path)+" does not exist", "create it, or choose another file"
	case errors.Is(e.Err, syscall.ENOSPC), errors.As(e.Err, &lite) && (lite.Code == sqlite3.ErrFull || lite.SystemErrno == syscall.ENOSPC):
		why, next = "its disk is full", "free some space, or choose a file on another disk"
	case errors.Is(e.Err, fs.ErrPermission), errors.Is(e.Err, syscall.EROFS):
		next = "choose a file in a writable folder"
	}
	return fmt.Sprintf("cannot write %s: %s; %s", e.Path, why, next)
}

func (e *TargetError) Unwrap() error { return e.Err }

// isTargetError reports whether a SQLite error is about the copy that is written, not the database that is read.
func isTargetError(err error) bool {
	var lite sqlite3.Error
	if !errors.As(err, &lite) {
		return false
	}
	switch lite.SystemErrno { // errors of writing only; the database is only read
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS:
		return true
	}
	return lite.Code == sqlite3.ErrFull
}

// wrapError adds the path to an error, unless it is an error of this package, which contains it already.
func wrapError(path string, err error) error {
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
