package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Bounds of one measurement. A Space decides how many files it has and how it nests them.
const (
	maxFiles = 5_000_000
	maxDepth = 200 // one descriptor per level
)

// unmeasurableError reports that folders exceed a bound of a measurement.
type unmeasurableError struct{ what string }

func (e *unmeasurableError) Error() string { return e.what + ", so their size cannot be measured" }

// measurement adds up the disk blocks of folders. It reads only what is below them on the same disk and follows no link. A
// file with several links counts in parts, so that the sum over all of them is its size.
type measurement struct {
	ctx    context.Context
	files  int
	device uint64
	bytes  int64
}

// usageOf returns the bytes on the disk of a folder and what is below it. A folder that does not exist has none. It stops
// with an error when ctx ends, and with *unmeasurableError.
func usageOf(ctx context.Context, dir string) (int64, error) {
	fd, err := unix.Open(dir, folderFlags, 0)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	top := os.NewFile(uintptr(fd), dir)
	info, err := top.Stat()
	if err != nil {
		top.Close()
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	m := &measurement{ctx: ctx, device: info.Sys().(*syscall.Stat_t).Dev}
	err = m.read(top, 0)
	return m.bytes, err
}

const folderFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

// read adds up what a folder contains, and closes it.
func (m *measurement) read(folder *os.File, depth int) error {
	defer folder.Close()
	if depth > maxDepth {
		return &unmeasurableError{fmt.Sprintf("its folders are nested deeper than %d levels", maxDepth)}
	}
	for m.ctx.Err() == nil {
		names, err := folder.Readdirnames(256)
		if err != nil || len(names) == 0 {
			return nil // the end, or the folder cannot be read: what was read counts
		}
		if m.files += len(names); m.files > maxFiles {
			return &unmeasurableError{fmt.Sprintf("its folders contain more than %d files", maxFiles)}
		}
		for _, name := range names {
			if err := m.add(folder, name, depth); err != nil {
				return err
			}
		}
	}
	return m.ctx.Err()
}

func (m *measurement) add(folder *os.File, name string, depth int) error {
	parent := int(folder.Fd())
	var s unix.Stat_t
	if unix.Fstatat(parent, name, &s, unix.AT_SYMLINK_NOFOLLOW) != nil || s.Dev != m.device {
		return nil // removed meanwhile, or another disk
	}
	if s.Mode&unix.S_IFMT != unix.S_IFDIR {
		m.bytes += s.Blocks * 512 / max(1, int64(s.Nlink))
		return nil
	}
	m.bytes += s.Blocks * 512
	fd, err := unix.Openat(parent, name, folderFlags, 0)
	if errors.Is(err, unix.EACCES) && makeReadable(parent, name) == nil {
		fd, err = unix.Openat(parent, name, folderFlags, 0)
	}
	if err != nil {
		return nil // removed meanwhile, or a folder of another user
	}
	return m.read(os.NewFile(uintptr(fd), name), depth+1)
}

// makeReadable gives the host's user the right to read a folder. A Space could hide files in a folder without rights.
func makeReadable(parent int, name string) error {
	fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o700) // fchmod refuses a descriptor of O_PATH
}

// deviceOf returns the number of the disk of a folder, 0 if it cannot be read.
func deviceOf(dir string) uint64 {
	info, err := os.Stat(dir)
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Dev
}
