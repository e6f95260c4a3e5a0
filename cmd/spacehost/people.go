package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
	"spacehost/internal/people"
)

func newUser() *cobra.Command {
	c := family(&cobra.Command{
		Use: "user", Short: "People whom a running host knows by name: add, list, change their tier",
		Long: `People whom the running host knows by name. Whoever calls with a token of theirs (spacehost token) pays
from their account, by their tier, from whichever address; everybody else is known by address alone.`,
		Example: `  spacehost user add ada --tier pro
  spacehost token create ada --label laptop
  spacehost user tier ada free
  spacehost user set ada --quota 20m --concurrency 1
  spacehost ledger ada                     every charge of ada's`,
	})
	c.AddCommand(newUserAdd(), newUserList(), newUserTier(), newUserSet())
	return c
}

func newToken() *cobra.Command {
	c := family(&cobra.Command{
		Use: "token", Short: "Bearer tokens with which people call: create, list, revoke, hash",
		Long: `Bearer tokens (sph_...) with which people call. A token is shown once, when it is created: the host
keeps its hash only. A token that is lost or known to others is revoked, and another created.`,
		Example: `  spacehost token create ada --label laptop
  spacehost token list ada
  spacehost token revoke k3v7q2m4xa`,
	})
	c.AddCommand(newTokenCreate(), newTokenList(), newTokenRevoke(), newTokenHash())
	return c
}

// family is a command that only holds others: alone it explains itself, and what it does not hold is wrong usage.
// (Below the root cobra would print the help and exit with 0, and at the root with 1.)
func family(c *cobra.Command) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		err := cobra.NoArgs(c, args)
		if err == nil {
			return nil
		}
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
		}
		return &usageError{c, err}
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.SuggestionsMinimumDistance = 2
	return c
}

func newUserAdd() *cobra.Command {
	var tier string
	return deed[control.Person]{
		use: "add NAME", short: "Make a person known to the host",
		long: `Make a person known to the host. NAME is 1 to 64 of a-z, 0-9, ".", "_" and "-", beginning with a letter or
a digit, and neither local nor an address, which mean other accounts; their account is user:NAME. To call by name
they need a token: spacehost token create NAME.`,
		example: "  spacehost user add ada --tier pro",
		args:    cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&tier, "tier", "free", "their tier, of the host's quota preset: free, pro ... or unlimited")
		},
		order: func(args []string) control.Request {
			return control.AddPerson.Request(control.AddPersonRequest{Name: args[0], Tier: tier})
		},
		show: func(c *cobra.Command, p control.Person) error {
			return say(c, "%s is known now, as %q. Next: spacehost token create %s", p.Name, p.Tier, p.Name)
		},
	}.command()
}

func newUserTier() *cobra.Command {
	return deed[control.Person]{
		use: "tier NAME TIER", short: "Give a person another tier",
		long:    "Give a person another tier. It holds from their next call on; what they have used in this window stays used.",
		example: "  spacehost user tier ada pro",
		args:    cobra.ExactArgs(2),
		order: func(args []string) control.Request {
			return control.SetTier.Request(control.SetTierRequest{Tier: args[1]}, args[0])
		},
		show: func(c *cobra.Command, p control.Person) error {
			return say(c, "%s is %q from the next call on.", p.Name, p.Tier)
		},
	}.command()
}

// asTier takes back what a person has in place of their tier's.
const asTier = "tier"

func newUserSet() *cobra.Command {
	var tier, quota, longest, priority, concurrency string
	var change control.ChangePersonRequest
	c := deed[control.Person]{
		use: "set NAME", short: "Give a person a quota, longest call, priority or concurrency of their own",
		long: `Give a person a quota, longest call, priority or concurrency of their own, in place of their tier's. It holds from
their next call on, and until it is "tier" again; what they have used in this window stays used. For seconds that last
until the reset only, see "spacehost quota grant".`,
		example: `  spacehost user set ada --quota 20m --longest 5m
  spacehost user set ada --concurrency 1 --priority 3
  spacehost user set ada --quota tier                  what the tier says again`,
		args: cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&tier, "tier", "", "another tier")
			c.Flags().StringVar(&quota, "quota", "", "GPU time in 24 hours, as 20m, 90s or a number of seconds; or tier")
			c.Flags().StringVar(&longest, "longest", "", "of one call; or tier")
			c.Flags().StringVar(&priority, "priority", "", "in the line for a GPU, 0 to 100, higher first; or tier")
			c.Flags().StringVar(&concurrency, "concurrency", "", "how many of their calls may hold a GPU at a time, 0 for any number; or tier")
		},
		order: func(args []string) control.Request {
			return control.ChangePerson.Request(change, args[0])
		},
		show: func(c *cobra.Command, p control.Person) error {
			if own := ownOf(p); own != "" {
				return say(c, "%s is %q, with %s of their own, from the next call on.", p.Name, p.Tier, own)
			}
			return say(c, "%s is %q, with nothing of their own, from the next call on.", p.Name, p.Tier)
		},
	}.command()
	c.PreRunE = func(c *cobra.Command, _ []string) (err error) {
		if tier != "" {
			change.Tier = &tier
		}
		err = errors.Join(wanted(&change, "quota", quota, &change.QuotaSeconds, secondsOf), wanted(&change, "longest", longest, &change.LongestSeconds, secondsOf),
			wanted(&change, "priority", priority, &change.Priority, strconv.Atoi), wanted(&change, "concurrency", concurrency, &change.Concurrency, strconv.Atoi))
		if err != nil {
			return &usageError{c, err}
		}
		return nil
	}
	return c
}

