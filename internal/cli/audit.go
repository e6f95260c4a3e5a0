package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/audit"
	"spacehost/internal/control"
)

func newAudit() *cobra.Command {
	var since string
	return clientCommand[[]audit.Record]{
		use: "audit", short: "List changes by operators and the actor of each",
		long: `List changes by operators and people on the running host, newest first: on the command line (cli), at the console, and
reloads by a signal or a watched file (host). Refused requests are included, with the reason. An entry has no token. Entries
are kept as long as the ledger ("keep" in the configuration).`,
		example: `  spacehost audit
  spacehost audit --since 24h
  spacehost audit --json --limit 1000 | jq '.[] | select(.status >= 400)'`,
		args: cobra.NoArgs, limit: 50,
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&since, "since", "", "only changes since a time in RFC 3339, or within a duration such as 24h or 7d (default: all)")
		},
		request: func(_ []string, limit int) (control.Request, error) {
			from, err := parseSince(since, time.Now())
			return control.ListAudit.Request(control.NoBody{}).With(control.AuditQuery(from, limit)), err
		},
		show: func(c *cobra.Command, all []audit.Record, _ []string) error {
			if len(all) == 0 {
				return printf(c, "No changes.")
			}
			return printTable(c, "AT\tBY\tFROM\tACTION\tON\tVALUES\tRESULT", all, func(e audit.Record) string {
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", formatTime(e.At), formatActor(e), e.Origin, e.Action, orDash(e.Object), orDash(formatFields(e.Fields)), formatResult(e))
			})
		},
	}.command()
}

// formatActor formats the actor of a change, and the token.
func formatActor(e audit.Record) string {
	if e.Token == "" {
		return e.Actor
	}
	return e.Actor + " (token " + e.Token + ")"
}

func formatResult(e audit.Record) string {
	switch {
	case e.Status < 400:
		return "done"
	case e.Detail == "":
		return fmt.Sprintf("refused (%d)", e.Status)
	}
	return fmt.Sprintf("refused (%d): %s", e.Status, e.Detail)
}

// formatFields formats the fields of a request, sorted by name.
func formatFields(fields map[string]any) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		if number, ok := value.(float64); ok {
			value = strconv.FormatFloat(number, 'f', -1, 64)
		}
		all = append(all, fmt.Sprintf("%s=%v", name, value))
	}
	return strings.Join(all, " ")
}
