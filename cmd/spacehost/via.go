package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
)

func newVia() *cobra.Command {
	var off, on bool
	var who string
	c := deed[[]control.Denial]{
		use: "via [NAME]", short: "Forbid a Space to spend its visitors' seconds through others, or allow it again",
		long: `Forbid the Space NAME to spend its visitors' GPU seconds at other Spaces (--off), or allow it again (--on):
for everybody, or with --identity for one account. It holds at once, also for tokens that the Space has kept and for
calls that are under way elsewhere on its behalf; one that waits for a GPU already, or has it, goes on. With neither
flag, list what is forbidden. What a Space has spent so stands in the ledger (spacehost quota IDENTITY) as "via NAME".`,
		example: `  spacehost space via
  spacehost space via demo --off
  spacehost space via demo --off --identity user:ada
  spacehost space via demo --on`,
		args: cobra.MaximumNArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&off, "off", false, "forbid it")
			c.Flags().BoolVar(&on, "on", false, "end what --off with the same --identity forbade")
			c.Flags().StringVar(&who, "identity", "", "of this account alone: local, user:ada, ip:203.0.113.7 ...")
		},
		order: func(args []string) control.Request {
			if len(args) == 0 || !off && !on {
				return control.ListDenials.Request(control.NoBody{}).With(url.Values{"space": args})
			}
			return control.ChangeDelegation.Request(control.DelegationRequest{Space: args[0], Identity: who, Allow: on})
		},
		show: showStops,
	}.command()
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case off && on:
			return &usageError{c, errors.New("--off and --on: say one")}
		case (off || on) && len(args) == 0:
			return &usageError{c, errors.New("say which Space")}
		case who != "" && !off && !on:
			return &usageError{c, errors.New("--identity needs --off or --on")}
		}
		return run(c, args)
	}
	return c
}

func showStops(c *cobra.Command, stops []control.Denial) error {
	if len(stops) == 0 {
		return say(c, "Nothing is forbidden: up to half of what a visitor has left may be spent through other Spaces.")
	}
	return table(c, "SPACE\tMAY NOT SPEND OF\tSINCE\tBY", stops, func(s control.Denial) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s", s.Space, cmp.Or(s.Identity, "everybody"), minute(&s.At, ""), s.By)
	})
}
