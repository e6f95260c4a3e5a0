package migrations

import (
	"context"
	"errors"
	"io/fs"
	"os"
)

// Usable returns the error with which Open would refuse the database at path because of its file system or its version: *RemoteError,
// *NewerError or *CorruptError. It changes nothing, does not look for damage, and may run beside a host. A missing database is
// usable; its folder must exist.
func Usable(ctx context.Context, path string) error {
	if err := checkLocal(path); err != nil {
		return wrapError(path, err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var parameters []string
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) { // no host has it open
		parameters = append(parameters, "immutable=1")
	}
	db, err := openReadOnly(path, parameters...)
	if err != nil {
		return wrapError(path, err)
	}
	defer db.Close()
	return wrapError(path, checkVersion(ctx, db, path))
}
