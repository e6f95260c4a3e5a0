package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
	"spacehost/internal/people"
	"spacehost/internal/usage"
)

func newUser() *cobra.Command {
	c := usage.Group(&cobra.Command{
		Use: "user", Short: "Named accounts of a running host: add, list, change, remove",
		Long: `Named accounts of the running host. A call with a token of a person (spacehost token) is charged to that person's
account, at their tier, from any address. Every other call is charged to its address.`,
		Example: `  spacehost user add ada --tier pro
  spacehost token create ada --label laptop
  spacehost user tier ada free
  spacehost user set ada --quota 20m --concurrency 1
  spacehost ledger ada                     every charge of ada's account`,
	})
	c.AddCommand(newUserAdd(), newUserList(), newUserTier(), newUserSet(), newUserRemove())
	return c
}

func newUserAdd() *cobra.Command {
	var tier string
	return clientCommand[control.Person]{
		use: "add NAME", short: "Add a person to the host",
		long: `Add a person to the host. NAME is 1 to 64 of a-z, 0-9, ".", "_" and "-", beginning with a letter or a digit. It
cannot be local or an address, which name other accounts. The account is user:NAME. To call under this name, a person
needs a token: spacehost token create NAME.`,
		example: "  spacehost user add ada --tier pro",
		args:    cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&tier, "tier", "free", "tier of the host's quota preset: free, pro ... or unlimited")
		},
		request: func(args []string, _ int) (control.Request, error) {
			return control.AddPerson.Request(control.AddPersonRequest{Name: args[0], Tier: tier}), nil
		},
		show: func(c *cobra.Command, p control.Person, _ []string) error {
			return printf(c, "%s is added, as %q. Next: spacehost token create %s", p.Name, p.Tier, p.Name)
		},
	}.command()
}

func newUserTier() *cobra.Command {
	return clientCommand[control.Person]{
		use: "tier NAME TIER", short: "Change the tier of a person",
		complete: completePerson,
		long:     "Change the tier of a person, from the next call on. Seconds used in this window stay used.",
		example:  "  spacehost user tier ada pro",
		args:     cobra.ExactArgs(2),
		request: func(args []string, _ int) (control.Request, error) {
			return control.SetTier.Request(control.SetTierRequest{Tier: args[1]}, args[0]), nil
		},
		show: func(c *cobra.Command, p control.Person, _ []string) error {
			return printf(c, "%s is %q from the next call on.", p.Name, p.Tier)
		},
	}.command()
}

func newUserRemove() *cobra.Command {
	return clientCommand[control.Person]{
		use: "remove NAME", short: "Remove a person: all of their tokens end at once",
		complete: completePerson,
		long: `Remove a person who was added with "spacehost user add". All of their tokens are revoked for good, their sign-ins and open
streams end at once, and running calls with them. The account and its ledger stay: seconds that were used stay used if the
person is added again. A person of the configuration file is removed there ("spacehost reload").`,
		example: "  spacehost user remove ada",
		args:    cobra.ExactArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			return control.RemovePerson.Request(control.NoBody{}, args[0]), nil
		},
		show: func(c *cobra.Command, p control.Person, _ []string) error {
			return printf(c, "%s is removed, and all tokens of this person are revoked. The account user:%[1]s stays in the ledger.", p.Name)
		},
	}.command()
}

// useTier is the value of a flag that removes an override.
const useTier = "tier"

// overrideFlags are the flags of `user set`, as text.
type overrideFlags struct{ tier, quota, longest, priority, concurrency, runs string }

func (f *overrideFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.tier, "tier", "", "another tier")
	c.Flags().StringVar(&f.quota, "quota", "", "GPU time in 24 hours, such as 20m, 90s or a number of seconds, or \"tier\" to use the tier's value")
	c.Flags().StringVar(&f.longest, "longest", "", "maximum seconds per call, or \"tier\" to use the tier's value")
	c.Flags().StringVar(&f.priority, "priority", "", "priority among waiting calls, 0 to 100, higher first, or \"tier\" to use the tier's value")
	c.Flags().StringVar(&f.concurrency, "concurrency", "", "maximum calls that hold a GPU at a time, 0 for any number, or \"tier\" to use the tier's value")
	c.Flags().StringVar(&f.runs, "runs", "", "maximum GPU calls in any 24 hours, 0 for any number, or \"tier\" to use the tier's value")
}

