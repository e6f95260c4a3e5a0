package host

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"spacehost/internal/build"
	"spacehost/internal/printable"
)

// screen prints whole lines for scripts and for the operator. Lines of different goroutines never mix. Control characters
// are removed from all of them: a Space could use them to write over the operator's terminal.
type screen struct {
	mu    sync.Mutex
	out   io.Writer // the ready lines, which scripts read
	notes io.Writer // everything else, for the operator
}

// newScreen keeps stdout for the ready line if a script reads it.
func newScreen(readyJSON bool, stdout, stderr io.Writer) *screen {
	if readyJSON {
		return &screen{out: stdout, notes: stderr}
	}
	return &screen{out: stdout, notes: stdout}
}

func (s *screen) line(w io.Writer, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(w, printable.Text(text)) // a closed terminal cannot be reported anywhere
}

func (s *screen) ready(text string) { s.line(s.out, text) }

func (s *screen) note(text string) { s.line(s.notes, text) }

// space shows a line that a Space printed.
func (s *screen) space(name, text string) { s.line(s.notes, name+" | "+text) }

// step shows one step of a build, when it starts and when it is done.
func (s *screen) step(step build.Step) {
	text := fmt.Sprintf("[%d/%d] %s", step.Index, step.Total, step.Text)
	switch step.State {
	case build.Started:
		s.note(text + " ...")
	case build.Finished:
		s.note(fmt.Sprintf("%s: done in %.1f s", text, step.Took.Seconds()))
	default:
		s.note(fmt.Sprintf("%s: %s", text, step.State))
	}
}

// openLog opens the host's log, written as JSON lines. Level info has one line per state change, so that the log shows the
// states of every Event and lease.
func openLog(path string) (*zap.Logger, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make log folder: %w; choose another with --state", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w; choose another folder with --state", err)
	}
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder.EncodeDuration = zapcore.StringDurationEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoder), zapcore.Lock(logFile{printable.NewJSONWriter(file), file}), zapcore.InfoLevel)
	return zap.New(core, zap.WithClock(zapcore.DefaultClock)), nil
}

// logFile is a file whose text is safe for the terminal that shows it. It implements zapcore.WriteSyncer.
type logFile struct {
	io.Writer
	file *os.File
}

// Sync flushes the file.
func (l logFile) Sync() error { return l.file.Sync() }
