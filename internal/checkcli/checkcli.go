// Package checkcli is the command line of `spacehost check` and `spacehost explain-rule`, on every system.
//
// # Types
//
// New returns the commands for a root command. On Linux package cli adds them to the others and gives Config its Stages; on
// macOS and Windows cmd/spacehost has no other commands (Root). Stages performs --run and --call, which need a host.
//
// # Failure handling
//
// Wrong usage is a usage.Error. Findings at or above --fail-on are a *FindingsError with the exit code; the report is
// printed before. A failed build or start is the error of Stages, after the report.
package checkcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"spacehost/gpu"
	"spacehost/internal/check"
	"spacehost/internal/printable"
	"spacehost/internal/space"
	"spacehost/internal/usage"
	"spacehost/internal/version"
	"spacehost/quota"
)

// Config is what a system adds to the commands. The zero Config has stage read alone.
type Config struct {
	// Stages performs --run and --call. nil: the commands do not have these flags.
	Stages Stages
	// Environment returns the Python of the Space's environment in a state folder ("": the default folder), if it has been
	// built; "" if it has not. nil: this system has no environments, and the command no --state.
	Environment func(state, dir string) string
	// ReadTiers reads the value of --quota. nil: quota.Presets.
	ReadTiers func(text string) (quota.Tiers, error)
	// Clones returns the folder for Spaces of the Hub. nil: one in the user's cache folder.
	Clones func(state string) (string, error)
	// Pins returns the packages of the Space's environment, nil if it has not been built. gradio is the value of --gradio.
	// nil: the commands do not have --write-lock and --like.
	Pins func(ctx context.Context, state, dir, gradio string) (*check.Pins, error)
	// StageOf returns the stage that the Hub would show for an error of Stages; "" for an error of the host.
	StageOf func(error) string
	// Version is the version of this program, for SARIF.
	Version string
}

// Stages performs the stages that need a host.
type Stages interface {
	// Flags adds the flags of these stages. It is called once, before the command line is parsed.
	Flags(flags *pflag.FlagSet)
	// Check finds mistakes in these flags, before anything is read.
	Check() error
	// Run performs stage run, and with o.Call stage call, and adds their Facts, their LookedAt and their Performed to the
	// report. It is called if the Space may be started (Report.Stop is nil). Its error is that of `spacehost run`: a build
	// or a start that failed; what was found until then is in the report.
	Run(ctx context.Context, dir string, o StageOptions, report *check.Report) error
}

// StageOptions are the values of the common flags for Stages.
type StageOptions struct {
	Call     bool   // also stage call
	State    string // --state; "": the default folder
	Python   string // --python; "": the environment that README.md asks for
	Gradio   string // instead of sdk_version; "": that one
	CPU      bool   // the start has no GPU
	Quota    string // a preset or a file
	Limits   check.DurationLimits
	Hardware string    // a word of gpu.KnownHardware, or gpu.AutoHardware
	Progress io.Writer // for lines about progress: standard error
}

// FindingsError reports that a check has failed. Its report is printed already.
type FindingsError struct {
	Code  int // the exit code: usage.ExitFindings, or usage.ExitConfig for a Space that `spacehost run` refuses
	Count int // findings at or above --fail-on
}

func (e *FindingsError) Error() string {
	if e.Code == usage.ExitConfig {
		return "the Space's configuration is wrong, see above"
	}
	return fmt.Sprintf("%d findings fail the check, see above", e.Count)
}

// New returns the commands check and explain-rule.
func New(c Config) []*cobra.Command { return []*cobra.Command{newCheck(c), newExplainRule()} }

// Main is the whole program on a system without a host. It runs one command line and returns its exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	root := Root()
	root.SetArgs(args)
	root.SetOut(printable.NewWriter(stdout))
	root.SetErr(printable.NewWriter(stderr))
	err := root.ExecuteContext(ctx)
	if _, printed := errors.AsType[*FindingsError](err); err != nil && !printed {
		fmt.Fprintln(root.ErrOrStderr(), "spacehost:", err)
	}
	return exitCode(err)
}

// Root returns the root command of a system without a host.
func Root() *cobra.Command {
	build := version.Current("")
	root := usage.Root(&cobra.Command{
		Use:   "spacehost",
		Short: "Find what would fail on ZeroGPU in a Hugging Face Space",
		Long: `spacehost check finds what would fail on ZeroGPU in the files of a Gradio Space. On this system spacehost has no other
commands: everything that starts a Space needs Linux.`,
		Example: "  spacehost check\n  spacehost explain-rule F315",
		Version: build.String(),
	})
	root.AddCommand(New(Config{Version: build.Version})...)
	root.AddCommand(version.Command(build))
	return root
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[*usage.Error](err); ok {
		return usage.ExitUsage
	}
	if findings, ok := errors.AsType[*FindingsError](err); ok {
		return findings.Code
	}
	if _, ok := errors.AsType[*space.FolderError](err); ok {
		return usage.ExitConfig
	}
	if _, ok := errors.AsType[*space.ConfigError](err); ok {
		return usage.ExitConfig
	}
	return usage.ExitHost
}

// hardware returns the GPU of a word; auto is ZeroGPU's newest.
func hardware(word string) gpu.Hardware {
	if word == gpu.AutoHardware {
		word = gpu.NewestHardware
	}
	return gpu.KnownHardware[word]
}
