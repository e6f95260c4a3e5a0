package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/people"
	"spacehost/internal/usage"
)

func newToken() *cobra.Command {
	c := usage.Group(&cobra.Command{
		Use: "token", Short: "Bearer tokens of people: create, list, revoke, hash",
		Long: `Bearer tokens (sph_...) of people. A token is shown once, when it is created: the host keeps only its hash. Revoke a
token that is lost or disclosed, and create another.`,
		Example: `  spacehost token create ada --label laptop
  spacehost token list ada
  spacehost token revoke k3v7q2m4xa`,
	})
	c.AddCommand(newTokenCreate(), newTokenList(), newTokenRevoke(), newTokenHash())
	return c
}

func newTokenCreate() *cobra.Command {
	var create control.CreateTokenRequest
	var expires string
	return clientCommand[control.CreatedToken]{
		use: "create NAME", short: "Create a token for a person, and show it once",
		complete: completePerson,
		long: `Create a token for a person, and show it once. Only the token goes to stdout.

With gradio_client:  Client(url, headers={"Authorization": "Bearer sph_..."})
With @gradio/client: Client.connect(url, {headers: {Authorization: "Bearer sph_..."}})
With curl:           curl -H "Authorization: Bearer sph_..." ...

For an app with a login of its own, which needs Authorization, send x-hf-authorization. A program that cannot
be changed takes the token from HF_TOKEN in its environment, as gradio_client does by itself; but its requests
to huggingface.co then carry the token too, and are refused there.

--scope limits what the token may be used for: "call" calls Spaces, opens their pages and signs a browser in at them;
"read" also reads at the console what the person may read; "all" also changes what the person may change there, such as
tokens. A token creates none with more rights or a later expiry than its own.`,
		example: `  spacehost token create ada --label laptop
  spacehost token create ada --scope call --space demo --expires 30d
  TOKEN=$(spacehost token create ci)`,
		args: cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&create.Label, "label", "", "note for lists, such as laptop")
			c.Flags().StringVar(&create.Scope, "scope", string(people.ScopeAll), "what the token may be used for: call, read or all")
			c.Flags().StringSliceVar(&create.Spaces, "space", nil, "name of a Space at which the token is valid, may be repeated (default: all)")
			c.Flags().StringVar(&expires, "expires", "", "life of the token, such as 12h or 30d (default: no end)")
			_ = c.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions([]cobra.Completion{"call", "read", "all"}, cobra.ShellCompDirectiveNoFileComp))
		},
		request: func(args []string, _ int) (control.Request, error) {
			if expires != "" {
				life, err := config.ParseSpan(expires)
				if err != nil || life < time.Second {
					return control.Request{}, fmt.Errorf("--expires %.40q is not a time from 1s; give one such as 12h or 30d", expires)
				}
				create.ExpiresInSeconds = life.Seconds()
			}
			return control.CreateToken.Request(create, args[0]), nil
		},
		show: showCreated,
	}.command()
}

// showCreated prints only the token on stdout, for scripts, and the instructions on stderr.
func showCreated(c *cobra.Command, t control.CreatedToken, _ []string) error {
	if err := printf(c, "%s", t.Text); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.ErrOrStderr(), "Shown this once (ID %s). Use it: Client(url, headers={\"Authorization\": \"Bearer sph_...\"}), or HF_TOKEN=sph_... where the client runs.\n", t.ID)
	return err
}

