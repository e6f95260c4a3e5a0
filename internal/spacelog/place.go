package spacelog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// place is a position in a log: a file and an offset in it. A rotation renames files, so a file is known by the time of its first
// line. The zero value is before the first line.
type place struct {
	file   int64 // milliseconds
	offset int64
}

func (p place) String() string { return fmt.Sprintf("%d-%d", p.file, p.offset) }

func parsePlace(text string) (p place, err error) {
	file, offset, ok := strings.Cut(text, "-")
	var bad error
	p.file, err = strconv.ParseInt(file, 10, 64)
	p.offset, bad = strconv.ParseInt(offset, 10, 64)
	if !ok || err != nil || bad != nil || p.offset < 0 {
		return place{}, &PlaceError{text}
	}
	return p, nil
}

// PlaceError reports a position that no Page has had.
type PlaceError struct{ Text string }

func (e *PlaceError) Error() string {
	return fmt.Sprintf("%.60q is no position in a log; use `before` or `after` of an answer", e.Text)
}

// openedLog is a log with all its files open, the oldest first.
type openedLog struct{ files []openedFile }

type openedFile struct {
	*os.File
	id   int64 // place.file
	size int64 // up to the end of the last whole line
}

// openLog opens the files of a log. Its error is a *NotFoundError, or that of a file.
func openLog(state, space string, kind Kind) (*openedLog, error) {
	for tries := 0; ; tries++ {
		paths := files(state, space, kind)
		if len(paths) == 0 {
			return nil, &NotFoundError{space, kind}
		}
		l := &openedLog{}
		for _, path := range paths {
			if err := l.add(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				l.close()
				return nil, err
			}
		}
		if slices.Equal(paths, files(state, space, kind)) || tries == 10 {
			return l, nil
		}
		l.close() // a rotation has renamed one meanwhile
	}
}

// add opens a file unless it has no whole line.
func (l *openedLog) add(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	one := openedFile{File: file}
	info, err := file.Stat()
	if err == nil {
		one.size, err = one.lastLineEnd(info.Size())
	}
	if err == nil && one.size > 0 {
		one.id, err = one.firstTime()
	}
	if err != nil || one.size == 0 {
		file.Close()
		return err
	}
	l.files = append(l.files, one)
	return nil
}

func (l *openedLog) close() {
	for _, f := range l.files {
		f.Close()
	}
}

// firstTime returns the time of the first line in milliseconds, 0 if it has none.
func (f openedFile) firstTime() (int64, error) {
	text := make([]byte, len(timeFormat))
	n, err := f.ReadAt(text, 0)
	if err != nil && err != io.EOF {
		return 0, err
	}
	at, _, _ := strings.Cut(string(text[:n]), " ")
	t, err := time.Parse(timeFormat, at)
	if err != nil {
		return 0, nil
	}
	return t.UnixMilli(), nil
}

const chunk = 64 << 10

// lastLineEnd returns the offset behind the last line feed before end.
func (f openedFile) lastLineEnd(end int64) (int64, error) {
	text := make([]byte, chunk)
	for end > 0 {
		from := max(0, end-chunk)
		n, err := f.ReadAt(text[:end-from], from)
		if err != nil && err != io.EOF {
			return 0, err
		}
		if at := bytes.LastIndexByte(text[:n], '\n'); at >= 0 {
			return from + int64(at) + 1, nil
		}
		end = from
	}
	return 0, nil
}

// end is the place behind the last line.
func (l *openedLog) end() place {
	if len(l.files) == 0 {
		return place{}
	}
	last := l.files[len(l.files)-1]
	return place{last.id, last.size}
}

// find returns the index of a place's file as a place in this log. gone means that the file was removed: the place is then that of
// the oldest line.
func (l *openedLog) find(p place) (found place, gone bool) {
	for _, f := range l.files {
		if f.id == p.file && p.offset <= f.size {
			return p, false
		}
	}
	if len(l.files) == 0 {
		return place{}, p != place{}
	}
	return place{l.files[0].id, 0}, p != place{}
}

// index returns the index of the file of a place that find has returned.
func (l *openedLog) index(p place) int {
	return max(0, slices.IndexFunc(l.files, func(f openedFile) bool { return f.id == p.file && p.offset <= f.size }))
}

// forward passes on the lines from a place on, each with the place behind it, until each returns false. It returns the place behind
// the last line that it has passed on.
func (l *openedLog) forward(from place, each func(Line, place) bool) (place, error) {
	at := from
	for i := l.index(from); i < len(l.files); i++ {
		f := l.files[i]
		if f.id != at.file {
			at = place{f.id, 0}
		}
		lines := bufio.NewReaderSize(io.NewSectionReader(f, at.offset, f.size-at.offset), chunk)
		for {
			text, err := lines.ReadBytes('\n')
			if err == io.EOF {
				break
			}
			if err != nil {
				return at, err
			}
			at.offset += int64(len(text))
			if line, ok := parse(string(text[:len(text)-1])); ok && !each(line, at) {
				return at, nil
			}
		}
	}
	return at, nil
}

// backward passes on the lines before a place, the last one first, each with the place of its beginning, until each returns false. It
// returns the place of the last line that it has passed on.
func (l *openedLog) backward(from place, each func(Line, place) bool) (place, error) {
	at := from
	for i := l.index(from); i >= 0 && i < len(l.files); i-- {
		f := l.files[i]
		if f.id != at.file {
			at = place{f.id, f.size}
		}
		more, err := f.backward(&at, each)
		if err != nil || !more {
			return at, err
		}
	}
	return at, nil
}

// backward reads one file. at is moved with each line.
func (f openedFile) backward(at *place, each func(Line, place) bool) (more bool, err error) {
	var rest []byte // the end of a line whose beginning was not read yet
	text := make([]byte, chunk)
	for end := at.offset; end > 0; {
		from := max(0, end-chunk)
		n, err := f.ReadAt(text[:end-from], from)
		if err != nil && err != io.EOF {
			return false, err
		}
		part := append(slices.Clone(text[:n]), rest...)
		end = from
		for {
			body := bytes.TrimSuffix(part, []byte("\n"))
			feed := bytes.LastIndexByte(body, '\n')
			if feed < 0 && from > 0 || len(part) == 0 {
				break
			}
			at.offset -= int64(len(part) - feed - 1)
			line, ok := parse(string(body[feed+1:]))
			part = part[:feed+1]
			if ok && !each(line, *at) {
				return false, nil
			}
		}
		rest = part
	}
	return true, nil
}
