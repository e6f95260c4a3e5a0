package spacelog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// Read returns the lines of a log that are not older than since, at most the last max; 0: all. Its error is a *NotFoundError, or
// that of a file.
func Read(state, space string, kind Kind, since time.Time, most int) ([]Line, error) {
	lines, f, err := open(state, space, kind, since, most)
	if f != nil {
		f.close()
	}
	return lines, err
}

// open reads a log, and leaves its current file open behind its last line.
func open(state, space string, kind Kind, since time.Time, most int) ([]Line, *follower, error) {
	paths := files(state, space, kind)
	if len(paths) == 0 {
		return nil, nil, &NotFoundError{space, kind}
	}
	var lines []Line
	f := &follower{path: Path(state, space, kind)}
	for _, path := range paths {
		if err := f.open(path); errors.Is(err, os.ErrNotExist) {
			continue // removed by a rotation meanwhile
		} else if err != nil {
			return nil, nil, err
		}
		if err := f.lines(func(l Line) error {
			if !l.Time.Before(since) {
				lines = append(lines, l)
			}
			return nil
		}); err != nil {
			f.close()
			return nil, nil, err
		}
		if most > 0 && len(lines) > most {
			lines = append(lines[:0], lines[len(lines)-most:]...)
		}
	}
	return lines, f, nil
}

// followInterval is the interval of the looks for further lines.
const followInterval = 200 * time.Millisecond

// Follow passes what Read returns to each, then every further line, until ctx ends or each returns an error. A log that does not
// exist yet is awaited.
func Follow(ctx context.Context, state, space string, kind Kind, since time.Time, most int, each func(Line) error) error {
	lines, f, err := open(state, space, kind, since, most)
	if missing := (*NotFoundError)(nil); errors.As(err, &missing) {
		f = &follower{path: Path(state, space, kind)}
	} else if err != nil {
		return err
	}
	defer f.close()
	for _, l := range lines {
		if err := each(l); err != nil {
			return err
		}
	}
	again := time.NewTicker(followInterval)
	defer again.Stop()
	for {
		if err := f.more(each); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// follower reads one file from its beginning. A rotation renames the file and creates another one at path.
type follower struct {
	path    string
	file    *os.File
	reader  *bufio.Reader
	partial []byte
}

func (f *follower) open(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	f.close()
	f.file, f.reader, f.partial = file, bufio.NewReaderSize(file, 64<<10), nil
	return nil
}

func (f *follower) close() {
	if f.file != nil {
		f.file.Close()
	}
}

// lines passes on the whole lines that the file has.
func (f *follower) lines(each func(Line) error) error {
	for {
		text, err := f.reader.ReadSlice('\n')
		f.partial = append(f.partial, text...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		line, ok := parse(string(bytes.TrimSuffix(f.partial, []byte("\n"))))
		f.partial = f.partial[:0]
		if !ok {
			continue
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

// more passes on further lines, also after a rotation.
func (f *follower) more(each func(Line) error) error {
	for {
		if f.file != nil {
			if err := f.lines(each); err != nil {
				return err
			}
		}
		now, err := os.Stat(f.path)
		if err != nil {
			return nil // a rotation is under way, or there is no log yet
		}
		if f.file != nil {
			if read, err := f.file.Stat(); err == nil && os.SameFile(now, read) {
				return nil
			}
			if err := f.lines(each); err != nil { // written between the look and the rotation
				return err
			}
		}
		if err := f.open(f.path); err != nil {
			return nil // the next look tries again
		}
	}
}
