package host

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"spacehost/internal/build"
)

// screen prints whole lines for scripts and for the operator. Lines of different goroutines never mix.
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
	fmt.Fprintln(w, text) // a closed terminal cannot be reported anywhere
}

func (s *screen) ready(text string) { s.line(s.out, text) }

func (s *screen) note(text string) { s.line(s.notes, text) }

// space shows a line that a Space printed, without control characters.
func (s *screen) space(name, text string) {
	s.line(s.notes, name+" | "+Printable(text))
}

// Printable returns text without control characters, which a Space could use to write over the operator's terminal.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

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
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoder), zapcore.AddSync(file), zapcore.InfoLevel)
	return zap.New(core, zap.WithClock(zapcore.DefaultClock)), nil
}