func (f *overrideFlags) change() (change control.ChangePersonRequest, err error) {
	if f.tier != "" {
		change.Tier = &f.tier
	}
	err = errors.Join(
		override(&change, "quota", f.quota, &change.QuotaSeconds, parseSeconds),
		override(&change, "longest", f.longest, &change.LongestSeconds, parseSeconds),
		override(&change, "priority", f.priority, &change.Priority, strconv.Atoi),
		override(&change, "concurrency", f.concurrency, &change.Concurrency, strconv.Atoi),
		override(&change, "runs", f.runs, &change.Runs, strconv.Atoi))
	return change, err
}

// override parses one flag: not given, "tier", or a value.
func override[T any](change *control.ChangePersonRequest, name, text string, into **T, parse func(string) (T, error)) error {
	switch text {
	case "":
		return nil
	case useTier:
		change.Back = append(change.Back, name)
		return nil
	}
	v, err := parse(text)
	if err != nil {
		return fmt.Errorf("--%s %q is neither a value nor %q", name, text, useTier)
	}
	*into = &v
	return nil
}

func newUserSet() *cobra.Command {
	var flags overrideFlags
	return clientCommand[control.Person]{
		use: "set NAME", short: "Override a tier's quota, longest call, runs, priority or concurrency for one person",
		complete: completePerson,
		long: `Give a person a quota, longest call, number of runs, priority or concurrency that overrides their tier's, from the next
call on until it is set to "tier" again. Seconds used in this window and runs of the last 24 hours stay used. For seconds
that last only until the reset, or runs for one day, see "spacehost quota grant".`,
		example: `  spacehost user set ada --quota 20m --longest 5m
  spacehost user set ada --concurrency 1 --priority 3
  spacehost user set ada --runs 20
  spacehost user set ada --quota tier                  back to the tier's quota`,
		args:  cobra.ExactArgs(1),
		flags: flags.add,
		request: func(args []string, _ int) (control.Request, error) {
			change, err := flags.change()
			return control.ChangePerson.Request(change, args[0]), err
		},
		show: func(c *cobra.Command, p control.Person, _ []string) error {
			if overrides := formatOverrides(p); overrides != "" {
				return printf(c, "%s is %q with overrides (%s) from the next call on.", p.Name, p.Tier, overrides)
			}
			return printf(c, "%s is %q without overrides from the next call on.", p.Name, p.Tier)
		},
	}.command()
}

// formatOverrides lists a person's overrides of their tier.
func formatOverrides(p control.Person) string {
	var all []string
	if p.QuotaSeconds != nil {
		all = append(all, "quota "+formatDuration(*p.QuotaSeconds))
	}
	if p.LongestSeconds != nil {
		all = append(all, "longest call "+formatDuration(*p.LongestSeconds))
	}
	if p.Priority != nil {
		all = append(all, fmt.Sprintf("priority %d", *p.Priority))
	}
	if p.Concurrency != nil {
		all = append(all, fmt.Sprintf("concurrency %d", *p.Concurrency))
	}
	if p.Runs != nil {
		all = append(all, fmt.Sprintf("runs %d", *p.Runs))
	}
	return strings.Join(all, ", ")
}

func newUserList() *cobra.Command {
	return clientCommand[[]control.Person]{
		use: "list", short: "List the people of the host",
		long:    "List the people of the host with their tiers and overrides. `spacehost quota` lists the seconds they have left.",
		example: "  spacehost user list\n  spacehost user list --json | jq -r '.[].name'",
		args:    cobra.NoArgs, request: fixed(control.ListPeople.Request(control.NoBody{})),
		show: func(c *cobra.Command, all []control.Person, _ []string) error {
			if len(all) == 0 {
				return printf(c, "No people yet. Next: spacehost user add NAME")
			}
			return printTable(c, "NAME\tTIER\tSINCE\tADDED BY\tOVERRIDES", all, func(p control.Person) string {
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", p.Name, p.Tier, formatMinute(&p.CreatedAt, ""), addedBy(p), cmp.Or(formatOverrides(p), "-"))
			})
		},
	}.command()
}

func addedBy(p control.Person) string {
	if p.Source == string(people.Former) {
		return p.CreatedBy + " (removed)"
	}
	return p.CreatedBy
}
