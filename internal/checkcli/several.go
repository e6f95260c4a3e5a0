package checkcli

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/check"
)

// checkSeveral finds flags about files of a single Space next to several folders.
func (o *options) checkSeveral() error {
	if len(o.dirs) > 1 && (o.baseline != "" || o.writeBaseline != "" || o.writeLock != "" || o.like != "" || len(o.gradio) > 1) {
		return errors.New("several folders exclude --baseline, --write-baseline, --write-lock, --like and several versions of --gradio; run the command once per folder")
	}
	return nil
}

// several checks the Spaces one after another, each folder once, and writes one report. Its error is that of the first build or
// start that fails, else the verdict about all findings.
func (o *options) several(c *cobra.Command, gradio string) error {
	began := time.Now()
	all := &check.Report{}
	var failed error
	var seen []string
	for _, o.dir = range o.dirs {
		_, base := place(o.dir)
		if slices.Contains(seen, base) {
			continue
		}
		seen = append(seen, base)
		report, wrong, err := o.examine(c, gradio)
		if err != nil {
			return err
		}
		failed = cmp.Or(failed, wrong)
		all.Merge(report, base)
	}
	all.Skip(o.run || o.call, o.call, o.hint())
	if err := o.write(c.OutOrStdout(), all, ".", time.Since(began)); err != nil {
		return err
	}
	return cmp.Or(failed, o.verdict(all))
}
