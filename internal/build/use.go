package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// use is a shared lock on the file beside an environment. Every Environment in use has its own, so several Spaces and hosts may use
// one environment, and a removal can find that no use is left. The kernel releases the lock when the process ends. The file is
// beside the environment, where no Space can lock it. It is opened and removed under the lock of the key only. Its lines
// are the files that refer to the environment. Its time is the last use.
type use struct{ file *os.File }

// openUse marks an environment as used.
func openUse(home string) (*use, error) {
	f, err := os.OpenFile(home+useSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_SH|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	u := &use{f}
	u.touch()
	return u, nil
}

// tryUse locks an environment against any use; nil: it is in use. An environment without a file was not used since its build.
func tryUse(home string) (*use, error) {
	f, err := os.OpenFile(home+useSuffix, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return &use{}, nil
	}
	if err != nil {
		return nil, err
	}
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return &use{f}, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
}

// flock repeats a flock(2) that a signal has interrupted.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// touch notes the time of the use.
func (u *use) touch() {
	now := time.Now()
	_ = os.Chtimes(u.file.Name(), now, now) // Prune then finds an earlier use
}

func (u *use) close() { u.file.Close() }

// Release ends the use of an Environment that Build has returned. Afterwards no process may run from it. It may be called twice, not
// concurrently, and on nil.
func (e *Environment) Release() {
	if e == nil || e.use == nil {
		return
	}
	e.use.touch()
	e.use.close()
	e.use = nil
}

// refer makes Config.Reference refer to an environment; "": to none.
func (j *job) refer(home string) error {
	file := j.config.Reference
	switch {
	case file == "":
		return nil
	case home == "":
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := addReference(home, file); err != nil || refersTo(file, home) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return replaceFile(file, []byte(home+"\n"))
}

// addReference adds a file to those that refer to an environment. It needs the lock of the key.
func addReference(home, file string) error {
	if slices.Contains(references(home), file) {
		return nil
	}
	f, err := os.OpenFile(home+useSuffix, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(file + "\n")
	return errors.Join(err, f.Close())
}

// references lists the files that have referred to an environment.
func references(home string) []string {
	text, _ := os.ReadFile(home + useSuffix) // an environment that was never used has none
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// refersTo reports whether a file refers to an environment now.
func refersTo(file, home string) bool {
	text, err := os.ReadFile(file)
	return err == nil && strings.TrimSuffix(string(text), "\n") == home
}
