package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/console"
)

// whoHelp says how an account is named on the command line.
const whoHelp = `WHO is local (this machine's user), a person's name, an address (203.0.113.7), or space:NAME.`

func newQuota() *cobra.Command {
	c := question[json.RawMessage]{
		use: "quota [WHO]", short: "List who has how many GPU seconds left, or show one account",
		long: `List the accounts of the running host: seconds in all, charged, held by open leases, left, and when the
24-hour window ends. With WHO, show that account: how many calls of each function still fit (by what the function's
last call asked for, before that by what its decorator says), what holds seconds now, and the last charges.
` + whoHelp,
		example: `  spacehost quota
  spacehost quota ada
  spacehost quota --json | jq '.[] | select(.leftSeconds < 30)'
  spacehost quota grant ada 2m --reason "demo day"`,
		path: func(args []string, _ int) string {
			if len(args) == 0 {
				return "/quota"
			}
			return "/account?" + url.Values{"identity": args}.Encode()
		},
		args: cobra.MaximumNArgs(1),
		table: func(w io.Writer, answer json.RawMessage, args []string) {
			if len(args) == 0 {
				showBalances(w, answer)
				return
			}
			var account console.Account
			_ = json.Unmarshal(answer, &account) // ours: it was valid JSON a moment ago
			showAccount(w, account)
		},
	}.command()
	c.AddCommand(newGrant(), newReset())
	return c
}

func showBalances(w io.Writer, answer json.RawMessage) {
	var balances []console.Balance
	_ = json.Unmarshal(answer, &balances) // ours: it was valid JSON a moment ago
	fmt.Fprintln(w, "IDENTITY\tTIER\tIN ALL\tCHARGED\tHELD\tLEFT\tRESETS")
	for _, b := range balances {
		left, all, resets := fmt.Sprintf("%.1f s", b.LeftSeconds), fmt.Sprintf("%g s", b.BaseSeconds), "after the first use"
		if b.Unlimited {
			left, all = "no limit", "no limit"
		}
		if b.ResetsAt != nil {
			resets = stamp(*b.ResetsAt)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.3f s\t%g s\t%s\t%s\n", b.Identity, b.Tier, all, b.ChargedSeconds, b.HeldSeconds, left, resets)
	}
}

func showAccount(w io.Writer, a console.Account) {
	showStanding(w, a)
	if len(a.Functions) > 0 {
		fmt.Fprintln(w, "\nSPACE\tFUNCTION\tDECLARED\tSIZE\tCOSTS\tCALLS LEFT")
	}
	for _, f := range a.Functions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Space, f.Function, declared(f), orDash(f.Size), cost(f.CostSeconds), callsOf(f, a.Unlimited))
	}
	showOpen(w, a.Open)
	if len(a.Charges) > 0 {
		fmt.Fprintln(w, "\nENDED\tSPACE\tFUNCTION\tDECLARED\tUSED\tCHARGED\tREASON")
	}
	for _, e := range a.Charges {
		fmt.Fprintf(w, "%s\t%s\t%s\t%g s\t%.3f s\t%.3f s\t%s\n", stamp(e.At), e.Space, orDash(e.Function), e.DeclaredSeconds, e.UsedSeconds,
			e.ChargedSeconds, because(e.Reason, e.Via, ""))
	}
}

// showStanding says in words what is left, and until when.
func showStanding(w io.Writer, a console.Account) {
	if a.Unlimited {
		fmt.Fprintf(w, "%s is %q: no limit; %s used in this window.\n", a.Identity, a.Tier, spoken(a.ChargedSeconds))
		return
	}
	fmt.Fprintf(w, "%s is %q: %.1f s (%s) left of %g s in 24 hours; %.3f s charged, %g s held by open calls.\n",
		a.Identity, a.Tier, a.LeftSeconds, spoken(a.LeftSeconds), a.BaseSeconds, a.ChargedSeconds, a.HeldSeconds)
	if a.GrantedSeconds > 0 {
		fmt.Fprintf(w, "%g s of them were granted by the operator, until the reset.\n", a.GrantedSeconds)
	}
	limits := fmt.Sprintf("One call may ask for %g s at most", a.LongestSeconds)
	if a.Concurrency > 0 {
		limits += fmt.Sprintf(", and %d may hold a GPU at a time", a.Concurrency)
	}
	fmt.Fprintln(w, limits+".")
	if a.ResetsAt == nil {
		fmt.Fprintln(w, "The 24 hours begin with the next use of a GPU.")
		return
	}
	fmt.Fprintf(w, "All of it is back at %s, in %s.\n", a.ResetsAt.Local().Format("Jan 2 15:04:05.000"), a.ResetsIn)
}

