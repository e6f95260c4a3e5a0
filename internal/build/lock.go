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

// lock keeps an environment to one builder, among threads and among hosts. Tools inherit its descriptor:
// should the host be killed, the lock stays taken until its uv or pip has ended too, and nobody builds in
// a folder into which an orphan still writes.
type lock struct{ file *os.File }

// hold locks path for this job and its tools until release is called; the last one taken is released first.
func (j *job) hold(ctx context.Context, path string) (release func(), err error) {
	l, err := lockFile(ctx, path, func() {
		j.log.Info("waiting for another build", zap.String("space", j.space), zap.String("lock", path))
	})
	if err != nil {
		return nil, err
	}
	j.held = append(j.held, l)
	return func() {
		j.held = j.held[:len(j.held)-1]
		l.release()
	}, nil
}

// lockRetry is how often a taken lock is tried again: flock cannot wait for a context too.
const lockRetry = 100 * time.Millisecond

// lockFile waits for the lock on path. busy is called once if it is taken.
func lockFile(ctx context.Context, path string, busy func()) (*lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	retry := time.NewTicker(lockRetry)
	defer retry.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return &lock{f}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
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

// release unlocks for all who share the descriptor: a daemon that some setup.py left behind must not keep
// the environment to itself.
func (l *lock) release() {
	unix.Flock(int(l.file.Fd()), unix.LOCK_UN)
	l.file.Close()
}
