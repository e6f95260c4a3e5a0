package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// lock gives one builder exclusive access to an environment, among goroutines and hosts. Tools inherit its
// descriptor: if the host is killed, the lock stays until its uv or pip has exited. Otherwise another host could
// build in a folder that an orphaned tool still writes to.
type lock struct{ file *os.File }

// acquireLock locks path for this job and its tools until release is called. Locks are released in reverse order.
func (j *job) acquireLock(ctx context.Context, path string) (release func(), err error) {
	l, err := lockFile(ctx, path, func() {
		j.log.Info("waiting for another build", zap.String("space", j.space), zap.String("lock", path))
	})
	if err != nil {
		return nil, err
	}
	j.locks = append(j.locks, l)
	return func() {
		j.locks = j.locks[:len(j.locks)-1]
		l.release()
	}, nil
}

// lockRetry is the interval between attempts to take a lock: flock cannot be cancelled by a context.
const lockRetry = 100 * time.Millisecond

// lockFile waits for the lock on path. It calls busy once if the lock is taken.
func lockFile(ctx context.Context, path string, busy func()) (*lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	retry := time.NewTicker(lockRetry)
	defer retry.Stop()
	for {
		err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return &lock{f}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		busy()
		busy = func() {}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-retry.C:
		}
	}
}

// release unlocks for all processes that share the descriptor: a daemon left behind by a setup.py must not keep the
// environment locked.
func (l *lock) release() {
	unix.Flock(int(l.file.Fd()), unix.LOCK_UN)
	l.file.Close()
}
