package host

import (
	"errors"
	"fmt"
	"io"

	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/printable"
	"spacehost/internal/space"
	"spacehost/worker"
)

// Cause is the part of a start that failed.
type Cause int

// The causes of a failed start.
const (
	CauseHost    Cause = iota // the host itself: state folder, address, database, GPUs
	CauseConfig               // the Space's configuration (CONFIG_ERROR, NO_APP_FILE)
	CauseBuild                // the Space's environment (BUILD_ERROR)
	CauseRuntime              // the Space's app (RUNTIME_ERROR)
)

// CauseOf returns the part of a start that err is about.
func CauseOf(err error) Cause {
	var configuration *space.ConfigError
	var folder *space.FolderError
	var app *space.AppFileError
	var name *config.NameError
	var built *build.Error
	var start *worker.StartError
	switch {
	case errors.As(err, &configuration), errors.As(err, &folder), errors.As(err, &app), errors.As(err, &name):
		return CauseConfig
	case errors.As(err, &built):
		return CauseBuild
	case errors.As(err, &start):
		return CauseRuntime
	}
	return CauseHost
}

// stageOf returns the stage that the Hub would show for a Space with this error; "" if the Space is not the cause.
func stageOf(err error) space.Stage {
	switch CauseOf(err) {
	case CauseConfig:
		return space.StageOf(err)
	case CauseBuild:
		return space.BuildFailed
	case CauseRuntime:
		return space.RuntimeFailed
	}
	return ""
}

// Explain prints an error for the operator: the stage, the message, the last lines of output and the next step. subject
// is the program or the Space. onScreen means that w is where the Space's output was shown: it is not repeated.
func Explain(w io.Writer, subject string, err error, onScreen bool) {
	message := err.Error()
	if stage := stageOf(err); stage != "" {
		message = fmt.Sprintf("%s: %s", stage, message)
	}
	fmt.Fprintf(w, "%s: %s\n", subject, message)
	var built *build.Error
	if errors.As(err, &built) {
		showTail(w, built.Tail)
	}
	var start *worker.StartError
	if errors.As(err, &start) {
		if !onScreen || !start.Shown {
			showTail(w, start.Tail)
		}
		if start.Next != "" {
			fmt.Fprintln(w, "  "+start.Next)
		}
	}
}

// shownLines is enough for the end of a Python traceback.
const shownLines = 20

func showTail(w io.Writer, lines []string) {
	for _, line := range lines[max(0, len(lines)-shownLines):] {
		fmt.Fprintln(w, "  |", printable.Text(line))
	}
}
