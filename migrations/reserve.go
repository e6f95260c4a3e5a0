package migrations

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// reserved is the disk space that Reserve keeps. A settlement writes some 40 KiB. A longer log would need a longer index
// (-shm), for which a full disk has no space.
const reserved = 16 << 20

// Reserve allocates disk space for the write-ahead log of an open database, behind the end of the file. SQLite commits into
// that space while the disk is full, and no other program can take it. A checkpoint that finds no space for the database
// itself is repeated after later commits.
//
// SQLite removes the log, and so the reserve, when it closes the database. Call Reserve after each Open; a further call
// does no harm. The error of a file system without fallocate wraps unix.EOPNOTSUPP.
func Reserve(path string) error {
	log, err := os.OpenFile(path+"-wal", os.O_WRONLY, 0) // SQLite's locks are on the other files: closing this one releases none
	if errors.Is(err, fs.ErrNotExist) {
		return nil // before the first write
	} else if err != nil {
		return fmt.Errorf("reserve disk space: %w", err)
	}
	defer log.Close()
	// SQLite writes the log from its beginning again and again, and does not shorten it.
	if err := unix.Fallocate(int(log.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, reserved); err != nil {
		return fmt.Errorf("reserve %d MB for %s: %w", reserved>>20, log.Name(), err)
	}
	return nil
}
