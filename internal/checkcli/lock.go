package checkcli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spacehost/internal/check"
	"spacehost/internal/usage"
)

// lock performs --write-lock and --like, after the stages, which may have built the environment.
func (o *options) lock(c *cobra.Command, gradio string) error {
	if o.writeLock == "" && o.like == "" {
		return nil
	}
	now, err := o.config.Pins(c.Context(), o.state, o.dir, gradio)
	if err != nil {
		return err
	}
	if now == nil {
		return errors.New("the environment of the Space has not been built; add --run, which builds it")
	}
	if o.like != "" {
		return o.compareLock(c.OutOrStdout(), now)
	}
	file, err := os.Create(o.writeLock)
	if err == nil {
		err = errors.Join(now.Write(file), file.Close())
	}
	if err != nil {
		return fmt.Errorf("write the lock: %w", err)
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s holds the %d packages of Python %s.\n", o.writeLock, len(now.Packages), now.Python)
	return nil
}

// compareLock prints what differs from the file of --like. A difference fails the check unless --fail-on is never.
func (o *options) compareLock(w io.Writer, now *check.Pins) error {
	file, err := os.Open(o.like)
	if err != nil {
		return fmt.Errorf("--like: %w", err)
	}
	defer file.Close()
	before, err := check.ReadPins(file)
	if err != nil {
		return fmt.Errorf("--like %s: %w", o.like, err)
	}
	drift := before.Compare(now)
	if len(drift) == 0 {
		_, err := fmt.Fprintf(w, "The environment has the %d packages of %s.\n", len(now.Packages), o.like)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PACKAGE\tLOCK\tNOW")
	for _, d := range drift {
		fmt.Fprintf(table, "%s\t%s\t%s\n", d.Name, cmp.Or(d.Pinned, "-"), cmp.Or(d.Now, "-"))
	}
	if err := table.Flush(); err != nil || o.failOn == never {
		return err
	}
	return &FindingsError{usage.ExitFindings, len(drift)}
}
