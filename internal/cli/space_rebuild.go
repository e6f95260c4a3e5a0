package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/usage"
)

func newSpaceRebuild() *cobra.Command {
	var state string
	var now, asJSON bool
	c := &cobra.Command{
		Use: "rebuild NAME", Short: "Build a Space's environment again, then restart it",
		ValidArgsFunction: completeSpace,
		Long: `Build the environment of a Space from scratch (the Hub's factory rebuild), and restart the Space with it. The new
environment is built beside the former one, from which the Space continues to answer until the build has ended. Then it
restarts as with "spacehost space restart": running calls may end within the time of the key "drain"; --now ends them at once.

If the build fails, or Ctrl-C ends it, the Space continues with its former environment. Other Spaces with the same
requirements keep the former environment until their next start.

Exit codes: 1 no host answers, or the build has failed, 2 wrong usage.`,
		Example: "  spacehost space rebuild demo\n  spacehost space rebuild demo --now --json",
		Args:    usage.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := config.StateFolder(state)
			if err != nil {
				return err
			}
			return rebuild(c, dir, control.RestartRequest{Space: args[0], Now: now}, asJSON)
		},
	}
	c.Flags().BoolVar(&now, "now", false, "end running calls at once after the build")
	c.Flags().BoolVar(&asJSON, "json", false, "print each step and the answer as a JSON object")
	addState(c, &state)
	return c
}

// rebuild prints the progress of a rebuild until it has ended.
func rebuild(c *cobra.Command, state string, r control.RestartRequest, asJSON bool) error {
	ended := false
	err := stream(c.Context(), state, control.RebuildSpace.Request(r), func(data string) error {
		var p control.RebuildProgress
		if err := decode([]byte(data), &p); err != nil {
			return err
		}
		ended = ended || p.Done != nil
		if asJSON {
			if err := printf(c, "%s", data); err != nil {
				return err
			}
		}
		return showRebuild(c, p, !asJSON)
	})
	if ended && errors.Is(err, io.EOF) {
		return nil
	}
	return asUsage(c, err)
}

// showRebuild prints an event for a person, if text is set. The event of a failed rebuild is an error.
func showRebuild(c *cobra.Command, p control.RebuildProgress, text bool) error {
	switch {
	case p.Error != "":
		return fmt.Errorf("not rebuilt, the Space continues as it was: %s", p.Error)
	case !text:
		return nil
	case p.Step != nil:
		line := fmt.Sprintf("[%d/%d] %s: %s", p.Step.Index, p.Step.Total, p.Step.Text, p.Step.State)
		if p.Step.Seconds > 0 {
			line += fmt.Sprintf(" after %.1f s", p.Step.Seconds)
		}
		return printf(c, "%s", line)
	case p.Done != nil:
		return showRebuilt(c, *p.Done)
	}
	return nil
}

func showRebuilt(c *cobra.Command, a control.RebuildAnswer) error {
	text := a.Space + " is rebuilt and restarts."
	if a.DrainSeconds > 0 {
		text = fmt.Sprintf("%s is rebuilt, and restarts once its running calls have ended, within %s at most.", a.Space, formatDuration(a.DrainSeconds))
	}
	if len(a.Sharing) > 0 {
		text += fmt.Sprintf(" Until their next start, other Spaces keep the former environment: %s.", strings.Join(a.Sharing, ", "))
	}
	return printf(c, "%s `spacehost space list` shows its stage.", text)
}