// wanted reads a flag: not given, "tier", or a value.
func wanted[T any](change *control.ChangePersonRequest, name, text string, into **T, read func(string) (T, error)) error {
	switch text {
	case "":
		return nil
	case asTier:
		change.Back = append(change.Back, name)
		return nil
	}
	v, err := read(text)
	if err != nil {
		return fmt.Errorf("--%s %q is neither a value nor %q", name, text, asTier)
	}
	*into = &v
	return nil
}

// secondsOf is a time as 90s, 10m or a number of seconds.
func secondsOf(text string) (float64, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return seconds, nil
	}
	d, err := time.ParseDuration(text)
	return d.Seconds(), err
}

// ownOf is what a person has in place of their tier's.
func ownOf(p control.Person) string {
	var own []string
	if p.QuotaSeconds != nil {
		own = append(own, "quota "+spoken(*p.QuotaSeconds))
	}
	if p.LongestSeconds != nil {
		own = append(own, "longest call "+spoken(*p.LongestSeconds))
	}
	if p.Priority != nil {
		own = append(own, fmt.Sprintf("priority %d", *p.Priority))
	}
	if p.Concurrency != nil {
		own = append(own, fmt.Sprintf("concurrency %d", *p.Concurrency))
	}
	return strings.Join(own, ", ")
}

func newUserList() *cobra.Command {
	return deed[[]control.Person]{
		use: "list", short: "List the people whom the host knows",
		long:    "List the people whom the host knows by name, with their tier. What they have left is in `spacehost quota`.",
		example: "  spacehost user list\n  spacehost user list --json | jq -r '.[].name'",
		args:    cobra.NoArgs,
		order:   func([]string) control.Request { return control.ListPeople.Request(control.NoBody{}) },
		show: func(c *cobra.Command, people []control.Person) error {
			if len(people) == 0 {
				return say(c, "Nobody is known by name yet. Next: spacehost user add NAME")
			}
			return table(c, "NAME\tTIER\tSINCE\tADDED BY\tINSTEAD OF THE TIER'S", people, func(p control.Person) string {
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", p.Name, p.Tier, minute(&p.CreatedAt, ""), addedBy(p), cmp.Or(ownOf(p), "-"))
			})
		},
	}.command()
}

func addedBy(p control.Person) string {
	if p.Source == string(people.Former) {
		return p.CreatedBy + ", which has them no more"
	}
	return p.CreatedBy
}

func newTokenCreate() *cobra.Command {
	var label string
	return deed[control.CreatedToken]{
		use: "create NAME", short: "Make a token for a person, and show it this once",
		long: `Make a token for a person, and show it this once. The token alone goes to stdout.

With gradio_client:  Client(url, headers={"Authorization": "Bearer sph_..."})
With @gradio/client: Client.connect(url, {headers: {Authorization: "Bearer sph_..."}})
With curl:           curl -H "Authorization: Bearer sph_..." ...

For an app with a login of its own, which needs Authorization, write x-hf-authorization. A program that cannot
be changed takes the token from HF_TOKEN in its environment, as gradio_client does by itself; but what it asks
of huggingface.co then carries the token too, and is refused there.`,
		example: `  spacehost token create ada --label laptop
  TOKEN=$(spacehost token create ci)`,
		args: cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&label, "label", "", "what it is for, to know it by in lists, as laptop")
		},
		order: func(args []string) control.Request {
			return control.CreateToken.Request(control.CreateTokenRequest{Label: label}, args[0])
		},
		show: showCreated,
	}.command()
}

