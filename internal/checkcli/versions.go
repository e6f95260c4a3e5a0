package checkcli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/check"
	"spacehost/internal/lazyregexp"
)

var gradioVersion = lazyregexp.New(`^\d+\.\d+(\.\d+)?([a-z0-9.]+)?$`)

// checkGradio finds mistakes in --gradio.
func (o *options) checkGradio() error {
	if len(o.gradio) == 0 {
		return nil
	}
	for _, version := range o.gradio {
		if !gradioVersion.MatchString(version) {
			return fmt.Errorf("--gradio: %.40q is no version; write it as 6.31.0, and several with commas", version)
		}
	}
	switch {
	case !o.run && !o.call:
		return fmt.Errorf("--gradio: %w: what is read does not depend on the version", errNoStages)
	case o.python != "":
		return errors.New("--gradio and --python exclude each other; the interpreter has a Gradio of its own")
	case len(o.gradio) > 1 && o.format != "text":
		return fmt.Errorf("--gradio with several versions requires --format text; for %s, run the command once per version", o.format)
	case len(o.gradio) > 1 && (o.writeBaseline != "" || o.writeLock != "" || o.like != ""):
		return errors.New("--gradio with several versions excludes --write-baseline, --write-lock and --like; run the command once per version")
	}
	return nil
}

// outcome is one row of the table.
type outcome struct {
	gradio string
	report *check.Report
	err    error
	took   time.Duration
}

// eachGradio checks with every version, and prints a table. Its error is that of the first version that fails.
func (o *options) eachGradio(c *cobra.Command) error {
	var all []outcome
	for _, version := range o.gradio {
		fmt.Fprintf(c.OutOrStdout(), "gradio %s\n", version)
		began := time.Now()
		report, err := o.once(c, version)
		if c.Context().Err() != nil || report == nil {
			return err
		}
		if _, printed := errors.AsType[*FindingsError](err); err != nil && !printed {
			fmt.Fprintf(c.OutOrStdout(), "%v\n", err)
		}
		fmt.Fprintln(c.OutOrStdout())
		all = append(all, outcome{version, report, err, time.Since(began)})
	}
	if err := o.printOutcomes(c.OutOrStdout(), all); err != nil {
		return err
	}
	if failed := slices.IndexFunc(all, func(one outcome) bool { return one.err != nil }); failed >= 0 {
		return all[failed].err
	}
	return nil
}

func (o *options) printOutcomes(w io.Writer, all []outcome) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "GRADIO\tRESULT\tERRORS\tWARNINGS\tINFOS\tSECONDS")
	for _, one := range all {
		errorCount := one.report.AtLeast(check.Error)
		warnings := one.report.AtLeast(check.Warning) - errorCount
		infos := len(one.report.Findings) - errorCount - warnings
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%.1f\n", one.gradio, o.result(one.err), errorCount, warnings, infos, one.took.Seconds())
	}
	return table.Flush()
}

// result names the outcome of one check, a failed start by the Hub's stage.
func (o *options) result(err error) string {
	if err == nil {
		return "passes"
	}
	if _, ok := errors.AsType[*FindingsError](err); ok {
		return "findings"
	}
	if o.config.StageOf != nil {
		return cmp.Or(o.config.StageOf(err), "failed")
	}
	return "failed"
}
