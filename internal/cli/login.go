package cli

import (
	"github.com/spf13/cobra"

	"spacehost/internal/control"
)

func newLogin() *cobra.Command {
	return clientCommand[control.LoginLink]{
		use: "login", short: "Print a link that signs the local user in at the console of a running host",
		long: `Print a one-time link to the console of the running host. Its first visitor is signed in there as the local visitor for
twelve hours, and can sign in to Spaces from there. People with a token do not need a link.`,
		example: "  spacehost login\n  xdg-open $(spacehost login --json | jq -r .url)",
		args:    cobra.NoArgs, request: fixed(control.CreateLoginLink.Request(control.NoBody{})),
		show: func(c *cobra.Command, link control.LoginLink, _ []string) error { return printf(c, "%s\n", link.URL) },
	}.command()
}
