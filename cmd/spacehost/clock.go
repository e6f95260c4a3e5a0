package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/clock"
	"spacehost/internal/control"
)

func newClock() *cobra.Command {
	c := question[control.Time]{
		use: "clock", short: "Show the clock of a running host, or move it ahead",
		long:    "Show the clock by which the running host counts quota windows, deadlines and ages.",
		example: "  spacehost clock\n  spacehost clock advance 24h",
		path:    func([]string, int) string { return control.ShowClock.Path }, args: cobra.NoArgs,
		table: func(w io.Writer, now control.Time, _ []string) { fmt.Fprintln(w, clockWords(now)) },
	}.command()
	c.AddCommand(newClockAdvance())
	return c
}

func clockWords(now control.Time) string {
	text := now.Now.Local().Format("2006-01-02 15:04:05")
	if now.AdvancedSeconds == 0 {
		return text + ", the true time"
	}
	return fmt.Sprintf("%s, %s ahead of the true time", text, time.Duration(now.AdvancedSeconds*float64(time.Second)))
}

func newClockAdvance() *cobra.Command {
	var state string
	var asJSON bool
	c := &cobra.Command{
		Use:   "advance DURATION",
		Short: "Move the clock of a running host with simulated GPUs ahead",
		Long: `Move the clock by which the running host counts ahead, for tests of what comes with time: after 24h every quota
window that was open is over. What waits for a moment looks at once: a GPU function whose deadline has passed is
ended and charged whole, a call that waits longer than --queue-timeout is told so, tokens of running calls (24 h)
expire. The clocks of this machine and of the Space's own code do not move.

The host forgets the advance when it ends. Its ledger does not: lines and ended leases of that time lie in the
future of the next start, which says so; quota windows that would begin there begin at that start instead.
Hosts with true GPUs refuse.`,
		Example: `  spacehost clock advance 24h              everybody's quota is whole again
  spacehost clock advance 90m --json`,
		Args: usage(cobra.ExactArgs(1)),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	addState(c, &state)
	c.RunE = func(c *cobra.Command, args []string) error {
		by, err := time.ParseDuration(args[0])
		if err != nil {
			return &usageError{c, fmt.Errorf("%q is no duration: say 24h, 90m or 30s", args[0])}
		}
		if by <= 0 || by > clock.Farthest {
			return &usageError{c, fmt.Errorf("%s is not between 1ns and %s: the clock only goes ahead", args[0], clock.Farthest)}
		}
		dir, err := stateFolder(state)
		if err != nil {
			return err
		}
		body, err := tell(c.Context(), dir, control.AdvanceClock.Request(control.AdvanceRequest{By: by.String()}))
		if err != nil {
			return err
		}
		text := string(trimNewline(body))
		if !asJSON {
			var now control.Time
			if err := json.Unmarshal(body, &now); err != nil {
				return fmt.Errorf("the host's answer is not understood (another version?): %w", err)
			}
			text = clockWords(now)
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), text)
		return err
	}
	return c
}
