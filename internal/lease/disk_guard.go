package lease

import (
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// minDiskFree is kept free for running calls. Settlements, beats and SQLite's write-ahead log still fit when
// no lease is admitted any more.
const minDiskFree = 64 << 20

var errDiskNearlyFull = errors.New("admit lease: the disk is nearly full")

// diskGuard stops admissions while the disk of the database is nearly full.
type diskGuard struct {
	free func() (bytes uint64, err error) // nil: no check
	log  *zap.Logger

	mu         sync.Mutex
	nearlyFull bool // as logged last
}

// check refuses with *StorageError. It runs before each admission, so refusals stop by themselves once there is
// enough free space. A disk that does not report its free space refuses nothing: whether it can be written shows
// at the next write.
func (r *diskGuard) check() error {
	if r.free == nil {
		return nil
	}
	free, err := r.free()
	if err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if free >= minDiskFree {
		if r.nearlyFull {
			r.nearlyFull = false
			r.log.Warn("disk space recovered: GPU calls are admitted again", zap.Uint64("free_mb", free>>20))
		}
		return nil
	}
	trouble := &StorageError{
		Cause: fmt.Sprintf("its disk has %d MB free, less than the %d MB that running calls may need", free>>20, minDiskFree>>20),
		Do:    "make room on the disk of the state folder", err: errDiskNearlyFull,
	}
	if !r.nearlyFull {
		r.nearlyFull = true
		r.log.Error("disk nearly full: GPU calls are refused until space is free", zap.Error(trouble), zap.String("do", trouble.Do))
	}
	return trouble
}

// FreeAt returns a function that reads how many bytes this user may still write on the disk of a folder.
func FreeAt(folder string) func() (uint64, error) {
	return func() (uint64, error) {
		var disk unix.Statfs_t
		err := unix.Statfs(folder, &disk)
		if err == nil && disk.Blocks == 0 { // as some FUSE file systems do
			err = errors.New("the file system does not report its size")
		}
		return disk.Bavail * uint64(disk.Bsize), err
	}
}
