package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
)

func newSpaceMove() *cobra.Command {
	var to string
	var now bool
	return clientCommand[control.MoveAnswer]{
		use: "move NAME --to NODE", short: "Let a Space run on another node",
		complete: completeSpace,
		long: `Let a Space run on the node NODE, or with --to host on the host's own machine. The node must match the key "on" of the
Space's configuration, be connected and in service, and have a GPU if the Space has GPU functions. Running calls may end
within the time of the key "drain" (default 60 s); --now ends them at once. Waiting calls are kept.

The Space stays on the node while the node may run it. Files that the Space has written, and uploads, stay on the former
node.`,
		example: "  spacehost space move demo --to gpu2\n  spacehost space move demo --to host --now",
		args:    cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&to, "to", "", "name of the node, or host")
			c.Flags().BoolVar(&now, "now", false, "end running calls at once")
		},
		request: func(args []string, _ int) (control.Request, error) {
			if to == "" {
				return control.Request{}, errors.New("no node given; name it with --to")
			}
			return control.MoveSpace.Request(control.MoveRequest{Space: args[0], Node: to, Now: now}), nil
		},
		show: func(c *cobra.Command, a control.MoveAnswer, _ []string) error {
			if a.DrainSeconds > 0 {
				return printf(c, "%s starts on %s once its running calls have ended, within %s at most. `spacehost space list` shows its stage.", a.Space, a.Node, formatDuration(a.DrainSeconds))
			}
			return printf(c, "%s starts on %s. `spacehost space list` shows its stage.", a.Space, a.Node)
		},
	}.command()
}
