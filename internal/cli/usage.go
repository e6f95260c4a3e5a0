package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
	wrongUsage "spacehost/internal/usage"
	"spacehost/internal/views"
)

func newUsage() *cobra.Command {
	var since, until, by string
	var limit int
	var asCSV bool
	return clientCommand[control.Usage]{
		use: "usage", short: "Sum the GPU seconds and calls of a time by person, Space, function, tier or group",
		long: `Sum the calls of the running host that ended in a time, most used first. USED is the time on a GPU, CHARGED what it cost
of the quota, and SHARE the part of all used seconds. REFUSED counts the calls that the quota did not admit, KILLED the workers
that the host ended. The sums agree with the ledger to the millisecond. Calls older than the retention period are deleted.`,
		example: "  spacehost usage\n  spacehost usage --by function --since 24h\n  spacehost usage --by person --since 30d --limit 1000 --csv > usage.csv",
		args:    cobra.NoArgs,
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&by, "by", "person", "what the rows are: person, space, function, tier or group")
			c.Flags().StringVar(&since, "since", "7d", "begin of the time: an age such as 90m, 24h or 7d, or a time of RFC 3339")
			c.Flags().StringVar(&until, "until", "", "end of the time, in the same forms (default: now)")
			c.Flags().IntVar(&limit, "limit", 20, "maximum number of rows; the others become one row")
			c.Flags().BoolVar(&asCSV, "csv", false, "print the rows as CSV, with times in seconds")
			c.PreRunE = func(c *cobra.Command, _ []string) error {
				if asCSV && c.Flags().Changed("json") {
					return wrongUsage.Wrap(c, errors.New("--csv and --json exclude each other; give one"))
				}
				return nil
			}
		},
		request: func([]string, int) (control.Request, error) {
			q := control.UsageQuery{By: by, Limit: limit}
			if limit < 1 {
				return control.Request{}, fmt.Errorf("--limit %d is below 1", limit)
			}
			now := time.Now()
			var err error
			if q.From, err = parsePast(since, now); err != nil {
				return control.Request{}, fmt.Errorf("--since: %w", err)
			}
			if until != "" {
				if q.To, err = parsePast(until, now); err != nil {
					return control.Request{}, fmt.Errorf("--until: %w", err)
				}
			}
			return control.ShowUsage.Request(control.NoBody{}).With(q.Values()), nil
		},
		show: func(c *cobra.Command, u control.Usage, _ []string) error {
			if asCSV {
				return writeUsageCSV(c.OutOrStdout(), u)
			}
			return aligned(c, func(w io.Writer) { showUsage(w, u) })
		},
	}.command()
}

// parsePast parses a time of RFC 3339, or an age before now.
func parsePast(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	age, err := parseAge(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%.40q is not a time; give an age such as 24h or 7d, or a time such as 2026-11-30T14:00:00Z", text)
	}
	return now.Add(-age), nil
}

func showUsage(w io.Writer, u control.Usage) {
	fmt.Fprintf(w, "%s\tCALLS\tREFUSED\tKILLED\tDECLARED\tUSED\tSHARE\tCHARGED\n", strings.ToUpper(u.By))
	for _, row := range usageRows(u) {
		fmt.Fprintln(w, usageLine(row.name, row.UsageSums, u.Total))
	}
	fmt.Fprintln(w, usageLine("total", u.Total, u.Total))
}

func usageLine(name string, s, total control.UsageSums) string {
	share := "-"
	if total.UsedSeconds > 0 {
		share = fmt.Sprintf("%.1f %%", 100*s.UsedSeconds/total.UsedSeconds)
	}
	return fmt.Sprintf("%s\t%d\t%d\t%d\t%.3f s\t%.3f s\t%s\t%.3f s", name, s.Calls, s.Refusals, s.Kills, s.DeclaredSeconds, s.UsedSeconds, share, s.ChargedSeconds)
}

// namedUsage is a row with the name that a person reads.
type namedUsage struct {
	name string
	control.UsageRow
}

// usageRows returns the rows, and that of the others.
func usageRows(u control.Usage) (rows []namedUsage) {
	for _, row := range u.Rows {
		name := orDash(row.Key)
		if row.Space != "" {
			name = row.Space + "/" + name
		}
		rows = append(rows, namedUsage{name, row})
	}
	if u.Others != nil {
		rows = append(rows, namedUsage{fmt.Sprintf("%d others", u.OtherRows), *u.Others})
	}
	return rows
}

func writeUsageCSV(to io.Writer, u control.Usage) error {
	w := csv.NewWriter(to)
	lines := [][]string{{"name", "key", "space", "calls", "refusals", "kills", "declaredSeconds", "usedSeconds", "heldSeconds", "chargedSeconds"}}
	for _, row := range usageRows(u) {
		line := []string{views.CSVText(row.name), views.CSVText(row.Key), views.CSVText(row.Space)}
		for _, n := range []int{row.Calls, row.Refusals, row.Kills} {
			line = append(line, strconv.Itoa(n))
		}
		for _, s := range []float64{row.DeclaredSeconds, row.UsedSeconds, row.HeldSeconds, row.ChargedSeconds} {
			line = append(line, views.CSVSeconds(s))
		}
		lines = append(lines, line)
	}
	return w.WriteAll(lines)
}
