package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
	"spacehost/internal/printable"
	"spacehost/internal/usage"
	"spacehost/internal/views"
)

func newSpace() *cobra.Command {
	c := usage.Group(&cobra.Command{
		Use: "space", Short: "Spaces of a running host: list their stages, restart, rebuild, pause or move one, read its logs, limit delegation",
		Long: `Spaces of the running host: list their stages in the Hub's words, restart, rebuild, pause or move one, read its logs,
and limit what Spaces may spend of their visitors' quota at other Spaces.`,
		Example: `  spacehost space list                     every Space with its stage
  spacehost space restart demo             restart demo now
  spacehost space rebuild demo             build the environment of demo again, then restart it
  spacehost space pause demo               stop demo until it is resumed
  spacehost space move demo --to gpu2      let demo run on the node gpu2
  spacehost space logs demo --follow       what demo prints, as spacehost logs
  spacehost space via demo --off           demo may not spend its visitors' seconds at other Spaces`,
	})
	c.AddCommand(newSpaceList(), newSpaceRestart(), newSpaceRebuild(), newSpacePause(), newSpaceResume(), newSpaceMove(), newLogs(), newVia())
	return c
}

func newSpaceList() *cobra.Command {
	return clientCommand[views.Health]{
		use: "list", short: "List the Spaces of a running host with their stages and the reasons",
		long: `List the Spaces of the running host with their stage in the Hub's words: BUILDING, APP_STARTING, RUNNING, BUILD_ERROR,
RUNTIME_ERROR ..., and the reason. Under "spacehost serve" a Space that fails to start is retried while the others run;
its address shows the reason too. UNRESPONSIVE is this host's own: the Space was RUNNING and does not answer; WHY names the
line of its app where it hangs, and "spacehost logs" shows the stacks of its threads. For a running Space, WHY shows the last network destination that was refused to it, and
the remedy. What is wrong with the host follows the table, in the words of /healthz: why no GPU can be lent, and which Spaces do
not run. Of a paused Space, WHY shows the reason of the operator.

On a host with nodes, NODE shows where each Space runs: the name of a node, or host for the host's own machine. For a Space
that waits for a machine, WHY shows the state of each node that its key "on" names.`,
		example: "  spacehost space list\n  spacehost space list --json | jq '.spaces[] | select(.stage != \"RUNNING\")'",
		args:    cobra.NoArgs, request: fixed(control.ShowHealth.Request(control.NoBody{})),
		show: showSpaces,
	}.command()
}

// showSpaces prints the table of Spaces. The column NODE is only there on a host with nodes.
func showSpaces(c *cobra.Command, health views.Health, _ []string) error {
	hasNodes := slices.ContainsFunc(health.Spaces, func(s views.Space) bool { return s.Node != "" || s.WaitsForNode })
	header := "SPACE\tSTAGE\t"
	if hasNodes {
		header += "NODE\t"
	}
	if err := printTable(c, header+"URL\tGRADIO\tISOLATION\tPID\tWAITING\tWHY", health.Spaces, func(s views.Space) string {
		row := s.Name + "\t" + s.Stage + "\t"
		if hasNodes {
			row += orDash(s.Node) + "\t"
		}
		return row + fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%s", s.URL, orDash(s.Gradio), s.Isolation, pidOrDash(s.PID), s.Queued,
			printable.Line(cmp.Or(s.Reason, s.EgressRefused, s.Why)))
	}); err != nil {
		return err
	}
	return showHealth(c, health)
}

// showHealth prints what is wrong with the host, after the table of its Spaces.
func showHealth(c *cobra.Command, health views.Health) error {
	if health.Maintenance != "" {
		if err := printf(c, "%s.", printable.Line(health.Maintenance)); err != nil {
			return err
		}
	}
	for _, reason := range health.Reasons {
		if err := printf(c, "%s: %s", health.Status, printable.Line(reason)); err != nil {
			return err
		}
	}
	return nil
}

func newSpaceRestart() *cobra.Command {
	var now bool
	return clientCommand[control.RestartAnswer]{
		use: "restart NAME", short: "Restart a Space, after its running calls",
		complete: completeSpace,
		long: `Restart a Space. Under "spacehost serve", running calls may end within the time of the key "drain" (default 60 s); --now,
and "spacehost run", end them at once. Calls that are cut off are not charged. Waiting calls are kept. A Space that waits
for its next retry starts now.

The restart applies changes of the Space's files. With "serve", a changed README.md or requirements.txt is built beside the
running Space first; after an error, which is printed, the Space restarts as it was.`,
		example: "  spacehost space restart demo\n  spacehost space restart demo --now",
		args:    cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&now, "now", false, "end running calls at once, also those of a restart that waits for them")
		},
		request: func(args []string, _ int) (control.Request, error) {
			return control.RestartSpace.Request(control.RestartRequest{Space: args[0], Now: now}), nil
		},
		show: func(c *cobra.Command, r control.RestartAnswer, _ []string) error {
			if r.DrainSeconds > 0 {
				return printf(c, "%s restarts once its running calls have ended, within %s at most. `spacehost space list` shows its stage.", r.Space, formatDuration(r.DrainSeconds))
			}
			return printf(c, "%s restarts. `spacehost space list` shows its stage.", r.Space)
		},
	}.command()
}

func newVia() *cobra.Command {
	var off, on bool
	var account string
	return clientCommand[[]control.Denial]{
		use: "via [NAME]", short: "Forbid or allow a Space to spend its visitors' seconds at other Spaces",
		complete: completeSpace,
		long: `Forbid the Space NAME to spend its visitors' GPU seconds at other Spaces (--off), or allow it again (--on): for all
accounts, or with --identity for one. The change applies at once, also to tokens that the Space has stored and to calls
it has started elsewhere; a call that waits for or holds a GPU continues. Without either flag, list what is forbidden.
The ledger (spacehost quota IDENTITY) marks seconds that a Space has spent this way as "via NAME".`,
		example: `  spacehost space via
  spacehost space via demo --off
  spacehost space via demo --off --identity user:ada
  spacehost space via demo --on`,
		args: cobra.MaximumNArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&off, "off", false, "forbid it")
			c.Flags().BoolVar(&on, "on", false, "allow what --off with the same --identity forbade")
			c.Flags().StringVar(&account, "identity", "", "only this account: local, user:ada, ip:203.0.113.7 ...")
		},
		request: func(args []string, _ int) (control.Request, error) {
			switch {
			case off && on:
				return control.Request{}, errors.New("--off and --on exclude each other; give one")
			case (off || on) && len(args) == 0:
				return control.Request{}, errors.New("no Space given; name the one to change")
			case account != "" && !off && !on:
				return control.Request{}, errors.New("--identity requires --off or --on")
			case !off && !on:
				return control.ListDenials.Request(control.NoBody{}).With(url.Values{"space": args}), nil
			}
			return control.ChangeDelegation.Request(control.DelegationRequest{Space: args[0], Identity: account, Allow: on}), nil
		},
		show: showDenials,
	}.command()
}

func showDenials(c *cobra.Command, denials []control.Denial, _ []string) error {
	if len(denials) == 0 {
		return printf(c, "Nothing is forbidden: Spaces may spend up to half of what a visitor has left at other Spaces.")
	}
	return printTable(c, "SPACE\tMAY NOT SPEND OF\tSINCE\tBY", denials, func(d control.Denial) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s", d.Space, cmp.Or(d.Identity, "all accounts"), formatMinute(&d.At, ""), d.By)
	})
}
