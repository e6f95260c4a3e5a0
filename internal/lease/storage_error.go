package lease

import (
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
	"go.uber.org/zap"
)

// StorageError reports that the database cannot be written now, and that nothing was written. It ends by itself
// once the cause is gone. Until then no GPU is lent, and ended Leases are settled as soon as the database can be
// written.
type StorageError struct {
	Cause string // in words
	Do    string // the next step for the operator
	err   error
}

func (e *StorageError) Error() string { return fmt.Sprintf("%v (%s)", e.err, e.Cause) }

func (e *StorageError) Unwrap() error { return e.err }

// storageError returns err as a *StorageError if the database itself failed; it returns refusals unchanged.
func storageError(err error) error {
	var lite sqlite3.Error
	trouble := &StorageError{err: err}
	switch {
	case errors.As(err, new(*busyError)):
		trouble.Cause, trouble.Do = "another program keeps it locked", "end the program that has spacehost.db open"
	case !errors.As(err, &lite):
		return err
	case lite.Code == sqlite3.ErrFull:
		trouble.Cause, trouble.Do = "its disk is full", "make room on the disk of the state folder"
	case lite.Code == sqlite3.ErrBusy, lite.Code == sqlite3.ErrLocked:
		trouble.Cause, trouble.Do = "another program keeps it locked", "end the program that has spacehost.db open"
	case lite.Code == sqlite3.ErrReadonly, lite.Code == sqlite3.ErrPerm, lite.Code == sqlite3.ErrCantOpen:
		trouble.Cause, trouble.Do = "it is not writable", "check the owner and the mount of the state folder"
	case lite.Code == sqlite3.ErrIoErr:
		trouble.Cause, trouble.Do = "its disk fails or is full", "check the disk of the state folder and the kernel log"
	case lite.Code == sqlite3.ErrCorrupt, lite.Code == sqlite3.ErrNotADB:
		trouble.Cause, trouble.Do = "it is damaged", "stop spacehost and run `spacehost db check`"
	default:
		return err
	}
	return trouble
}

// logTrouble logs once when writing begins to fail, and once when it works again.
func (w *writer) logTrouble(batch []*writeRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, req := range batch {
		trouble, ok := errors.AsType[*StorageError](req.err)
		switch {
		case ok && w.trouble == nil:
			w.trouble = trouble
			w.log.Error("database cannot be written: GPU calls are refused until it can", zap.Error(trouble), zap.String("do", trouble.Do))
		case req.err == nil && w.trouble != nil:
			w.trouble = nil
			w.log.Warn("database can be written again")
		}
	}
}

// Trouble is the reason why no GPU is lent now, if it is the database or its disk; otherwise it is nil. A write
// failure is known from the last attempt.
func (b *Broker) Trouble() *StorageError { return b.store.trouble() }

func (s *store) trouble() *StorageError {
	if trouble, ok := errors.AsType[*StorageError](s.diskGuard.check()); ok {
		return trouble
	}
	s.writer.mu.Lock()
	defer s.writer.mu.Unlock()
	return s.writer.trouble
}
