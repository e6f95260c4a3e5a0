package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/gpu"
	"spacehost/internal/control"
)

func newDrain() *cobra.Command {
	var reason string
	c := drainCommand(control.DrainGPU, &reason, "UUID is drained: it is lent to nobody until `spacehost gpu return UUID`\n")
	c.Use, c.Short = "drain UUID", "Lend a GPU of a running host to nobody any more; who is on it finishes"
	c.Long = `Take a GPU out of the line: calls that run on it go on to their end, idle workers leave it, nobody new gets it.
` + "`spacehost gpu`" + ` shows the reason. It holds until ` + "`spacehost gpu return`" + `, also for the next start of the host.

A GPU that is lost to the driver, hangs, or does not give its memory back is not lent either, without a command,
and is lent again once it answers and is clear. One for which the driver reports an error of the hardware (Xid) is
drained, and comes back by ` + "`spacehost gpu return`" + ` or with the next start.`
	c.Example = `  spacehost gpu drain GPU-9a4c6130-2ca6-3cc7-d783-bedc05ddacdd --reason "new fan on Monday"
  spacehost gpu --json | jq '.[] | select(.drained) | {uuid, drained}'`
	c.Flags().StringVar(&reason, "reason", "", "why, for who reads \"spacehost gpu\" later")
	return c
}

func newReturn() *cobra.Command {
	c := drainCommand(control.ReturnGPU, new(string), "UUID is lent again\n")
	c.Use, c.Short = "return UUID", "Lend a drained GPU of a running host again"
	c.Long = "Put a GPU back into the line that was drained, by command or because the driver reported an error of the hardware."
	c.Example = "  spacehost gpu return GPU-9a4c6130-2ca6-3cc7-d783-bedc05ddacdd"
	return c
}

// drainCommand sends an order about one Device; said is what it prints, with the UUID.
func drainCommand(at control.Endpoint[control.DrainRequest, control.DrainRequest], reason *string, said string) *cobra.Command {
	var state string
	var asJSON bool
	c := &cobra.Command{Args: usage(cobra.ExactArgs(1))}
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	addState(c, &state)
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := stateFolder(state)
		if err != nil {
			return err
		}
		body, err := tell(c.Context(), dir, at.Request(control.DrainRequest{UUID: gpu.DeviceUUID(args[0]), Reason: *reason}))
		if err != nil {
			return asUsage(c, err)
		}
		if asJSON {
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", trimNewline(body))
			return err
		}
		_, err = fmt.Fprint(c.OutOrStdout(), strings.ReplaceAll(said, "UUID", args[0]))
		return err
	}
	return c
}
