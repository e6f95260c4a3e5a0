package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/host"
	"spacehost/internal/usage"
)

// pruneOptions are the flags of `spacehost prune`.
type pruneOptions struct {
	state, config, keep string
	node                string
	dryRun, data        bool
	asJSON              bool
}

func newPrune() *cobra.Command {
	var o pruneOptions
	c := &cobra.Command{
		Use: "prune", Short: "Remove environments, folders, uploads and logs that no Space refers to",
		Long: `Remove what no Space of the state folder refers to, and print each item with its size and the reason:

- environments that no Space uses, and those that a rebuild has replaced;
- the home, the uploads and the logs of Spaces that were removed from the configuration;
- old uploads of all Spaces, while no host runs, because then no visitor has a session;
- clones of Spaces of the Hub in which nothing is changed or new. Files that git ignores do not count.

What was used within --keep stays. So does all that a host on this machine uses, also one with another state folder. The
persistent storage (/data) of a removed Space stays without --data. With a running host, its Spaces count; otherwise those of
the configuration file with which the state folder was served last. --config names another file, whose own state folder counts
without --state. Under "spacehost run" the age alone decides.

--node prunes the state folder of a node, by its agent. It needs a running host, whose Spaces count.

Exit codes: 1 an item could not be removed, 2 wrong usage, 6 the configuration file is wrong.`,
		Example: `  spacehost prune --dry-run             only print what would be removed
  spacehost prune --keep 0              also what was used a moment ago
  spacehost prune --node gpu2 --dry-run what would be removed on the node gpu2
  spacehost prune --json | jq .bytes`,
		Args: usage.Args(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "print the items, remove nothing")
	f.StringVar(&o.keep, "keep", "7d", "keep what was used within this time, such as 7d, 12h or 0")
	f.BoolVar(&o.data, "data", false, "remove the persistent storage of removed Spaces, too")
	f.StringVar(&o.config, "config", "", "configuration file whose Spaces stay, if no host runs (default: the one that was served last)")
	f.StringVar(&o.node, "node", "", "prune this node instead of the host's own machine")
	f.BoolVar(&o.asJSON, "json", false, "print the answer as JSON")
	addState(c, &o.state)
	c.MarkFlagsMutuallyExclusive("node", "config")
	return c
}

func (o *pruneOptions) run(c *cobra.Command) error {
	keep, err := parseAge(o.keep)
	if err != nil {
		return usage.Wrap(c, fmt.Errorf("--keep: %w", err))
	}
	state, err := o.stateFolder(c)
	if err != nil {
		return err
	}
	answer, err := prune(c.Context(), state, o.config, control.PruneRequest{DryRun: o.dryRun, KeepSeconds: keep.Seconds(), Data: o.data, Node: o.node})
	if err != nil {
		return err
	}
	if o.asJSON {
		err = printJSON(c, answer)
	} else {
		err = showPruned(c, answer)
	}
	failed := 0
	for _, item := range answer.Items {
		if item.Error != "" {
			failed++
		}
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("items that could not be removed: %d", failed)
	}
	return err
}

// stateFolder returns the folder of --state, else that of the configuration file, else the default. Another folder than the file's
// has other Spaces, so it is refused: all of its homes would look unused.
func (o *pruneOptions) stateFolder(c *cobra.Command) (string, error) {
	if o.config == "" {
		return config.StateFolder(o.state)
	}
	settings, _, err := config.Load(o.config, "")
	if err != nil {
		return "", err
	}
	own, err := config.StateFolder(settings.State)
	if err != nil || o.state == "" {
		return own, err
	}
	state, err := config.StateFolder(o.state)
	if err == nil && settings.State != "" && own != state {
		err = usage.Wrap(c, fmt.Errorf("--state: %s has another state folder, %s; omit --state, or omit --config to keep the Spaces with which %s was served last", o.config, own, state))
	}
	return state, err
}

// parseAge parses a number of days such as 7d, or a duration of package time. 0 needs no unit.
func parseAge(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if number, inDays := strings.CutSuffix(text, "d"); inDays {
		var days int
		days, err = strconv.Atoi(number)
		d = time.Duration(max(-1, min(days, 36500))) * 24 * time.Hour
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%.40q is not a time; give one such as 7d, 12h or 0", text)
	}
	return d, nil
}

// prune lets the running host remove the items, or removes them itself if none runs.
func prune(ctx context.Context, state, file string, r control.PruneRequest) (answer control.PruneAnswer, err error) {
	if r.Node == "" {
		answer, err = host.PruneStopped(ctx, state, file, r)
		if _, running := errors.AsType[*host.InUseError](err); !running {
			return answer, err
		}
	}
	if file != "" {
		return answer, fmt.Errorf("a host runs on %s, and its own configuration counts; give --state %s without --config", state, state)
	}
	body, err := sendWithin(ctx, state, control.Prune.Request(r), 0)
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	return answer, err
}

func showPruned(c *cobra.Command, a control.PruneAnswer) error {
	all := slices.Clone(a.Items)
	for _, item := range a.Kept {
		item.Why = "kept: " + item.Why
		all = append(all, item)
	}
	if len(all) > 0 {
		err := printTable(c, "KIND\tSIZE\tLAST USED\tPATH\tWHY", all, func(item control.PrunedItem) string {
			why := item.Why
			if item.Error != "" {
				why = "not removed: " + item.Error
			}
			return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", item.Kind, formatBytes(item.Bytes), formatMinute(item.LastUsed, "-"), item.Path, cmp.Or(why, "-"))
		})
		if err != nil {
			return err
		}
	}
	switch {
	case len(a.Items) == 0:
		return printf(c, "Nothing to remove.")
	case a.DryRun:
		return printf(c, "Would remove %s, items: %d. Nothing is removed (dry run).", formatBytes(a.Bytes), len(a.Items))
	}
	return printf(c, "Removed %s, items: %d.", formatBytes(a.Bytes), len(a.Items))
}
