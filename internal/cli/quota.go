package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
	"spacehost/internal/views"
)

// accountHelp explains how an account is named on the command line.
const accountHelp = `ACCOUNT is local (the user of this machine), a person's name, an address (203.0.113.7), or space:NAME.`

func newQuota() *cobra.Command {
	c := clientCommand[json.RawMessage]{
		use: "quota [ACCOUNT]", short: "List the GPU seconds left in every account, or show one account",
		complete: completeAccount,
		long: `List the accounts of the running host: seconds in all, charged, held by open leases, left, prepaid (credits), the runs
that are left of the tier's number in any 24 hours, and the end of the 24-hour window. With ACCOUNT, show that account: how many calls of each function still fit (by the duration of the function's
last call, or else of its decorator, and one after another by the average that its calls used), what each function
declared and used, which calls hold seconds now, and the last charges.
` + accountHelp,
		example: `  spacehost quota
  spacehost quota ada
  spacehost quota --json | jq '.[] | select((.unlimited | not) and .leftSeconds < 30)'
  spacehost quota grant ada 2m --reason "demo day"
  spacehost quota credit ada 30m`,
		args: cobra.MaximumNArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			if len(args) == 0 {
				return control.ListBalances.Request(control.NoBody{}), nil
			}
			return control.ShowAccount.Request(control.NoBody{}).With(control.AccountQuery(args[0], views.Query{})), nil
		},
		show: func(c *cobra.Command, answer json.RawMessage, args []string) error {
			if len(args) == 0 {
				return showBalances(c, answer)
			}
			var account views.Account
			if err := decode(answer, &account); err != nil {
				return err
			}
			return aligned(c, func(w io.Writer) { showAccount(w, account) })
		},
	}.command()
	c.AddCommand(newGrant(), newReset(), newCredit())
	return c
}

func showBalances(c *cobra.Command, answer json.RawMessage) error {
	var balances []control.Balance
	if err := decode(answer, &balances); err != nil {
		return err
	}
	return printTable(c, "IDENTITY\tTIER\tIN ALL\tCHARGED\tHELD\tLEFT\tCREDITS\tRUNS LEFT\tRESETS", balances, func(b control.Balance) string {
		left, all, resets := fmt.Sprintf("%.1f s", b.LeftSeconds), fmt.Sprintf("%g s", b.BaseSeconds), "after the first use"
		if b.Unlimited {
			left, all = "no limit", "no limit"
		}
		if b.ResetsAt != nil {
			resets = formatTime(*b.ResetsAt)
		}
		runs := "no limit"
		if b.Runs != nil {
			runs = fmt.Sprintf("%d of %d", b.Runs.Remaining, b.Runs.Limit)
		}
		return fmt.Sprintf("%s\t%s\t%s\t%.3f s\t%g s\t%s\t%s\t%s\t%s", b.Identity, b.Tier, all, b.ChargedSeconds, b.HeldSeconds, left,
			cost(b.CreditSeconds), runs, resets)
	})
}

func showAccount(w io.Writer, a views.Account) {
	showStanding(w, a)
	if len(a.Functions) > 0 {
		fmt.Fprintln(w, "\nSPACE\tFUNCTION\tDECLARED\tSIZE\tCOSTS\tUSED\tCALLS LEFT")
	}
	for _, f := range a.Functions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Space, f.Function, declared(f), orDash(f.Size), cost(f.CostSeconds), used(f), callsLeft(f, a.Unlimited))
	}
	showAdvice(w, a.Advice)
	showOpen(w, a.Open)
	if len(a.Charges) > 0 {
		fmt.Fprintln(w, "\nENDED\tSPACE\tFUNCTION\tDECLARED\tUSED\tCHARGED\tREASON")
	}
	for _, e := range a.Charges {
		fmt.Fprintf(w, "%s\t%s\t%s\t%g s\t%.3f s\t%.3f s\t%s\n", formatTime(e.At), e.Space, orDash(e.Function), e.DeclaredSeconds, e.UsedSeconds,
			e.ChargedSeconds, withParties(e.Reason, e.Via, ""))
	}
}

// showStanding prints what is left in an account, and until when.
func showStanding(w io.Writer, a views.Account) {
	if a.Unlimited {
		fmt.Fprintf(w, "%s is %q: no limit; %s used in this window.\n", a.Identity, a.Tier, formatDuration(a.ChargedSeconds))
		showRuns(w, a.Runs)
		return
	}
	fmt.Fprintf(w, "%s is %q: %.1f s (%s) left of %g s in 24 hours; %.3f s charged, %g s held by open calls.\n",
		a.Identity, a.Tier, a.LeftSeconds, formatDuration(a.LeftSeconds), a.BaseSeconds, a.ChargedSeconds, a.HeldSeconds)
	if a.GrantedSeconds > 0 {
		fmt.Fprintf(w, "%g s of them were granted by the operator, until the reset.\n", a.GrantedSeconds)
	}
	showCredits(w, a)
	showRuns(w, a.Runs)
	limits := fmt.Sprintf("One call may declare %g s at most", a.LongestSeconds)
	if a.Concurrency > 0 {
		limits += fmt.Sprintf(", and %d may hold a GPU at a time", a.Concurrency)
	}
	fmt.Fprintln(w, limits+".")
	if a.ResetsAt == nil {
		fmt.Fprintln(w, "The 24 hours begin with the next use of a GPU.")
		return
	}
	fmt.Fprintf(w, "The full quota is back at %s, in %s.\n", a.ResetsAt.Local().Format("Jan 2 15:04:05.000"), a.ResetsIn)
}

