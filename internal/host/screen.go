package host

import (
	"fmt"
	"io"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/printable"
	"spacehost/internal/spacelog"
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
// states of every Event and lease. close closes the file.
func openLog(path string, bounds config.Log) (log *zap.Logger, close func(), err error) {
	file, err := spacelog.OpenHostLog(path, bounds.Size, bounds.Keep)
	if err != nil {
		return nil, nil, err
	}
	return NewLogger(file), func() { _ = file.Close() }, nil
}

// NewLogger returns a logger that writes JSON lines from level info on to w, in the format of the host's log: times in RFC 3339,
// durations as text. It may be used concurrently. An error of w is not reported.
func NewLogger(w io.Writer) *zap.Logger {
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder.EncodeDuration = zapcore.StringDurationEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoder), zapcore.Lock(zapcore.AddSync(printable.NewJSONWriter(w))), zapcore.InfoLevel)
	return zap.New(core, zap.WithClock(zapcore.DefaultClock))
}
