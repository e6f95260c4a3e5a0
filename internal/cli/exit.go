package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"spacehost/internal/config"
	"spacehost/internal/host"
)

// Exit codes. `spacehost run --help` and `spacehost serve --help` list them.
const (
	ExitHost    = 1 // the host itself: state folder, address, database, GPUs
	ExitUsage   = 2
	ExitConfig  = 3 // the Space's configuration (CONFIG_ERROR, NO_APP_FILE)
	ExitBuild   = 4 // its environment (BUILD_ERROR)
	ExitRuntime = 5 // its app (RUNTIME_ERROR)
	ExitServe   = 6 // the configuration file of `serve`
)

func exitCode(err error) int {
	var wrongUsage *usageError
	var file *config.FileError
	var refused *refusedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrongUsage):
		return ExitUsage
	case errors.As(err, &file), errors.As(err, &refused) && refused.status == http.StatusUnprocessableEntity, errors.As(err, new(*previewError)):
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

// usageError is a mistake in the command line.
type usageError struct {
	command *cobra.Command
	err     error
}

func (e *usageError) Error() string {
	return fmt.Sprintf("%v; see `%s --help`", e.err, e.command.CommandPath())
}

func (e *usageError) Unwrap() error { return e.err }

// usage turns the wrong number of arguments into a usageError, for its exit code.
func usage(args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if err := args(c, given); err != nil {
			return &usageError{c, err}
		}
		return nil
	}
}

// flagError rewords the errors of pflag, which quote Go's parsers.
func flagError(err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if text := unknown.GetSpecifiedShortnames(); text != "" && strings.Contains("0123456789.", text[:1]) {
			return fmt.Errorf("-%s: negative values are not allowed", text)
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
		return fmt.Errorf("--%s %.40q is not a duration; use a value such as 90s, 5m or 1h", name, text)
	case "bool":
		return fmt.Errorf("--%s=%.40s: use --%s alone, or --%s=false", name, text, name, name)
	}
	return err
}

// commandGroup turns a command into a group of subcommands. Without a subcommand it prints its help; an unknown one is
// wrong usage. Cobra alone would exit with 0 below the root, and with 1 at the root.
func commandGroup(c *cobra.Command) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		err := cobra.NoArgs(c, args)
		if err == nil {
			return nil
		}
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
		}
		return &usageError{c, err}
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.SuggestionsMinimumDistance = 2
	return c
}
