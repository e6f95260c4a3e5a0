package lease

import (
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// leastRoom is what stays free for those who run: settlements, beats and SQLite's log of writes still fit in it when
// nobody new is admitted.
const minDiskFree = 64 << 20

var errDiskNearlyFull = errors.New("admit lease: the disk is nearly full")

// room admits nobody while the disk of the database is nearly full.
type diskGuard struct {
	free func() (bytes uint64, err error) // nil: there is always room
	log  *zap.Logger

	mu         sync.Mutex
	nearlyFull bool // as the log has it
}

// check refuses with *StorageError. It is asked before each admission, so it ends by itself when there is room again. A
// disk that does not say how full it is refuses nobody: whether it can be written shows when it is.
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
			r.log.Warn("the disk has room again: GPU calls are admitted", zap.Uint64("free_mb", free>>20))
		}
		return nil
	}
	trouble := &StorageError{
		Cause: fmt.Sprintf("its disk has %d MB free, less than the %d MB that running calls may need", free>>20, minDiskFree>>20),
		Do:    "make room on the disk of the state folder", err: errDiskNearlyFull,
	}
	if !r.nearlyFull {
		r.nearlyFull = true
		r.log.Error("the disk is nearly full: GPU calls are refused until there is room", zap.Error(trouble), zap.String("do", trouble.Do))
	}
	return trouble
}

// FreeAt says how many bytes this user may still write on the disk of a folder.
func FreeAt(folder string) func() (uint64, error) {
	return func() (uint64, error) {
		var disk unix.Statfs_t
		err := unix.Statfs(folder, &disk)
		if err == nil && disk.Blocks == 0 { // as some of FUSE
			err = errors.New("the file system does not say how large it is")
		}
		return disk.Bavail * uint64(disk.Bsize), err
	}
}
