package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
	"spacehost/internal/notify"
	"spacehost/internal/usage"
)

func newWebhook() *cobra.Command {
	c := usage.Group(&cobra.Command{
		Use: "webhook", Short: "Webhooks that receive notices about the host: list, test",
		Long: `Webhooks of the configuration file (` + "`webhooks`" + `, and ` + "`webhook`" + ` of a person). They receive a notice when a Space is
down, a GPU is lost, the disk is low, and so on. URLs are not shown, because some contain a credential.`,
		Example: "  spacehost webhook list\n  spacehost webhook test",
	})
	c.AddCommand(newWebhookList(), newWebhookTest())
	return c
}

func newWebhookList() *cobra.Command {
	return clientCommand[[]control.Webhook]{
		use: "list", short: "List the webhooks and the events that each receives",
		long:    "List the webhooks of the running host, and the events that each receives.",
		example: "  spacehost webhook list\n  spacehost webhook list --json | jq -r '.[].name'",
		args:    cobra.NoArgs, request: fixed(control.ListWebhooks.Request(control.NoBody{})),
		show: func(c *cobra.Command, all []control.Webhook, _ []string) error {
			if len(all) == 0 {
				return printf(c, "No webhooks. Add `webhooks` to the configuration file of `spacehost serve`.")
			}
			return printTable(c, "NAME\tFORMAT\tSIGNED\tPERSON\tEVENTS", all, func(w control.Webhook) string {
				signed := map[bool]string{true: "yes", false: "no"}[w.Signed]
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", w.Name, w.Format, signed, cmp.Or(w.Person, "-"), joinKinds(w.Events))
			})
		},
	}.command()
}

func joinKinds(kinds []notify.Kind) string {
	texts := make([]string, len(kinds))
	for i, k := range kinds {
		texts[i] = string(k)
	}
	return strings.Join(texts, ", ")
}

func newWebhookTest() *cobra.Command {
	return clientCommand[[]control.WebhookResult]{
		use: "test", short: "Send a test notice to each webhook of a running host",
		long: `Send a notice of the type "test" to each webhook of the running host, and wait for the answers. Each webhook gets one
attempt.

Exit codes: 1 no host answers or a webhook did not accept the notice, 2 wrong usage.`,
		example: "  spacehost webhook test",
		args:    cobra.NoArgs, request: fixed(control.TestWebhooks.Request(control.NoBody{})),
		show: func(c *cobra.Command, all []control.WebhookResult, _ []string) error {
			if len(all) == 0 {
				return printf(c, "No webhooks. Add `webhooks` to the configuration file of `spacehost serve`.")
			}
			for _, r := range all {
				outcome := "accepted"
				if r.Error != "" {
					outcome = "not accepted: " + r.Error
				}
				if err := printf(c, "%s: %s", r.Name, outcome); err != nil {
					return err
				}
			}
			return nil
		},
		fails: func(all []control.WebhookResult) error {
			failed := 0
			for _, r := range all {
				if r.Error != "" {
					failed++
				}
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d webhooks did not accept the test; check their url and secret", failed, len(all))
			}
			return nil
		},
	}.command()
}
