// Package spacelog keeps what a Space and its builds print in files of the state folder, and reads it.
//
// # Terms
//
//   - Kind: which log of a Space: run or build.
//   - Stream: where a line comes from: stdout, stderr, build, or host for a sentence of the host.
//   - Line: a time in RFC 3339 (UTC, milliseconds), a stream and a text, separated by one space each.
//
// # Types
//
// The host writes with a Writer per Space and Kind, and its own log with OpenHostLog. The command `spacehost logs` reads the files, so it works without a running
// host: List names them, Read returns the last lines, and Follow continues with the next ones. The console reads a Page at a time
// (ReadPage). All of them read backwards from the end, so a large log costs what is shown of it.
//
// # Failures
//
// Files are rotated by size and age (gopkg.in/natefinch/lumberjack.v2), so a Space cannot fill the disk with its output. A
// write that fails, for example on a full disk, is dropped: the Space and its build continue. Control characters of a Space, and
// whole control sequences such as colours, are removed before they reach a file.
package spacelog

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"

	"spacehost/internal/lazyregexp"
	"spacehost/internal/printable"
)

// Kind is one of the two logs of a Space.
type Kind string

// The logs of a Space.
const (
	Run   Kind = "run"
	Build Kind = "build"
)

// Host is the stream of the host's sentences, BuildTool that of the tools of a build.
const (
	Host      = "host"
	BuildTool = "build"
)

const (
	// DefaultSize bounds the two logs of a Space together.
	DefaultSize = 80 << 20
	backups     = 3
	maxDays     = 30
)

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// Line is one line of a log.
type Line struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"`
	Text   string    `json:"text"`
}

func (l Line) String() string {
	return l.Time.UTC().Format(timeFormat) + " " + l.Stream + " " + l.Text
}

// parse returns false for a line that no Writer has written, such as the rest of one that was cut by a crash.
func parse(text string) (Line, bool) {
	at, rest, _ := strings.Cut(text, " ")
	stream, text, ok := strings.Cut(rest, " ")
	t, err := time.Parse(timeFormat, at)
	return Line{t, stream, text}, ok && err == nil
}

// Path returns the file of a log that is written now. Older lines are in files beside it.
func Path(state, space string, kind Kind) string {
	return filepath.Join(state, "logs", string(kind)+"-"+space+".log")
}

// Writer appends lines to a log. It is safe for concurrent use. Its file is opened by the first line. A nil Writer drops
// everything.
type Writer struct {
	stream string // of Write
	now    func() time.Time

	mu      sync.Mutex
	file    lumberjack.Logger
	partial []byte // of Write: the beginning of a line
}

// NewWriter returns a Writer for a log. now is the wall clock; nil: that of this machine.
func NewWriter(state, space string, kind Kind, now func() time.Time) *Writer {
	if now == nil {
		now = time.Now
	}
	w := &Writer{stream: BuildTool, now: now}
	w.file.Filename, w.file.MaxBackups, w.file.MaxAge = Path(state, space, kind), backups, maxDays
	w.SetSize(0)
	return w
}

// SetSize bounds the log to half of size: a Space has two logs. 0 means DefaultSize.
func (w *Writer) SetSize(size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.file.MaxSize = megabytesOf(cmp.Or(size, DefaultSize)/2, backups)
}

// Print appends a text of one or several lines.
func (w *Writer) Print(stream, text string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
		w.line(stream, line)
	}
}

// escapes are complete control sequences, such as the colours of a progress bar (ECMA-48, 5.4). Without them, the rest of each would
// stay in the text.
var escapes = lazyregexp.New(`\x1b\[[0-?]*[ -/]*[@-~]`)

// line is called with the lock held.
func (w *Writer) line(stream, text string) {
	line := Line{w.now(), stream, strings.ReplaceAll(printable.Text(escapes.ReplaceAllString(text, "")), "\n", " ")}
	_, _ = w.file.Write([]byte(line.String() + "\n")) // see "Failures"
}

// maxPartial bounds what is kept of a line whose end has not been written.
const maxPartial = 64 << 10

// Write implements io.Writer for the output of the tools of a build. It never fails.
func (w *Writer) Write(p []byte) (int, error) {
	if w == nil {
		return len(p), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partial = append(w.partial, p...)
	for {
		end := slices.Index(w.partial, '\n')
		if end < 0 && len(w.partial) < maxPartial {
			return len(p), nil
		}
		if end < 0 {
			end = len(w.partial) - 1
		}
		w.line(w.stream, strings.TrimRight(string(w.partial[:end+1]), "\r\n"))
		w.partial = slices.Delete(w.partial, 0, end+1)
	}
}

// Close writes the rest of a line and closes the file. It may be called twice; a later line opens the file again.
func (w *Writer) Close() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.partial) > 0 {
		w.line(w.stream, string(w.partial))
		w.partial = nil
	}
	_ = w.file.Close()
}

// Found is a log in a state folder.
type Found struct {
	Space   string
	Changed time.Time
}

// List returns the Spaces with a log of a kind, the one that was written last first.
func List(state string, kind Kind) ([]Found, error) {
	var found []Found
	paths, _ := filepath.Glob(Path(state, "*", kind)) // the pattern is well formed
	for _, path := range paths {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), string(kind)+"-"), ".log")
		info, err := os.Stat(path)
		if err != nil || isBackup(name) {
			continue
		}
		found = append(found, Found{name, info.ModTime()})
	}
	if _, err := os.Stat(state); err != nil {
		return nil, fmt.Errorf("read the logs: %w", err)
	}
	slices.SortFunc(found, func(a, b Found) int { return b.Changed.Compare(a.Changed) })
	return found, nil
}

const backupFormat = "2006-01-02T15-04-05.000" // of lumberjack

// isBackup reports whether a name ends with the time of a rotation.
func isBackup(name string) bool {
	at := len(name) - len(backupFormat)
	if at < 1 || name[at-1] != '-' {
		return false
	}
	_, err := time.Parse(backupFormat, name[at:])
	return err == nil
}

// files returns the files of a log, the oldest first.
func files(state, space string, kind Kind) []string {
	current := Path(state, space, kind)
	older, _ := filepath.Glob(strings.TrimSuffix(current, ".log") + "-*.log")
	older = slices.DeleteFunc(older, func(path string) bool {
		at, ok := strings.CutPrefix(strings.TrimSuffix(path, ".log"), strings.TrimSuffix(current, ".log")+"-")
		_, err := time.Parse(backupFormat, at)
		return !ok || err != nil
	})
	slices.Sort(older) // by time
	if _, err := os.Stat(current); err == nil {
		older = append(older, current)
	}
	return older
}

// NotFoundError reports that a Space has no log.
type NotFoundError struct {
	Space string
	Kind  Kind
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("Space %q has no %s log in this state folder", e.Space, e.Kind)
}
