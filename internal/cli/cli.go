// Package cli is the command line of spacehost.
//
// # Terms
//
// A command of the group "host" starts one (run, serve). A client command sends one request to the control socket of a
// running host and prints its answer (gpu, lease, quota, user, token, space, clock, ...). The remaining commands work
// on files alone (db, doctor, token hash, version).
//
// # Types
//
// Main and Run execute one command line; cmd/spacehost calls Main. clientCommand builds every client command from its
// texts, its request and its table, so that --state, --json and the exit codes are the same everywhere. To add a client
// command, define its request and response in internal/control, then add a clientCommand and list it in newRoot.
//
// # Failure handling
//
// Wrong usage is a usageError and exit code 2. A request that the host refuses prints the host's own sentence. ExitCode
// constants list the other codes.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"spacehost/internal/config"
	"spacehost/internal/host"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Main runs one command line and returns its exit code. A first SIGINT or SIGTERM ends in order, a second at once.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from now on a second signal has its default effect
	return Run(ctx, args, stdout, stderr)
}

// Run runs one command line until ctx ends, and returns its exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		host.Explain(stderr, "spacehost", err)
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
	ExitHost    = 1 // the host itself: state folder, address, database, GPUs
	ExitUsage   = 2
	ExitConfig  = 3 // the Space's configuration (CONFIG_ERROR, NO_APP_FILE)
	ExitBuild   = 4 // its environment (BUILD_ERROR)
	ExitRuntime = 5 // its app (RUNTIME_ERROR)
	ExitServe   = 6 // the configuration file of `serve`
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
	var wrongUsage *usageError
	var file *config.FileError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrongUsage):
		return ExitUsage
	case errors.As(err, &file):
		return ExitServe
	}
	switch host.CauseOf(err) {
	case host.CauseConfig:
		return ExitConfig
	case host.CauseBuild:
		return ExitBuild
	case host.CauseRuntime:
		return ExitRuntime
	}
	return ExitHost
}
