package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
)

func newReload() *cobra.Command {
	var dryRun bool
	return clientCommand[control.ReloadAnswer]{
		use: "reload", short: "Apply the changed configuration file of a running `spacehost serve`",
		long: `Apply the configuration file of the running "spacehost serve" again, and print the difference. All of the file is
checked first. A file with a mistake, or with a change that needs a restart of the host, changes nothing. A Space whose
own files are wrong, such as README.md, keeps them and the settings that need a restart; the rest is applied.

Spaces, people, tokens, tiers, members, visibility and concurrency take effect at once. A Space with another folder,
python, Variables, Secrets, limits, mounts, address or network restarts; waiting calls are kept. Other Spaces continue
with their connections. SIGHUP to the host and "serve --watch-config" do the same.

Exit codes: 1 no host answers, 2 wrong usage, 6 the file is not applied, or not for each Space, or a dry run
finds that.`,
		example: `  spacehost reload --dry-run                only print the difference
  spacehost reload
  spacehost reload --json | jq -r '.changes[].text'`,
		args: cobra.NoArgs,
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&dryRun, "dry-run", false, "print the difference, change nothing")
		},
		request: func([]string, int) (control.Request, error) {
			return control.Reload.Request(control.ReloadRequest{DryRun: dryRun}), nil
		},
		show: showReload,
		fails: func(a control.ReloadAnswer) error {
			if a.Refused != "" {
				return &previewError{a.Refused}
			}
			if len(a.Failed) > 0 {
				return &previewError{fmt.Sprintf("%d of the Spaces could not be read, see above; all else of the file is %s", len(a.Failed), applied(a))}
			}
			return nil
		},
	}.command()
}

// previewError reports a file that is not applied as a whole, or a dry run of one.
type previewError struct{ reason string }

func (e *previewError) Error() string { return e.reason }

func showReload(c *cobra.Command, a control.ReloadAnswer, _ []string) error {
	printWarnings(c, a.Warnings)
	for _, change := range a.Changes {
		if err := printf(c, "%s", change.Text); err != nil {
			return err
		}
	}
	for _, f := range a.Failed {
		if err := printf(c, "! %s", f); err != nil {
			return err
		}
	}
	switch {
	case a.Refused != "":
		return nil // an error follows
	case len(a.Changes) == 0:
		return printf(c, "No changes in %s (configuration %s).", a.File, a.Digest)
	default:
		return printf(c, "%s: %s, changes: %d (configuration %s).", a.File, applied(a), len(a.Changes), a.Digest)
	}
}

func applied(a control.ReloadAnswer) string {
	return map[bool]string{true: "applied", false: "not applied (dry run)"}[a.Applied]
}