func newTokenList() *cobra.Command {
	return clientCommand[[]control.Token]{
		use: "list [NAME]", short: "List the tokens of one person, or of all people",
		complete: completePerson,
		long:     "List the tokens of one person, or of all people, newest first: what each may be used for, when it expires and was last used, and which are revoked.",
		example:  "  spacehost token list\n  spacehost token list ada\n  spacehost token list --json | jq -r '.[] | select(.lastUsedAt == null) | .id'",
		args:     cobra.MaximumNArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			if len(args) == 0 {
				return control.ListTokens.Request(control.NoBody{}), nil
			}
			return control.ListTokensOf.Request(control.NoBody{}, args[0]), nil
		},
		show: func(c *cobra.Command, tokens []control.Token, _ []string) error {
			if len(tokens) == 0 {
				return printf(c, "No tokens yet. Next: spacehost token create NAME")
			}
			return printTable(c, "ID\tPERSON\tLABEL\tSCOPE\tCREATED\tEXPIRES\tLAST USED\tREVOKED", tokens, func(t control.Token) string {
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", t.ID, t.Person, t.Label, formatScope(t), formatCreation(t), formatMinute(t.ExpiresAt, "never"),
					formatMinute(t.LastUsedAt, "never"), formatMinute(t.RevokedAt, "no"))
			})
		},
	}.command()
}

// formatCreation formats when a token was created, and with which other token.
func formatCreation(t control.Token) string {
	at := formatMinute(&t.CreatedAt, "")
	if t.CreatedBy == "" {
		return at
	}
	return at + " by token " + t.CreatedBy
}

// formatScope formats what a token may be used for, and where.
func formatScope(t control.Token) string {
	if len(t.Spaces) == 0 {
		return t.Scope
	}
	return t.Scope + " at " + strings.Join(t.Spaces, ", ")
}

func newTokenRevoke() *cobra.Command {
	return clientCommand[control.Token]{
		use: "revoke ID", short: "Revoke a token, at once and for good",
		complete: completeToken,
		long:     "Revoke a token, at once and for good: calls with it are refused, and its open streams end. ID is the short one of `spacehost token list`. A token of the configuration of `spacehost serve` stays revoked even if the file still lists it.",
		example:  "  spacehost token revoke k3v7q2m4xa",
		args:     cobra.ExactArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			return control.RevokeToken.Request(control.NoBody{}, args[0]), nil
		},
		show: func(c *cobra.Command, t control.Token, _ []string) error {
			return printf(c, "The token %s of %s is revoked.", t.ID, t.Person)
		},
	}.command()
}

// hashedToken is the answer of `token hash --json`.
type hashedToken struct {
	Token string `json:"token,omitempty"`
	Hash  string `json:"hash"`
}

func newTokenHash() *cobra.Command {
	var makeNew, asJSON bool
	c := &cobra.Command{
		Use:   "hash",
		Short: "Print the line of a token for the configuration of `spacehost serve`",
		Long: `Print the sha256: line by which the configuration of "spacehost serve" knows a person's token. The token is read from
stdin; --new creates one and shows it once, on stderr, for the person. No host needs to run.`,
		Example: `  spacehost token hash --new
  spacehost token hash < token.txt`,
		Args: usage.Args(cobra.NoArgs),
	}
	c.Flags().BoolVar(&makeNew, "new", false, "create a token")
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON, with the token if it is new")
	c.RunE = func(c *cobra.Command, _ []string) error {
		answer, err := hashToken(c.InOrStdin(), makeNew)
		if err != nil {
			return usage.Wrap(c, err)
		}
		if asJSON {
			return printJSON(c, answer)
		}
		if makeNew {
			fmt.Fprintf(c.ErrOrStderr(), "%s\nThis token for the person is shown once. Its line for `tokens` in the configuration is on stdout:\n", answer.Token)
		}
		return printf(c, "%s", answer.Hash)
	}
	return c
}

func hashToken(from io.Reader, makeNew bool) (answer hashedToken, err error) {
	if makeNew {
		answer.Token, answer.Hash = people.NewToken()
		return answer, nil
	}
	text, err := readToken(from)
	if err == nil {
		answer.Hash, err = people.HashToken(text)
	}
	return answer, err
}

// readToken reads one line.
func readToken(from io.Reader) (string, error) {
	if file, ok := from.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintln(os.Stderr, "Enter the token:")
		}
	}
	line, err := bufio.NewReader(io.LimitReader(from, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the token from stdin: %w", err)
	}
	return strings.TrimSpace(line), nil
}

func printJSON(c *cobra.Command, answer any) error {
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return printf(c, "%s", text)
}
