package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/clock"
	"spacehost/internal/control"
)

func newClock() *cobra.Command {
	c := clientCommand[control.Time]{
		use: "clock", short: "Show the clock of a running host, or advance it",
		long:    "Show the clock by which the running host measures quota windows, deadlines and ages.",
		example: "  spacehost clock\n  spacehost clock advance 24h",
		args:    cobra.NoArgs, request: fixed(control.ShowClock.Request(control.NoBody{})),
		show: showClock,
	}.command()
	c.AddCommand(newClockAdvance())
	return c
}

func showClock(c *cobra.Command, now control.Time, _ []string) error {
	text := now.Now.Local().Format("2006-01-02 15:04:05")
	if now.AdvancedSeconds == 0 {
		return printf(c, "%s, the true time", text)
	}
	return printf(c, "%s, %s ahead of the true time", text, time.Duration(now.AdvancedSeconds*float64(time.Second)))
}

func newClockAdvance() *cobra.Command {
	return clientCommand[control.Time]{
		use: "advance DURATION", short: "Advance the clock of a running host with simulated GPUs",
		long: `Advance the clock by which the running host measures time, to test what depends on it: after 24h every open quota
window is over. Everything that waits for a time checks it at once: a GPU function past its deadline is ended and
charged in full, a call that has waited longer than --queue-timeout fails, tokens of running calls (24 h) expire. The
clocks of this machine and of the Space's own code do not move.

The host forgets the advance when it stops. Its ledger does not: lines and ended leases of that time lie in the future of
the next start, which prints a warning. Quota windows that would begin there begin at that start instead. Hosts with real GPUs
refuse.`,
		example: `  spacehost clock advance 24h              every account has its full quota again
  spacehost clock advance 90m --json`,
		args: cobra.ExactArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			by, err := time.ParseDuration(args[0])
			if err != nil {
				return control.Request{}, fmt.Errorf("%q is not a duration; use a value such as 24h, 90m or 30s", args[0])
			}
			if by <= 0 || by > clock.Farthest {
				return control.Request{}, fmt.Errorf("%s is not between 1ns and %s; the clock only moves ahead", args[0], clock.Farthest)
			}
			return control.AdvanceClock.Request(control.AdvanceRequest{By: by.String()}), nil
		},
		show: showClock,
	}.command()
}
