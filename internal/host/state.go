package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// State is a locked state folder. The kernel releases the lock when the process exits, so one host at a time uses a folder.
type State struct {
	dir  string
	lock *os.File
}

func (s State) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// InUseError reports a state folder that another host uses.
type InUseError struct{ Dir, PID string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("another spacehost (pid %s) runs on the state folder %s: stop it, or give this one a folder of its own with --state", e.PID, e.Dir)
}

// OpenState creates the folder if it is missing, and locks it. Close releases the lock. Errors: *InUseError, and others in a
// sentence.
func OpenState(dir string) (State, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return State{}, fmt.Errorf("make state folder: %w; choose another with --state", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return State{}, fmt.Errorf("open state folder: %w; choose another with --state", err)
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		owner, _ := os.ReadFile(lock.Name())
		lock.Close()
		return State{}, &InUseError{dir, strings.TrimSpace(string(owner))}
	}
	if err != nil {
		lock.Close()
		return State{}, fmt.Errorf("lock state folder %s: %w; use --state to choose a folder on a file system that supports flock", dir, err)
	}
	if err := lock.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(lock, "%d\n", os.Getpid()) // only for the error message above
	}
	return State{dir, lock}, nil
}

// Close releases the lock.
func (s State) Close() { s.lock.Close() }

// PackagedUV returns the path of the uv in the folder of this program, for builds. The wheel spacehost requires uv, so that
// installers put both programs into one folder, which need not be on PATH. Otherwise the path does not exist.
func PackagedUV() string {
	program, err := os.Executable()
	if err != nil {
		return ""
	}
	return filepath.Join(filepath.Dir(program), "uv")
}

// EnvironmentsIn returns the folder of Python environments and tools that belongs to a state folder.
// $SPACEHOST_ENVIRONMENTS lets several state folders share one.
func EnvironmentsIn(state string) string {
	if shared := os.Getenv("SPACEHOST_ENVIRONMENTS"); shared != "" {
		return shared
	}
	return filepath.Join(state, "environments")
}

// referenceIn returns the file of a Space that refers to its environment (build.Config.Reference).
func referenceIn(state, space string) string {
	return filepath.Join(state, "spaces", space, "environment")
}