func showCredits(w io.Writer, a views.Account) {
	if a.CreditSeconds+a.CreditHeldSeconds+a.CreditChargedSeconds > 0 {
		fmt.Fprintf(w, "Credits beyond the quota: %.1f s (%s) left; %.3f s charged in this window, %g s held by open calls.\n",
			a.CreditSeconds, formatDuration(a.CreditSeconds), a.CreditChargedSeconds, a.CreditHeldSeconds)
	}
}

// showRuns prints the runs that are left, and when the next one returns.
func showRuns(w io.Writer, r *views.Runs) {
	if r == nil {
		return
	}
	text := fmt.Sprintf("%d of %d runs left in 24 hours", r.Remaining, r.Limit)
	if r.Granted > 0 {
		text += fmt.Sprintf(", %d of them granted by the operator", r.Granted)
	}
	if r.Reserved > 0 {
		text += fmt.Sprintf("; %d reserved by calls that wait for a GPU", r.Reserved)
	}
	if r.ResetsAt != nil {
		text += fmt.Sprintf("; the next returns at %s, in %s", r.ResetsAt.Local().Format("Jan 2 15:04:05.000"), r.ResetsIn)
	}
	if !r.Enforced {
		text += "; not enforced, because this host was started without --tier"
	}
	fmt.Fprintln(w, text+".")
}

