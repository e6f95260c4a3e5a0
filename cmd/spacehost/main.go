// Command spacehost runs an unmodified Hugging Face Gradio Space under ZeroGPU's rules, on one machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"spacehost/internal/build"
	"spacehost/internal/space"
	"spacehost/worker"
)

func main() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) }

// Main runs one command line and returns its exit code. A first SIGINT or SIGTERM ends in order, a second at once.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from now on a second signal has its default effect
	return run(ctx, args, stdout, stderr)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		explain(stderr, "spacehost", err)
	}
	return exitCode(err)
}

// version is set by the release's linker flags.
var version = "dev"

func newRoot() *cobra.Command {
	root := family(&cobra.Command{
		Use:   "spacehost",
		Short: "Run a Hugging Face Gradio Space under ZeroGPU's rules, on this machine",
		Long: `spacehost runs an unmodified Hugging Face Gradio Space under ZeroGPU's rules, on this machine:
the same packages, the same limits, the same error texts. GPU seconds are leased per call and
recorded against the caller; without an NVIDIA GPU, GPUs are simulated.`,
		Example: `  spacehost run examples/hello-zerogpu     start a Space at http://127.0.0.1:7860
  spacehost serve --config lab.yaml        several Spaces and people, as a file says
  spacehost gpu                            in another terminal: the GPUs, and who is on them
  spacehost lease                          who waits for a GPU, and who holds one until when
  spacehost quota                          who has how many seconds left
  spacehost explain local                  why a call was refused, and when it would not be
  spacehost doctor                         what this machine lacks, and what to do`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	})
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return &usageError{c, flagError(err)} })
	gpus := newGPU()
	gpus.AddCommand(newDrain(), newReturn(), newFault())
	root.AddCommand(newRun(), newServe(), gpus, newLease(), newQuota(), newLedger(), newExplain(), newClock(), newUser(), newToken(), newSpace(), newLogin(), newDB(), newDoctor())
	return root
}

// Exit codes; `spacehost run --help` and `spacehost serve --help` list them.
const (
	exitHost    = 1 // the host itself: state folder, address, database, GPUs
	exitUsage   = 2
	exitConfig  = 3 // the Space's configuration (CONFIG_ERROR, NO_APP_FILE)
	exitBuild   = 4 // its environment (BUILD_ERROR)
	exitRuntime = 5 // its app (RUNTIME_ERROR)
	exitServe   = 6 // the configuration file of `serve`
)

// usageError is a mistake in the command line.
type usageError struct {
	command *cobra.Command
	err     error
}

func (e *usageError) Error() string {
	return fmt.Sprintf("%v; see `%s --help`", e.err, e.command.CommandPath())
}

func (e *usageError) Unwrap() error { return e.err }

// flagError says in words what pflag says in those of Go's parsers.
func flagError(err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if text := unknown.GetSpecifiedShortnames(); text != "" && strings.Contains("0123456789.", text[:1]) {
			return fmt.Errorf("-%s is below 0, and no number or time is that here", text)
		}
	}
	wrong, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	name, text := wrong.GetFlag().Name, wrong.GetValue()
	switch wrong.GetFlag().Value.Type() {
	case "int":
		return fmt.Errorf("--%s %.40q is not a whole number", name, text)
	case "duration":
		return fmt.Errorf("--%s %.40q is no duration: say 90s, 5m or 1h", name, text)
	case "bool":
		return fmt.Errorf("--%s=%.40s: say --%s alone, or --%s=false", name, text, name, name)
	}
	return err
}

func exitCode(err error) int {
	var usage *usageError
	var config *space.ConfigError
	var folder *space.FolderError
	var app *space.AppFileError
	var name *nameError
	var file *configError
	var built *build.Error
	var start *worker.StartError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &config), errors.As(err, &folder), errors.As(err, &app), errors.As(err, &name):
		return exitConfig
	case errors.As(err, &file):
		return exitServe
	case errors.As(err, &built):
		return exitBuild
	case errors.As(err, &start):
		return exitRuntime
	}
	return exitHost
}

// stageOf is where the Hub's pages would show a Space that failed so; "" where the Space is not to blame.
func stageOf(err error) space.Stage {
	switch exitCode(err) {
	case exitConfig:
		return space.StageOf(err)
	case exitBuild:
		return space.BuildFailed
	case exitRuntime:
		return space.RuntimeFailed
	}
	return ""
}

// explain says what happened, in a sentence after the stage, then what was printed last and the next step.
func explain(w io.Writer, who string, err error) {
	sentence := err.Error()
	if stage := stageOf(err); stage != "" {
		sentence = fmt.Sprintf("%s: %s", stage, sentence)
	}
	fmt.Fprintf(w, "%s: %s\n", who, sentence)
	var built *build.Error
	if errors.As(err, &built) {
		showTail(w, built.Tail)
	}
	var start *worker.StartError
	if errors.As(err, &start) {
		showTail(w, start.Tail)
		if start.Next != "" {
			fmt.Fprintln(w, "  "+start.Next)
		}
	}
}

// shownLines are enough to hold a traceback's last words.
const shownLines = 20

func showTail(w io.Writer, lines []string) {
	for _, line := range lines[max(0, len(lines)-shownLines):] {
		fmt.Fprintln(w, "  |", strings.Map(printable, line))
	}
}