// showCreated keeps stdout to the token, for scripts; what a person should know goes to stderr.
func showCreated(c *cobra.Command, t control.CreatedToken) error {
	if err := say(c, "%s", t.Text); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.ErrOrStderr(), "Shown this once (ID %s). Use it: Client(url, headers={\"Authorization\": \"Bearer sph_...\"}), or HF_TOKEN=sph_... where the client runs.\n", t.ID)
	return err
}

func newTokenList() *cobra.Command {
	return deed[[]control.Token]{
		use: "list [NAME]", short: "List the tokens of a person, or of everybody",
		long:    "List the tokens of a person, or of everybody, the newest first: when they were used last, and which are revoked.",
		example: "  spacehost token list\n  spacehost token list ada\n  spacehost token list --json | jq -r '.[] | select(.lastUsedAt == null) | .id'",
		args:    cobra.MaximumNArgs(1),
		order: func(args []string) control.Request {
			if len(args) == 0 {
				return control.ListTokens.Request(control.NoBody{})
			}
			return control.ListTokensOf.Request(control.NoBody{}, args[0])
		},
		show: func(c *cobra.Command, tokens []control.Token) error {
			if len(tokens) == 0 {
				return say(c, "No tokens yet. Next: spacehost token create NAME")
			}
			return table(c, "ID\tPERSON\tLABEL\tCREATED\tLAST USED\tREVOKED", tokens, func(t control.Token) string {
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", t.ID, t.Person, t.Label, minute(&t.CreatedAt, ""), minute(t.LastUsedAt, "never"), minute(t.RevokedAt, "no"))
			})
		},
	}.command()
}

func newTokenRevoke() *cobra.Command {
	return deed[control.Token]{
		use: "revoke ID", short: "End a token, at once and for good",
		long:    "End a token, at once and for good: calls with it are refused. ID is the short one of `spacehost token list`.",
		example: "  spacehost token revoke k3v7q2m4xa",
		args:    cobra.ExactArgs(1),
		order:   func(args []string) control.Request { return control.RevokeToken.Request(control.NoBody{}, args[0]) },
		show: func(c *cobra.Command, t control.Token) error {
			return say(c, "The token %s of %s is revoked.", t.ID, t.Person)
		},
	}.command()
}

// deed is a subcommand that has the running host do something, and shows its answer.
type deed[T any] struct {
	use, short, long, example string
	args                      cobra.PositionalArgs
	flags                     func(*cobra.Command) // may be nil
	order                     func(args []string) control.Request
	show                      func(c *cobra.Command, answer T) error
}

func (d deed[T]) command() *cobra.Command {
	var state string
	var asJSON bool
	c := &cobra.Command{Use: d.use, Short: d.short, Long: d.long, Example: d.example, Args: usage(d.args)}
	if d.flags != nil {
		d.flags(c)
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	addState(c, &state)
	c.RunE = func(c *cobra.Command, args []string) error {
		body, err := d.send(c, state, args)
		if err != nil {
			return err
		}
		if asJSON {
			return say(c, "%s", trimNewline(body))
		}
		var answer T
		if err := json.Unmarshal(body, &answer); err != nil {
			return fmt.Errorf("the host's answer is not understood (another version?): %w", err)
		}
		return d.show(c, answer)
	}
	return c
}

// send asks the host that runs on the state folder.
func (d deed[T]) send(c *cobra.Command, state string, args []string) ([]byte, error) {
	dir, err := stateFolder(state)
	if err != nil {
		return nil, err
	}
	body, err := tell(c.Context(), dir, d.order(args))
	return body, asUsage(c, err)
}

// asUsage makes wrong usage of what a host has found wrong in a request, which the command line says.
func asUsage(c *cobra.Command, err error) error {
	var no *refusedError
	if errors.As(err, &no) && no.status == http.StatusBadRequest {
		return &usageError{c, err}
	}
	return err
}

// tell sends an order to the host that runs on the state folder, and returns the JSON that it answers.
func tell(ctx context.Context, state string, o control.Request) ([]byte, error) {
	if o.Body == nil {
		return exchange(ctx, state, o.Method, o.Path, nil)
	}
	body, err := json.Marshal(o.Body)
	if err != nil {
		return nil, err
	}
	return exchange(ctx, state, o.Method, o.Path, bytes.NewReader(body))
}

func say(c *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintf(c.OutOrStdout(), format+"\n", args...)
	return err
}

// table prints a row for each.
func table[T any](c *cobra.Command, header string, all []T, row func(T) string) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	for _, v := range all {
		fmt.Fprintln(w, row(v))
	}
	return w.Flush()
}

// minute is a time as a person reads it in a list, or the word for none.
func minute(t *time.Time, none string) string {
	if t == nil {
		return none
	}
	return t.Local().Format("2006-01-02 15:04")
}
