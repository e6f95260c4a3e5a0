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
checked first. A file with a mistake, or with a change that needs a restart of the host, changes nothing.

Spaces, people, tokens, tiers, members, visibility and concurrency take effect at once. A Space with another folder,
python, Variables, Secrets, limits, mounts, address or network restarts; waiting calls are kept. Other Spaces continue
with their connections. SIGHUP to the host and "serve --watch-config" do the same.

Exit codes: 1 no host answers, 2 wrong usage, 6 the file is not applied, or a dry run finds that it would not be.`,
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
			return nil
		},
	}.command()
}

// previewError reports a dry run whose file would not be applied.
type previewError struct{ reason string }

func (e *previewError) Error() string { return e.reason }

func showReload(c *cobra.Command, a control.ReloadAnswer, _ []string) error {
	printWarnings(c, a.Warnings)
	for _, change := range a.Changes {
		if err := printf(c, "%s", change.Text); err != nil {
			return err
		}
	}
	switch verb := map[bool]string{true: "applied", false: "not applied (dry run)"}[a.Applied]; {
	case a.Refused != "":
		return nil // an error follows
	case len(a.Changes) == 0:
		return printf(c, "No changes in %s.", a.File)
	default:
		return printf(c, "%s, changes: %d.", fmt.Sprintf("%s: %s", a.File, verb), len(a.Changes))
	}
}