func declared(f console.Fit) string {
	if f.DeclaredSeconds == 0 {
		return "by the call"
	}
	if f.From == console.FromCall {
		return fmt.Sprintf("%g s (last call)", f.DeclaredSeconds)
	}
	return fmt.Sprintf("%g s", f.DeclaredSeconds)
}

func cost(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%g s", seconds)
}

func callsOf(f console.Fit, unlimited bool) string {
	switch {
	case unlimited:
		return "no limit"
	case f.Calls == nil:
		return "-"
	}
	return strconv.Itoa(*f.Calls)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func showOpen(w io.Writer, open []console.Open) {
	if len(open) > 0 {
		fmt.Fprintln(w, "\nLEASE\tSTATE\tSPACE\tFUNCTION\tHOLDS\tUNTIL")
	}
	for _, o := range open {
		until := "it had a GPU"
		switch {
		case o.Deadline != nil:
			until = stamp(*o.Deadline) + " at the latest"
		case o.Forecast != nil:
			until = fmt.Sprintf("its turn (number %d in line), %s at the latest", o.Rank+1, stamp(o.GivesUp))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%g s\t%s\n", o.Lease, o.State, o.Space, orDash(o.Function), o.HeldSeconds, because(until, o.Via, ""))
	}
}

// because is a reason, with the Space that spent the seconds through another, and the operator whose deed it was.
func because(reason, via, by string) string {
	for _, more := range []struct{ word, name string }{{"via", via}, {"by", by}} {
		if more.name == "" {
			continue
		}
		if reason != "" {
			reason += ", "
		}
		reason += more.word + " " + more.name
	}
	return reason
}

func newLedger() *cobra.Command {
	return question[[]console.Entry]{
		use: "ledger WHO", short: "List every line of one account: what was held, charged, returned, granted, reset",
		long: `List the lines of one account's ledger, newest first: each lease has a hold (set aside before it waits for a
GPU) and a settle (charged for the time on the GPU, the rest returned); grants and resets name the operator.
` + whoHelp + `
People read their own lines over HTTP, with their token: docs/operator-guide.md.`,
		example: "  spacehost ledger ada\n  spacehost ledger local --limit 1000 --json", limit: 20,
		path: func(args []string, limit int) string {
			return "/ledger?" + url.Values{"identity": args, "limit": {strconv.Itoa(limit)}}.Encode()
		},
		args: cobra.ExactArgs(1),
		table: func(w io.Writer, entries []console.Entry, _ []string) {
			fmt.Fprintln(w, "AT\tKIND\tLEASE\tSPACE\tFUNCTION\tDECLARED\tUSED\tHELD\tCHARGED\tRETURNED\tREASON")
			for _, e := range entries {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%g s\t%.3f s\t%g s\t%.3f s\t%.3f s\t%s\n", stamp(e.At), e.Kind, orDash(e.Lease), orDash(e.Space),
					orDash(e.Function), e.DeclaredSeconds, e.UsedSeconds, e.HeldSeconds, e.ChargedSeconds, e.ReturnedSeconds, because(e.Reason, e.Via, e.By))
			}
		},
	}.command()
}

func newExplain() *cobra.Command {
	ask := url.Values{}
	var space, function, seconds, size, via string
	return deed[console.Explanation]{
		use: "explain WHO", short: "Say why somebody's calls are refused, what is in the way, and when they would fit",
		long: `Say why somebody's calls were refused last (since the host was started), which of their open calls hold seconds,
and for each function whether a call would pass now, or when. Nothing is held or charged by asking.
` + whoHelp,
		example: `  spacehost explain local
  spacehost explain ada --space demo --function generate
  spacehost explain ada --seconds 45 --size xlarge    a call that no function makes yet
  spacehost explain ada --via space-a                 of what Spaces may spend through others`,
		args: cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&space, "space", "", "of this Space alone")
			c.Flags().StringVar(&function, "function", "", "of this function alone")
			c.Flags().StringVar(&seconds, "seconds", "", "of a call that declares so many seconds")
			c.Flags().StringVar(&size, "size", "", "with --seconds, its size: large or xlarge")
			c.Flags().StringVar(&via, "via", "", "as if this Space made the calls on their behalf")
		},
		order: func(args []string) order {
			for name, value := range map[string]string{"identity": args[0], "space": space, "function": function, "seconds": seconds, "size": size, "via": via} {
				if value != "" {
					ask.Set(name, value)
				}
			}
			return order{http.MethodGet, "/explain?" + ask.Encode(), nil}
		},
		show: func(c *cobra.Command, e console.Explanation) error {
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			showExplanation(w, e)
			return w.Flush()
		},
	}.command()
}

