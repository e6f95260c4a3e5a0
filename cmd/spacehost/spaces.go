package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
	"spacehost/internal/views"
)

func newSpace() *cobra.Command {
	c := family(&cobra.Command{
		Use: "space", Short: "The Spaces of a running host: where they stand, a new start, what they may spend through each other",
		Long: `The Spaces of the running host: where each stands, in the Hub's words, and why; a new start of one; and what they
may spend through each other.`,
		Example: `  spacehost space list                     where each stands
  spacehost space restart demo             start demo anew, now
  spacehost space via demo --off           demo may not spend its visitors' seconds at other Spaces`,
	})
	c.AddCommand(newSpaceList(), newSpaceRestart(), newVia())
	return c
}

func newSpaceList() *cobra.Command {
	return question[views.Health]{
		use: "list", short: "List the Spaces of a running host, where each stands, and why",
		long: `List the Spaces of the running host with their stage in the Hub's words: BUILDING, APP_STARTING, RUNNING, BUILD_ERROR,
RUNTIME_ERROR ..., and why. With "spacehost serve" one that does not start is tried again by and by while the others
run; its address says so.`,
		example: "  spacehost space list\n  spacehost space list --json | jq '.spaces[] | select(.stage != \"RUNNING\")'",
		path:    func([]string, int) string { return control.ShowHealth.Path }, args: cobra.NoArgs,
		table: func(w io.Writer, health views.Health, _ []string) {
			fmt.Fprintln(w, "SPACE\tSTAGE\tURL\tGRADIO\tPID\tWAITING\tWHY")
			for _, s := range health.Spaces {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", s.Name, s.Stage, s.URL, cmp.Or(s.Gradio, "-"), pidOf(s.PID), s.Queued,
					strings.Map(printable, cmp.Or(s.Reason, s.Why)))
			}
		},
	}.command()
}

func newSpaceRestart() *cobra.Command {
	return deed[control.RestartRequest]{
		use: "restart NAME", short: "Start a Space anew, at once",
		long: `Start a Space anew, at once: one that runs, with its running calls ended and its waiting ones kept, or one that did not
start and waits for its next try. A change of its code holds from then on. Its environment is looked at anew only for one
that did not start; a change of its README.md, or of the requirements of one that runs, needs a new start of the host.`,
		example: "  spacehost space restart demo",
		args:    cobra.ExactArgs(1),
		order: func(args []string) control.Request {
			return control.RestartSpace.Request(control.RestartRequest{Space: args[0]})
		},
		show: func(c *cobra.Command, o control.RestartRequest) error {
			return say(c, "%s is started anew. `spacehost space list` says where it stands.", o.Space)
		},
	}.command()
}
