// Package usage holds what the command lines of spacehost have in common: exit codes, and errors of wrong usage.
//
// Package cli (Linux) and package checkcli (every system) build their commands with it.
package usage

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes. `spacehost run --help`, `spacehost serve --help` and `spacehost check --help` list them.
const (
	ExitHost     = 1 // the host itself: state folder, address, database, GPUs
	ExitUsage    = 2
	ExitConfig   = 3 // the Space's configuration (CONFIG_ERROR, NO_APP_FILE)
	ExitBuild    = 4 // its environment (BUILD_ERROR)
	ExitRuntime  = 5 // its app (RUNTIME_ERROR)
	ExitServe    = 6 // the configuration file of `serve`
	ExitFindings = 7 // findings of `check`
)

// Error is a mistake in the command line. Its exit code is ExitUsage.
type Error struct {
	command *cobra.Command
	err     error
}

// Wrap returns err as a mistake in the command line of c.
func Wrap(c *cobra.Command, err error) *Error { return &Error{c, err} }

func (e *Error) Error() string {
	return fmt.Sprintf("%v; see `%s --help`", e.err, e.command.CommandPath())
}

func (e *Error) Unwrap() error { return e.err }

// Args turns the wrong number of arguments into an Error, for its exit code.
func Args(args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if err := args(c, given); err != nil {
			return Wrap(c, err)
		}
		return nil
	}
}

// Root prepares the root command: mistakes in flags become Errors, and the caller prints errors.
func Root(c *cobra.Command) *cobra.Command {
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return Wrap(c, flagError(err)) })
	return Group(c)
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

// Group turns a command into a group of subcommands. Without a subcommand it prints its help; an unknown one is
// wrong usage. Cobra alone would exit with 0 below the root, and with 1 at the root.
func Group(c *cobra.Command) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		err := cobra.NoArgs(c, args)
		if err == nil {
			return nil
		}
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
		}
		return Wrap(c, err)
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.SuggestionsMinimumDistance = 2
	return c
}
