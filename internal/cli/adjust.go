package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
	"spacehost/internal/views"
)

func newGrant() *cobra.Command {
	var adjustment control.AdjustmentRequest
	return clientCommand[views.Account]{
		use: "grant ACCOUNT [TIME]", short: "Add seconds to an account until its reset, or runs for 24 hours",
		complete: completeAccount,
		long: `Add seconds to an account on top of its quota, until the end of its present 24-hour window. Without an open window,
they belong to the window that the next use opens. --runs adds runs to the number of the tier, for the next 24 hours. The
grant is a line of the account's ledger, with your name and the reason. For seconds that stay until they are used, see
"spacehost quota credit".
` + accountHelp,
		example: "  spacehost quota grant ada 120s --reason \"demo day\"\n  spacehost quota grant local 5m\n  spacehost quota grant ada --runs 3",
		args:    cobra.RangeArgs(1, 2),
		flags: func(c *cobra.Command) {
			c.Flags().IntVar(&adjustment.Runs, "runs", 0, "number of runs to add for 24 hours")
			c.Flags().StringVar(&adjustment.Reason, "reason", "", "reason for the ledger")
		},
		request: func(args []string, _ int) (control.Request, error) {
			adjustment.Identity, adjustment.Seconds = args[0], 0
			if len(args) == 1 && adjustment.Runs == 0 {
				return control.Request{}, errors.New("nothing to grant; give a time such as 120s, or --runs N")
			}
			if adjustment.Runs < 0 {
				return control.Request{}, fmt.Errorf("--runs %d cannot be granted; give a number from 1", adjustment.Runs)
			}
			var err error
			if len(args) == 2 {
				adjustment.Seconds, err = parseAmount(args[1], "granted")
			}
			return control.GrantSeconds.Request(adjustment), err
		},
		show: showLeft,
	}.command()
}

func newCredit() *cobra.Command {
	var adjustment control.AdjustmentRequest
	return clientCommand[views.Account]{
		use: "credit ACCOUNT TIME", short: "Add prepaid seconds to an account, which stay until they are used",
		complete: completeAccount,
		long: `Add prepaid seconds to an account beyond its quota, as users of ZeroGPU buy them. A call uses what is left of the quota
first, and credits for the rest. Credits stay until they are used: neither the end of the window nor a reset changes them.
They raise no other limit, and other Spaces that call on behalf of the account use none. The credit is a line of the
account's ledger, with your name and the reason.
` + accountHelp,
		example: "  spacehost quota credit ada 30m --reason \"paid on Nov 28\"",
		args:    cobra.ExactArgs(2),
		flags:   func(c *cobra.Command) { c.Flags().StringVar(&adjustment.Reason, "reason", "", "reason for the ledger") },
		request: func(args []string, _ int) (control.Request, error) {
			seconds, err := parseAmount(args[1], "credited")
			adjustment.Identity, adjustment.Seconds = args[0], seconds
			return control.CreditAccount.Request(adjustment), err
		},
		show: func(c *cobra.Command, a views.Account, _ []string) error {
			return printf(c, "%s has %.1f s (%s) of credits left now.", a.Identity, a.CreditSeconds, formatDuration(a.CreditSeconds))
		},
	}.command()
}

// parseAmount parses the seconds of a grant or a credit.
func parseAmount(text, done string) (float64, error) {
	seconds, err := parseSeconds(text)
	if err == nil && !(seconds >= 1 && seconds < 1e9) {
		err = errors.New("it must be one second at least")
	}
	if err != nil {
		return 0, fmt.Errorf("%q cannot be %s; give a time such as 120s, 5m, or a number of seconds: %w", text, done, err)
	}
	return seconds, nil
}

func newReset() *cobra.Command {
	var adjustment control.AdjustmentRequest
	return clientCommand[views.Account]{
		use: "reset ACCOUNT", short: "Return the seconds charged to an account in this window, and its runs",
		complete: completeAccount,
		long: `Return all seconds that an account was charged in its present window, and the runs of its ended calls. The end of the
window does not move. What open calls hold stays held, and is charged when they end. Used credits stay used. The reset is a
line of the account's ledger, with your name and the reason.
` + accountHelp,
		example: "  spacehost quota reset ada --reason \"the GPU was lost\"",
		args:    cobra.ExactArgs(1),
		flags:   func(c *cobra.Command) { c.Flags().StringVar(&adjustment.Reason, "reason", "", "reason for the ledger") },
		request: func(args []string, _ int) (control.Request, error) {
			adjustment.Identity = args[0]
			return control.ResetAccount.Request(adjustment), nil
		},
		show: showLeft,
	}.command()
}

func showLeft(c *cobra.Command, a views.Account, _ []string) error {
	runs := ""
	if a.Runs != nil {
		runs = fmt.Sprintf(", and %d of %d runs", a.Runs.Remaining, a.Runs.Limit)
	}
	return printf(c, "%s has %.1f s (%s) left now%s.", a.Identity, a.LeftSeconds, formatDuration(a.LeftSeconds), runs)
}