func showExplanation(w io.Writer, e console.Explanation) {
	showStanding(w, e.Account)
	showOpen(w, e.Open)
	if len(e.Refusals) > 0 {
		fmt.Fprintln(w, "\nREFUSED\tWHOSE QUOTA\tSPACE\tFUNCTION\tWHY\tAGAIN")
	}
	for _, r := range e.Refusals {
		again := "never, as this tier"
		if r.Again != nil {
			again = stamp(*r.Again)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", stamp(r.At), r.Identity, r.Space, orDash(r.Function), because(r.Text, r.Via, ""), again)
	}
	if len(e.Calls) > 0 {
		fmt.Fprintln(w, "\nSPACE\tFUNCTION\tSIZE\tCOSTS\tA CALL NOW")
	}
	for _, v := range e.Calls {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", orDash(v.Space), orDash(v.Function), v.Size, cost(v.CostSeconds), outlook(v))
	}
	if e.Waiting > 0 {
		fmt.Fprintf(w, "\n%d calls of everybody wait for a GPU; `spacehost lease` shows them.\n", e.Waiting)
	}
}

// outlook is when a call fits.
func outlook(v console.Verdict) string {
	switch {
	case v.Fits:
		return "fits"
	case v.At == nil:
		return v.Why
	}
	return fmt.Sprintf("%s; fits at %s, in %s", v.Why, stamp(*v.At), v.In)
}

func newGrant() *cobra.Command {
	asked := console.NewAdjustment{}
	var by time.Duration
	c := deed[console.Account]{
		use: "grant WHO TIME", short: "Give somebody more seconds, until their reset",
		long: `Give somebody more seconds than their quota, until the window that counts now is over. Before their first use that
is the window which this use opens. It is a line of their ledger, with your name and the reason.
` + whoHelp,
		example: "  spacehost quota grant ada 120s --reason \"demo day\"\n  spacehost quota grant local 5m",
		args:    cobra.ExactArgs(2),
		flags:   func(c *cobra.Command) { c.Flags().StringVar(&asked.Reason, "reason", "", "why, for the ledger") },
		order: func(args []string) order {
			asked.Identity, asked.Seconds = args[0], by.Seconds()
			return order{http.MethodPost, "/grant", asked}
		},
		show: func(c *cobra.Command, a console.Account) error {
			return say(c, "%s has %.1f s (%s) left now.", a.Identity, a.LeftSeconds, spoken(a.LeftSeconds))
		},
	}.command()
	c.PreRunE = func(c *cobra.Command, args []string) error {
		seconds, err := secondsOf(args[1])
		if err == nil && !(seconds >= 1 && seconds < 1e9) {
			err = errors.New("it must be a second at least")
		}
		if err != nil {
			return &usageError{c, fmt.Errorf("%q cannot be granted (as 120s, 5m, or a number of seconds): %w", args[1], err)}
		}
		by = time.Duration(seconds * float64(time.Second))
		return nil
	}
	return c
}

func newReset() *cobra.Command {
	asked := console.NewAdjustment{}
	return deed[console.Account]{
		use: "reset WHO", short: "Give back all that somebody was charged in this window",
		long: `Give back all that somebody was charged in the window that counts now. The window ends when it would have; what open
calls hold stays held, and is charged when they end. It is a line of their ledger, with your name and the reason.
` + whoHelp,
		example: "  spacehost quota reset ada --reason \"the GPU was lost\"",
		args:    cobra.ExactArgs(1),
		flags:   func(c *cobra.Command) { c.Flags().StringVar(&asked.Reason, "reason", "", "why, for the ledger") },
		order: func(args []string) order {
			asked.Identity = args[0]
			return order{http.MethodPost, "/reset", asked}
		},
		show: func(c *cobra.Command, a console.Account) error {
			return say(c, "%s has %.1f s (%s) left now.", a.Identity, a.LeftSeconds, spoken(a.LeftSeconds))
		},
	}.command()
}
