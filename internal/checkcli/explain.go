package checkcli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spacehost/internal/check"
	"spacehost/internal/usage"
)

func newExplainRule() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain-rule [ID]",
		Short: "Explain a rule of check, or list all rules",
		Long: `Print the page of a rule: what it finds, what happens on ZeroGPU, the fix, and what the rule rests on. Without ID, list all
rules with their severity, their bucket, the stages that can find them, and their title. The first letter is the bucket, the
kind of failure.`,
		Example: `  spacehost explain-rule F315
  spacehost explain-rule
  spacehost explain-rule --json | jq -r '.[] | select(.severity == "error") | .id'`,
		Args:              usage.Args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeRules,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listRules(c.OutOrStdout(), asJSON)
			}
			rule, err := check.Find(args[0])
			if err != nil {
				return usage.Wrap(c, err)
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), viewOf(rule))
			}
			_, err = io.WriteString(c.OutOrStdout(), rule.Plain())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	return c
}

// ruleView is the JSON of a rule.
type ruleView struct {
	ID       string         `json:"id"`
	Title    string         `json:"title"`
	Severity check.Severity `json:"severity"`
	Bucket   string         `json:"bucket"`
	Stages   []check.Stage  `json:"stages"`
	Sources  []string       `json:"sources"`
	Page     string         `json:"page"` // Markdown
}

func viewOf(r check.Rule) ruleView {
	return ruleView{r.ID, r.Title, r.Severity, r.Bucket(), r.Stages, r.Sources, r.Page}
}

func listRules(w io.Writer, asJSON bool) error {
	if asJSON {
		views := []ruleView{}
		for _, rule := range check.Rules() {
			views = append(views, viewOf(rule))
		}
		return printJSON(w, views)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tSEVERITY\tBUCKET\tSTAGES\tTITLE")
	for _, rule := range check.Rules() {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", rule.ID, rule.Severity, rule.Bucket(), rule.StageNames(), rule.Title)
	}
	return table.Flush()
}

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func completeRules(_ *cobra.Command, args []string, _ string) (all []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, rule := range check.Rules() {
		all = append(all, cobra.CompletionWithDesc(rule.ID, rule.Title))
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}
