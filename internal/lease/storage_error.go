package lease

import (
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
	"go.uber.org/zap"
)

// StorageError says that the database cannot be written now, and nothing was. It passes by itself once the cause is
// gone: until then nobody gets a GPU, and what ends is settled when it can be.
type StorageError struct {
	Cause string // in words
	Do    string // what the operator can do
	err   error
}

func (e *StorageError) Error() string { return fmt.Sprintf("%v (%s)", e.err, e.Cause) }

func (e *StorageError) Unwrap() error { return e.err }

// storageError is err as a *StorageError, if it is the database's own trouble and no refusal.
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
		trouble.Cause, trouble.Do = "it may not be written", "look at the owner and the mount of the state folder"
	case lite.Code == sqlite3.ErrIoErr:
		trouble.Cause, trouble.Do = "its disk fails or is full", "look at the disk of the state folder, and at the kernel's log"
	case lite.Code == sqlite3.ErrCorrupt, lite.Code == sqlite3.ErrNotADB:
		trouble.Cause, trouble.Do = "it is damaged", "stop spacehost and say `spacehost db check`"
	default:
		return err
	}
	return trouble
}

// noteTrouble tells the operator once when writing begins to fail, and once when it goes on.
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

// Trouble is why nobody gets a GPU now, for the database or its disk; nil: neither is in the way. That writing fails is known
// since the last try.
func (b *Broker) Trouble() *StorageError { return b.store.trouble() }

func (s *store) trouble() *StorageError {
	if trouble, ok := errors.AsType[*StorageError](s.diskGuard.check()); ok {
		return trouble
	}
	s.writer.mu.Lock()
	defer s.writer.mu.Unlock()
	return s.writer.trouble
}
