package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
)

func newSpacePause() *cobra.Command {
	var reason string
	var now bool
	return clientCommand[control.PauseAnswer]{
		use: "pause NAME", short: "Stop a Space until it is resumed",
		complete: completeSpace,
		long: `Pause a Space: its process ends and it gets no new calls. Its stage is PAUSED, as on the Hub, and its page shows the
reason. Under "spacehost serve", running calls may end within the time of the key "drain" (default 60 s); --now, and
"spacehost run", end them at once. Waiting calls end with the reason. No call that is cut off is charged.

A pause survives a restart of the host, and ends with "spacehost space resume". With "spacehost run" it ends with the host.`,
		example: "  spacehost space pause demo --reason \"new model until 17:00\"\n  spacehost space pause demo --now",
		args:    cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&reason, "reason", "", "sentence for the visitors of the Space")
			c.Flags().BoolVar(&now, "now", false, "end running calls at once")
		},
		request: func(args []string, _ int) (control.Request, error) {
			if strings.ContainsAny(reason, "\r\n") {
				return control.Request{}, errors.New("--reason has several lines; give one")
			}
			return control.PauseSpace.Request(control.PauseRequest{Space: args[0], Reason: reason, Now: now}), nil
		},
		show: func(c *cobra.Command, a control.PauseAnswer, _ []string) error {
			if a.DrainSeconds > 0 {
				return printf(c, "%s is paused once its running calls have ended, within %s at most. `spacehost space resume %[1]s` starts it again.", a.Space, formatDuration(a.DrainSeconds))
			}
			return printf(c, "%s is paused. `spacehost space resume %[1]s` starts it again.", a.Space)
		},
	}.command()
}

func newSpaceResume() *cobra.Command {
	return clientCommand[control.ResumeAnswer]{
		use: "resume NAME", short: "Start a paused Space again",
		complete: completeSpace,
		long:     `Start a paused Space again, with its files and settings as they are now.`,
		example:  "  spacehost space resume demo",
		args:     cobra.ExactArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			return control.ResumeSpace.Request(control.ResumeRequest{Space: args[0]}), nil
		},
		show: func(c *cobra.Command, a control.ResumeAnswer, _ []string) error {
			return printf(c, "%s starts. `spacehost space list` shows its stage.", a.Space)
		},
	}.command()
}
