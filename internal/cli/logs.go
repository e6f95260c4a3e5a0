package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/space"
	"spacehost/internal/spacelog"
	"spacehost/internal/usage"
)

// logOptions are the flags of `spacehost logs`.
type logOptions struct {
	state  string
	build  bool
	follow bool
	since  string
	lines  int
	json   bool
}

func newLogs() *cobra.Command {
	var o logOptions
	c := &cobra.Command{
		Use: "logs [SPACE]", Short: "Show what a Space has printed, or the output of its builds",
		Long: `Show what a Space has printed, with time and stream (stdout, stderr, or host for sentences of the host). SPACE is a name, or
the folder of a Space. Without SPACE, the log that was written last is shown.

The lines come from files of the state folder (logs/run-SPACE.log and build-SPACE.log), so no host need run. The files are
rotated by size (limits.log_size) and age (30 days). Of a Space that prints more than its limit of output, the log has
what the screen has, and the number of lines left out.`,
		Example: `  spacehost logs
  spacehost logs demo --follow
  spacehost logs demo --build --lines 0
  spacehost logs demo --since 10m`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: o.complete,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, args) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&o.build, "build", false, "the output of builds, instead of that of the app")
	f.BoolVarP(&o.follow, "follow", "f", false, "print further lines as they are written, until Ctrl-C")
	f.StringVar(&o.since, "since", "", "only lines not older than this: a duration such as 10m, or a time such as 2026-11-30T12:00:00Z")
	f.IntVar(&o.lines, "lines", 100, "maximum number of lines, the last ones; 0 means all")
	f.BoolVar(&o.json, "json", false, "print one JSON object per line")
	addState(c, &o.state)
	return c
}

func (o *logOptions) kind() spacelog.Kind {
	if o.build {
		return spacelog.Build
	}
	return spacelog.Run
}

func (o *logOptions) complete(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if state, err := config.StateFolder(o.state); err == nil {
		found, _ := spacelog.List(state, o.kind()) // nothing to offer
		for _, one := range found {
			names = append(names, one.Space)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (o *logOptions) run(c *cobra.Command, args []string) error {
	since, err := parseSince(o.since, time.Now())
	if err != nil {
		return usage.Wrap(c, err)
	}
	if o.lines < 0 {
		return usage.Wrap(c, fmt.Errorf("--lines %d is below 0", o.lines))
	}
	state, err := config.StateFolder(o.state)
	if err != nil {
		return err
	}
	name, err := o.find(c, state, args)
	if err != nil {
		return err
	}
	show := func(l spacelog.Line) error {
		if !o.json {
			return printf(c, "%s", l)
		}
		text, err := json.Marshal(l)
		if err != nil {
			return err
		}
		return printf(c, "%s", text)
	}
	if o.follow {
		return spacelog.Follow(c.Context(), state, name, o.kind(), since, o.lines, show)
	}
	lines, err := spacelog.Read(state, name, o.kind(), since, o.lines)
	for _, l := range lines {
		if err := show(l); err != nil {
			return err
		}
	}
	return err
}

// find returns the name of the Space whose log is shown.
func (o *logOptions) find(c *cobra.Command, state string, args []string) (string, error) {
	found, err := spacelog.List(state, o.kind())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	var names []string
	for _, one := range found {
		names = append(names, one.Space)
	}
	if len(args) == 0 {
		if len(names) == 0 {
			return "", fmt.Errorf("no Space has a %s log in %s; name another state folder with --state, or start a Space with `spacehost run`", o.kind(), state)
		}
		if len(names) > 1 {
			fmt.Fprintf(c.ErrOrStderr(), "note: this is the log of %s; others: %s\n", names[0], strings.Join(names[1:], ", "))
		}
		return names[0], nil
	}
	name := args[0]
	if strings.ContainsRune(name, filepath.Separator) || name == "." || name == ".." {
		dir, err := filepath.Abs(name)
		if err != nil {
			return "", err
		}
		name = space.NameOf(dir)
	}
	for _, one := range names {
		if one == name {
			return name, nil
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("%w: %s", &spacelog.NotFoundError{Space: name, Kind: o.kind()}, state)
	}
	return "", fmt.Errorf("%w: %s; Spaces with one: %s", &spacelog.NotFoundError{Space: name, Kind: o.kind()}, state, strings.Join(names, ", "))
}

// parseSince returns the zero time for an empty text.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := config.ParseSpan(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	return time.Time{}, fmt.Errorf("--since %q is neither a duration such as 10m or 7d nor a time such as 2026-11-30T12:00:00Z", text)
}