func declared(f views.Fit) string {
	if f.DeclaredSeconds == 0 {
		return "by the call"
	}
	if f.From == views.FromCall {
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

// used is the average use of a function's calls.
func used(f views.Fit) string {
	if f.UsedSeconds == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f s", *f.UsedSeconds)
}

// showAdvice prints a line for each function that should declare another duration.
func showAdvice(w io.Writer, all []views.Advice) {
	for i, advice := range all {
		if i == 0 {
			fmt.Fprintln(w, "\nDeclared and used in the last 24 hours:")
		}
		fmt.Fprintf(w, "  %s/%s.\n", advice.Space, advice.Text)
	}
}

func callsLeft(f views.Fit, unlimited bool) string {
	switch {
	case f.CallsInTurn != nil && *f.CallsInTurn != *f.Calls:
		return fmt.Sprintf("%d (%s one after another)", *f.Calls, views.InTurn(*f.CallsInTurn))
	case f.Calls != nil:
		return strconv.Itoa(*f.Calls)
	case unlimited:
		return "no limit"
	}
	return "-"
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func showOpen(w io.Writer, open []views.Open) {
	if len(open) > 0 {
		fmt.Fprintln(w, "\nLEASE\tSTATE\tSPACE\tFUNCTION\tHOLDS\tUNTIL")
	}
	for _, o := range open {
		until := "it had a GPU"
		switch {
		case o.Deadline != nil:
			until = formatTime(*o.Deadline) + " at the latest"
		case o.Forecast != nil:
			until = fmt.Sprintf("its start (number %d in line), %s at the latest", o.Rank+1, formatTime(o.GivesUp))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%g s\t%s\n", o.Lease, o.State, o.Space, orDash(o.Function), o.HeldSeconds, withParties(until, o.Via, ""))
	}
}

// withParties adds to a reason the Space that made a delegated call, and the operator behind a line of the ledger.
func withParties(reason, via, by string) string {
	for _, party := range []struct{ word, name string }{{"via", via}, {"by", by}} {
		if party.name == "" {
			continue
		}
		if reason != "" {
			reason += ", "
		}
		reason += party.word + " " + party.name
	}
	return reason
}

func newLedger() *cobra.Command {
	var q views.Query
	return clientCommand[[]views.Entry]{
		use: "ledger ACCOUNT", short: "List every line of an account's ledger: holds, charges, refunds, grants, resets, credits",
		complete: completeAccount,
		long: `List the lines of one account's ledger, newest first. Each lease has a hold (seconds set aside before it waits for a
GPU) and a settle line (charged for the time on the GPU, the rest returned). CREDITS is the part of a hold that comes from
the credits, or the part of a charge that they pay. RUNS counts a call that was granted a GPU, and the runs of a grant or a
reset. Grants, resets and credits name the operator.
` + accountHelp + `
People read their own lines over HTTP, with their token: docs/operator-guide.md.`,
		example: "  spacehost ledger ada\n  spacehost ledger local --limit 1000 --json",
		args:    cobra.ExactArgs(1), limit: 20,
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&q.Space, "space", "", "only lines of this Space")
			c.Flags().StringVar(&q.Function, "function", "", "only lines of this function")
			c.Flags().StringVar(&q.Kind, "kind", "", "only lines of this kind: hold, settle, grant, reset or credit")
			c.Flags().StringVar(&q.From, "from", "", "only lines from this time on (RFC 3339, such as 2026-11-30T14:00:00Z)")
			c.Flags().StringVar(&q.To, "to", "", "only lines before this time")
			c.Flags().StringVar(&q.Before, "before", "", "only lines with an ID below this, for the page after those that were read")
		},
		request: func(args []string, limit int) (control.Request, error) {
			q.Limit = strconv.Itoa(limit)
			return control.ShowLedger.Request(control.NoBody{}).With(control.AccountQuery(args[0], q)), nil
		},
		show: func(c *cobra.Command, entries []views.Entry, _ []string) error {
			return printTable(c, "AT\tKIND\tLEASE\tSPACE\tFUNCTION\tDECLARED\tUSED\tHELD\tCHARGED\tRETURNED\tCREDITS\tRUNS\tREASON", entries, func(e views.Entry) string {
				credit := e.CreditChargedSeconds
				if e.Kind == "hold" {
					credit = e.CreditHeldSeconds
				}
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%g s\t%.3f s\t%g s\t%.3f s\t%.3f s\t%s\t%d\t%s", formatTime(e.At), e.Kind, orDash(e.Lease), orDash(e.Space),
					orDash(e.Function), e.DeclaredSeconds, e.UsedSeconds, e.HeldSeconds, e.ChargedSeconds, e.ReturnedSeconds, cost(credit), e.Runs,
					withParties(e.Reason, e.Via, e.By))
			})
		},
	}.command()
}

func newExplain() *cobra.Command {
	var q views.Query
	return clientCommand[views.Explanation]{
		use: "explain ACCOUNT", short: "Explain why calls of an account are refused, and when they will fit",
		complete: completeAccount,
		long: `Explain the last refused calls of an account (since the start of the host), list its open calls that hold seconds, and
show for each function whether a call would pass now, or when. The command holds and charges nothing.
` + accountHelp,
		example: `  spacehost explain local
  spacehost explain ada --space demo --function generate
  spacehost explain ada --seconds 45 --size xlarge    a call that no function makes yet
  spacehost explain ada --via space-a                 what Spaces may spend through others`,
		args: cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&q.Space, "space", "", "only this Space")
			c.Flags().StringVar(&q.Function, "function", "", "only this function")
			c.Flags().StringVar(&q.Seconds, "seconds", "", "a call with this declared duration, in seconds")
			c.Flags().StringVar(&q.Size, "size", "", "with --seconds: the size of that call, large or xlarge")
			c.Flags().StringVar(&q.Via, "via", "", "calls made by this Space on the account's behalf")
		},
		request: func(args []string, _ int) (control.Request, error) {
			if q.Size != "" && q.Seconds == "" {
				return control.Request{}, errors.New("--size requires --seconds")
			}
			return control.ExplainAccount.Request(control.NoBody{}).With(control.AccountQuery(args[0], q)), nil
		},
		show: func(c *cobra.Command, e views.Explanation, _ []string) error {
			return aligned(c, func(w io.Writer) { showExplanation(w, e) })
		},
	}.command()
}

func showExplanation(w io.Writer, e views.Explanation) {
	showStanding(w, e.Account)
	showOpen(w, e.Open)
	if len(e.Refusals) > 0 {
		fmt.Fprintln(w, "\nREFUSED\tWHOSE QUOTA\tSPACE\tFUNCTION\tWHY\tAGAIN")
	}
	for _, r := range e.Refusals {
		again := "never, as this tier"
		if r.Again != nil {
			again = formatTime(*r.Again)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", formatTime(r.At), r.Identity, r.Space, orDash(r.Function), withParties(r.Text, r.Via, ""), again)
	}
	if len(e.Calls) > 0 {
		fmt.Fprintln(w, "\nSPACE\tFUNCTION\tSIZE\tCOSTS\tA CALL NOW")
	}
	for _, v := range e.Calls {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", orDash(v.Space), orDash(v.Function), v.Size, cost(v.CostSeconds), whenItFits(v))
	}
	showAdvice(w, e.Advice)
	if e.Maintenance != "" {
		fmt.Fprintf(w, "\n%s.\n", e.Maintenance)
	}
	if e.Waiting > 0 {
		fmt.Fprintf(w, "\n%d calls of all accounts wait for a GPU; `spacehost lease` lists them.\n", e.Waiting)
	}
}

func whenItFits(v views.Verdict) string {
	switch {
	case v.Fits && v.Why != "":
		return "fits, and waits: " + v.Why
	case v.Fits:
		return "fits"
	case v.At == nil:
		return v.Why
	}
	return fmt.Sprintf("%s; fits at %s, in %s", v.Why, formatTime(*v.At), v.In)
}
