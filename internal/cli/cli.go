// Package cli is the command line of spacehost.
//
// # Terms
//
// `run` and `serve` start a host, and `agent` starts the parent of its Spaces, or the agent of a node. A client command sends one request to the control socket of a running host and prints
// its answer (gpu, lease, quota, node, user, token, space, clock, ...). The other commands work on files and on this machine
// alone (check, explain-rule, db, doctor, token hash, version). Package checkcli has check and explain-rule.
//
// # Types
//
// Main and Run execute one command line; cmd/spacehost calls Main. clientCommand builds every client command from its
// texts, its request and its table, so that --state, --json and the exit codes are the same everywhere. To add a client
// command: declare its control.Endpoint with its request and answer types in internal/control, write a clientCommand
// here, list it in NewRoot, and run `make docs`.
//
// # Failure handling
//
// Wrong usage is a usage.Error and exit code 2. If the host refuses a request, the command prints the host's own sentence.
// The other exit codes are the Exit constants.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"spacehost/internal/agent"
	"spacehost/internal/checkcli"
	"spacehost/internal/host"
	"spacehost/internal/nodeagent"
	"spacehost/internal/printable"
	"spacehost/internal/usage"
	"spacehost/internal/version"
	"spacehost/migrations"
)

// Main runs one command line and returns its exit code. The first SIGINT or SIGTERM starts an orderly shutdown. The second ends
// the process at once, except that a host then cuts off running calls (runHost).
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // restores the default effect of a second signal
	return Run(ctx, args, stdout, stderr)
}

// Run runs one command line until it is done or ctx ends, and returns its exit code. It removes control characters from
// everything that it prints, because many answers contain text of Spaces: names of functions, reasons, output.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	same := sameFile(stdout, stderr)
	stdout, stderr = printable.NewWriter(stdout), printable.NewWriter(stderr)
	root := NewRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if _, printed := errors.AsType[*checkcli.FindingsError](err); err != nil && !printed {
		json := command.Flags().Lookup("ready-json") // with it, the output of Spaces goes to stderr
		host.Explain(stderr, "spacehost", err, same || json != nil && json.Value.String() == "true")
	}
	return exitCode(err)
}

// sameFile reports whether both writers lead to one terminal, pipe or file.
func sameFile(a, b io.Writer) bool {
	first, ok := a.(*os.File)
	second, too := b.(*os.File)
	if !ok || !too {
		return false
	}
	one, err := first.Stat()
	other, errToo := second.Stat()
	return err == nil && errToo == nil && os.SameFile(one, other)
}

// NewRoot returns the root command with every subcommand, ready for ExecuteContext. The generator of docs/cli.md reads it too.
func NewRoot() *cobra.Command {
	build := version.Current(migrations.SQLiteVersion())
	root := usage.Root(&cobra.Command{
		Use:   "spacehost",
		Short: "Run a Hugging Face Gradio Space under ZeroGPU's rules, on this machine",
		Long: `spacehost runs an unmodified Hugging Face Gradio Space under ZeroGPU's rules, on this machine:
the same packages, the same limits, the same error texts. GPU seconds are leased per call and
charged to the caller's account. Without an NVIDIA GPU, GPUs are simulated.`,
		Example: `  spacehost run examples/hello-zerogpu     start a Space at http://127.0.0.1:7860
  spacehost serve --config lab.yaml        serve several Spaces and people from a configuration file
  spacehost gpu                            in another terminal: list the GPUs and their leases
  spacehost lease                          list waiting and running calls
  spacehost quota                          list accounts and their seconds left
  spacehost explain local                  explain refused calls, and when they will fit
  spacehost check                          find what would fail on ZeroGPU, without starting the Space
  spacehost doctor                         check what this machine lacks, and how to fix it`,
		Version: build.String(),
	})
	gpus := newGPU()
	leases := newLease()
	leases.AddCommand(newLeaseEnd())
	gpus.AddCommand(newDrain(), newReturn(), newRescan(), newFault())
	root.AddCommand(newRun(), newServe(), newAgent(agent.Serve, nodeagent.Run), gpus, leases, newQuota(), newLedger(), newExplain(), newUsage(), newClock(), newUser(), newToken(), newAudit(), newSpace(), newNode(), newReload(), newWebhook(), newLogs(), newLogin(), newDB(), newPrune(), newDoctor(), version.Command(build))
	root.AddCommand(checkcli.New(checkConfig(build.Version))...)
	return root
}

func printf(c *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintf(c.OutOrStdout(), format+"\n", args...)
	return err
}
