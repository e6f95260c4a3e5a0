package spacelog

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// hostBackups is the number of older files of the host's log.
const hostBackups = 4

// OpenHostLog opens the log of the host for appending, and creates its folder. At most size bytes stay in all its files
// together, and an older file is removed after keep; 0: at any age. The file is readable for its user only. Writes are safe for
// concurrent use.
func OpenHostLog(path string, size int64, keep time.Duration) (io.WriteCloser, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make log folder: %w; choose another with --state", err)
	}
	probe, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) // lumberjack opens it at the first line
	if err != nil {
		return nil, fmt.Errorf("open log: %w; choose another folder with --state", err)
	}
	probe.Close()
	return &lumberjack.Logger{Filename: path, MaxSize: megabytesOf(size, hostBackups), MaxBackups: hostBackups, MaxAge: days(keep)}, nil
}

// megabytesOf returns the size of one file, of a log with that many older files and size bytes in all.
func megabytesOf(size int64, older int) int { return max(1, int(size>>20)/(older+1)) }

func days(d time.Duration) int { return int((d + 24*time.Hour - 1) / (24 * time.Hour)) }

// Trim removes the oldest files that rotations have left in a state folder, until the logs of all Spaces together have at most
// limit bytes. The files that are written now stay. It returns the bytes that it has removed.
func Trim(state string, limit int64) (removed int64, err error) {
	type file struct {
		path    string
		size    int64
		changed time.Time
	}
	var older []file
	var total int64
	for _, kind := range []Kind{Run, Build} {
		paths, _ := filepath.Glob(Path(state, "*", kind)) // the pattern is well formed
		for _, path := range paths {
			info, statErr := os.Stat(path)
			if statErr != nil {
				continue // rotated or removed meanwhile
			}
			total += info.Size()
			if isBackup(strings.TrimSuffix(filepath.Base(path), ".log")) {
				older = append(older, file{path, info.Size(), info.ModTime()})
			}
		}
	}
	slices.SortFunc(older, func(a, b file) int { return a.changed.Compare(b.changed) })
	for _, one := range older {
		if total-removed <= limit {
			break
		}
		if err := os.Remove(one.path); err != nil {
			return removed, fmt.Errorf("remove an old log: %w", err)
		}
		removed += one.size
	}
	return removed, nil
}
