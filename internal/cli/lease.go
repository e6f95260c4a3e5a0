package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"spacehost/internal/control"
	"spacehost/internal/lease"
)

func newLease() *cobra.Command {
	return clientCommand[control.Leases]{
		use: "lease", short: "List the calls that wait for or hold a GPU, and the last that ended",
		long: `List the open leases of the running host, then the last ended leases with their charges. A waiting lease is shown
with its position and its expected start, if every lease before it takes its whole declared duration and no lease of
higher priority arrives, and with the limit that it waits for, if any (see --per-space).
With --watch, print a line for each open lease, then one for each change of a lease (with --json: an object).`,
		example: "  spacehost lease\n  spacehost lease --limit 100 --json\n  spacehost lease --watch --json | jq -c 'select(.state == \"expired\")'",
		args:    cobra.NoArgs, limit: 10, watch: watchLeases,
		request: func(_ []string, limit int) (control.Request, error) {
			return control.ListLeases.Request(control.NoBody{}).With(url.Values{"limit": {strconv.Itoa(limit)}}), nil
		},
		show: func(c *cobra.Command, leases control.Leases, _ []string) error {
			return aligned(c, func(w io.Writer) { showLeases(w, leases) })
		},
	}.command()
}

func showLeases(w io.Writer, leases control.Leases) {
	hasNodes := slices.ContainsFunc(leases.Open, func(l lease.Snapshot) bool { return l.Machine != "" }) ||
		slices.ContainsFunc(leases.Ended, func(l lease.Past) bool { return l.Machine != "" })
	fmt.Fprintln(w, nodeColumn(hasNodes, "NODE")+"LEASE\tSTATE\tSPACE\tIDENTITY\tDECLARED\tUSED\tCHARGED\tWORKER\tSINCE\tWHY")
	for _, l := range leases.Open {
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%g s\t%.1f s\t\t%s\t%s\t%s\n",
			nodeColumn(hasNodes, l.Machine), l.Lease, l.State, l.Space, l.Identity, l.DeclaredSeconds, l.UsedSeconds, pidOrDash(l.Worker), formatAgo(l.Admitted, leases.Now), formatForecast(l.Forecast, leases.Now))
	}
	for _, l := range leases.Ended {
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%g s\t\t%.3f s\t\t%s\t%s\n",
			nodeColumn(hasNodes, l.Machine), l.Lease, l.State, l.Space, l.Identity, l.DeclaredSeconds, l.ChargedSeconds, formatAgo(l.Ended, leases.Now), l.Reason)
	}
}

func pidOrDash(pid int) string {
	if pid == 0 {
		return "-"
	}
	return strconv.Itoa(pid)
}

// watchLeases prints each change of a lease until ctx ends, which is not an error. The end of the host is an error.
func watchLeases(ctx context.Context, state string, asJSON bool, out io.Writer) error {
	err := stream(ctx, state, control.WatchLeases.Request(control.NoBody{}), func(data string) error {
		return showChange(out, data, asJSON)
	})
	if ctx.Err() != nil {
		return nil // Ctrl-C
	}
	return err
}

func showChange(out io.Writer, data string, asJSON bool) error {
	text := data
	if !asJSON {
		var change lease.Change
		if err := decode([]byte(data), &change); err != nil {
			return err
		}
		text = formatChange(change)
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

// formatChange formats a change as one line: time, lease, new state, Space, account, and the reason.
func formatChange(c lease.Change) string {
	text := fmt.Sprintf("%s  %s  %-9s  %s  %s  %s %g s", c.At.Local().Format(time.TimeOnly), c.Lease, c.State, c.Space, c.Identity, c.Size, c.DeclaredSeconds)
	if c.Via != "" {
		text += ", via " + c.Via
	}
	if c.Slot != nil {
		text += fmt.Sprintf(", slot %d", *c.Slot)
	}
	if c.Machine != "" {
		text += ", node " + c.Machine
	}
	switch {
	case c.IsFinal():
		text += fmt.Sprintf(", charged %.3f s: %s", c.ChargedSeconds, c.Reason)
	case c.State == lease.Granted:
		text += fmt.Sprintf(", waited %.1f s", c.WaitedSeconds)
	case c.State == lease.Active:
		text += fmt.Sprintf(", worker %d", c.Worker)
	}
	return text
}

// newLeaseEnd is the only command that ends a call, so a person confirms it. A script gives --yes.
func newLeaseEnd() *cobra.Command {
	var request control.EndLeaseRequest
	var yes bool
	c := clientCommand[lease.Ended]{
		use: "end LEASE", short: "End one waiting or running call of a running host",
		long: `End one call that waits for or holds a GPU. The lease is named by its first digits, as "spacehost lease" lists it. A
waiting call leaves the line. The worker of a running call is killed, and its GPU is lent again. The visitor reads that the operator
has ended the call, with the reason, and is charged nothing. The ledger names you and the reason.`,
		example: "  spacehost lease end 3fa91c20 --reason \"the GPU is needed for a demo\"\n  spacehost lease end 3fa91c20 --yes",
		args:    cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&request.Reason, "reason", "", "reason that the visitor and the ledger read")
			c.Flags().BoolVar(&yes, "yes", false, "end the call without a question (default: ask on a terminal)")
		},
		request: func(args []string, _ int) (control.Request, error) {
			request.Lease = args[0]
			return control.EndLease.Request(request), nil
		},
		show: func(c *cobra.Command, e lease.Ended, _ []string) error {
			if e.Was == lease.Waiting {
				return printf(c, "Lease %s of %s, which waited in Space %s, is ended. Nothing was charged.", e.Lease, e.Identity, e.Space)
			}
			return printf(c, "Lease %s of %s, which had a GPU in Space %s, is ended. Nothing was charged.", e.Lease, e.Identity, e.Space)
		},
	}.command()
	send := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if in, isFile := c.InOrStdin().(*os.File); !yes && isFile && isatty.IsTerminal(in.Fd()) {
			fmt.Fprintf(c.ErrOrStderr(), "End lease %s? Its call fails. [y/N] ", args[0])
			var answer string
			_, _ = fmt.Fscanln(in, &answer) // an empty line is no
			if !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes") {
				return printf(c, "Nothing was ended.")
			}
		}
		return send(c, args)
	}
	return c
}
