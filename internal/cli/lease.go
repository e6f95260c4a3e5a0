package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

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
	fmt.Fprintln(w, "LEASE\tSTATE\tSPACE\tIDENTITY\tDECLARED\tUSED\tCHARGED\tWORKER\tSINCE\tWHY")
	for _, l := range leases.Open {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%g s\t%.1f s\t\t%s\t%s\t%s\n",
			l.Lease, l.State, l.Space, l.Identity, l.DeclaredSeconds, l.UsedSeconds, pidOrDash(l.Worker), formatAgo(l.Admitted, leases.Now), formatForecast(l.Forecast, leases.Now))
	}
	for _, l := range leases.Ended {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%g s\t\t%.3f s\t\t%s\t%s\n",
			l.Lease, l.State, l.Space, l.Identity, l.DeclaredSeconds, l.ChargedSeconds, formatAgo(l.Ended, leases.Now), l.Reason)
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
	client := controlClient(state)
	defer client.CloseIdleConnections()
	r, err := controlRequest(ctx, state, control.WatchLeases.Method, control.WatchLeases.Path, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return unreachable(state, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10)) // without it the error names the status
		return &refusedError{state, answer.StatusCode, text}
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if data, isData := strings.CutPrefix(lines.Text(), "data: "); isData {
			if err := showChange(out, data, asJSON); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return nil // Ctrl-C
	}
	return fmt.Errorf("the host on %s has ended, or this command read too slowly: %w", state, errors.Join(lines.Err(), io.EOF))
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
